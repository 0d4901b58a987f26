# SPDX-License-Identifier: Apache-2.0
"""What every reader of a dataset gets, and the steps that several of them take.

Does not know: which datasets there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from foreseg_evaluation.episode import Episode, Question, TruthSpan
from foreseg_evaluation.problems import DatasetError, ProblemLog, refuse

from .entries import Entry, checked_name, is_number, size_wh_of, wrong
from .media import AbsentFrames, EpisodeMedia, Frames, first_picture, open_frames
from .pictures import picture_names, picture_size

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading of a dataset: where, which part, at which rate, and what is found wrong."""

    root: Path
    split: str
    rate_hz: float  # the form's own
    rate_note: str  # said where that rate is a guess; "" = it is known
    wanted_rate_hz: float | None  # the caller's; wins over every other
    log: ProblemLog
    wants_frames: bool = True  # else a dataset without any frames will do: masks are scored

    def has_frames(self, root: Path) -> bool:
        """Whether frames are to be looked up below a folder; if not, that is noted."""
        if self.wants_frames or root.is_dir():
            return True
        self.log.assume(f"{root.name} is not there: frames have the names and size of the masks")
        return False

    def rate(self, declared: Entry | None = None) -> float:
        """Choose the rate of a video: the caller's, else the file's, else the form's."""
        if self.wanted_rate_hz is not None:
            return self.wanted_rate_hz
        if declared is None:
            if self.rate_note:
                self.log.assume(self.rate_note)
            return self.rate_hz
        rate_hz = declared.number()
        if not 0 < rate_hz <= 1000:
            raise wrong(declared, f"expected a rate in (0, 1000] Hz, got {rate_hz}")
        return rate_hz

    @contextlib.contextmanager
    def skipping(self) -> Iterator[None]:
        """Report what is wrong in the block, and go on behind it; raise it if strict."""
        try:
            yield
        except DatasetError as error:
            self.log.report(error.problem.file, error.problem.key, error.problem.message)

    def progress(self, items: Iterable[T]) -> Iterable[T]:
        """Show a bar on a terminal while items are read."""
        bar: Iterable[T] = tqdm(items, desc=f"reading {self.root.name}", disable=None, leave=False)
        return bar


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Video:
    """A video of a form that lists frames and expressions in JSON."""

    name: str
    entry: Entry
    frames: Frames
    order: Sequence[int]  # index in the file's list of frames, for each position

    @property
    def everywhere(self) -> tuple[int, ...]:
        """All positions."""
        return tuple(range(len(self.frames.names)))


def open_video(
    name: str,
    entry: Entry,
    frames_root: Path,
    reading: Reading,
    size_of_masks: Callable[[], tuple[int, int]],
) -> Video:
    """Look up the frames of a video.

    Frames go by number where all names are numbers, else by name; masks keep to their frames.

    Args:
        name: of the video.
        entry: its value in the file that lists it.
        frames_root: holds a folder of pictures for each video.
        reading: what is wanted, and where notes go.
        size_of_masks: (W, H) of its masks, where there are no frames.

    Raises:
        DatasetError: for an empty or repeated frame list, or missing pictures.
    """
    log = reading.log
    checked_name(name, entry, is_nested=True)
    listed = entry["frames"]
    names = listed.idents()
    for frame in names:
        checked_name(frame, listed)
    if not names or not isinstance(listed.value, list):
        raise wrong(listed, "expected a list of frame names, got none")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise wrong(listed, f"frame {twice!r} stands twice")
    if all(map(is_number, names)):
        order: Sequence[int] = sorted(range(len(names)), key=lambda i: int(names[i]))
    else:
        order = sorted(range(len(names)), key=names.__getitem__)
    if list(order) == list(range(len(names))):
        order = range(len(names))
    else:
        log.assume("frames that are not listed in order are shown in order, with their masks")
    if entry.find("height") is None or entry.find("width") is None:
        size_wh = None
        log.assume("videos without height and width have the size of their first frame")
    else:
        size_wh = size_wh_of(entry)
    ordered = tuple(names[i] for i in order)
    frames: Frames
    if reading.has_frames(frames_root):
        frames = open_frames(frames_root / name, ordered, size_wh)
    else:
        size_wh = size_wh or size_of_masks()
        frames = AbsentFrames(folder=frames_root / name, names=ordered, size_wh=size_wh)
    return Video(name=name, entry=entry, frames=frames, order=order)


def open_sequence(frames_root: Path, name: str, masks: Path, reading: Reading) -> Frames:
    """Look up the frames of a video that no list names: all pictures of its folder.

    Args:
        frames_root: holds a folder of pictures for each video.
        name: of the video.
        masks: the folder of its masks, which name the frames where there are none.
        reading: what is wanted, and where notes go.

    Raises:
        DatasetError: for missing pictures.
    """
    if reading.has_frames(frames_root):
        return open_frames(frames_root / name)
    names, size_wh = tuple(picture_names(masks)), picture_size(first_picture(masks))
    return AbsentFrames(folder=frames_root / name, names=names, size_wh=size_wh)


def expressions_of(video: Video, reading: Reading) -> list[tuple[str, Entry]]:
    """List the expressions of a video with their ids; a list's are named, or counted from 0.

    Raises:
        DatasetError: if there are none.
    """
    found = video.entry["expressions"]
    items = list(found.entries())
    if not items:
        raise wrong(found, "is empty, expected expressions")
    if isinstance(found.value, list):
        reading.log.assume("expressions in a list have the ids that they name, else their ranks")
        items = [
            (named.ident() if (named := _named(entry)) is not None else rank, entry)
            for rank, entry in items
        ]
    return [(checked_name(name, entry), entry) for name, entry in items]


def _named(entry: Entry) -> Entry | None:
    if not isinstance(entry.value, dict):
        return None  # told where the expression is read
    return entry.find("exp_id") or entry.find("id")


def make_episode(
    video: str,
    expression_id: str,
    *,
    media: EpisodeMedia,
    question: Question | None,
    spans: tuple[TruthSpan, ...],
    annotated: tuple[int, ...],
    scored: tuple[int, ...],
    rate_hz: float,
) -> Episode:
    """Put an episode together; its objects are those that have masklets."""
    return Episode(
        id=f"{video}/{expression_id}" if expression_id else video,
        video=video,
        expression_id=expression_id,
        frame_names=media.frames.names,
        rate_hz=rate_hz,
        question=question,
        object_ids=tuple(media.masklets),
        spans=spans,
        annotated=annotated,
        scored=scored,
        size_wh=media.frames.size_wh,
        media=media,
    )


def whole(num_frames: int, object_ids: Sequence[str], answer: str = "") -> tuple[TruthSpan, ...]:
    """One span over a whole video."""
    return (TruthSpan(first=0, end=num_frames, object_ids=tuple(object_ids), answer=answer),)


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Read the lines of a text file that are not blank.

    Raises:
        DatasetError: if the file is missing or not in that encoding.
    """
    try:
        text = path.read_text(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(path, "", f"cannot be read ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
