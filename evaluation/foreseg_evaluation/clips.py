# SPDX-License-Identifier: Apache-2.0
"""Clips on disk: `frames/` with pictures, `masks/` with the label maps of some or all of them.

A label map is a palette or grey PNG: 0 background, k object k. Grey maps whose only value is
255 hold one object; beside other values, 255 is void and no object. Does not know: trackers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

U8Array: TypeAlias = NDArray[np.uint8]
BoolArray: TypeAlias = NDArray[np.bool_]

VOID = 255
_MOST_IDS = 40  # more levels are a picture, not ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectClip:
    """One object of a clip, first seen on its first frame."""

    name: str
    images: tuple[U8Array, ...]  # (H, W, 3) RGB each
    masks: tuple[BoolArray | None, ...]  # (H, W) each; None where nothing is annotated


def _shown(folder: Path, suffixes: set[str]) -> list[Path]:
    """The files of some kinds, sorted; hidden ones are none."""
    return sorted(p for p in folder.glob("*") if p.suffix in suffixes and p.name[0] != ".")


def read_clip(folder: Path, *, num_frames: int | None = None) -> list[ObjectClip]:
    """Read the objects of a clip that its first annotated frame shows.

    Args:
        folder: holds `frames/` and `masks/`, whose files have equal stems.
        num_frames: how many frames to read, from the first annotated one; None for all.

    Raises:
        FileNotFoundError: if there is no annotated frame.
        OSError: a file is unreadable, a frame differs in size from the first, or a mask from its frame.
    """
    label_paths = {path.stem: path for path in _shown(folder / "masks", {".png"})}
    frame_paths = _shown(folder / "frames", {".jpg", ".png"})
    first = next((i for i, path in enumerate(frame_paths) if path.stem in label_paths), None)
    if first is None:
        msg = f"{folder} has no frame with a mask: expected frames/NAME.jpg and masks/NAME.png"
        raise FileNotFoundError(msg)
    end = None if num_frames is None else first + num_frames
    frame_paths = frame_paths[first:end]
    images = tuple(cv2.cvtColor(_read(path), cv2.COLOR_BGR2RGB) for path in frame_paths)
    labels = [
        read_labels(label_paths[path.stem]) if path.stem in label_paths else None
        for path in frame_paths
    ]
    for path, image, ids in zip(frame_paths, images, labels, strict=True):
        if image.shape != images[0].shape:
            msg = f"{path} is {_size(image)}, the first frame {_size(images[0])}"
            raise OSError(msg)
        _check_size(label_paths.get(path.stem, path), ids, image)
    return [
        ObjectClip(
            name=f"{folder.name}/{label}",
            images=images,
            masks=tuple(None if one is None else one == label for one in labels),
        )
        for label in _objects(labels[0])
    ]


def read_photo(picture: Path, labels: Path) -> tuple[U8Array, list[BoolArray]]:
    """Read a photograph, (H, W, 3) RGB, and the mask (H, W) of each of its objects.

    Raises:
        OSError: a file is missing or unreadable, they differ in size, or the mask is a picture.
    """
    image = cv2.cvtColor(_read(picture), cv2.COLOR_BGR2RGB)
    ids = read_labels(labels)
    _check_size(labels, ids, image)
    numbers = list(_objects(ids))
    if len(numbers) > _MOST_IDS:
        msg = f"{labels} has {len(numbers)} values, more than {_MOST_IDS} ids"
        raise OSError(msg)
    return image, [ids == number for number in numbers]


def read_labels(path: Path) -> U8Array:
    """Read a label map (H, W); a palette PNG gives its indices, not its colours."""
    from PIL import Image

    with Image.open(path) as picture:
        if picture.mode not in {"P", "L", "1", "I", "I;16"}:
            msg = f"{path} is a picture of mode {picture.mode}: labels want a palette or grey file"
            raise OSError(msg)
        labels = np.asarray(picture if picture.mode in {"P", "L"} else picture.convert("L"))
    return labels.astype(np.uint8)


def _objects(labels: U8Array | None) -> Iterator[int]:
    values = [] if labels is None else [int(v) for v in np.unique(labels) if v]
    return iter(values if values == [VOID] else [v for v in values if v != VOID])


def _check_size(path: Path, labels: U8Array | None, image: U8Array) -> None:
    if labels is not None and labels.shape != image.shape[:2]:
        msg = f"{path} is {_size(labels)}, its picture {_size(image)}"
        raise OSError(msg)


def _size(array: U8Array) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def _read(path: Path) -> U8Array:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        msg = f"{path} is no readable picture"
        raise OSError(msg)
    return picture
