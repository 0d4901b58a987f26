# SPDX-License-Identifier: Apache-2.0
"""Recordings that are damaged or cut short, and headers that are wrong about rate and length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.matroska import write_matroska

from foreseg.errors import StreamError
from foreseg.media.sources import SourceFrame, SourceGap, SourceItem, open_source

cv2 = pytest.importorskip("cv2")

SIZE_WH = (64, 48)
NUM_FRAMES = 40
STAMPS_MS = [round(i * 1000 / 30) for i in range(NUM_FRAMES)]
BUSY_MS = [int(ms) for ms in np.cumsum(np.random.default_rng(1).integers(21, 47, NUM_FRAMES))]


def jpeg(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 60, (*SIZE_WH[::-1], 3)).astype(np.uint8)
    noise[:, :, 1] += np.uint8(4 * number)
    return bytes(cv2.imencode(".jpg", noise)[1].tobytes())


JPEGS = [jpeg(number) for number in range(NUM_FRAMES)]


def recording(path: Path, *, bad: range = range(0)) -> Path:
    """A sound header, and frames of which some are cut."""
    frames = [data[:40] if i in bad else data for i, data in enumerate(JPEGS)]
    return write_matroska(path, frames, STAMPS_MS, SIZE_WH, duration_ms=1333, rate_hz=30)


def read(path: Path) -> tuple[list[SourceFrame], list[SourceGap], list[SourceItem]]:
    with open_source(str(path)) as source:
        items = list(source)
    frames = [item for item in items if isinstance(item, SourceFrame)]
    return frames, [item for item in items if isinstance(item, SourceGap)], items


@pytest.mark.parametrize("bad", [range(20, 21), range(3), range(5, 35), range(38, 39)])
def test_reading_goes_on_after_frames_that_cannot_be_decoded(tmp_path: Path, bad: range) -> None:
    frames, gaps, items = read(recording(tmp_path / "bad.mkv", bad=bad))
    left = [i for i in range(NUM_FRAMES) if i not in bad]
    assert len(frames) == len(left)
    for frame, number in zip(frames[1:], left[1:], strict=True):
        assert frame.stamp_ns == pytest.approx(STAMPS_MS[number] * 1_000_000, abs=1_000_000)
    greens = [float(frame.image[:, :, 1].mean()) for frame in frames]
    assert [round((green - 29.5) / 4) for green in greens] == left
    assert [gap.num_frames for gap in gaps] == [len(bad)]
    assert items.index(gaps[0]) == bad.start
    assert "cannot be decoded" in gaps[0].reason


def test_a_whole_recording_has_no_gap(tmp_path: Path) -> None:
    frames, gaps, _ = read(recording(tmp_path / "whole.mkv"))
    assert (len(frames), gaps) == (NUM_FRAMES, [])


@pytest.mark.parametrize("damage", ["cut", "hole", "bad at the end"])
def test_frames_that_the_header_promises_and_the_file_lacks_are_told_at_the_end(
    tmp_path: Path, damage: str
) -> None:
    path = recording(tmp_path / "v.mkv", bad=range(30, 40 if damage == "bad at the end" else 30))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if damage == "cut":
        path.write_bytes(data[:middle])
    elif damage == "hole":
        data[middle : middle + 12_000] = bytes(12_000)
        path.write_bytes(data)
    frames, gaps, items = read(path)
    assert 10 < len(frames) < NUM_FRAMES - 1
    assert gaps[-1] is items[-1]
    assert sum(gap.num_frames for gap in gaps) == NUM_FRAMES - len(frames)
    assert f"{len(frames)} frames could be read, and the header promises 40" in gaps[-1].reason


def test_a_recording_without_any_sound_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="cannot read a frame"):
        open_source(str(recording(tmp_path / "v.mkv", bad=range(NUM_FRAMES))))


@pytest.mark.parametrize("duration_ms", [None, 1333.0])
def test_a_rate_that_the_stamps_contradict_is_not_believed(
    tmp_path: Path, duration_ms: float | None
) -> None:
    path = write_matroska(
        tmp_path / "browser.mkv", JPEGS, BUSY_MS, SIZE_WH, duration_ms=duration_ms
    )
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == 1000, "what a browser's file looks like to a reader"
    capture.release()
    with open_source(str(path)) as source:
        assert source.rate_hz == pytest.approx(30, rel=0.1)
        expected = None if duration_ms is None else pytest.approx(NUM_FRAMES, rel=0.1)
        assert source.num_frames == expected
    frames, gaps, _ = read(path)
    assert (len(frames), gaps) == (NUM_FRAMES, [])


def test_frames_are_counted_where_the_header_says_too_few(tmp_path: Path) -> None:
    path = write_matroska(
        tmp_path / "v.mkv", JPEGS, STAMPS_MS, SIZE_WH, duration_ms=500, rate_hz=30
    )
    with open_source(str(path)) as source:
        assert source.num_frames == 15
        assert source.counted_frames() == NUM_FRAMES
        assert sum(isinstance(item, SourceFrame) for item in source) == NUM_FRAMES
    with open_source(str(recording(tmp_path / "w.mkv", bad=range(7, 9)))) as source:
        assert source.counted_frames() == NUM_FRAMES - 2
