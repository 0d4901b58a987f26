# SPDX-License-Identifier: Apache-2.0
"""SA-V: objects of 24 Hz videos with masks at 6 Hz; train as JSON beside MP4s, val as PNGs.

An object file of train is read again when its masks are asked for, so that 50 000 of them need no
memory; the last one is kept. The first and the last annotated frame are not scored. Does not
know: questions, scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg_evaluation.episode import Episode
from foreseg_evaluation.problems import ProblemLog, refuse

from .entries import Entry, checked_name, is_number, read_json, size_wh_of, wrong
from .media import AbsentFrames, EpisodeMedia, Frames, first_picture, open_frames, png_masklet
from .pictures import picture_names, picture_size
from .reading import Reading, make_episode, read_lines, whole
from .rle import counts_of, mask_from_counts

STRIDE = 4  # every fourth frame of the video is annotated
MAX_FRAMES = 100_000  # more than an hour; what comes from outside is bounded
_SUFFIX = "_manual.json"


def read_sa_v(reading: Reading) -> list[Episode]:
    """Read a split of SA-V."""
    return _read_train(reading) if reading.split == "train" else _read_pngs(reading)


@dataclass(slots=True, kw_only=True)
class _LastVideo:
    """The video file that was read last, open: frames in order cost no search."""

    path: Path | None = None
    capture: cv2.VideoCapture | None = None
    next_position: int = 0

    def image(self, path: Path, position: int, size_wh: tuple[int, int]) -> U8Array:
        if not path.exists():
            raise refuse(path, "", "is missing, so that there are no frames")
        if self.path != path or position < self.next_position or self.capture is None:
            if self.capture is not None:
                self.capture.release()
            self.path, self.capture, self.next_position = path, cv2.VideoCapture(str(path)), 0
        while self.next_position < position and self.capture.grab():
            self.next_position += 1
        is_there = self.next_position == position  # else one before it is damaged: all would shift
        is_read, image = self.capture.read() if is_there else (False, None)
        if not is_read or image is None:
            self.path = None
            raise refuse(path, f"frame {self.next_position}", "cannot be decoded")
        self.next_position += 1
        if image.shape[1::-1] != size_wh:
            message = f"is {image.shape[1::-1]}, expected {size_wh} (width, height)"
            raise refuse(path, f"frame {position}", message)
        rgb: U8Array = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return rgb


@dataclass(slots=True, kw_only=True)
class _LastMasks:
    """The object file that was read last, decoded from JSON."""

    path: Path | None = None
    rows: Sequence[object] = ()

    def row(self, path: Path, index: int) -> object:
        if self.path != path:
            entry = read_json(path, ProblemLog(strict=True))
            self.path, self.rows = path, entry["masklet"].array()
        if not 0 <= index < len(self.rows):
            raise refuse(path, f"masklet/{index}", f"has only {len(self.rows)} annotated frames")
        return self.rows[index]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _VideoFrames:
    """Frames of an MP4 that may be absent."""

    path: Path
    names: tuple[str, ...]
    size_wh: tuple[int, int]
    last: _LastVideo

    def image(self, position: int) -> U8Array:
        """Decode a frame, (H, W, 3) RGB."""
        return self.last.image(self.path, position, self.size_wh)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _JsonMasklet:
    """One object of an object file: masklet[annotated frame][object]."""

    path: Path
    column: int
    size_wh: tuple[int, int]
    last: _LastMasks = field(repr=False)

    def mask(self, position: int) -> Mask | None:
        """Decode the mask (H, W); None between the annotated frames."""
        index, rest = divmod(position, STRIDE)
        if rest:
            return None
        row = self.last.row(self.path, index)
        key = f"masklet/{index}/{self.column}"
        if not isinstance(row, list) or self.column >= len(row):
            raise refuse(self.path, key, "is missing, expected an RLE for each object")
        try:
            return mask_from_counts(counts_of(row[self.column], self.size_wh), self.size_wh)
        except InputError as error:
            raise refuse(self.path, key, str(error)) from error


def _read_train(reading: Reading) -> list[Episode]:
    paths = sorted(p for p in reading.root.rglob(f"*{_SUFFIX}") if p.name[0] != ".")
    if not paths:
        raise refuse(reading.root, "", f"has no file *{_SUFFIX}, expected SA-V's train split")
    last_video, last_masks = _LastVideo(), _LastMasks()
    episodes: list[Episode] = []
    for path in reading.progress(paths):
        with reading.skipping():
            episodes.append(_train_episode(path, last_video, last_masks, reading))
    return episodes


def _train_episode(
    path: Path, last_video: _LastVideo, last_masks: _LastMasks, reading: Reading
) -> Episode:
    entry = read_json(path, reading.log)
    size_wh = size_wh_of(entry, "video_width", "video_height")
    num_frames = entry["video_frame_count"].integer()
    num_rows, num_objects = _check_rows(entry["masklet"], size_wh)
    if not STRIDE * (num_rows - 1) < num_frames <= MAX_FRAMES:
        message = f"has {num_rows} annotated frames, expected every fourth of {num_frames}"
        raise wrong(entry["masklet"], message)
    stated = entry.find("masklet_id")
    ids = [str(k) for k in range(num_objects)] if stated is None else list(stated.idents())
    if len(ids) != num_objects or len(set(ids)) != num_objects:
        raise wrong(entry["masklet_id"], f"expected {num_objects} different ids, got {ids}")
    video = path.with_name(path.name[: -len(_SUFFIX)] + ".mp4")
    if not video.exists():
        reading.log.report(video, "", "is missing: masks can be read, frames cannot")
    names = tuple(f"{i:05d}" for i in range(num_frames))
    frames = _VideoFrames(path=video, names=names, size_wh=size_wh, last=last_video)
    masklets = {
        name: _JsonMasklet(path=path, column=k, size_wh=size_wh, last=last_masks)
        for k, name in enumerate(ids)
    }
    annotated = tuple(range(0, STRIDE * num_rows, STRIDE))
    return make_episode(
        checked_name(entry["video_id"].ident(), entry),
        "",
        media=EpisodeMedia(frames=frames, masklets=masklets),
        question=None,
        spans=whole(num_frames, ids),
        annotated=annotated,
        scored=annotated[1:-1],
        rate_hz=reading.rate(),
    )


def _check_rows(masklet: Entry, size_wh: tuple[int, int]) -> tuple[int, int]:
    """Check every record; count annotated frames and objects."""
    rows = masklet.array()
    num_objects = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    if not num_objects:
        raise wrong(masklet, "holds no object, expected masklet[frame][object]")
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != num_objects:
            raise refuse(masklet.file, f"masklet/{index}", f"expected {num_objects} RLEs")
        for column, record in enumerate(row):
            try:
                counts_of(record, size_wh)
            except InputError as error:
                raise refuse(masklet.file, f"masklet/{index}/{column}", str(error)) from error
    return len(rows), num_objects


def _read_pngs(reading: Reading) -> list[Episode]:
    listed = reading.root / f"sav_{reading.split}.txt"
    episodes: list[Episode] = []
    for number, line in enumerate(reading.progress(read_lines(listed)), start=1):
        with reading.skipping():
            name = checked_name(line, Entry(file=listed, key=f"line {number}", value=line))
            folder = reading.root / "Annotations_6fps" / name
            frames = _frames(reading.root / "JPEGImages_24fps", name, folder, reading)
            objects = [one.name for one in _folders_in(folder)]
            if not objects:
                raise refuse(folder, "", "has no folder of an object")
            masklets = {
                one: png_masklet(folder / one, frames, is_complete=False) for one in objects
            }
            annotated = tuple(sorted({i for m in masklets.values() for i in m.annotated}))
            episodes.append(
                make_episode(
                    name,
                    "",
                    media=EpisodeMedia(frames=frames, masklets=masklets),
                    question=None,
                    spans=whole(len(frames.names), objects),
                    annotated=annotated,
                    scored=annotated[1:-1],
                    rate_hz=reading.rate(),
                )
            )
    return episodes


def _folders_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.is_dir() and p.name[0] != ".")


def _frames(root: Path, name: str, masks: Path, reading: Reading) -> Frames:
    """The frames of a video; where there are none, all numbers up to the last mask's."""
    if reading.has_frames(root):
        return open_frames(root / name)
    named = {stem for one in _folders_in(masks) for stem in picture_names(one)}
    if not named or not all(map(is_number, named)) or max(map(int, named)) >= MAX_FRAMES:
        raise refuse(masks, "", f"has no masks that are named by numbers below {MAX_FRAMES}")
    digits = len(min(named))
    names = tuple(f"{i:0{digits}d}" for i in range(max(map(int, named)) + 1))
    return AbsentFrames(
        folder=root / name, names=names, size_wh=picture_size(first_picture(masks))
    )
