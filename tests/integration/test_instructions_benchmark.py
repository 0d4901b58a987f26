# SPDX-License-Identifier: Apache-2.0
"""Instructions of the frame path: what is played, and how it is judged; valgrind itself is none of the tests."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("cv2", "onnxruntime"):
    pytest.importorskip(package, reason="pip install 'foreseg[cpu,video]'")

from foreseg.engines.load import load_bundle  # noqa: E402
from foreseg.errors import EngineError, InputError  # noqa: E402

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "instructions.py"
ABOUT = {"python": "3.11.7", "numpy": "2.4.6"}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def record(script: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file: Path = tmp_path_factory.mktemp("record") / "record.npz"
    script["record_run"](file, 2)
    return file


def test_a_record_that_is_repeated_gives_the_masks_of_the_engines(
    script: dict[str, Any], record: Path
) -> None:
    repeated = script["bundle_of_record"](record)
    with load_bundle("nano") as real:
        robots = [script["robot_with"](bundle, 2) for bundle in (real, repeated)]
        for index in range(3):
            image = script["drawn_frame"](index).image
            for robot in robots:
                script["feed"](robot, index, image)
    ours, theirs = (robot.output.masks for robot in robots)
    assert ours.frame.index == theirs.frame.index
    assert len(ours.tracks) == 2
    assert ours.tracks == theirs.tracks
    assert np.array_equal(ours.label_map, theirs.label_map)
    decoder = script["Repeater"]("decoder", [{}])
    assert decoder.run({}) == {}
    with pytest.raises(EngineError, match="ran more often"):
        decoder.run({})


def test_every_stage_of_every_frame_goes_through_the_door(
    script: dict[str, Any], record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script["frames_through_the_door"](record, 2) == 0
    number, *stages = capsys.readouterr().out.split("|")[:-1]
    assert number.isdecimal()
    frames = script["WARM_UP"] + script["FRAMES"]
    for stage in (*script["PATH"], *script["BESIDE"]):
        if stage != "messages":  # where ROS is
            assert stages.count(stage) >= frames - 1


def test_what_the_work_raises_comes_out_of_the_door(script: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        script["through"]("decode", lambda: 1 / 0)
    assert script["through"]("decode", lambda: 7) == 7


def test_frames_of_the_warm_up_do_not_count(script: dict[str, Any]) -> None:
    warm_up = script["WARM_UP"]
    counts = [10**9] * warm_up + [100, 300]
    assert script["means"](["decode"] * (warm_up + 2), [*counts, 5]) == {"decode": 200.0}


def test_the_sum_of_a_file_of_callgrind_is_read(script: dict[str, Any]) -> None:
    assert (
        script["instructions_of"]("version: 1\nevents: Ir\nfn=(1) f\n0 3\n\ntotals: 590543\n")
        == 590543
    )
    with pytest.raises(InputError, match="no sum"):
        script["instructions_of"]("version: 1\n")


@pytest.mark.parametrize(
    ("now", "about", "code", "told"),
    [
        (1.04, ABOUT, 0, "+4.00% against what was kept, within 5%"),
        (0.5, ABOUT, 0, "-50.00% against"),
        (1.06, ABOUT, 1, "+6.00% against what was kept, TOO MUCH 5%"),
        (1.0, {**ABOUT, "numpy": "1.26.4"}, 2, "not compared: kept with"),
    ],
)
def test_more_than_a_twentieth_is_too_much(
    script: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    now: float,
    about: dict[str, str],
    code: int,
    told: str,
) -> None:
    counts = {"decode": 5e6, "pipeline and tracker": 5e6, "resize": 1e6}
    found = {"1": {stage: now * count for stage, count in counts.items()}}
    kept = {"about": ABOUT, "counts": {"1": counts}}
    assert script["judge"](found, about, kept) == code
    assert told in capsys.readouterr().out
    assert script["judge"]({"8": counts}, ABOUT, kept) == 2
    for order in (("1", "8"), ("8", "1")):  # what is too much is told beside what does not compare
        both = {n: found["1"] if n == "1" else counts for n in order}
        assert script["judge"](both, about, kept) == (code or 2)


def test_what_is_kept_can_be_read(script: dict[str, Any]) -> None:
    kept = json.loads(script["KEPT"].read_text(encoding="utf-8"))
    assert {"python", "numpy", "opencv", "valgrind"} <= kept["about"].keys()
    assert all(script["whole_of"](counts) > 1e6 for counts in kept["counts"].values())


def test_without_valgrind_it_is_said(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script["shutil"], "which", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        script["main"]([])
    assert ended.value.code == 2
    assert "apt install valgrind" in capsys.readouterr().err
