# SPDX-License-Identifier: Apache-2.0
"""Rows for TRL: a sample as a prompt with images, a true completion, and what rewards need.

The prompt is the one that the robot's method makes; the completion is read back by the robot's
reader before it is used. Does not know: trainers, models.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from foreseg.dialogue import NoTarget, TargetsFound
from foreseg.errors import InputError
from foreseg.frames import Frame, FrameWindow
from foreseg.methods.base import AnswerStep
from foreseg.methods.reading import read_completion
from foreseg.methods.veason import VeasonMethod
from foreseg_torch.vlm.vision_inputs import conversation_from_messages
from foreseg_training.samples import Filtered, Sample, SampleDrawer
from foreseg_training.vlm.lesson import Lesson
from foreseg_training.vlm.recipe import Recipe

_LOG = logging.getLogger(__name__)
Row = dict[str, Any]


def step_of(method: VeasonMethod, sample: Sample) -> AnswerStep:
    """The one step of the method's plan over a sample."""
    step = next(method.plan(sample.query, sample.window))
    if not isinstance(step, AnswerStep):
        msg = f"a sample wants a method that asks once, got {method.name}"
        raise InputError(msg)
    return step


def lesson_row(lesson: Lesson, tokens: Collection[str]) -> Row:
    """A lesson's id, prompt, images and what its rewards need.

    Args:
        lesson: of a method as it will run on the robot.
        tokens: special tokens of the tokenizer, which no text may spell.
    """
    images = [p for m in lesson.messages for p in m.content if not isinstance(p, str)]
    return {
        "id": lesson.id,
        "prompt": conversation_from_messages(lesson.messages, tokens),
        "images": [Image.fromarray(image) for image in images],
        **lesson.columns,
    }


def taught_row(lesson: Lesson, tokens: Collection[str]) -> Row:
    """A row for supervised fine-tuning: id, prompt, images and the true completion."""
    said = [{"type": "text", "text": lesson.completion()}]
    row = lesson_row(lesson, tokens)
    asked = {name: row[name] for name in ("id", "prompt", "images")}
    return {**asked, "completion": [{"role": "assistant", "content": said}]}


def completion_of(method: VeasonMethod, sample: Sample) -> str:
    """What a perfect model says: the thoughts of the sample, and the boxes of its keyframe.

    Raises:
        InputError: the robot would not read the truth in it; says which sample.
    """
    step = step_of(method, sample)
    frame = _frame(method.shown(sample.window), sample)
    boxes = () if sample.keyframe is None else sample.boxes[sample.keyframe]
    answer = f"<answer>{method.worded(method.shown(sample.window), frame, boxes)}</answer>"
    text = step.form.put(f"<think>{sample.rationale}</think>", answer)
    read = read_completion(step, text)
    found = read.verdict.part
    is_right = (
        isinstance(found, NoTarget)
        if not boxes
        else isinstance(found, TargetsFound) and found.keyframe_index == sample.keyframe
    )
    if not (read.form_kept and is_right):
        msg = f"sample {sample.id}: the true completion is not read as the truth: {text[:200]!r}"
        raise InputError(msg)
    return text


def drawer_of(recipe: Recipe, *, needs_rationale: bool = False) -> SampleDrawer:
    """What draws the samples of a recipe."""
    return SampleDrawer(
        num_frames=recipe.num_frames,
        label_offset=recipe.label_offset,
        label_stride=recipe.label_stride,
        needs_rationale=needs_rationale,
        negative_share=recipe.negative_share,
    )


def dataset_of(rows: Iterator[Row], filtered: Filtered, folder: Path, *, at_least: int = 1) -> Any:  # noqa: ANN401 (a Dataset)
    """Rows as TRL takes them, written below a folder one by one; what was left out is told.

    Args:
        rows: one by one.
        filtered: counts what gave none, as rows are drawn.
        folder: of this process alone; what an earlier run left there is removed.
        at_least: so many; GRPO's trainer takes whole steps only.

    Raises:
        InputError: there are too few, or none with a target: masks that are lost must not become
            lessons that nothing fits.
    """
    from datasets import Dataset

    first = next(rows, None)
    if first is None:
        msg = f"no episode gives a sample: {str(filtered) or 'there is none'}"
        raise InputError(msg)

    def every() -> Iterator[Row]:
        yield first
        yield from rows

    shutil.rmtree(folder, ignore_errors=True)
    # A fingerprint of its own, or rows of an earlier run would be taken for these.
    dataset = Dataset.from_generator(every, cache_dir=str(folder), fingerprint=uuid.uuid4().hex)
    _LOG.info("%s", filtered.told())
    if not filtered.has_targets:
        msg = f"no sample has a target, of which to learn where: {filtered.told()}"
        raise InputError(msg)
    if len(dataset) < at_least:
        msg = (
            f"one step takes {at_least} prompts, and there are {filtered.told()}: lower batch_size,"
            " or give more data"
        )
        raise InputError(msg)
    return dataset


def _frame(shown: FrameWindow, sample: Sample) -> Frame:
    """The keyframe as it is shown; any frame where there is none."""
    frame = shown.newest if sample.keyframe is None else shown.get(sample.keyframe)
    if frame is None:
        msg = f"sample {sample.id}: its keyframe {sample.keyframe} is not shown"
        raise InputError(msg)
    return frame
