# SPDX-License-Identifier: Apache-2.0
"""Whole pictures are taken and cut ones refused, whatever OpenCV's decoder makes of them."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreseg.errors import InputError
from foreseg.media.pictures import MAX_SCANS, decoded_picture, picture_size

cv2 = pytest.importorskip("cv2")

FORMS = {
    "baseline": [],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "with restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 7],
}
IMAGE = np.random.default_rng(5).integers(0, 256, (12, 16, 3)).astype(np.uint8).repeat(8, 0)
IMAGE = np.ascontiguousarray(IMAGE.repeat(8, 1))


def jpeg(form: str = "baseline") -> bytes:
    return bytes(cv2.imencode(".jpg", IMAGE, FORMS[form])[1].tobytes())


def png() -> bytes:
    return bytes(cv2.imencode(".png", IMAGE)[1].tobytes())


def decoded(data: bytes) -> np.ndarray:
    return decoded_picture(cv2, data, cv2.IMREAD_COLOR)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "progressive"])
def test_a_jpeg_without_its_end_marker_is_whole(form: str) -> None:
    data = jpeg(form)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    for given_data in (data, data[:-1], data[:-2], data + bytes(100), data[:-2] + bytes(100)):
        np.testing.assert_array_equal(decoded(given_data), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.99, 0.97, 0.9, 0.75, 0.5, 0.35])
def test_a_jpeg_that_was_cut_in_its_scan_is_refused(form: str, share: float) -> None:
    data = jpeg(form)
    cut = data[: int(len(data) * share)]
    for given_data in (cut, cut + bytes(5000)):  # some drivers pad what they send
        with pytest.raises(InputError, match="cut off"):
            decoded(given_data)


def test_a_jpeg_that_ends_before_its_pixels_is_refused() -> None:
    data = jpeg()
    for size in range(2, data.index(b"\xff\xda"), 7):
        with pytest.raises(InputError, match="ends before its pixels begin"):
            decoded(data[:size])


def test_a_jpeg_with_endless_scans_is_refused_before_they_are_decoded() -> None:
    data = jpeg("progressive")
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(InputError, match=r"scans, expected at most"):
        decoded(data[:-2] + last_scan * MAX_SCANS + b"\xff\xd9")


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"zTXt", b"eXIf"])
def test_a_png_chunk_that_claims_more_than_there_is_is_refused_first(kind: bytes) -> None:
    data = png()
    lie = data[:33] + struct.pack(">I4s", 0x7FFF_FFF0, kind) + data[41:]
    with pytest.raises(InputError, match="of 2147483632 bytes at byte 33"):
        decoded(lie)


def test_a_png_is_exact_and_refused_wherever_it_is_cut() -> None:
    data = png()
    np.testing.assert_array_equal(decoded(data), IMAGE)
    np.testing.assert_array_equal(decoded(data + b"something behind it"), IMAGE)
    for size in (*range(8, 60), len(data) // 2, len(data) - 13, len(data) - 12, len(data) - 1):
        with pytest.raises(InputError, match="cut off"):
            decoded(data[:size])


def test_a_png_of_countless_chunks_is_refused() -> None:
    empty = struct.pack(">I4sI", 0, b"teSt", 0)
    with pytest.raises(InputError, match="more than 100000 chunks"):
        decoded(png()[:33] + empty * 100_001)


def test_sizes_are_read_from_the_header() -> None:
    assert picture_size(png()) == picture_size(jpeg()) == picture_size(jpeg()[:400]) == (128, 96)
    assert picture_size(b"") is picture_size(b"GIF89a" * 9) is picture_size(jpeg()[:60]) is None


@given(st.binary(max_size=80), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_are_an_input_error(data: bytes, start: bytes) -> None:
    with pytest.raises(InputError):
        decoded(start + data)


@given(st.data())
def test_a_damaged_jpeg_is_a_picture_or_an_input_error(data: st.DataObject) -> None:
    whole = bytearray(jpeg())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(2, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    with suppress(InputError):
        assert decoded(bytes(whole)).ndim == 3
