# SPDX-License-Identifier: Apache-2.0
"""The pixels of ROS's image messages, whoever made the message: rclpy on a robot, or a bag's reader.

Knows the fields of sensor_msgs/Image and CompressedImage, and imports no ROS.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from foreseg.errors import InputError, MissingExtraError
from foreseg.frames import U8Array
from foreseg.media.encodings import RawImage, reordered, rgb_from_raw
from foreseg.media.pictures import decoded_picture, picture_size

MAX_PIXELS: Final = 4096 * 4096  # of an incoming image, unless the caller says otherwise


class RawMessage(Protocol):
    """The fields of sensor_msgs/Image that say what its pixels are."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes | U8Array


class CompressedMessage(Protocol):
    """Likewise of sensor_msgs/CompressedImage."""

    format: str
    data: bytes | U8Array


def raw_from_message(msg: RawMessage, max_pixels: int = MAX_PIXELS) -> RawImage:
    """The bytes with what is said of them; shares memory with the message.

    Raises:
        InputError: no pixels, or too many.
    """
    height, width = int(msg.height), int(msg.width)
    _check_size(height, width, max_pixels)
    return RawImage(
        np.frombuffer(msg.data, dtype=np.uint8),
        str(msg.encoding),
        height=height,
        width=width,
        step=int(msg.step),
        is_bigendian=bool(msg.is_bigendian),
    )


def rgb_from_message(msg: RawMessage, max_pixels: int = MAX_PIXELS) -> U8Array:
    """The pixels of an Image as (H, W, 3) uint8 RGB, contiguous.

    May share memory with the message; the array is read-only.

    Raises:
        InputError: an unknown encoding, no pixels, too many pixels, or fewer bytes than
            `height` and `step` promise.
    """
    rgb = np.ascontiguousarray(rgb_from_raw(raw_from_message(msg, max_pixels)))
    rgb.flags.writeable = False
    return rgb


def rgb_from_compressed_message(msg: CompressedMessage, max_pixels: int = MAX_PIXELS) -> U8Array:
    """The pixels of a JPEG or PNG message as (H, W, 3) uint8 RGB, contiguous and read-only.

    The size is read from the file's header first, so that a bomb is refused before it unfolds.

    Raises:
        InputError: neither JPEG nor PNG, damaged, empty, or too many pixels.
        MissingExtraError: OpenCV is absent.
    """
    data = bytes(msg.data)
    size_wh = picture_size(data)
    if size_wh is None:
        start = data[:8].hex()
        text = f"a compressed image wants JPEG or PNG, got format {msg.format!r} starting {start}"
        raise InputError(text)
    _check_size(size_wh[1], size_wh[0], max_pixels)
    try:
        import cv2
    except ImportError as error:
        package, extra = "cv2", "video"
        raise MissingExtraError(package, extra, "decoding compressed images") from error
    try:
        bgr = decoded_picture(cv2, data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except InputError as error:
        text = f"a compressed image ({msg.format!r}, {len(data)} bytes): {error}"
        raise InputError(text) from error
    if (bgr.shape[1], bgr.shape[0]) != size_wh:
        text = f"a compressed image says {size_wh} pixels and has {bgr.shape[1::-1]}"
        raise InputError(text)
    rgb = reordered(bgr, (2, 1, 0))
    rgb.flags.writeable = False
    return rgb


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height <= 0 or width <= 0:
        text = f"an image wants at least one pixel, got {width} x {height}"
        raise InputError(text)
    if height * width > max_pixels:
        text = f"an image may have {max_pixels} pixels here, got {width} x {height}"
        raise InputError(text)
