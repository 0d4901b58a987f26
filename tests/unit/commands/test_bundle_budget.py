# SPDX-License-Identifier: Apache-2.0
"""`foreseg bench --budget`: stages add up, their shares are of the period, a mistake is one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foreseg import cli

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

from foreseg.commands.bundle_bench import Spread
from foreseg.commands.bundle_budget import Stage, _in_order, print_budget

LAPS = {"decode": 2.0, "resize": 1.0, "masks": 0.5, "boxes": 0.25, "label map": 0.25}


def test_stages_stand_in_a_frames_order_and_the_rest_is_what_is_left() -> None:
    stages = _in_order(LAPS, {"image_encoder": 3.0, "decoder": 1.0}, 7.0)
    assert list(stages) == [
        *("decode", "resize", "image_encoder", "decoder", "masks", "boxes", "label map"),
        *("rest of the step", "decode and step"),
    ]
    assert stages["rest of the step"] == 1.0
    *parts, whole = stages.values()
    assert sum(parts) == whole == 9.0
    assert _in_order(LAPS, {}, 1.0)["rest of the step"] == 0.0


@pytest.mark.parametrize(
    ("p50_ms", "p99_ms", "said"),
    [
        (10.0, 15.0, "5.0 ms are left"),
        (10.0, 30.0, "not in the 99th percentile"),
        (40.0, 50.0, "does not fit: at most 25.0 Hz"),
    ],
)
def test_it_is_said_whether_the_period_is_enough(
    p50_ms: float, p99_ms: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(name="decode and step", times=Spread(p50_ms=p50_ms, p99_ms=p99_ms))
    assert stage.share(20.0) == p50_ms / 20.0
    print_budget((stage,), 1, 50)
    told = capsys.readouterr().out
    assert said in told
    assert f"{p50_ms / 20.0:.1%}" in told


@pytest.mark.slow
def test_the_shipped_tracker_has_a_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "budget.json"
    words = ["bench", "--budget", "--objects", "2", "--frames", "1", "--json", str(file)]
    assert cli.main(words) == cli.DONE
    told = json.loads(file.read_text("utf-8"))
    names = [stage["name"] for stage in told["stages"]["2"]]
    assert names[:3] == ["decode", "resize", "image_encoder"]
    assert all(stage["times"]["p50_ms"] >= 0 for stage in told["stages"]["2"])
    assert "2 object(s), a camera of 30 Hz: 33.3 ms a frame" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--hz", "0"], ["--hz", "x"], ["--selftest"], ["--frames", "0"]]
)
def test_what_makes_no_sense_is_one_sentence(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--budget", *words]) == cli.BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1
