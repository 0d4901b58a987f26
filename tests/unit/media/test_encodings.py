# SPDX-License-Identifier: Apache-2.0
"""Every encoding against OpenCV, with padding, either byte order, and sizes it cannot have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.media import encodings
from foreseg.media.encodings import ENCODINGS, RawImage, grey_from_16uc1, rgb_from_raw

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")

HEIGHT, WIDTH = 6, 8
PAIRS = {"yuv422", "uyvy", "yuv422_yuy2", "yuyv"}
PLANES = {"nv12": 1.5, "nv21": 1.5, "nv24": 3.0}  # bytes a pixel
BAYER = {name for name in ENCODINGS if name.startswith("bayer_")}
TO_RGB = {
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "8UC4": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "rgb16": None,
    "bgr16": cv2.COLOR_BGR2RGB,
    "16UC3": cv2.COLOR_BGR2RGB,
    "rgba16": cv2.COLOR_RGBA2RGB,
    "bgra16": cv2.COLOR_BGRA2RGB,
    "16UC4": cv2.COLOR_BGRA2RGB,
    "mono16": cv2.COLOR_GRAY2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
}
CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "mono": 1, "8UC": 1, "16UC": 1}
YUV_TOLERANCE = 1  # grey levels: fixed point of 14 bits here, 20 bits in OpenCV


def noise(*shape: int) -> U8Array:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def raw(rows: U8Array, encoding: str, padding: int = 0, **said: int) -> RawImage:
    """Rows of bytes, each followed by `padding` bytes of rubbish."""
    padded = np.full((rows.shape[0], rows.shape[1] + padding), 77, dtype=np.uint8)
    padded[:, : rows.shape[1]] = rows
    fields = {"height": HEIGHT, "width": WIDTH, "step": padded.shape[1], "is_bigendian": 0}
    fields |= said
    return RawImage(
        padded.reshape(-1),
        encoding,
        height=fields["height"],
        width=fields["width"],
        step=fields["step"],
        is_bigendian=bool(fields["is_bigendian"]),
    )


def plain(encoding: str) -> bool:
    return encoding in TO_RGB and encoding not in PAIRS and encoding not in PLANES


def num_channels(encoding: str) -> int:
    if encoding[-2:] in {"C3", "C4"}:
        return int(encoding[-1])
    return CHANNELS[encoding.rstrip("0123456789")]


def converted(pixels: U8Array, encoding: str) -> U8Array:
    code = TO_RGB[encoding]
    return pixels if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def test_every_known_encoding_has_a_test_here() -> None:
    assert set(ENCODINGS) == set(TO_RGB) | BAYER | {"nv24", "16UC1"}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if plain(name)])
def test_channels_are_put_in_order(encoding: str, is_bigendian: int, padding: int) -> None:
    pixels = noise(HEIGHT, WIDTH, num_channels(encoding))
    sent = pixels
    if "16" in encoding:
        low = noise(HEIGHT, WIDTH, num_channels(encoding) * 3)[..., : num_channels(encoding)]
        pair = (pixels, low) if is_bigendian else (low, pixels)
        sent = np.stack(pair, axis=-1)
    given_ = raw(sent.reshape(HEIGHT, -1), encoding, padding, is_bigendian=is_bigendian)
    np.testing.assert_array_equal(rgb_from_raw(given_), converted(pixels, encoding))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", sorted(PAIRS))
def test_yuv_in_pairs_is_opencvs(encoding: str, padding: int) -> None:
    pixels = noise(HEIGHT, WIDTH, 2)
    got = rgb_from_raw(raw(pixels.reshape(HEIGHT, -1), encoding, padding))
    np.testing.assert_array_equal(got, converted(pixels, encoding))


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_yuv_in_planes_is_opencvs(encoding: str, padding: int) -> None:
    planes = noise(HEIGHT * 3 // 2, WIDTH)
    got = rgb_from_raw(raw(planes, encoding, padding))
    np.testing.assert_array_equal(got, converted(planes, encoding))


@pytest.mark.parametrize("has_opencv", [1, 0])
def test_nv24_has_the_colours_of_every_pixel(
    monkeypatch: pytest.MonkeyPatch, has_opencv: int
) -> None:
    if not has_opencv:
        monkeypatch.setattr(encodings, "_opencv", lambda: None)
    luma, u, v = (
        noise(HEIGHT, WIDTH),
        noise(HEIGHT, WIDTH, 1)[..., 0],
        noise(HEIGHT, WIDTH, 2)[..., 1],
    )
    step = WIDTH + 3
    data = np.full((HEIGHT * 3, step), 77, np.uint8)
    data[:HEIGHT, :WIDTH] = luma
    data[HEIGHT:].reshape(HEIGHT, 2 * step)[:, : 2 * WIDTH] = np.stack((u, v), -1).reshape(
        HEIGHT, -1
    )
    image = RawImage(
        data.reshape(-1), "nv24", height=HEIGHT, width=WIDTH, step=step, is_bigendian=False
    )
    got = rgb_from_raw(image)
    for row, column in np.ndindex(HEIGHT, WIDTH):
        pair = np.array([[[luma[row, column], u[row, column]], [0, v[row, column]]]], np.uint8)
        want = cv2.cvtColor(pair.reshape(1, 2, 2), cv2.COLOR_YUV2RGB_YUY2)[0, 0]
        assert np.abs(got[row, column].astype(int) - want).max() <= YUV_TOLERANCE


@pytest.mark.parametrize("is_bigendian", [0, 1])
@pytest.mark.parametrize("encoding", sorted(BAYER))
@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_a_mosaic_of_one_colour_is_that_colour(
    encoding: str, colour: str, is_bigendian: int
) -> None:
    """The colours are the encoding's own, not OpenCV's names for them."""
    letters = encoding.removeprefix("bayer_")[:4]
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, letter in enumerate(letters):
        mosaic[place // 2 :: 2, place % 2 :: 2] = 200 if letter == colour[0] else 0
    sent = mosaic
    if encoding.endswith("16"):
        order = (mosaic, mosaic * 0 + 9) if is_bigendian else (mosaic * 0 + 9, mosaic)
        sent = np.stack(order, axis=-1).reshape(HEIGHT, -1)
    got = rgb_from_raw(raw(sent, encoding, 5, is_bigendian=is_bigendian))
    want = [200 if name == colour else 0 for name in ("red", "green", "blue")]
    assert (got == want).all()


@pytest.mark.parametrize("encoding", sorted(name for name in BAYER if name.endswith("8")))
@pytest.mark.parametrize("size", [(2, 2), (2, 8), (8, 2)])
def test_the_smallest_mosaics_are_not_black(encoding: str, size: tuple[int, int]) -> None:
    mosaic = np.full(size, 150, np.uint8)
    image = raw(mosaic, encoding, height=size[0], width=size[1])
    assert (rgb_from_raw(image) == 150).all()


def test_without_opencv_numpy_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [raw(noise(HEIGHT, WIDTH * 2), name) for name in sorted(PAIRS)]
    images += [raw(noise(HEIGHT * 3 // 2, WIDTH), name) for name in ("nv12", "nv21")]
    mosaics = [raw(noise(HEIGHT, WIDTH * 2), name) for name in sorted(BAYER)]
    with_opencv = [rgb_from_raw(image).astype(int) for image in (*images, *mosaics)]
    monkeypatch.setattr(encodings, "_opencv", lambda: None)
    without = [rgb_from_raw(image).astype(int) for image in (*images, *mosaics)]
    for one, other in zip(with_opencv[: len(images)], without, strict=False):
        assert np.abs(one - other).max() <= YUV_TOLERANCE
    inner = (slice(1, -1), slice(1, -1))  # at the border OpenCV repeats what lies inside
    for one, other in zip(with_opencv[len(images) :], without[len(images) :], strict=True):
        np.testing.assert_array_equal(one[inner], other[inner])


def test_numbers_of_an_unknown_unit_are_stretched_over_what_was_measured() -> None:
    depth_mm = np.linspace(400, 4000, 64 * 64).astype(np.uint16).reshape(64, 64)
    depth_mm[:8, :8] = 0  # nothing measured
    depth_mm[0, 40] = 65535  # one wild value
    grey = grey_from_16uc1(depth_mm)
    assert (grey[:8, :8] == 0).all()
    assert grey[0, 40] == 255
    assert grey[60, 60] > 240
    assert grey[1, 40] < 20
    assert (np.diff(grey[32].astype(int)) >= 0).all()


@pytest.mark.parametrize("value", [0, 1, 300, 65535])
def test_numbers_that_are_all_alike_are_one_grey(value: int) -> None:
    assert np.unique(grey_from_16uc1(np.full((5, 7), value, np.uint16))).size == 1


@pytest.mark.parametrize("is_bigendian", [0, 1])
def test_16uc1_is_read_in_either_byte_order(is_bigendian: int) -> None:
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 600 + 300
    wire = values.astype(">u2" if is_bigendian else "<u2").view(np.uint8).reshape(HEIGHT, -1)
    got = rgb_from_raw(raw(wire, "16UC1", 3, is_bigendian=is_bigendian))
    np.testing.assert_array_equal(got, grey_from_16uc1(values)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("encoding", ["32FC1", "8UC2", "wobble", ""])
def test_an_unknown_encoding_names_the_known_ones(encoding: str) -> None:
    with pytest.raises(InputError, match=r"rgb8, bgr8.*16UC1") as caught:
        rgb_from_raw(raw(noise(HEIGHT, WIDTH), encoding))
    assert repr(encoding) in str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "height", "width"),
    [
        *((name, 6, 7) for name in sorted(PAIRS)),
        *((name, 6, 7) for name in ("nv12", "nv21", "bayer_rggb8", "bayer_gbrg16")),
        *((name, 5, 8) for name in ("nv12", "nv21", "bayer_rggb8", "bayer_gbrg16")),
    ],
)
def test_a_size_that_an_encoding_cannot_have_is_refused(
    encoding: str, height: int, width: int
) -> None:
    image = raw(noise(20, 40), encoding, height=height, width=width)
    with pytest.raises(InputError, match=f"{encoding}.*even.*{width} x {height}"):
        rgb_from_raw(image)


@given(
    encoding=st.sampled_from(ENCODINGS),
    size=st.integers(0, 200),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    step=st.integers(0, 80),
)
def test_any_bytes_are_an_image_or_an_input_error(
    encoding: str, size: int, height: int, width: int, step: int
) -> None:
    data = np.arange(size, dtype=np.uint8)
    image = RawImage(data, encoding, height=height, width=width, step=step, is_bigendian=False)
    try:
        got = rgb_from_raw(image)
    except InputError:
        return
    assert got.shape == (height, width, 3)
    assert got.dtype == np.uint8
