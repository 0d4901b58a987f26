# SPDX-License-Identifier: Apache-2.0
"""From what a model says to prompts on a frame: labels, boxes and points, made fit or refused.

Whatever is changed on the way is recorded. Does not know the form of any method's answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from foreseg.errors import ConfigError, ForesegError, InputError
from foreseg.frames import Frame, FrameWindow, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.history.reduction import reduce_window, squeeze_window
from foreseg.methods.labels import LabelForm, labelled_window
from foreseg.methods.near_json import Json
from foreseg.prompts import Point, PointLabel, SpatialPrompt

MAX_TARGETS = 64
MAX_SIDE_PX = 4096  # of a frame as it is shown
MILLI = 1000.0
MILLI_SLACK = 20.0  # beyond the frame, with `milli`; with pixels it is a patch
EDGE_PX = 1.0  # a point so little outside is on the edge
_WHOLE = re.compile(r"-?\d{1,15}")


class Coordinates(Enum):
    """How a model counts places in a frame that it is shown."""

    PIXELS = "pixels"  # of the frame as its processor resizes it
    MILLI = "milli"  # 0 to 1000 over each side


class Shape(Enum):
    """The outline of a frame as it is shown."""

    ASPECT = "aspect"  # its own; never enlarged
    SQUARE = "square"  # squeezed, or stretched: some policies have seen nothing else


class UnusableAnswer(ForesegError):  # noqa: N818 (a result of reading, with its reason)
    """An answer that gives no prompt; the message says why."""


@dataclass(slots=True, kw_only=True)
class Repairs:
    """What was repaired so far, each kind once, in order."""

    _notes: dict[str, None] = field(default_factory=dict)

    def add(self, *notes: str) -> None:
        """Record repairs."""
        self._notes.update(dict.fromkeys(notes))

    @property
    def notes(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self._notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How frames are shown to a model, and how it counts in them."""

    image_side_px: int = 448  # frames are reduced to this
    shape: Shape = Shape.ASPECT
    coordinates: Coordinates = Coordinates.PIXELS
    patch_px: int = 28  # the processor rounds both sides to multiples of this (Qwen2.5-VL: 28)
    labels: LabelForm = LabelForm.ABSOLUTE

    def __post_init__(self) -> None:
        if not 16 <= self.image_side_px <= MAX_SIDE_PX or not 1 <= self.patch_px <= 128:  # noqa: PLR2004
            msg = (
                "image_side_px wants 16 to 4096 and patch_px 1 to 128, got"
                f" {self.image_side_px} and {self.patch_px}"
            )
            raise ConfigError(msg)

    def shown(self, window: FrameWindow) -> FrameWindow:
        """The window as the model sees it."""
        resize = squeeze_window if self.shape is Shape.SQUARE else reduce_window
        return labelled_window(resize(window, self.image_side_px), self.labels)

    def wanted_px(self, frame: Frame) -> int:
        """The longer side at which a frame must come, so that nothing of what is shown is lost."""
        side = self.image_side_px
        if self.shape is Shape.SQUARE:
            longer, shorter = max(frame.ref.size_wh), min(frame.ref.size_wh)
            side = min(MAX_SIDE_PX, math.ceil(side * longer / shorter))
        return min(side, max(frame.ref.size_wh))

    def size_wh(self, frame: Frame) -> tuple[float, float]:
        """A shown frame's size in the model's own units."""
        if self.coordinates is Coordinates.MILLI:
            return MILLI, MILLI
        height, width = frame.image.shape[:2]
        return self._rounded(width), self._rounded(height)

    def scale_xy(self, frame: Frame) -> tuple[float, float]:
        """Factors from source pixels to a shown frame's units."""
        width, height = self.size_wh(frame)
        return width / frame.ref.size_wh[0], height / frame.ref.size_wh[1]

    def checked(self, numbers: Sequence[float], frame: Frame) -> None:
        """Numbers x, y, ... that a model gave for a place in a frame, in its own units.

        A little outside is a mistake of the eye; farther out, or all within 0 to 1, the model
        counts otherwise, and no number of its answer means what it seems to.

        Raises:
            UnusableAnswer: it does.
        """
        is_milli = self.coordinates is Coordinates.MILLI
        slack = MILLI_SLACK if is_milli else float(self.patch_px)
        size = self.size_wh(frame)
        shown = "[" + ", ".join(f"{number:g}" for number in numbers) + "]"
        if any(not -slack <= n <= size[i % 2] + slack for i, n in enumerate(numbers)):
            other = Coordinates.PIXELS if is_milli else Coordinates.MILLI
            msg = (
                f"{shown} leaves the frame, which is {size[0]:g} x {size[1]:g} in"
                f" {self.coordinates.value}: the model seems to count otherwise; is it"
                f" {other.value}? then set the option coordinates"
            )
            raise UnusableAnswer(msg)
        if all(0 <= n <= 1 for n in numbers) and any(n != int(n) for n in numbers):
            msg = (
                f"{shown} lies within 0 to 1: the model seems to count in shares of the frame, where"
                f" {self.coordinates.value} were asked for"
            )
            raise UnusableAnswer(msg)

    def words(self, frame: Frame) -> str:
        """How places in a frame are to be given, for a template."""
        if self.coordinates is Coordinates.MILLI:
            return "x and y from 0 to 1000 over the frame's width and height"
        width, height = self.size_wh(frame)
        return f"x and y in pixels of the frame, which is {width:g} wide and {height:g} high"

    def _rounded(self, side: int) -> float:
        return float(max(1, round(side / self.patch_px)) * self.patch_px)


def labelled(window: FrameWindow) -> tuple[str | U8Array, ...]:
    """Each frame of a window after its label, as message content."""
    content: list[str | U8Array] = []
    for frame in window.frames:
        content += [label_text(window.label_of(frame.index)), frame.image]
    return tuple(content)


def label_text(label: int) -> str:
    """A frame label as the model reads it."""
    return f"<{label}>"


def keyframe_from(value: Json, window: FrameWindow, repairs: Repairs) -> Frame:
    """The shown frame that a label means.

    A label that was not shown is taken for the nearest shown one only if it is nearer to it than
    half the gap between its neighbours (beyond the ends: half the outermost gap). With only one
    frame shown, that frame is meant.

    Raises:
        UnusableAnswer: no label, or one that means no shown frame.
    """
    labels = [window.label_of(frame.index) for frame in window.frames]
    label = label_from(value, repairs)
    if label in labels:
        return window.frames[labels.index(label)]
    if len(labels) == 1:
        repairs.add(f"keyframe {_shown(value)} read as the only frame shown")
        return window.frames[0]
    shown = ", ".join(map(str, labels))
    if label is None:
        msg = f"the keyframe wants one of the labels {shown}, got {_shown(value)}"
        raise UnusableAnswer(msg)
    right = min(max(1, sum(other < label for other in labels)), len(labels) - 1)
    gap = labels[right] - labels[right - 1]
    nearest = min((right - 1, right), key=lambda rank: abs(labels[rank] - label))
    if abs(labels[nearest] - label) * 2 >= gap:
        msg = f"keyframe {label} was not shown, nor is one of {shown} clearly meant"
        raise UnusableAnswer(msg)
    repairs.add(f"keyframe {label} read as {labels[nearest]}")
    return window.frames[nearest]


def label_from(value: Json, repairs: Repairs) -> int | None:
    """The whole number that a keyframe's label is, shown or not; None for anything else."""
    if isinstance(value, list) and len(value) == 1:
        repairs.add("keyframe in a list")
        value = value[0]
    if isinstance(value, str):
        found = _WHOLE.findall(value)
        if len(found) != 1:
            return None
        if value != label_text(int(found[0])):
            repairs.add("keyframe in words")
        return int(found[0])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None


def box_from(value: Json, frame: Frame, view: View, repairs: Repairs) -> BoxXyxy | None:
    """A box in source pixels within the frame; swapped corners are put right, edges clipped.

    None, with the reason recorded, if it is no box or is empty.

    Raises:
        UnusableAnswer: it is in other units than were asked for.
    """
    numbers = _numbers_from(value, 4, repairs)
    if numbers is None:
        repairs.add("left out what is no box of four numbers")
        return None
    view.checked(numbers, frame)
    x0, y0, x1, y1 = numbers
    if x1 < x0 or y1 < y0:
        repairs.add("swapped corners")
    box = BoxXyxy(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    clipped = box.scaled(_to_source(frame, view)).clipped(frame.ref.size_wh)
    if clipped.width < 1 or clipped.height < 1:
        repairs.add("left out a box that is empty or outside the frame")
        return None
    width, height = view.size_wh(frame)
    if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
        repairs.add("clipped a box to the frame")
    return clipped


def point_from(
    value: Json, label: PointLabel, frame: Frame, view: View, repairs: Repairs
) -> Point | None:
    """A point in source pixels within the frame; None, recorded, if it is none or just outside.

    Raises:
        UnusableAnswer: it is in other units than were asked for.
    """
    numbers = _numbers_from(value, 2, repairs)
    if numbers is None:
        repairs.add("left out what is no point of two numbers")
        return None
    view.checked(numbers, frame)
    scale = _to_source(frame, view)
    places: list[float] = []
    for number, factor, end in zip(numbers, scale, frame.ref.size_wh, strict=True):
        place = number * factor
        if not -EDGE_PX * max(1.0, factor) <= place <= end + EDGE_PX * max(1.0, factor):
            repairs.add("left out a point outside the frame")
            return None
        places.append(min(max(place, 0.0), end - 0.5))
    return Point(places[0], places[1], label)


def distinct_prompts(
    prompts: Sequence[SpatialPrompt], frame: Frame, repairs: Repairs
) -> tuple[SpatialPrompt, ...]:
    """The prompts, each once and at most `MAX_TARGETS`, as `SpatialPrompt.checked` has them.

    Raises:
        UnusableAnswer: none is left.
    """
    kept: dict[SpatialPrompt, None] = {}
    for prompt in prompts:
        try:
            kept[prompt.checked(frame.ref.size_wh)] = None
        except InputError as error:
            repairs.add(f"left out a prompt: {error}")
    if not kept:
        msg = "no object in the answer can be used"
        raise UnusableAnswer(msg)
    if len(kept) < len(prompts):
        repairs.add("left out repeated or unusable objects")
    if len(kept) > MAX_TARGETS:
        repairs.add(f"kept the first {MAX_TARGETS} objects")
    return tuple(kept)[:MAX_TARGETS]


def _to_source(frame: Frame, view: View) -> tuple[float, float]:
    """Factors from the model's units to source pixels."""
    width, height = view.size_wh(frame)
    return frame.ref.size_wh[0] / width, frame.ref.size_wh[1] / height


def _numbers_from(value: Json, count: int, repairs: Repairs) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) < count:
        return None
    if len(value) > count:
        return None
    numbers: list[float] = []
    for item in value:
        if isinstance(item, str):
            try:
                item = float(item)  # noqa: PLW2901 (the same number, without its quotes)
            except ValueError:
                return None
            repairs.add("numbers in quotes")
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            return None
        if not math.isfinite(item):
            return None
        numbers.append(float(item))
    return tuple(numbers)


def _shown(value: Json) -> str:
    return repr(value)[:60]
