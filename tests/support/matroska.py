# SPDX-License-Identifier: Apache-2.0
"""A small Matroska writer: Motion JPEG with any stamps, and a header that says what it is told to."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path


def write_matroska(
    path: Path,
    jpegs: Sequence[bytes],
    stamps_ms: Sequence[int],
    size_wh: tuple[int, int],
    *,
    duration_ms: float | None = None,
    rate_hz: float | None = None,
) -> Path:
    """Write a cluster a frame.

    Args:
        path: of the file.
        jpegs: encoded frames, each as it is.
        stamps_ms: one for each.
        size_wh: of the track, pixels.
        duration_ms: as the header shall declare it; None = a file that was never finished.
        rate_hz: likewise; None = as browsers write it, so that readers guess 1000 Hz.
    """
    head = _uint("4286", 1) + _uint("42F7", 1) + _uint("42F2", 4) + _uint("42F3", 8)
    head += _element("4282", b"matroska") + _uint("4287", 4) + _uint("4285", 2)
    info = _uint("2AD7B1", 1_000_000) + _element("4D80", b"test") + _element("5741", b"test")
    if duration_ms is not None:
        info += _element("4489", struct.pack(">d", duration_ms))
    track = _uint("D7", 1) + _uint("73C5", 1) + _uint("83", 1) + _element("86", b"V_MJPEG")
    if rate_hz is not None:
        track += _uint("23E383", round(1e9 / rate_hz))
    track += _element("E0", _uint("B0", size_wh[0]) + _uint("BA", size_wh[1]))
    segment = _element("1549A966", info) + _element("1654AE6B", _element("AE", track))
    for jpeg, stamp_ms in zip(jpegs, stamps_ms, strict=True):
        block = _element("A3", b"\x81\x00\x00\x80" + jpeg)
        segment += _element("1F43B675", _uint("E7", stamp_ms) + block)
    path.write_bytes(_element("1A45DFA3", head) + _element("18538067", segment))
    return path


def _element(name: str, data: bytes) -> bytes:
    return bytes.fromhex(name) + (0x0100_0000_0000_0000 | len(data)).to_bytes(8, "big") + data


def _uint(name: str, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))
