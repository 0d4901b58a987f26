# SPDX-License-Identifier: Apache-2.0
"""How difficult a sample is, 1 to 10: the mean of VideoSeg-R1's five ratings, asked of a teacher.

The paper names the five and their range; its prompt is in an appendix that is not public, so the words
here are ours. Does not know: what a difficulty is used for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.language.base import LanguageRequest, Message, Role
from foreseg.methods.grounding import label_text
from foreseg.methods.near_json import values_from_text
from foreseg_training.samples import Sample

from .chains import boxed_image
from .errands import Checked, Errand

LEAST, MOST = 1.0, 10.0

RATING_RULES = """You rate how difficult it is to answer a question about a video by pointing at objects \
in it. You are shown frames in order, each after its number; the right objects are in red boxes (none: \
nothing fits). Rate five things, each with a number from 1 (very easy) to 10 (very difficult):
- scene_complexity: how much there is in the scene;
- segmentation_challenge: how small, hidden or hard to tell from their surroundings the objects are;
- temporal_ambiguity: how much of the video must be seen, and in which order, to know the answer;
- motion_complexity: how hard the motion is to follow or to foresee;
- linguistic_ambiguity: how far the words are from naming the objects.
Answer with one JSON object of these five names and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """VideoSeg-R1's five, each 1 to 10."""

    scene_complexity: float
    segmentation_challenge: float
    temporal_ambiguity: float
    motion_complexity: float
    linguistic_ambiguity: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not LEAST <= value <= MOST:  # NaN is in no range
                msg = f"{name} wants {LEAST:g} to {MOST:g}, got {value}"
                raise InputError(msg)

    @property
    def difficulty(self) -> float:
        """Their mean, D."""
        values = asdict(self).values()
        return math.fsum(values) / len(values)


NAMES = tuple(Ratings.__dataclass_fields__)


def rating_errand(
    sample: Sample, *, image_side_px: int, max_tokens: int, temperature: float, seed: int
) -> Errand:
    """Ask for the ratings of a sample.

    Args:
        sample: frames and truth.
        image_side_px: longest side of the frames as they are sent.
        max_tokens: of the reply.
        temperature: of the teacher.
        seed: likewise.
    """
    content: list[str | U8Array] = []
    for frame in sample.window.frames:
        content.append(label_text(sample.window.label_of(frame.index)))
        content.append(boxed_image(frame, sample.boxes[frame.index], image_side_px))
    content.append(f"The question: {sample.query.text}")
    messages = (
        Message(role=Role.SYSTEM, content=(RATING_RULES,)),
        Message(role=Role.USER, content=tuple(content)),
    )
    request = LanguageRequest(
        messages=messages, max_tokens=max_tokens, temperature=temperature, seed=seed
    )
    return Errand(id=sample.id, request=request, check=checked_ratings)


def checked_ratings(text: str) -> Checked:
    """Read a reply: all five, each in its range."""
    for reading in values_from_text(text):
        if isinstance(reading.value, dict) and set(NAMES) & set(reading.value):
            return _checked(reading.value)
    return Checked(reason="holds no object of the form that was asked for")


def _checked(value: Mapping[str, object]) -> Checked:
    numbers = {}
    for name in NAMES:
        number = value.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float):
            return Checked(reason="lacks a rating")
        if not LEAST <= number <= MOST:
            return Checked(reason=f"has a rating that is not in {LEAST:g} to {MOST:g}")
        numbers[name] = float(number)
    return Checked(found=numbers)
