# SPDX-License-Identifier: Apache-2.0
"""The scripts behind the oracles' tables: what they crop, cut out and count."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("cv2", reason="masks are cut out with OpenCV")

from tests.support.episodes import Squares, make_dataset, make_episode

from foreseg_evaluation.episode import QuestionKind
from foreseg_evaluation.results import EpisodeResult, ObjectResult
from foreseg_evaluation.system import System, SystemConfig

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_a_task_is_cropped_around_its_target_and_scored_on_all_of_it() -> None:
    oracles = script("oracles")
    hidden = (*range(20), *range(36, 60))
    episode = make_episode(num_frames=60, media=Squares(hidden=hidden))
    cropped, overlap = oracles.task_of(episode)
    assert cropped.num_frames == 16 + 2 * 2
    assert [bool(cropped.truth(p).any()) for p in (0, 1, 2, 17, 18)] == [0, 0, 1, 1, 0]
    assert set(overlap) <= set(range(2, 18))
    config = SystemConfig(name="x", reasoner="oracle_best_box", tracker="repeat")
    system = System(config, make_dataset(cropped))
    everywhere, shown = oracles.score(system, cropped, cropped)
    assert 0 < everywhere < shown < 100
    nothing = make_episode(kind=QuestionKind.NO_TARGET)
    assert oracles.task_of(nothing) is None


def test_the_table_counts_pairs() -> None:
    oracles = script("oracles")
    found = {arm: [(10.0 * k, 20.0 * k)] * 3 for k, arm in enumerate(oracles.ARMS.values(), 1)}
    lines = oracles.table(found)
    assert lines[0] == "3 questions with a target"
    assert any(line.startswith("| best frame - first frame | +10.0") for line in lines)
    assert any(line.startswith("| true span - random span | -20.0") for line in lines)


def test_a_square_is_cut_out_by_its_colours() -> None:
    prompts = script("prompts")
    rows = list(prompts.scores(make_episode(num_frames=3)))
    assert len(rows) == 1
    assert np.all(np.array(rows) > 0.9)


def test_an_ablation_says_whether_its_sign_came_out() -> None:
    ablations = script("ablations")

    def found(j: float, failed: int = 0) -> list[EpisodeResult]:
        return [
            EpisodeResult(
                id=str(n),
                video=f"{'shapes' if n % 2 else 'tabletop'}_clip_{n}",
                kind="foresight" if n % 3 else "no_target",
                status="failed" if n < failed else "scored",
                objects=(ObjectResult(object_id="a", j=(j,), f=(j,), masks=(None,)),),
                positions=(0,),
            )
            for n in range(12)
        ]

    results = {
        "full": found(0.5),
        "untrained": found(0.2),
        "no thought": found(0.5),
        "4 frames": found(0.9),
        "1 frame": found(0.5, failed=6),
    }
    lines = ablations.table(results)
    assert "| full | 50.0 | 50.0 to 50.0 |" in lines
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in lines}
    assert rows["SFT over no training"][1:3] == ["+30.0", "30.0 to 30.0"]
    assert rows["SFT over no training"][6] == "yes"
    assert rows["thoughts over none"][6] == "not told apart"
    assert rows["12 frames over 4"][6] == "no"
    assert rows["12 frames over 1"][1] == "+25.0"  # what failed counts 0
    assert "GRPO over SFT alone" not in rows
    assert rows["SFT over no training"][3:6] == ["+30.0", "+30.0", "+30.0"]


def test_windows_of_a_video_follow_each_other(tmp_path: Path) -> None:
    familiar = script("familiar")
    assert familiar.windows_of(5, 12) == [[0, 1, 2, 3, 4]]
    many = familiar.windows_of(480, 12)
    assert len(many) == familiar.WINDOWS
    assert [round(w[0]) for w in many] == [0, 120, 240, 360]
    assert all(len(w) == 12 and w[-1] < 480 for w in many)
    for name in ("b/frames/0.png", "a.mp4", "b/masks/0.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(familiar.videos_in(tmp_path)) == [tmp_path / "a.mp4", tmp_path / "b/frames"]
