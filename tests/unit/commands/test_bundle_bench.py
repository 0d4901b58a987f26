# SPDX-License-Identifier: Apache-2.0
"""`foreseg bundle bench`: the times add up, the work is real, a mistake is one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foreseg import cli
from foreseg.engines.load import load_bundle

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

from foreseg.commands.bundle_bench import (
    MAX_OBJECTS,
    drawn_frame,
    drawn_prompts,
    spread_of,
    timed,
)
from foreseg.masks import mask_from_box, mask_from_rle, mask_iou
from foreseg.tracker.base import TrackKey
from foreseg.tracker.sam2 import Sam2Tracker

PIECES = ["image_encoder", "memory_attention", "decoder", "memory_encoder"]


@pytest.mark.slow
def test_the_shares_of_one_frame_add_up_to_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "times.json"
    words = ["bundle", "bench", "nano", "--objects", "2,1", "--frames", "1", "--json", str(file)]
    assert cli.main(words) == cli.DONE
    told = json.loads(file.read_text())
    assert [row["objects"] for row in told["rows"]] == [2, 1]
    for row in told["rows"]:  # of one frame, median and percentile are the value itself
        assert [piece["name"] for piece in row["pieces"]] == PIECES
        assert {piece["provider"] for piece in row["pieces"]} == {"CPUExecutionProvider"}
        shares = [piece["times"]["p50_ms"] for piece in row["pieces"]]
        assert min(*shares, row["outside_engines"]["p50_ms"]) > 0
        total = sum(shares) + row["outside_engines"]["p50_ms"]
        assert row["whole"]["p50_ms"] == pytest.approx(total)
        assert row["whole"]["p50_ms"] == row["whole"]["p99_ms"]
    with load_bundle() as bundle:
        assert told["parity"]["mean_iou"] == bundle.manifest.parity.mean_iou
    printed = capsys.readouterr().out
    for word in (*PIECES, "CPUExecutionProvider", "parity passed", "onnxruntime"):
        assert word in printed


@pytest.mark.slow
def test_every_drawn_object_is_tracked_for_a_whole_swing() -> None:
    """An absent object would make a step cheaper than it is."""
    with load_bundle() as bundle:
        tracker = Sam2Tracker(bundle)
        keys = [TrackKey(str(i)) for i in range(MAX_OBJECTS)]
        first, size_wh = drawn_frame(0), drawn_frame(0).ref.size_wh
        prompts = drawn_prompts(MAX_OBJECTS)
        for key, prompt in zip(keys, prompts, strict=True):
            tracker.prompt(first, key, prompt)
        for index in range(1, 21):
            result = tracker.track(drawn_frame(index), keys)
    for tracked, prompt in zip(result.objects, prompts, strict=True):
        assert prompt.box is not None
        start = mask_from_box(prompt.box, size_wh)
        overlap = mask_iou(mask_from_rle(tracked.mask), start)
        assert 0.45 < overlap < 0.7, "neither lost, nor left where it began"


def test_an_engine_counts_each_of_its_runs_once() -> None:
    with load_bundle() as bundle:
        watched, engines = timed(bundle)
        tracker = Sam2Tracker(watched, max_objects=1)
        tracker.prompt(drawn_frame(0), TrackKey("a"), drawn_prompts(1)[0])
    spent = {engine.name: engine.taken_ms() for engine in engines}
    assert spent["image_encoder"] > 0
    assert spent["memory_attention"] == 0, "a prompted frame needs no memory"
    assert [engine.taken_ms() for engine in engines] == [0, 0, 0, 0]


def test_spread_is_median_and_99th_percentile() -> None:
    spread = spread_of([float(i) for i in range(101)])
    assert (spread.p50_ms, spread.p99_ms) == (50.0, 99.0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_peak_memory_keeps_what_was_freed() -> None:
    code = (
        "from foreseg.commands.bundle_bench import peak_memory_bytes as peak\n"
        "before = peak()\n"
        "bulk = b'1' * 100_000_000\n"
        "del bulk\n"
        "print(peak() - before)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert 90e6 < int(told.stdout) < 120e6


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nosuch"], "no engine bundle in nosuch"),
        (["nano", "--objects", "0"], "--objects wants whole numbers from 1 to 8, got '0'"),
        (["nano", "--objects", "1,,2"], "got ''"),
        (["nano", "--objects", "²"], "got '²'"),
        (["nano", "--frames", "9" * 30], "--frames wants"),
        (["nano", "--threads", "4096"], "--threads wants"),
        (["nano", "--json", "."], "is a folder"),
        (["nano", "--backend", "gpu"], "a back-end is one of cpu,"),
        (["nano", "--json", "nosuch/times.json"], "does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bundle", "bench", *words]) == cli.BAD_INPUT
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
