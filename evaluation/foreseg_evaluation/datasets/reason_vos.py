# SPDX-License-Identifier: Apache-2.0
"""ReasonVOS: expressions in a list, binary PNGs in one folder for each object.

Expressions are numbered within their object, so an expression id here is "<obj_id>/<exp_id>", while
masks made elsewhere lie in "<source>_<video>_<obj_id>/<exp_id>/", as its own evaluator has it.
Frames without a mask are not scored. Does not know: scores.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from foreseg_evaluation.episode import Episode, PredictionPlace, Question, QuestionKind
from foreseg_evaluation.problems import DatasetError

from .entries import Entry, checked_name, read_json, wrong
from .media import EpisodeMedia, PngMasklet, first_picture, png_masklet
from .pictures import picture_size
from .reading import Reading, Video, make_episode, open_video, whole


def read_reason_vos(reading: Reading) -> list[Episode]:
    """Read all of ReasonVOS."""
    meta = read_json(reading.root / "meta_expressions.json", reading.log)
    episodes: list[Episode] = []
    for name, entry in reading.progress(list(meta["videos"].entries())):
        with reading.skipping():
            size = partial(_size_of_masks, name, entry, reading)
            video = open_video(name, entry, reading.root / "JPEGImages", reading, size)
            masklets, errors = _masklets(video, reading)
            media = EpisodeMedia(frames=video.frames, masklets=masklets)
            for _, expression in entry["expressions"].entries():
                with reading.skipping():
                    episodes.append(_episode(video, expression, media, errors, reading))
    return episodes


def _size_of_masks(video: str, entry: Entry, reading: Reading) -> tuple[int, int]:
    """(W, H) of the first object's first mask."""
    first = next(iter(entry["expressions"].entries()))[1]
    folder = _folder(entry, video, first["obj_id"].ident())
    return picture_size(first_picture(reading.root / "Annotations" / folder))


def _folder(entry: Entry, video: str, object_id: str) -> str:
    """Of an object's masks, and of predictions of it."""
    return f"{entry['source'].text()}_{video}_{object_id}"


def _masklets(
    video: Video, reading: Reading
) -> tuple[dict[str, PngMasklet], dict[str, DatasetError]]:
    """The objects that expressions name, and why some have no masks."""
    masklets: dict[str, PngMasklet] = {}
    errors: dict[str, DatasetError] = {}
    for _, expression in video.entry["expressions"].entries():
        try:
            name = expression["obj_id"].ident()
        except DatasetError:
            continue  # told where the expression is read
        folder = reading.root / "Annotations" / _folder(video.entry, video.name, name)
        try:
            checked_name(_folder(video.entry, "", name), expression)
            masklets[name] = png_masklet(folder, video.frames, is_complete=False)
        except DatasetError as error:
            errors[name] = error
    return masklets, errors


def _episode(
    video: Video,
    expression: Entry,
    media: EpisodeMedia,
    errors: dict[str, DatasetError],
    reading: Reading,
) -> Episode:
    object_id = expression["obj_id"].ident()
    expression_id = checked_name(expression["exp_id"].ident(), expression)
    text = expression["exp_text"].text()
    if object_id in errors:
        raise wrong(expression["obj_id"], f"object {object_id!r}: {errors[object_id].problem}")
    masklet = media.masklets[object_id]
    assert isinstance(masklet, PngMasklet)  # noqa: S101 (made above)
    episode = make_episode(
        video.name,
        f"{object_id}/{expression_id}",
        media=media,
        question=Question(text=text, kind=QuestionKind.REASONING),
        spans=whole(len(video.everywhere), (object_id,)),
        annotated=masklet.annotated,
        scored=masklet.annotated,
        rate_hz=reading.rate(),
    )
    folder = f"{_folder(video.entry, video.name, object_id)}/{expression_id}"
    return replace(episode, official_place=PredictionPlace(folder=folder))
