# SPDX-License-Identifier: Apache-2.0
"""Images between ROS messages and arrays, by numpy; and sensor stamps as integers.

Knows nothing of topics. What the encodings of raw images mean is in `foreseg.media`; records (queries,
answers, tracks) are in `records`.

A message's `data` is filled as an `array.array`: every generated setter takes that in one copy,
while an ndarray, a memoryview or a list is read number by number (1000 times slower).
"""

from __future__ import annotations

import array
import sys
from typing import Final

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from foreseg.depth import DepthImage
from foreseg.errors import InputError, MissingExtraError
from foreseg.frames import U8Array
from foreseg.media.encodings import reordered
from foreseg.media.image_messages import (
    MAX_PIXELS,
    raw_from_message,
    rgb_from_compressed_message,
    rgb_from_message,
)
from foreseg.tracker.base import LabelMap

NS_PER_S: Final = 1_000_000_000
FIRST_STAMP_NS: Final = -(2**31) * NS_PER_S
LAST_STAMP_NS: Final = 2**31 * NS_PER_S - 1
JPEG_QUALITY: Final = 85
MM_PER_M: Final = 1000


def rgb_from_image_msg(msg: Image, *, max_pixels: int = MAX_PIXELS) -> U8Array:
    """The pixels of a sensor_msgs/Image as (H, W, 3) uint8 RGB, contiguous.

    May share memory with the message; the array is read-only.

    Raises:
        InputError: as `foreseg.media.image_messages` has it.
    """
    return rgb_from_message(msg, max_pixels)


def rgb_from_compressed_msg(msg: CompressedImage, *, max_pixels: int = MAX_PIXELS) -> U8Array:
    """The pixels of a JPEG or PNG message as (H, W, 3) uint8 RGB, contiguous and read-only.

    Raises:
        InputError: neither JPEG nor PNG, damaged, empty, or too many pixels.
        MissingExtraError: OpenCV is absent.
    """
    return rgb_from_compressed_message(msg, max_pixels)


def image_msg_from_rgb(rgb: U8Array, header: Header, encoding: str = "rgb8") -> Image:
    """An (H, W, 3) uint8 RGB array as a message in `rgb8` or `bgr8`."""
    if encoding not in {"rgb8", "bgr8"}:
        text = f"an image is published as rgb8 or bgr8, got {encoding!r}"
        raise InputError(text)
    _check_array(rgb, 3)
    return _image_msg(rgb if encoding == "rgb8" else reordered(rgb, (2, 1, 0)), header, encoding)


def image_msg_from_labels(labels: LabelMap, header: Header) -> Image:
    """An (H, W) label map as `mono8` (uint8) or `16UC1` (uint16)."""
    encoding = {"uint8": "mono8", "uint16": "16UC1"}.get(str(labels.dtype))
    if encoding is None or labels.ndim != 2:  # noqa: PLR2004 (rows and columns)
        text = f"a label map wants (H, W) uint8 or uint16, got {labels.shape} {labels.dtype}"
        raise InputError(text)
    return _image_msg(labels, header, encoding)


def labels_from_image_msg(msg: Image, *, max_pixels: int = MAX_PIXELS) -> LabelMap:
    """The label map of a `mono8` or `16UC1` message; the reverse of `image_msg_from_labels`.

    Raises:
        InputError: another encoding, no pixels, too many, or truncated data.
    """
    raw = raw_from_message(msg, max_pixels)
    if raw.encoding == "mono8":
        return np.ascontiguousarray(raw.rows(raw.width))
    if raw.encoding not in {"16UC1", "mono16"}:
        text = f"a label map has encoding mono8 or 16UC1, got {raw.encoding!r}"
        raise InputError(text)
    return raw.words()


def depth_from_image_msg(msg: Image, *, max_pixels: int = MAX_PIXELS) -> DepthImage:
    """The metres of a depth image, (H, W): `16UC1` has millimetres, `32FC1` metres (REP 118).

    Raises:
        InputError: another encoding, no pixels, too many, or truncated data.
    """
    raw = raw_from_message(msg, max_pixels)
    if raw.encoding == "32FC1":
        wire = np.dtype(">f4" if raw.is_bigendian else "<f4")
        rows = np.ascontiguousarray(raw.rows(raw.width * wire.itemsize))
        metres: DepthImage = rows.view(wire).astype(np.float32)
        return metres
    if raw.encoding not in {"16UC1", "mono16"}:
        text = f"a depth image has encoding 16UC1 or 32FC1, got {raw.encoding!r}"
        raise InputError(text)
    metres = raw.words().astype(np.float32)
    metres /= MM_PER_M
    return metres


def compressed_msg_from_rgb(
    rgb: U8Array, header: Header, quality: int = JPEG_QUALITY
) -> CompressedImage:
    """An (H, W, 3) uint8 RGB array as a JPEG message.

    Raises:
        InputError: not such an array, or of a size that JPEG does not have.
        MissingExtraError: OpenCV is absent.
    """
    _check_array(rgb, 3)
    try:
        import cv2
    except ImportError as error:
        package, extra = "cv2", "video"
        raise MissingExtraError(package, extra, "encoding compressed images") from error
    bgr = reordered(rgb, (2, 1, 0))
    try:
        done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:  # for a side above 65500 pixels, among others
        done, jpeg = False, None
    if not done:
        text = f"OpenCV cannot encode an image of shape {rgb.shape} as JPEG"
        raise InputError(text)
    msg = CompressedImage()
    msg.header = header
    msg.format = "rgb8; jpeg compressed bgr8"  # as image_transport writes it
    msg.data = bytes_array(np.asarray(jpeg, dtype=np.uint8))
    return msg


def stamp_ns_from_time(time: Time) -> int:
    """Nanoseconds of a message stamp.

    Raises:
        InputError: a second or more of nanoseconds, which no header could be given back with.
    """
    if time.nanosec >= NS_PER_S:
        text = f"a stamp wants nanoseconds below {NS_PER_S}, got {time.sec} s {time.nanosec} ns"
        raise InputError(text)
    return int(time.sec) * NS_PER_S + int(time.nanosec)


def time_from_stamp_ns(stamp_ns: int) -> Time:
    """A message stamp from nanoseconds.

    Raises:
        InputError: outside what 32 bits of seconds hold.
    """
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    if not -(2**31) <= sec < 2**31:
        text = f"a stamp wants seconds in 32 bits, got {stamp_ns} ns"
        raise InputError(text)
    return Time(sec=sec, nanosec=nanosec)


def nearest_time_from_stamp_ns(stamp_ns: int) -> Time:
    """Likewise, but a time that messages cannot hold becomes the last, or first, that they can."""
    return time_from_stamp_ns(min(max(stamp_ns, FIRST_STAMP_NS), LAST_STAMP_NS))


def header_from_stamp(stamp_ns: int, frame_id: str) -> Header:
    """A header with this stamp and coordinate frame."""
    return Header(stamp=time_from_stamp_ns(stamp_ns), frame_id=frame_id)


def _check_array(image: U8Array, channels: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:  # noqa: PLR2004
        text = f"an image wants (H, W, {channels}) uint8, got {image.shape} {image.dtype}"
        raise InputError(text)


def _image_msg(pixels: LabelMap, header: Header, encoding: str) -> Image:
    data: LabelMap = pixels if pixels.flags.c_contiguous else pixels.copy()
    msg = Image()
    msg.header = header
    msg.height, msg.width = data.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = int(sys.byteorder == "big")
    msg.step = data.strides[0]
    msg.data = bytes_array(data)
    return msg


def bytes_array(data: LabelMap) -> array.array[int]:
    """The bytes of a contiguous array, as every generated setter takes them in one copy."""
    filled = array.array("B")
    filled.frombytes(data.data.cast("B"))
    return filled
