# SPDX-License-Identifier: Apache-2.0
"""Pixels of an episode, read when asked: frames, and one masklet for each object.

Nothing is kept between calls, so memory does not grow with what was looked at. Does not know:
datasets, questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg_evaluation.problems import refuse

from .entries import Entry, size_wh_of
from .pictures import picture_names, picture_size, read_binary, read_image, read_labels
from .rle import Counts, counts_of, mask_from_counts


class Frames(Protocol):
    """The images of a video, by position."""

    @property
    def names(self) -> tuple[str, ...]:
        """Stems of the frames, in order."""

    @property
    def size_wh(self) -> tuple[int, int]:
        """(W, H) of every frame, pixels."""

    def image(self, position: int) -> U8Array:
        """Read a frame, (H, W, 3) RGB."""


class Masklet(Protocol):
    """One object's masks over time."""

    def mask(self, position: int) -> Mask | None:
        """Read the mask (H, W); None where the frame is not annotated."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeMedia:
    """The `Media` of every dataset: frames, masklets by object id, and what is not judged.

    Attributes:
        frames: the video.
        masklets: by object id.
        voids: the pixels that are not judged.
        union: of all that is annotated, where the dataset brings it; else it is the masklets'.
    """

    frames: Frames
    masklets: Mapping[str, Masklet]
    voids: Masklet | None = None
    union: Masklet | None = None

    def image(self, position: int) -> U8Array:
        """Read a frame, (H, W, 3) RGB."""
        return self.frames.image(self._inside(position))

    def mask(self, object_id: str, position: int) -> Mask | None:
        """Read an object's mask (H, W); None where the frame is not annotated."""
        if object_id not in self.masklets:
            msg = f"object {object_id!r} is none of {sorted(self.masklets)}"
            raise InputError(msg)
        return self.masklets[object_id].mask(self._inside(position))

    def void(self, position: int) -> Mask | None:
        """Read the pixels (H, W) that are not judged; None if all are."""
        return None if self.voids is None else self.voids.mask(self._inside(position))

    def foreground(self, position: int) -> Mask | None:
        """Read the union (H, W) of all that is annotated in the video; None if there is none."""
        if self.union is not None:
            return self.union.mask(self._inside(position))
        found = [self.mask(object_id, position) for object_id in self.masklets]
        masks = [mask for mask in found if mask is not None]
        if not masks:
            return None
        foreground: Mask = np.logical_or.reduce(masks)
        return foreground

    def _inside(self, position: int) -> int:
        if not 0 <= position < len(self.frames.names):
            msg = f"position {position} is outside of {len(self.frames.names)} frames"
            raise InputError(msg)
        return position


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameFiles:
    """Frames that are picture files of one folder."""

    folder: Path
    files: tuple[str, ...]
    names: tuple[str, ...]
    size_wh: tuple[int, int]

    def image(self, position: int) -> U8Array:
        """Read a frame, (H, W, 3) RGB."""
        return read_image(self.folder / self.files[position], self.size_wh)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AbsentFrames:
    """Frames that are not here: their names and their size are enough to score masks."""

    folder: Path
    names: tuple[str, ...]
    size_wh: tuple[int, int]

    def image(self, position: int) -> U8Array:
        """Refuse: there are no pixels."""
        message = "is not here: masks made elsewhere can be scored, but nothing can be shown"
        raise refuse(self.folder, self.names[position], message)


def first_picture(folder: Path) -> Path:
    """Find the first picture of a folder, or of the first of its folders that has one.

    Raises:
        DatasetError: if there is none.
    """
    names = picture_names(folder)
    if names:
        return folder / next(iter(names.values()))
    for below in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
        for name in picture_names(below).values():
            return below / name
    raise refuse(folder, "", "has no picture, expected masks")


def open_frames(
    folder: Path, names: Sequence[str] | None = None, size_wh: tuple[int, int] | None = None
) -> FrameFiles:
    """Look up the frames of a video.

    Args:
        folder: holds the pictures.
        names: stems in order; None for all in the folder, sorted.
        size_wh: (W, H), pixels; None reads it from the first picture's header.

    Raises:
        DatasetError: if the folder or a frame is missing.
    """
    found = picture_names(folder)
    wanted = tuple(found) if names is None else tuple(names)
    missing = [name for name in wanted if name not in found]
    if missing:
        message = f"has no picture {missing[0]!r}; {len(missing)} of {len(wanted)} are missing"
        raise refuse(folder, missing[0], message)
    if not wanted:
        raise refuse(folder, "", "has no picture, expected the frames of a video")
    files = tuple(found[name] for name in wanted)
    size_wh = size_wh or picture_size(folder / files[0])
    return FrameFiles(folder=folder, files=files, names=wanted, size_wh=size_wh)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RleMasklet:
    """An object's masks as run lengths of a file; None stands for an empty mask.

    Attributes:
        file, key: where the list stands.
        counts: in the file's order.
        order: index in that list for each position.
        size_wh: (W, H), pixels.
    """

    file: Path
    key: str
    counts: tuple[Counts | None, ...]
    order: Sequence[int]
    size_wh: tuple[int, int]

    def mask(self, position: int) -> Mask:
        """Decode the mask (H, W)."""
        index = self.order[position]
        counts = self.counts[index]
        if counts is None:
            return np.zeros(self.size_wh[::-1], dtype=np.bool_)
        try:
            return mask_from_counts(counts, self.size_wh)
        except InputError as error:
            raise refuse(self.file, f"{self.key}/{index}", str(error)) from error


def rle_masklet(
    file: Path, key: str, records: object, order: Sequence[int], size_wh: tuple[int, int]
) -> RleMasklet:
    """Check the records of an object, one for each frame, and keep what decoding needs.

    Raises:
        DatasetError: if the list or one of its records cannot be right.
    """
    if not isinstance(records, list):
        raise refuse(file, key, f"expected a list of RLEs, got {repr(records)[:60]}")
    if len(records) != len(order):
        message = f"has {len(records)} masks, expected one for each of {len(order)} frames"
        raise refuse(file, key, message)
    counts: list[Counts | None] = []
    for index, record in enumerate(records):
        try:
            counts.append(None if record is None else counts_of(record, size_wh))
        except InputError as error:
            raise refuse(file, f"{key}/{index}", str(error)) from error
    return RleMasklet(file=file, key=key, counts=tuple(counts), order=order, size_wh=size_wh)


def size_of_rles(records: Entry) -> tuple[int, int] | None:
    """(W, H) that the first of an object's RLEs states; None where all its masks are empty.

    Raises:
        DatasetError: no list of RLEs, or a size that cannot be.
    """
    for record in records.array():
        if isinstance(record, dict):
            sides = record.get("size")
            if not isinstance(sides, list) or len(sides) != 2:
                raise refuse(records.file, records.key, f"has an RLE of the size {sides!r}")
            height, width = sides
            size = Entry(
                file=records.file, key=records.key, value={"width": width, "height": height}
            )
            return size_wh_of(size)
    return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PngMasklet:
    """An object's masks as pictures of one folder.

    Attributes:
        folder: holds the pictures.
        files: by position; None where there is none.
        label: the object's value in a label map; None if whatever is not zero is the object.
        size_wh: (W, H), pixels.
    """

    folder: Path
    files: tuple[str | None, ...]
    label: int | None
    size_wh: tuple[int, int]

    @property
    def annotated(self) -> tuple[int, ...]:
        """Positions that have a picture."""
        return tuple(i for i, name in enumerate(self.files) if name is not None)

    def with_label(self, label: int) -> PngMasklet:
        """Another object of the same label maps."""
        return replace(self, label=label)

    def mask(self, position: int) -> Mask | None:
        """Read the mask (H, W); None where there is no picture."""
        name = self.files[position]
        if name is None:
            return None
        if self.label is None:
            return read_binary(self.folder / name, self.size_wh)
        mask: Mask = read_labels(self.folder / name, self.size_wh) == self.label
        return mask


def png_masklet(
    folder: Path, frames: Frames, *, label: int | None = None, is_complete: bool = True
) -> PngMasklet:
    """Look up an object's mask pictures.

    Args:
        folder: holds them, named as the frames.
        frames: of the video.
        label: as in `PngMasklet`.
        is_complete: whether every frame must have one.

    Raises:
        DatasetError: if the folder or a picture is missing, or one belongs to no frame.
    """
    found = picture_names(folder)
    files = tuple(found.get(name) for name in frames.names)
    missing = [name for name in frames.names if name not in found]
    if missing and (is_complete or not found):
        message = f"has no mask {missing[0]!r}; {len(missing)} of {len(files)} are missing"
        raise refuse(folder, missing[0], message)
    foreign = found.keys() - set(frames.names)
    if foreign:
        first = min(foreign)
        raise refuse(folder, first, f"mask {first!r} belongs to no frame of the video")
    return PngMasklet(folder=folder, files=files, label=label, size_wh=frames.size_wh)
