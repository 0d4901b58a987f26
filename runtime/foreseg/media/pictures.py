# SPDX-License-Identifier: Apache-2.0
"""JPEG and PNG data into pixels: whole pictures only, whatever the decoder makes of the rest.

Some decoders fill a picture that was cut off with grey, or reserve what a chunk claims to need, so
the data is looked at first. Knows nothing of files or messages.
"""

from __future__ import annotations

import struct
from types import ModuleType

import numpy as np

from foreseg.errors import InputError
from foreseg.frames import U8Array

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START, JPEG_END, JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
MAX_SCANS = 100  # of a progressive JPEG, each of which costs a pass over all pixels
MAX_CHUNKS = 100_000
_CHUNK_FRAME = 12  # bytes: length, type and checksum
_MAX_PADDING = 16  # zero bytes at the end that may yet be of the picture
_FILLERS = (b"\x55" * 64, b"\xaa" * 64)


def decoded_picture(cv2: ModuleType, data: bytes, flags: int) -> U8Array:
    """The pixels of a picture, by `cv2.imdecode`.

    Args:
        cv2: OpenCV.
        data: a file's content. A JPEG of one scan that lacks nothing but its end marker is whole.
        flags: of `imdecode`.

    Returns:
        (H, W, 3) BGR, or what the flags ask for.

    Raises:
        InputError: empty, cut off, damaged, or of an unknown format.
    """
    if data.startswith(PNG_START):
        _check_chunks(data)
    if not data.startswith(JPEG_START) or _has_end(data):
        return _decoded(cv2, data, flags)
    cut = data.rstrip(b"\0")
    cut = (cut if len(data) - len(cut) > _MAX_PADDING else data).rstrip(b"\xff")
    # Where bits are missing, what stands in their place shows.
    one, other = (_decoded(cv2, cut + filler + JPEG_END, flags) for filler in _FILLERS)
    if not np.array_equal(one, other):
        msg = f"the JPEG is cut off behind {len(data)} bytes"
        raise InputError(msg)
    return one


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a PNG or JPEG; None if it is neither."""
    if data.startswith(PNG_START) and len(data) >= 24:  # noqa: PLR2004 (to the size field)
        width, height = struct.unpack(">II", data[16:24])
        return int(width), int(height)
    if not data.startswith(JPEG_START):
        return None
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:  # noqa: PLR2004 (a marker follows)
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # noqa: PLR2004 (SOFn)
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return int(width), int(height)
        place = _behind_segment(data, place)
    return None


def _has_end(data: bytes) -> bool:
    """Whether a JPEG has a scan, and an end marker behind it.

    Raises:
        InputError: it is cut off before its first scan, has too many, or may lack the last.
    """
    place, frame = 2, b""
    while place + 4 <= len(data) and data[place] == 0xFF:  # noqa: PLR2004 (a marker follows)
        if data[place : place + 2] == JPEG_SCAN:
            break
        if data[place + 1] in {0xC0, 0xC1}:  # a frame that is not progressive
            frame = data[place + 9 : place + 10]  # the number of its components
        place = _behind_segment(data, place)
    if data[place : place + 2] != JPEG_SCAN:
        msg = f"the JPEG ({len(data)} bytes) ends before its pixels begin"
        raise InputError(msg)
    num_scans = data.count(JPEG_SCAN, place)  # inside a scan 0xFF is never followed by a marker
    if num_scans > MAX_SCANS:
        msg = f"the JPEG has {num_scans} scans, expected at most {MAX_SCANS}"
        raise InputError(msg)
    if data.find(JPEG_END, place) >= 0:
        return True
    if data[place + 4 : place + 5] != frame:
        msg = f"the JPEG of several scans is cut off behind {len(data)} bytes"
        raise InputError(msg)
    return False


def _behind_segment(data: bytes, place: int) -> int:
    marker = data[place + 1]
    if marker == 0xFF:  # noqa: PLR2004 (a fill byte)
        return place + 1
    if 0xD0 <= marker <= 0xD8 or marker == 0x01:  # noqa: PLR2004 (without a length)
        return place + 2
    return place + 2 + int(struct.unpack(">H", data[place + 2 : place + 4])[0])


def _check_chunks(data: bytes) -> None:
    """Every chunk of a PNG lies inside the data, and the last one is the end.

    Raises:
        InputError: otherwise.
    """
    place = len(PNG_START)
    for _ in range(MAX_CHUNKS):
        if place + _CHUNK_FRAME > len(data):
            msg = f"the PNG ({len(data)} bytes) is cut off"
            raise InputError(msg)
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if place + _CHUNK_FRAME + length > len(data) or not kind.isalpha():
            msg = (
                f"the PNG has a chunk {kind!r} of {length} bytes at byte {place} of {len(data)}:"
                " it is cut off or damaged"
            )
            raise InputError(msg)
        if kind == b"IEND":
            return
        place += _CHUNK_FRAME + length
    msg = f"the PNG has more than {MAX_CHUNKS} chunks"
    raise InputError(msg)


def _decoded(cv2: ModuleType, data: bytes, flags: int) -> U8Array:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None or not image.size:
        msg = f"{len(data)} bytes are no picture: empty, damaged or of another format"
        raise InputError(msg)
    return np.asarray(image, dtype=np.uint8)
