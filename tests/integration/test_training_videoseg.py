# SPDX-License-Identifier: Apache-2.0
"""VideoSeg-R1's stages on a tiny real architecture: dataset, SFT, GRPO, and the folder answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training wants torch")
pytest.importorskip("trl", reason="training is TRL's: the extra [train]")
pytest.importorskip("datasets", reason="trainers take rows of datasets")
pytest.importorskip("cv2", reason="the simulation draws with OpenCV")

from tests.support.tiny_vlm import save_tiny_vlm  # noqa: E402

from foreseg.dialogue import AnswerDone, AnswerFailed, Query, QueryId  # noqa: E402
from foreseg.errors import ConfigError  # noqa: E402
from foreseg_evaluation.datasets import read_dataset  # noqa: E402
from foreseg_evaluation.episode import Episode  # noqa: E402
from foreseg_simulation.generation import Command, generate  # noqa: E402
from foreseg_simulation.worlds import World  # noqa: E402
from foreseg_torch.reasoner import transformers_reasoner  # noqa: E402
from foreseg_training.cli import main  # noqa: E402
from foreseg_training.samples import Filtered, SampleDrawer  # noqa: E402
from foreseg_training.vlm.grpo import train_grpo  # noqa: E402
from foreseg_training.vlm.recipe import read_recipe  # noqa: E402
from foreseg_training.vlm.sft import train_sft  # noqa: E402

pytestmark = pytest.mark.filterwarnings(  # peft and TRL ask transformers 5.23 by its older names
    "ignore:.*checkpointing.* is deprecated:FutureWarning"
)
TINY = {"max_steps": "2", "batch_size": "2", "per_device": "2"}
GRPO = {"max_steps": "2", "batch_size": "1", "per_device": "4", "max_completion_tokens": "8"}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds") / "shapes"
    command = Command(
        worlds=(World.SHAPES,), clips=2, streams=0, seed=3, split="train", size_wh=(160, 120)
    )
    generate(command, out)
    return out


@pytest.fixture(scope="module")
def episodes(worlds: Path) -> tuple[Episode, ...]:
    return read_dataset(worlds, "fevos", split="train").episodes


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny_vlm(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def taught(
    tmp_path_factory: pytest.TempPathFactory, start: Path, episodes: tuple[Episode, ...]
) -> Path:
    out = tmp_path_factory.mktemp("sft")
    return train_sft(read_recipe("videoseg-sft-tiny", TINY), start, episodes, out)


@pytest.fixture(scope="module")
def sampler(
    tmp_path_factory: pytest.TempPathFactory, start: Path, episodes: tuple[Episode, ...]
) -> Path:
    out = tmp_path_factory.mktemp("sampler")
    changes = {**TINY, "max_steps": "1"}
    return train_sft(read_recipe("videoseg-sampler-sft-tiny", changes), start, episodes, out)


def asked(folder: Path, episodes: tuple[Episode, ...], **options: object) -> list[object]:
    """What the robot's reasoner makes of a trained folder."""
    values = {"model": str(folder), "precision": "fp32", "device": "cpu", "fast": True, **options}
    reasoner = transformers_reasoner(values)  # type: ignore[arg-type]
    sample = next(SampleDrawer(num_frames=4, label_offset=0).draw(episodes, 0, Filtered()))
    query = Query(id=QueryId("q"), text=sample.query.text, max_reasoning_tokens=8)
    return list(reasoner.ask(query, sample.window))


def test_from_a_dataset_over_both_stages_to_answers(
    taught: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    changes = {**GRPO, "form": "answer-only"}  # as it was taught
    trained = train_grpo(read_recipe("videoseg-grpo-tiny", changes), taught, episodes, tmp_path)
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = set(rows[-1])
    for part in ("format", "accuracy", "repetition", "length", "thought_tokens"):
        assert any(name.endswith(f"parts/{part}") for name in names), names
    assert any("videoseg" in name for name in names), names
    assert isinstance(asked(trained, episodes)[-1], (AnswerDone, AnswerFailed))
    card = json.loads((trained / "method.json").read_text("utf-8"))
    assert (card["method"], card["num_key_frames"], card["num_reference_frames"]) == (
        "videoseg",
        2,
        1,
    )
    assert (card["tells_budget"], card["trains"], card["num_frames"]) == (False, "answer", 0)
    with pytest.raises(ConfigError, match="trained with num_key_frames 2"):
        asked(trained, episodes, num_key_frames=6)
    with pytest.raises(ConfigError, match="trained with tells_budget False"):
        asked(trained, episodes, tells_budget=True)


def test_rewards_in_another_form_than_was_taught_are_refused(
    taught: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    recipe = read_recipe("videoseg-grpo-tiny", GRPO)  # thinks first
    with pytest.raises(ConfigError, match="form answer-only, the recipe says think-first: --set"):
        train_grpo(recipe, taught, episodes, tmp_path)
    changes = {**GRPO, "form": "answer-only", "tells_budget": "true"}
    with pytest.raises(ConfigError, match="--set tells_budget=false"):
        train_grpo(read_recipe("videoseg-grpo-tiny", changes), taught, episodes, tmp_path)


def test_a_trained_sampler_samples_and_does_not_answer(
    taught: Path, sampler: Path, episodes: tuple[Episode, ...]
) -> None:
    with pytest.raises(ConfigError, match="name it as the option sampler"):
        asked(sampler, episodes)
    last = asked(taught, episodes, sampler=str(sampler))[-1]
    assert isinstance(last, (AnswerDone, AnswerFailed))


def test_an_adapter_is_left_beside_the_model_and_can_be_set_aside(
    start: Path, episodes: tuple[Episode, ...], tmp_path: Path
) -> None:
    changes = {**TINY, "max_steps": "1", "lora_r": "2"}
    train_sft(read_recipe("videoseg-sft-tiny", changes), start, episodes, tmp_path)
    last = asked(start, episodes, adapter=str(tmp_path / "adapter"))[-1]
    assert isinstance(last, (AnswerDone, AnswerFailed))
    with pytest.raises(ConfigError, match="trained with method 'videoseg'"):
        asked(start, episodes, adapter=str(tmp_path / "adapter"), method="veason", fast=False)


def test_rewards_are_shown_part_by_part(worlds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["show-rewards", "--recipe", "videoseg-grpo-tiny", "--set", "any_target_share=0"]
    with pytest.raises(SystemExit) as exit_info:
        main([*words, "--dataset", str(worlds), "--form", "fevos", "--count", "1"])
    assert exit_info.value.code == 0
    said = capsys.readouterr().out
    for part in ("format", "accuracy", "repetition", "negative", "length", "videoseg"):
        assert f"  {part}" in said


def test_what_a_sampler_says_has_no_rewards(
    worlds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["show-rewards", "--recipe", "videoseg-sampler-sft", "--dataset", str(worlds)]
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    assert "trains wants answer, got sampler" in capsys.readouterr().err
