# SPDX-License-Identifier: Apache-2.0
"""Objects that `foreseg run` is pointed at: boxes, points and mask files, read from words.

What has one name and one frame is one prompt: a box may get points beside it. Does not know: the
frames' size, trackers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy
from foreseg.masks import Mask, rle_from_mask
from foreseg.media.pen import import_cv2
from foreseg.media.sinks import voc_palette
from foreseg.prompts import ObjectId, Point, PointLabel, SpatialPrompt

BOX_FORM = "x0,y0,x1,y1@frame or x0,y0,x1,y1@frame:name"
POINT_FORM = "x,y@frame or x,y@frame:name"
NOT_POINT_FORM = "x,y@frame:name, with the name of a box or a point of that frame"
MASK_FORM = "FILE@frame or FILE@frame:name"
MAX_MASK_COLOURS = 64  # more are a photograph, or soft edges
_PLACED = re.compile(r"(.*)@(\d+)(?::(.+))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedPrompt:
    """An object pointed at on a frame, counted from 0."""

    frame: int
    object_id: ObjectId
    prompt: SpatialPrompt
    words: str  # as it was given, with the option's name


def prompts_from_words(
    boxes: Sequence[str] = (),
    points: Sequence[str] = (),
    not_points: Sequence[str] = (),
    masks: Sequence[str] = (),
) -> tuple[TimedPrompt, ...]:
    """Read what `--box`, `--point`, `--not-point` and `--mask` were given.

    Raises:
        InputError: malformed words, two boxes or masks for one object on a frame, a mask with a box
            or points, a negative point without anything positive, a mask file that is none.
    """
    found = [
        *(box_from_words(words, i) for i, words in enumerate(boxes, start=1)),
        *(_point(words, i, PointLabel.FOREGROUND) for i, words in enumerate(points, start=1)),
        *(_point(words, i, PointLabel.BACKGROUND) for i, words in enumerate(not_points, start=1)),
        *(one for i, words in enumerate(masks, start=1) for one in _masks(words, i)),
    ]
    merged: dict[tuple[int, ObjectId], TimedPrompt] = {}
    for one in found:
        place = (one.frame, one.object_id)
        merged[place] = _merged(merged[place], one) if place in merged else one
    for one in merged.values():
        labels = [point.label for point in one.prompt.points]
        if one.prompt.box is None and labels and PointLabel.FOREGROUND not in labels:
            msg = f"{one.words}: says only where object {one.object_id!r} is not; wants {NOT_POINT_FORM}"
            raise InputError(msg)
    return tuple(merged.values())


def box_from_words(words: str, number: int) -> TimedPrompt:
    """Read `x0,y0,x1,y1@frame[:name]`; without a name it is `box-<number>`.

    Raises:
        InputError: anything else, or corners in the wrong order.
    """
    numbers, frame, name = _numbers_placed(words, 4, f"a box wants {BOX_FORM} in pixels")
    box = BoxXyxy(*numbers)
    if not box.is_finite() or box.x1 <= box.x0 or box.y1 <= box.y0:
        msg = f"a box wants finite x0 < x1 and y0 < y1, got {words[:80]!r}"
        raise InputError(msg)
    return TimedPrompt(
        frame=frame,
        object_id=ObjectId(name or f"box-{number}"),
        prompt=SpatialPrompt(box=box),
        words=f"--box {words}",
    )


def _point(words: str, number: int, label: PointLabel) -> TimedPrompt:
    is_positive = label is PointLabel.FOREGROUND
    what = f"a point wants {POINT_FORM if is_positive else NOT_POINT_FORM} in pixels"
    (x, y), frame, name = _numbers_placed(words, 2, what)
    if not name and not is_positive:
        msg = f"{what}, got {words[:80]!r}"
        raise InputError(msg)
    return TimedPrompt(
        frame=frame,
        object_id=ObjectId(name or f"point-{number}"),
        prompt=SpatialPrompt(points=(Point(x, y, label),)),
        words=f"--{'point' if is_positive else 'not-point'} {words}",
    )


def _numbers_placed(words: str, count: int, what: str) -> tuple[list[float], int, str]:
    match = _PLACED.fullmatch(words.strip())
    try:
        numbers = [float(part) for part in (match[1] if match else "").split(",")]
    except ValueError:
        numbers = []
    if match is None or len(numbers) != count:
        msg = f"{what}, got {words[:80]!r}"
        raise InputError(msg)
    return numbers, int(match[2]), match[3] or ""


def _masks(words: str, number: int) -> list[TimedPrompt]:
    """One object a colour; several are named by the colour's place in the VOC palette."""
    match = _PLACED.fullmatch(words.strip())
    if match is None or not match[1]:
        msg = f"a mask wants {MASK_FORM}, got {words[:80]!r}"
        raise InputError(msg)
    masks = _masks_of(Path(match[1]).expanduser())
    name = match[3] or f"mask-{number}"
    return [
        TimedPrompt(
            frame=int(match[2]),
            object_id=ObjectId(name if len(masks) == 1 else f"{name}-{label}"),
            prompt=SpatialPrompt(mask=rle_from_mask(mask)),
            words=f"--mask {words}",
        )
        for label, mask in masks.items()
    ]


def _masks_of(path: Path) -> dict[int, Mask]:
    """Masks (H, W) of an image file by label: black is background, every other colour an object.

    Raises:
        InputError: no image, all black, or so many colours that it is no mask.
    """
    cv2 = import_cv2("reading a mask")
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        msg = f"a mask wants an image file (PNG), {path} is {'none' if path.exists() else 'not there'}"
        raise InputError(msg)
    codes = image.astype(np.uint32) @ np.array([1 << 0, 1 << 8, 1 << 16], np.uint32)  # BGR
    colours = [int(code) for code in np.unique(codes) if code]
    if not 0 < len(colours) <= MAX_MASK_COLOURS:
        got = f"{len(colours)} colours" if colours else "nothing else"
        msg = (
            "a mask wants black background and one colour an object, without soft edges; "
            f"{path} has {got}"
        )
        raise InputError(msg)
    palette = voc_palette().astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1 << 0], np.uint32)
    known = {int(code): label for label, code in reversed(list(enumerate(palette)))}
    labels = {code: known.get(code, 1000 + i) for i, code in enumerate(colours)}
    ordered = sorted(colours, key=lambda code: labels[code])
    if any(labels[code] >= len(palette) for code in ordered):  # another palette: count on
        return {i: codes == code for i, code in enumerate(ordered, start=1)}
    return {labels[code]: codes == code for code in ordered}


def _merged(one: TimedPrompt, other: TimedPrompt) -> TimedPrompt:
    """Two prompts of one object on one frame as one.

    Raises:
        InputError: two boxes, two masks, or a mask with anything else.
    """
    where = f"object {one.object_id!r} has on frame {one.frame}"
    if one.prompt.mask is not None or other.prompt.mask is not None:
        msg = f"{where} a mask and another prompt, expected a mask alone"
        raise InputError(msg)
    if one.prompt.box is not None and other.prompt.box is not None:
        msg = f"{where} two boxes, expected one"
        raise InputError(msg)
    prompt = SpatialPrompt(
        box=one.prompt.box or other.prompt.box, points=(*one.prompt.points, *other.prompt.points)
    )
    return replace(one, prompt=prompt, words=f"{one.words} {other.words}")
