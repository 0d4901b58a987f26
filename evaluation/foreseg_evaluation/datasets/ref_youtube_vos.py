# SPDX-License-Identifier: Apache-2.0
"""Ref-YouTube-VOS and the forms that follow it: expressions in JSON, label maps as PNGs.

Does not know: run lengths, scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from foreseg_evaluation.episode import Episode, Question, QuestionKind
from foreseg_evaluation.problems import DatasetError

from .entries import Entry, is_number, read_json, wrong
from .media import EpisodeMedia, Masklet, first_picture, png_masklet
from .pictures import VOID, picture_size
from .reading import Reading, Video, expressions_of, make_episode, open_video, whole


def meta_path(reading: Reading, split: str) -> Path:
    """Where the expressions of a split stand."""
    return reading.root / "meta_expressions" / split / "meta_expressions.json"


def read_ref_youtube_vos(reading: Reading) -> list[Episode]:
    """Read a split of Ref-YouTube-VOS; `valid` has a truth only in a later release."""
    if reading.split == "train":
        return read_label_maps(reading, has_void=False)
    meta = read_json(meta_path(reading, "valid"), reading.log)
    episodes: list[Episode] = []
    for name, entry in reading.progress(_valid_videos(meta, reading)):
        with reading.skipping():
            size = partial(_size_of_masks, reading.root / "valid/Annotations" / name)
            video = open_video(name, entry, reading.root / "valid/JPEGImages", reading, size)
            for expression_id, expression in expressions_of(video, reading):
                with reading.skipping():
                    episodes.append(_valid_episode(video, expression_id, expression, reading))
    return episodes


def read_label_maps(reading: Reading, *, has_void: bool) -> list[Episode]:
    """Read a split whose truth is one label map for each frame.

    Args:
        reading: as every reader.
        has_void: whether the value 255 marks pixels that are not judged; else it is background.
    """
    folder = reading.root / reading.split
    meta = read_json(meta_path(reading, reading.split), reading.log)
    objects_path = folder / "meta.json"
    objects = read_json(objects_path, reading.log) if objects_path.exists() else None
    if objects is None:
        reading.log.assume("without meta.json, the objects are those that expressions name")
    episodes: list[Episode] = []
    for name, entry in reading.progress(list(meta["videos"].entries())):
        with reading.skipping():
            size = partial(_size_of_masks, folder / "Annotations" / name)
            video = open_video(name, entry, folder / "JPEGImages", reading, size)
            known = None if objects is None else _known_objects(objects, name)
            media = label_map_media(
                video, folder / "Annotations", known, reading, has_void=has_void
            )
            for expression_id, expression in expressions_of(video, reading):
                with reading.skipping():
                    object_id = _object_id(expression, media.masklets)
                    episodes.append(
                        referring_episode(
                            video, expression_id, expression, media, object_id, reading
                        )
                    )
    return episodes


def label_map_media(
    video: Video,
    annotations: Path,
    known: tuple[str, ...] | None,
    reading: Reading,
    *,
    has_void: bool,
) -> EpisodeMedia:
    """Look up the label maps of a video, and the objects in them.

    Raises:
        DatasetError: if a frame has no label map.
    """
    maps = png_masklet(annotations / video.name, video.frames)
    if known is None:
        named = [_stated_object(entry) for _, entry in expressions_of(video, reading)]
        known = tuple(sorted({name for name in named if name}, key=int))
    return EpisodeMedia(
        frames=video.frames,
        masklets={name: maps.with_label(int(name)) for name in known},
        voids=maps.with_label(VOID) if has_void else None,
    )


def referring_episode(
    video: Video,
    expression_id: str,
    expression: Entry,
    media: EpisodeMedia,
    object_id: str | None,
    reading: Reading,
) -> Episode:
    """Make the episode of an expression that names one object; None: there is no truth."""
    has_truth = object_id is not None
    spans = whole(len(video.everywhere), (object_id,)) if object_id is not None else ()
    return make_episode(
        video.name,
        expression_id,
        media=media,
        question=Question(text=expression["exp"].text(), kind=QuestionKind.REFERRING),
        spans=spans,
        annotated=video.everywhere if has_truth else (),
        scored=video.everywhere if has_truth else (),
        rate_hz=reading.rate(),
    )


def _size_of_masks(folder: Path) -> tuple[int, int]:
    return picture_size(first_picture(folder))


def _valid_videos(meta: Entry, reading: Reading) -> list[tuple[str, Entry]]:
    """The videos of `valid`: the published list has those of `test` in it, too."""
    videos = list(meta["videos"].entries())
    test = meta_path(reading, "test")
    if not test.exists():
        reading.log.assume(
            "meta_expressions/test is not there: every listed video counts as valid"
            " (the published list of 507 has the 305 of test in it)"
        )
        return videos
    foreign = {name for name, _ in read_json(test, reading.log)["videos"].entries()}
    return [(name, entry) for name, entry in videos if name not in foreign]


def _valid_episode(
    video: Video, expression_id: str, expression: Entry, reading: Reading
) -> Episode:
    """One expression of `valid`, with the truth of its own folder where there are such folders."""
    annotations = reading.root / "valid/Annotations"
    if not annotations.is_dir():
        reading.log.assume("valid/Annotations is not there: episodes without truth")
        media = EpisodeMedia(frames=video.frames, masklets={})
        return referring_episode(video, expression_id, expression, media, None, reading)
    masklet = png_masklet(annotations / video.name / expression_id, video.frames)
    media = EpisodeMedia(frames=video.frames, masklets={expression_id: masklet})
    return referring_episode(video, expression_id, expression, media, expression_id, reading)


def _known_objects(objects: Entry, video: str) -> tuple[str, ...]:
    listed = objects["videos"][video]["objects"]
    names = [name for name, _ in listed.entries()]
    for name in names:
        if not _is_label(name):
            raise wrong(listed, f"expected object ids from 1 to {VOID - 1}, got {name!r}")
    return tuple(names)


def _object_id(expression: Entry, masklets: Mapping[str, Masklet]) -> str:
    stated = expression["obj_id"]
    name = _stated_object(expression)
    if name is None:
        raise wrong(stated, f"expected an object id from 1 to {VOID - 1}, got {stated.value!r}")
    if name not in masklets:
        raise wrong(stated, f"object {name!r} is none of the video's: {', '.join(masklets)}")
    return name


def _stated_object(expression: Entry) -> str | None:
    """The object that an expression names; None for what the expression itself is told about."""
    try:
        ids = expression["obj_id"].idents()
    except DatasetError:
        return None
    return ids[0] if len(ids) == 1 and _is_label(ids[0]) else None


def _is_label(name: str) -> bool:
    return is_number(name) and 0 < int(name) < VOID
