# SPDX-License-Identifier: Apache-2.0
"""DAVIS 2016 and 2017 at 480p: objects given by their first masks.

The first and the last frame are not scored, as in the official semi-supervised task. Does not
know: questions, scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from foreseg_evaluation.episode import Episode
from foreseg_evaluation.problems import refuse

from .entries import Entry, checked_name
from .media import EpisodeMedia, PngMasklet, png_masklet
from .pictures import VOID, read_labels
from .reading import Reading, make_episode, open_sequence, read_lines, whole

ONLY_OBJECT = "1"


def read_davis2016(reading: Reading) -> list[Episode]:
    """Read a split of DAVIS 2016: one object, whatever is not zero."""
    sets = reading.root / "ImageSets"
    path = sets / "2016" / f"{reading.split}.txt"
    if not path.exists() and (sets / "480p" / path.name).exists():
        path = sets / "480p" / path.name  # DAVIS 2016's own archive: a line for each frame
    return _read(reading, path, has_labels=False)


def read_davis2017(reading: Reading) -> list[Episode]:
    """Read a split of DAVIS 2017: several objects; pixels of value 255 are background."""
    path = reading.root / "ImageSets/2017" / f"{reading.split}.txt"
    return _read(reading, path, has_labels=True)


def read_sequences(path: Path) -> list[str]:
    """Read the names of sequences: one a line, or from the paths of their frames.

    Raises:
        DatasetError: if the file is missing or names what is no sequence.
    """
    names: dict[str, None] = {}  # a set that keeps the order
    for number, line in enumerate(read_lines(path), start=1):
        first = line.split()[0]
        name = PurePosixPath(first).parent.name if "/" in first else first
        names[checked_name(name, Entry(file=path, key=f"line {number}", value=line))] = None
    return list(names)


def objects_of_first_map(maps: PngMasklet) -> Mapping[str, PngMasklet]:
    """List the objects 1 to the largest value of the first label map, as DAVIS counts them.

    Raises:
        DatasetError: if it cannot be read, or shows none.
    """
    path = maps.folder / str(maps.files[0])
    labels = read_labels(path, maps.size_wh)
    largest = int(np.max(labels, where=labels != VOID, initial=0))
    if largest == 0:
        raise refuse(path, "", "shows no object, expected those to follow")
    return {str(k): maps.with_label(k) for k in range(1, largest + 1)}


def _read(reading: Reading, path: Path, *, has_labels: bool) -> list[Episode]:
    episodes: list[Episode] = []
    for name in reading.progress(read_sequences(path)):
        with reading.skipping():
            masks = reading.root / "Annotations/480p" / name
            frames = open_sequence(reading.root / "JPEGImages/480p", name, masks, reading)
            maps = png_masklet(masks, frames)
            masklets = objects_of_first_map(maps) if has_labels else {ONLY_OBJECT: maps}
            episodes.append(
                make_episode(
                    name,
                    "",
                    media=EpisodeMedia(frames=frames, masklets=masklets),
                    question=None,
                    spans=whole(len(frames.names), tuple(masklets)),
                    annotated=maps.annotated,
                    scored=maps.annotated[1:-1],
                    rate_hz=reading.rate(),
                )
            )
    return episodes
