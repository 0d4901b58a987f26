# SPDX-License-Identifier: Apache-2.0
"""`foreseg run` on recordings that are damaged, cut short, or wrong about themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.matroska import write_matroska
from tests.support.scene import box_of, image_of

from foreseg import cli

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

SIZE_WH = (160, 120)
NUM_FRAMES = 24
BUSY_MS = [int(ms) for ms in np.cumsum(np.random.default_rng(1).integers(21, 47, NUM_FRAMES))]


def jpegs() -> list[bytes]:
    images = (image_of(number, SIZE_WH)[:, :, ::-1] for number in range(NUM_FRAMES))
    return [bytes(cv2.imencode(".jpg", image)[1].tobytes()) for image in images]


def box_at(frame: int) -> list[str]:
    corners = ",".join(f"{value:g}" for value in box_of("red", frame, SIZE_WH))
    return ["--box", f"{corners}@{frame}:red"]


def test_frames_that_cannot_be_decoded_are_left_out_counted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = jpegs()
    frames[7] = frames[7][:40]
    stamps_ms = [round(i * 1000 / 30) for i in range(NUM_FRAMES)]
    path = write_matroska(
        tmp_path / "v.mkv", frames, stamps_ms, SIZE_WH, duration_ms=1600, rate_hz=30
    )
    out = tmp_path / "out"
    arguments = ["run", str(path), *box_at(0), "--no-video", "--out", str(out)]
    assert cli.main(arguments) == cli.DONE
    said = capsys.readouterr()
    assert "a frame behind frame 6 cannot be decoded" in said.err
    assert "23 frames could be read, and the header promises 48" in said.err
    assert f"not readable: 25 frames of {path}" in said.out
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["frames_in"] == NUM_FRAMES - 1
    assert summary["unreadable"]["frames"] == 25
    assert len(summary["unreadable"]["reasons"]) == 2
    assert summary["objects"] == {"red": "masks on 23 frames"}


def test_the_overlay_of_a_file_that_claims_1000_hz_lasts_as_long_as_the_file(
    tmp_path: Path,
) -> None:
    path = write_matroska(tmp_path / "v.mkv", jpegs(), BUSY_MS, SIZE_WH)
    out = tmp_path / "out"
    assert cli.main(["run", str(path), *box_at(0), "--out", str(out)]) == cli.DONE
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    rate_hz = video.get(cv2.CAP_PROP_FPS)
    seconds = video.get(cv2.CAP_PROP_FRAME_COUNT) / rate_hz
    video.release()
    assert rate_hz == pytest.approx(30, rel=0.15)
    assert seconds == pytest.approx((BUSY_MS[-1] - BUSY_MS[0]) / 1000, abs=0.1)


def test_a_box_beyond_the_end_that_a_header_claims_is_taken_if_the_frame_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stamps_ms = [round(i * 1000 / 30) for i in range(NUM_FRAMES)]
    path = write_matroska(
        tmp_path / "v.mkv", jpegs(), stamps_ms, SIZE_WH, duration_ms=300, rate_hz=30
    )
    arguments = ["run", str(path), "--no-video", "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, *box_at(20)]) == cli.DONE
    assert "object 'red': masks on 4 frames" in capsys.readouterr().out
    assert cli.main([*arguments, *box_at(NUM_FRAMES)]) == cli.BAD_INPUT
    assert "ends at frame 23" in capsys.readouterr().err
