# SPDX-License-Identifier: Apache-2.0
"""Picture files of datasets: what is in a folder, sizes, images, label maps.

Pictures are turned as their EXIF tag says, as the public loaders (OpenCV's `imread`) do. A file
that ends early is refused, never filled up. Does not know: datasets.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg_evaluation.problems import DatasetError, refuse

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
VOID = 255  # in a label map: pixels that are not judged
_BROKEN = (  # what pillow raises for bytes that are no whole picture
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


def picture_names(folder: Path) -> Mapping[str, str]:
    """List the pictures of a folder: file names by stem, sorted.

    Hidden files are none: a Mac puts one called `._NAME` beside each that it copies.

    Raises:
        DatasetError: if there is no such folder.
    """
    try:
        with os.scandir(folder) as items:
            names = sorted(item.name for item in items if item.name[0] != ".")
    except OSError as error:
        message = f"cannot be listed ({error.strerror}), expected a folder of pictures"
        raise refuse(folder, "", message) from error
    split = [(os.path.splitext(name), name) for name in names]  # noqa: PTH122 (82 000 in COCO)
    return {stem: name for (stem, suffix), name in split if suffix.lower() in IMAGE_SUFFIXES}


def picture_size(path: Path) -> tuple[int, int]:
    """Read (W, H) from the header.

    Raises:
        DatasetError: if the file is missing or no picture.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            orientation = picture.getexif().get(_EXIF_ORIENTATION)
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    return (height, width) if orientation in _SIDEWAYS else (width, height)


def read_image(path: Path, size_wh: tuple[int, int]) -> U8Array:
    """Read an image (H, W, 3) RGB of a known size.

    Raises:
        DatasetError: if the file is missing, ends early, or has another size.
    """
    try:
        with Image.open(path) as picture:
            image = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    _check_size(path, image, size_wh)
    return image


def read_labels(path: Path, size_wh: tuple[int, int]) -> U8Array:
    """Read a label map (H, W) of a known size: a palette's indices, or grey values.

    Raises:
        DatasetError: if the file is missing, ends early, is in colour, or has another size.
    """
    labels = _pixels(path)
    if labels.ndim != 2:
        raise refuse(path, "", "is in colour, expected a palette or grey PNG")
    _check_size(path, labels, size_wh)
    return labels


def read_binary(path: Path, size_wh: tuple[int, int]) -> Mask:
    """Read a mask (H, W) of a known size: whatever is not zero is set.

    Raises:
        DatasetError: if the file is missing, ends early, or has another size.
    """
    pixels = _pixels(path)
    _check_size(path, pixels, size_wh)
    mask: Mask = np.asarray(pixels.reshape(*pixels.shape[:2], -1).any(axis=2))
    return mask


def _pixels(path: Path) -> U8Array:
    """Grey values or palette indices (H, W), or colours (H, W, 3)."""
    try:
        with Image.open(path) as picture:
            plain = picture if picture.mode in {"P", "L", "1"} else picture.convert("RGB")
            return np.array(plain).astype(np.uint8)
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _check_size(path: Path, pixels: U8Array, size_wh: tuple[int, int]) -> None:
    if pixels.shape[1::-1] != size_wh:
        found, wanted = pixels.shape[1::-1], size_wh
        message = f"is {found[0]}x{found[1]}, expected {wanted[0]}x{wanted[1]}"
        raise refuse(path, "", message)


def _unreadable(path: Path, error: Exception) -> DatasetError:
    return refuse(path, "", f"is no readable picture ({type(error).__name__}: {error})")
