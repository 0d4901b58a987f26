# SPDX-License-Identifier: Apache-2.0
"""Photographs with masks: reading a folder, leaving out what is broken, sampling over sources.

The layout (`--photos DIR`), of which every part may be missing:

    DIR/photos/SOURCE_NAME.jpg       a photograph
    DIR/masks/SOURCE_NAME.png        its objects: palette or grey, 0 background, 1..N objects
    DIR/cutouts/SOURCE_NAME.png      one object, RGBA, cut tightly
    DIR/backgrounds/SOURCE_NAME.jpg  a photograph without masks

`SOURCE` is what stands before the first underscore. Does not know: motion, prompts, models.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from foreseg_simulation.textures import U8Array

_LOG = logging.getLogger(__name__)
_MAX_GREY_IDS = 40  # more levels in a grey file are a picture, not ids
_LEAST_OBJECT_PX = 300  # a cut-out with fewer pixels shows nothing
_TRIES = 30  # for a photograph with an object that can be cut out
_HELD_OUT_ONE_IN = 12
_LEAST_PHOTOS = 2  # one that trains and one that selects
_MOST_NAMED = 20  # in the log; `PhotoSet.problems` has all
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A photograph on disk; without a mask it is a background."""

    picture: Path
    mask: Path | None

    @property
    def source(self) -> str:
        """Name of the collection it comes from."""
        return self.picture.stem.split("_", maxsplit=1)[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cutout:
    """One object, cut tightly."""

    picture: U8Array  # (h, w, 3) RGB
    alpha: np.ndarray  # (h, w) float32, 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSet:
    """What a folder holds, by source, and what was left out of it.

    Attributes:
        problems: one line for each file that was left out, with its name and why.
        weights: how often a source is drawn against others; 1 where it is not named.
    """

    photos: dict[str, tuple[Photo, ...]]
    cutouts: tuple[Path, ...]
    backgrounds: tuple[Photo, ...]
    problems: tuple[str, ...]
    weights: Mapping[str, float] = field(default_factory=dict)

    def draw_photo(self, rng: np.random.Generator) -> Photo:
        """Draw a source by its weight, then one of its photographs evenly."""
        sources = sorted(self.photos)
        weights = np.array([self.weights.get(source, 1.0) for source in sources])
        photos = self.photos[sources[rng.choice(len(sources), p=weights / weights.sum())]]
        return photos[rng.integers(len(photos))]

    def draw_cutout(self, rng: np.random.Generator) -> Cutout | None:
        """Cut an object out of a photograph, or take a cut-out file; None where none was found."""
        if self.cutouts and rng.random() < 0.05:
            return _read_cutout(self.cutouts[rng.integers(len(self.cutouts))])
        for _ in range(_TRIES):
            picture, ids = load(self.draw_photo(rng))
            number = int(rng.integers(1, max(2, int(ids.max()) + 1)))
            cutout = cut_out(picture, ids == number)
            if cutout is not None:
                return cutout
        return None

    def split(self) -> tuple[PhotoSet, PhotoSet]:
        """Part into what trains and what selects: by a hash of the name, one in twelve held out.

        Of a few photographs one is held out, so that each part has one that is drawn.

        Raises:
            ValueError: there is only one with a weight above 0.
        """
        drawn = [
            photo
            for source, photos in self.photos.items()
            for photo in photos
            if self.weights.get(source, 1.0)
        ]
        if len(drawn) < _LEAST_PHOTOS:
            msg = f"training wants {_LEAST_PHOTOS} photographs with masks, one to select by, got {len(drawn)}"
            raise ValueError(msg)
        is_lopsided = len({_is_held_out(photo) for photo in drawn}) == 1
        chosen = min(drawn, key=lambda photo: photo.picture.name) if is_lopsided else None

        def selects(photo: Photo) -> bool:
            return _is_held_out(photo) if chosen is None else photo == chosen

        parts = []
        for held_out in (False, True):
            photos = {
                source: tuple(p for p in photos if selects(p) is held_out)
                for source, photos in self.photos.items()
            }
            parts.append(
                PhotoSet(
                    photos={source: kept for source, kept in photos.items() if kept},
                    cutouts=() if held_out else self.cutouts,
                    backgrounds=tuple(p for p in self.backgrounds if selects(p) is held_out),
                    problems=self.problems,
                    weights=self.weights,
                )
            )
        return parts[0], parts[1]


def read_photos(folder: Path, weights: Mapping[str, float] | None = None) -> PhotoSet:
    """Read a folder in the layout above; every file is opened once.

    Raises:
        FileNotFoundError: there is no such folder, or no photograph in it can be used.
        ValueError: a weight is negative or names a source that is not there.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder of photographs"
        raise FileNotFoundError(msg)
    problems: list[str] = []
    photos: dict[str, list[Photo]] = {}
    for picture in _pictures(folder / "photos"):
        photo = Photo(picture=picture, mask=folder / "masks" / f"{picture.stem}.png")
        problem = _problem(photo)
        if problem is None:
            photos.setdefault(photo.source, []).append(photo)
        else:
            problems.append(f"{picture.name}: {problem}")
    backgrounds = []
    for picture in _pictures(folder / "backgrounds"):
        if cv2.imread(str(picture), cv2.IMREAD_COLOR) is None:
            problems.append(f"{picture.name}: cannot be read as a picture")
        else:
            backgrounds.append(Photo(picture=picture, mask=None))
    cutouts = []
    for path in _pictures(folder / "cutouts"):
        if _read_cutout(path) is None:
            problems.append(f"{path.name}: no RGBA cut-out of at least {_LEAST_OBJECT_PX} pixels")
        else:
            cutouts.append(path)
    if not photos:
        msg = f"no photograph with a mask can be used in {folder}: {_summary(problems)}"
        raise FileNotFoundError(msg)
    for source, weight in (weights or {}).items():
        if source not in photos or not 0 <= weight < float("inf"):
            msg = (
                f"a weight wants a source of {sorted(photos)} and 0 or more, got {source}={weight}"
            )
            raise ValueError(msg)
    if not any((weights or {}).get(source, 1.0) for source in photos):
        msg = f"all sources have a weight of 0: {sorted(photos)}"
        raise ValueError(msg)
    _tell(problems)
    return PhotoSet(
        photos={source: tuple(found) for source, found in photos.items()},
        cutouts=tuple(cutouts),
        backgrounds=tuple(backgrounds),
        problems=tuple(problems),
        weights=dict(weights or {}),
    )


@lru_cache(maxsize=2500)
def load(photo: Photo) -> tuple[U8Array, U8Array]:
    """Read RGB (H, W, 3) and ids (H, W): 0 background, 1..N objects, all 0 without a mask.

    Callers must not write into what they get: it is shared.
    """
    picture = cv2.imread(str(photo.picture), cv2.IMREAD_COLOR)
    if picture is None:
        msg = f"{photo.picture} was readable when training began and is not now"
        raise FileNotFoundError(msg)
    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    if photo.mask is None:
        return rgb, np.zeros(rgb.shape[:2], np.uint8)
    return rgb, _read_ids(photo.mask)


def cut_out(picture: U8Array, mask: np.ndarray) -> Cutout | None:
    """Cut the object under a (H, W) bool mask out of its picture; None if it is too small."""
    if np.count_nonzero(mask) < _LEAST_OBJECT_PX:
        return None
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    alpha = cv2.GaussianBlur(np.pad(mask[window], 2).astype(np.float32), (3, 3), 0)
    edge = cv2.copyMakeBorder(picture[window], 2, 2, 2, 2, cv2.BORDER_REPLICATE)
    return Cutout(picture=edge, alpha=alpha)


def _problem(photo: Photo) -> str | None:
    """Say why a photograph cannot be used, or None."""
    picture = cv2.imread(str(photo.picture), cv2.IMREAD_COLOR)
    if picture is None:
        return "cannot be read as a picture"
    if photo.mask is None or not photo.mask.is_file():
        return "has no mask"
    try:
        ids = _read_ids(photo.mask)
    except (OSError, ValueError, UnidentifiedImageError) as error:
        return f"its mask cannot be used: {error}"
    if ids.shape != picture.shape[:2]:
        return (
            f"its mask is {ids.shape[1]}x{ids.shape[0]}, not {picture.shape[1]}x{picture.shape[0]}"
        )
    if not ids.any():
        return "its mask is empty"
    return None


def _read_ids(path: Path) -> U8Array:
    """Read ids, numbered 1..N without gaps.

    Raises:
        ValueError: it is a coloured or a continuous picture.
    """
    with Image.open(path) as file:
        if file.mode not in {"P", "L", "1"}:
            msg = f"it is a picture of mode {file.mode}; ids want a palette or grey file"
            raise ValueError(msg)
        values = np.asarray(file).astype(np.uint8)
    levels = np.unique(values)
    if len(levels) > _MAX_GREY_IDS:
        msg = f"it has {len(levels)} values, more than {_MAX_GREY_IDS} ids"
        raise ValueError(msg)
    table = np.zeros(256, np.uint8)
    objects = levels[levels > 0]
    table[objects] = np.arange(1, len(objects) + 1)
    return table[values]


def _read_cutout(path: Path) -> Cutout | None:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
        return None
    alpha = pixels[..., 3].astype(np.float32) / 255
    if np.count_nonzero(alpha > 0.5) < _LEAST_OBJECT_PX:
        return None
    return Cutout(picture=cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2RGB), alpha=alpha)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)
    return sorted(path for path in found if not path.name.startswith("._"))


def _is_held_out(photo: Photo) -> bool:
    return zlib.crc32(photo.picture.stem.encode()) % _HELD_OUT_ONE_IN == 0


def _tell(problems: list[str]) -> None:
    """Log how many files were left out and why, and the first of them by name."""
    if problems:
        _LOG.warning("left out %s", _summary(problems))
    for problem in problems[:_MOST_NAMED]:
        _LOG.warning("left out %s", problem)
    if len(problems) > _MOST_NAMED:
        _LOG.warning("and %d more", len(problems) - _MOST_NAMED)


def _summary(problems: list[str]) -> str:
    if not problems:
        return "nothing was found"
    reasons = Counter(problem.split(": ", 1)[1].split(":")[0] for problem in problems)
    counts = ", ".join(f"{count} {reason!r}" for reason, count in reasons.most_common())
    return f"{len(problems)} files ({counts}), such as {problems[0]}"
