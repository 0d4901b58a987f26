# SPDX-License-Identifier: Apache-2.0
"""What `foreseg run` tells of an answer afterwards: its window's masks, and whether it came true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foreseg import cli
from foreseg.driving.trace import read_steps, replay
from foreseg.masks import mask_iou

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

SIZE_WH = (160, 120)
NUM_FRAMES = 60
RATE_HZ = 30.0
LEAST_J = 0.6  # of the nano tracker on a plain square


def box_at(index: int) -> tuple[int, int, int, int]:
    return 10 + 2 * index, 50, 34 + 2 * index, 74


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE_HZ, SIZE_WH)
    floor = np.random.default_rng(7).integers(80, 100, (*SIZE_WH[::-1], 3)).astype(np.uint8)
    for index in range(NUM_FRAMES):
        image = floor.copy()
        x0, y0, x1, y1 = box_at(index)
        image[y0:y1, x0:x1] = (40, 40, 220)
        writer.write(image)
    writer.release()
    return path


def test_windows_and_outcomes_are_written(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "out", tmp_path / "observed"
    query = "what will leave the view first?"
    arguments = ["run", str(clip), "--query", query, "--out", str(out), "--no-video"]
    arguments += ["--reasoner", "kinematic"]  # which answers at once
    arguments += ["--observed-masks", str(folder), "--horizon", "1.0"]
    arguments += ["--set", "scheduler.warm_up_s=0.5"]
    assert cli.main(arguments) == cli.DONE
    (answer,) = json.loads((out / "summary.json").read_text("utf-8"))["answers"]
    assert answer["status"] == "OK", answer["reason"]
    (window,) = folder.iterdir()
    assert window.name == f"query-1_keyframe-{answer['keyframe_index']:06d}"
    frames = sorted(window.iterdir())
    assert len(frames) > 2
    assert f"{answer['keyframe_index']:06d}.png" in {path.name for path in frames}
    for path in frames:
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
        x0, y0, x1, y1 = box_at(int(path.stem))
        truth = np.zeros_like(mask)
        truth[y0:y1, x0:x1] = True
        assert mask_iou(mask, truth) > LEAST_J, path.name
    assert answer["outcome"] == "DID_NOT", answer["reason"]  # it has half a second to go then
    said = capsys.readouterr().out
    assert "did not come true: object-1 was still in the picture" in said
    assert "masks of 1 window(s)" in said
    report = replay(out / "trace.jsonl")
    assert report.first_difference == ""
    told = [
        c.answer for _, cs in read_steps(out / "trace.jsonl") for c in cs if hasattr(c, "answer")
    ]
    assert any(one is not None and one.observed for one in told)


def test_a_horizon_beyond_the_end_is_not_judged(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(clip), "--query", "what will leave the view first?", "--no-video"]
    assert cli.main([*arguments, "--out", str(tmp_path), "--horizon", "60"]) == cli.DONE
    words = "not known whether it came true: the stream ended before its horizon"
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--box", "10,50,34,74@0", "--observed-masks", "x"], "give --query TEXT, too"),
        (["--box", "10,50,34,74@0", "--horizon", "2"], "give --query TEXT, too"),
        (["--query", "what?", "--horizon", "-1"], "horizon_s wants a finite number >= 0, got -1"),
        (
            ["--query", "what?", "--horizon", "nan"],
            "horizon_s wants a finite number >= 0, got nan",
        ),
        (["--query", "what?", "--observed-masks", "/dev/null"], "give another --observed-masks"),
    ],
)
def test_a_mistake_is_one_sentence(
    clip: Path, tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert cli.main(["run", str(clip), *options, "--out", out]) == cli.BAD_INPUT
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1
