# SPDX-License-Identifier: Apache-2.0
"""The image codec against OpenCV and against itself, with padding, bad sizes and cut-off data."""

from __future__ import annotations

import array
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs.msg", reason="ROS 2 is not installed")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from foreseg.errors import InputError
from foreseg_ros import conversions

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")

pytestmark = pytest.mark.ros

JPEG_TOLERANCE = 12  # mean grey levels, on noise-free gradients at quality 85


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    """A message whose rows carry `padding` bytes of rubbish, the last row too."""
    height, row = pixels.shape[0], pixels.reshape(pixels.shape[0], -1)
    rows = np.full((height, row.shape[1] + padding), 77, dtype=np.uint8)
    rows[:, : row.shape[1]] = row
    msg = Image(height=height, width=pixels.shape[1], encoding=encoding, step=rows.shape[1])
    msg.data = array.array("B", rows.tobytes())
    return msg


def noise(height: int, width: int, channels: int) -> np.ndarray:
    shape = (height, width, channels)
    return np.random.default_rng(height * width).integers(0, 256, shape, dtype=np.uint8)


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 7),
    order=st.sampled_from(["rgb8", "bgr8"]),
)
def test_an_image_survives_the_round_trip(
    height: int, width: int, padding: int, order: str
) -> None:
    rgb = noise(height, width, 3)
    sent = conversions.image_msg_from_rgb(rgb, Header(frame_id="cam"), order)
    assert (sent.height, sent.width, sent.step) == (height, width, width * 3)
    assert sent.header.frame_id == "cam"
    np.testing.assert_array_equal(conversions.rgb_from_image_msg(sent), rgb)
    padded = message(np.frombuffer(sent.data, np.uint8).reshape(rgb.shape), order, padding)
    np.testing.assert_array_equal(conversions.rgb_from_image_msg(padded), rgb)


@given(
    height=st.integers(1, 9), width=st.integers(1, 9), dtype=st.sampled_from([np.uint8, np.uint16])
)
def test_a_label_map_survives_the_round_trip(height: int, width: int, dtype: type) -> None:
    labels = noise(height, width, 1)[..., 0].astype(dtype)
    if dtype is np.uint16:
        labels = labels * np.uint16(257)
    msg = conversions.image_msg_from_labels(labels, Header())
    assert msg.encoding == ("mono8" if dtype is np.uint8 else "16UC1")
    assert msg.step == width * labels.itemsize
    back = conversions.labels_from_image_msg(msg)
    assert back.dtype == labels.dtype
    np.testing.assert_array_equal(back, labels)


def test_a_label_map_of_the_other_byte_order_is_read() -> None:
    labels = np.array([[1, 256], [513, 65535]], dtype=np.uint16)
    msg = conversions.image_msg_from_labels(labels, Header())
    msg.data = array.array("B", labels.byteswap().tobytes())
    msg.is_bigendian = int(sys.byteorder == "little")
    np.testing.assert_array_equal(conversions.labels_from_image_msg(msg), labels)


def test_a_strided_label_map_is_sent_whole() -> None:
    labels = np.arange(24, dtype=np.uint8).reshape(4, 6)[:, ::2]
    msg = conversions.image_msg_from_labels(labels, Header())
    np.testing.assert_array_equal(conversions.labels_from_image_msg(msg), labels)


def test_the_last_row_may_lack_its_padding() -> None:
    msg = message(noise(3, 4, 3), "rgb8", padding=4)
    msg.data = msg.data[:-4]
    assert conversions.rgb_from_image_msg(msg).shape == (3, 4, 3)


def test_truncated_data_is_refused_with_both_sizes() -> None:
    msg = message(noise(3, 4, 3), "rgb8")
    msg.data = msg.data[:-1]
    with pytest.raises(InputError, match="wants 36 bytes, got 35"):
        conversions.rgb_from_image_msg(msg)


def test_no_data_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="cut off"):
        conversions.rgb_from_image_msg(Image(height=2, width=2, step=6, encoding="rgb8"))


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match="at least one pixel"):
        conversions.rgb_from_image_msg(Image(height=height, width=width, encoding="rgb8"))


def test_a_step_smaller_than_a_row_is_refused() -> None:
    msg = message(noise(3, 4, 3), "rgb8")
    msg.step = 11
    with pytest.raises(InputError, match="step 11 is too small"):
        conversions.rgb_from_image_msg(msg)


def test_a_size_over_the_limit_is_refused_before_its_data_is_read() -> None:
    msg = Image(height=2**31, width=2**31, encoding="rgb8", step=1)
    with pytest.raises(InputError, match="may have 16777216 pixels"):
        conversions.rgb_from_image_msg(msg)
    with pytest.raises(InputError, match="may have 3 pixels"):
        conversions.rgb_from_image_msg(message(noise(2, 2, 3), "rgb8"), max_pixels=3)


def gradient(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3, y * 4, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def test_jpeg_goes_there_and_back_in_the_right_colour_order() -> None:
    rgb = gradient()
    msg = conversions.compressed_msg_from_rgb(rgb, Header(frame_id="cam"))
    assert "jpeg" in msg.format
    back = conversions.rgb_from_compressed_msg(msg)
    difference = np.abs(back.astype(int) - rgb.astype(int))
    assert difference.mean() <= JPEG_TOLERANCE, (difference.max(), difference.mean())
    assert back.shape == rgb.shape


def test_png_is_exact() -> None:
    rgb = gradient()
    _, png = cv2.imencode(".png", rgb[..., ::-1])
    msg = CompressedImage(format="png", data=array.array("B", png.tobytes()))
    np.testing.assert_array_equal(conversions.rgb_from_compressed_msg(msg), rgb)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_a_compressed_image_cut_off_in_its_header_is_refused(extension: str) -> None:
    data = cv2.imencode(extension, gradient())[1].tobytes()
    for size in (0, 2, 12, 20):
        with pytest.raises(InputError):
            conversions.rgb_from_compressed_msg(
                CompressedImage(format="x", data=array.array("B", data[:size]))
            )


def test_rubbish_is_neither_jpeg_nor_png() -> None:
    with pytest.raises(InputError, match="wants JPEG or PNG, got format 'webp'"):
        conversions.rgb_from_compressed_msg(
            CompressedImage(format="webp", data=array.array("B", b"RIFFxxxxWEBP"))
        )


def test_a_png_bomb_is_refused_before_it_unfolds() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = b"\x89PNG\r\n\x1a\n" + chunk
    with pytest.raises(InputError, match="60000 x 60000"):
        conversions.rgb_from_compressed_msg(
            CompressedImage(format="png", data=array.array("B", data))
        )


@given(st.binary(max_size=64))
def test_any_bytes_are_an_image_or_an_input_error(data: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"):
        msg = CompressedImage(format="jpeg", data=array.array("B", start + data))
        with pytest.raises(InputError):
            conversions.rgb_from_compressed_msg(msg)


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
def test_stamps_survive_the_round_trip(stamp_ns: int) -> None:
    time = conversions.time_from_stamp_ns(stamp_ns)
    assert 0 <= time.nanosec < 10**9
    assert conversions.stamp_ns_from_time(time) == stamp_ns


def test_a_stamp_beyond_32_bits_of_seconds_is_refused() -> None:
    with pytest.raises(InputError, match="32 bits"):
        conversions.time_from_stamp_ns(2**31 * 10**9)


def test_wrong_arrays_are_refused_on_the_way_out() -> None:
    with pytest.raises(InputError, match="rgb8 or bgr8"):
        conversions.image_msg_from_rgb(gradient(), Header(), "mono8")
    with pytest.raises(InputError, match=r"\(H, W, 3\) uint8"):
        conversions.image_msg_from_rgb(gradient()[..., 0], Header())
    with pytest.raises(InputError, match="uint8 or uint16"):
        conversions.image_msg_from_labels(np.zeros((2, 2), dtype=np.int32), Header())
