# SPDX-License-Identifier: Apache-2.0
"""The soak in short: what it reads and how it judges; 100,000 frames take a quarter of an hour, and are none of the tests."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest

for package in ("cv2", "tqdm"):
    pytest.importorskip(package, reason="pip install 'foreseg[evaluation]'")
if not sys.platform.startswith("linux"):
    pytest.skip("it reads /proc", allow_module_level=True)

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_every_question_is_answered_and_nothing_is_left_open(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "samples.json"
    assert script["main"](
        ["--frames", "300", "--questions", "30", "--json", str(table)]
    ) in {0, 1}  # so short, memory still warms up  # fmt: skip
    said = capsys.readouterr().out
    answers = said.partition("answers: {")[2].partition("}")[0]
    assert sum(int(one.rpartition(":")[2]) for one in answers.split(",")) >= 27
    samples = json.loads(table.read_text("utf-8"))
    assert [one["frames"] for one in samples] == list(range(3, 301, 3))
    assert len({one["threads"] for one in samples}) == 1
    assert samples[-1]["handles"] <= samples[10]["handles"]


class StoppedSource:
    """Images, and ^C in the place of the next one."""

    def __init__(self, images: list[Any]) -> None:
        self._images = iter(images)

    def __iter__(self) -> StoppedSource:
        return self

    def __next__(self) -> Any:
        for image in self._images:
            return image
        raise KeyboardInterrupt


@pytest.mark.parametrize("num_images", [50, 1])
def test_an_interrupted_run_tells_what_there_is(
    script: dict[str, Any], num_images: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    globals_ = script["play"].__globals__
    frames_of = globals_["frames_of"]
    globals_["frames_of"] = lambda images: StoppedSource(images[:num_images])
    table = tmp_path / "samples.json"
    words = ["--frames", "300", "--questions", "0", "--json", str(table)]
    try:
        code = script["main"](words)
    finally:
        globals_["frames_of"] = frames_of
    said = capsys.readouterr()
    if num_images == 1:
        assert code == 130
        assert "interrupted before the first of its looks" in said.err
        assert not table.exists()
        return
    assert code in {1, 130}  # so short, memory still warms up
    assert "interrupted; 48 frames in" in said.out
    assert [one["frames"] for one in json.loads(table.read_text("utf-8"))] == list(range(3, 49, 3))


def test_shared_memory_is_this_process_own(script: dict[str, Any]) -> None:
    mine = SharedMemory(create=True, size=1 << 20)
    try:
        mine.buf[0] = 1
        maps = Path("/proc/self/maps").read_text("utf-8")
        assert script["shared_bytes"](maps) >= 1 << 20
    finally:
        mine.close()
        mine.unlink()
    assert script["shared_bytes"]("7f00-7f10 r--p 00 00:00 0 /usr/lib/libc.so.6\n") == 0


@pytest.mark.parametrize("name", ["memory_mb", "handles", "threads", "shared_mb", "blocks"])
def test_what_grows_is_seen(script: dict[str, Any], name: str) -> None:
    still = script["Sample"](
        frames=0, memory_mb=100.0, handles=6, threads=2, shared_mb=1.0, blocks=10_000, frame_ms=2.0
    )
    samples = [replace(still, frames=n) for n in range(100)]
    assert not any(is_too_much for _, _, is_too_much in script["grown"](samples).values())
    growing = [replace(one, **{name: getattr(one, name) + one.frames * 15}) for one in samples]
    assert [n for n, (_, _, is_too_much) in script["grown"](growing).items() if is_too_much] == [
        name
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frames", "7"], "wants at least 8 --frames"),
        (["--frames", "10", "--questions", "11"], "no more --questions than these, got 10 and 11"),
        (["--minutes", "nan"], "--minutes wants a number above 0, got nan"),
        (["--plot", "/no/such/folder/x.svg"], "lies in a folder that does not exist"),
    ],
)
def test_wrong_words_end_in_a_sentence(
    script: dict[str, Any], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script["main"](words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
