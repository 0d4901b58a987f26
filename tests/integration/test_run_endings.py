# SPDX-License-Identifier: Apache-2.0
"""How `foreseg run` ends where it is not let to its end: a full disk, a signal, a closed terminal."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.scene import box_of, image_of

from foreseg import cli

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

pytestmark = pytest.mark.fault

SIZE_WH = (160, 120)
NUM_FRAMES = 20
BOX = ",".join(f"{value:g}" for value in box_of("red", 0, SIZE_WH)) + "@0:red"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    for number in range(NUM_FRAMES):
        cv2.imwrite(str(folder / f"{number}.png"), image_of(number, SIZE_WH)[:, :, ::-1])
    return folder


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond: what a full disk is like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["tracks.jsonl", "answers.jsonl", "summary.json"])
def test_a_disk_that_takes_no_more_is_one_sentence(
    folder: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to("/dev/full")
    arguments = ["run", str(folder), "--box", BOX, "--query", "what moves?", "--max-frames", "8"]
    arguments += ["--reasoner", "tests.support.pointing_reasoner:make"]
    arguments += ["--set", "scheduler.warm_up_s=0"]
    assert cli.main([*arguments, "--out", str(out)]) == cli.BAD_INPUT
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(f"foreseg: cannot write {out}")
    assert said[-1].endswith("No space left on device; make room, or give another --out")
    assert not [line for line in said if "Traceback" in line or "ignored" in line]


@pytest.mark.parametrize("num_bytes", [100, 1500, 15_000])
def test_files_that_cannot_grow_are_one_sentence(
    folder: Path, tmp_path: Path, num_bytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(folder), "--box", BOX, "--max-frames", "8", "--no-video"]
    with files_up_to(num_bytes):
        assert cli.main([*arguments, "--out", str(tmp_path)]) == cli.BAD_INPUT
    said = capsys.readouterr().err.strip().splitlines()
    assert "File too large; make room" in said[-1]


@pytest.mark.parametrize("limit", [["--max-frames", "8"], []])
def test_what_ended_a_run_is_named(
    folder: Path, tmp_path: Path, limit: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(folder), "--query", "what moves?", "--horizon", "60", *limit]
    arguments += ["--reasoner", "tests.support.pointing_reasoner:make", "--no-video"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == cli.DONE
    end = "--max-frames 8 ended the run" if limit else "the stream ended"
    assert f"not known whether it came true: {end} before its horizon" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_a_run_with_its_files_whole(folder: Path, tmp_path: Path, name: str) -> None:
    arguments = ["run", str(folder), "--box", BOX, "--query", f"signal {name}"]
    arguments += ["--reasoner", "tests.support.pointing_reasoner:make"]
    arguments += ["--set", "scheduler.warm_up_s=0.2", "--out", str(tmp_path)]
    assert cli.main(arguments) == cli.INTERRUPTED
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["interrupted"] is True
    assert 3 < summary["frames_in"] < NUM_FRAMES
    lines = (tmp_path / "tracks.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == summary["masks_out"] > 3
    video = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == len(lines)
    video.release()
    for number in (signal.SIGTERM, signal.SIGHUP):
        assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_so(folder: Path, tmp_path: Path) -> None:
    arguments = ["run", str(folder), "--query", "signal SIGHUP", "--max-frames", "6"]
    arguments += ["--reasoner", "tests.support.pointing_reasoner:make", "--no-video"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert cli.main([*arguments, "--out", str(tmp_path)]) == cli.DONE
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_output_that_nobody_takes_is_one_sentence_and_the_files_are_whole(
    folder: Path, tmp_path: Path
) -> None:
    arguments = ["run", str(folder), "--box", BOX, "--max-frames", "4", "--out", str(tmp_path)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "foreseg.cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=dict(os.environ),
        )
    assert done.returncode == cli.FAILED
    assert done.stderr.strip().splitlines()[-1] == "foreseg: No space left on device"
    assert json.loads((tmp_path / "summary.json").read_text("utf-8"))["frames_in"] == 4
