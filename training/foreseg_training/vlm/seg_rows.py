# SPDX-License-Identifier: Apache-2.0
"""Rows for TRL of a [SEG] method: prompt, true completion, and the true masks of what it decodes.

The completion is read back by the robot's reader, with the true masks in the place of its token,
before it is used. Does not know: trainers, models.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foreseg.dialogue import NoTarget, TargetsFound
from foreseg.errors import InputError
from foreseg.history.reduction import reduce_image
from foreseg.language.base import Segmented
from foreseg.masks import Mask, MaskRle, mask_from_rle, rle_from_mask
from foreseg.methods.base import SegmentStep
from foreseg.methods.reading import read_completion
from foreseg.methods.seg_answers import TOKEN, mark_of, none_words
from foreseg_torch.vlm.vision_inputs import conversation_from_messages
from foreseg_training.seg_samples import SegMethod, SegSample
from foreseg_training.vlm.rows import Row

BoolArray = NDArray[np.bool_]


def seg_prompt_row(sample: SegSample, tokens: Collection[str], decode_side_px: int) -> Row:
    """A sample's id, prompt, images, and what is decoded on which frames.

    Args:
        sample: as drawn.
        tokens: special tokens of the tokenizer, which no text may spell.
        decode_side_px: frames are decoded at this size at most; their masks have their size.
    """
    messages = sample.step.request.completion.messages
    images = [part for m in messages for part in m.content if not isinstance(part, str)]
    decoded = [reduce_image(frame.image, decode_side_px) for frame in sample.frames]
    masks = [
        resized(mask, image.shape[:2]) for mask, image in zip(sample.masks, decoded, strict=True)
    ]
    return {
        "id": sample.id,
        "prompt": conversation_from_messages(messages, tokens),
        "images": [Image.fromarray(image) for image in images],
        "decoded_images": [Image.fromarray(image) for image in decoded],
        "masks": masks_text(masks),
    }


def seg_sft_row(
    method: SegMethod, sample: SegSample, tokens: Collection[str], decode_side_px: int
) -> Row:
    """A row for supervised fine-tuning: what `seg_prompt_row` has, and the true completion."""
    said = [{"type": "text", "text": seg_completion_of(method, sample)}]
    completion = [{"role": "assistant", "content": said}]
    return {**seg_prompt_row(sample, tokens, decode_side_px), "completion": completion}


def seg_completion_of(method: SegMethod, sample: SegSample) -> str:
    """What a perfect model says: the thoughts of the sample, and one token, or that nothing fits.

    Raises:
        InputError: the robot would not read the truth in it; says which sample.
    """
    form = sample.step.form
    said = none_words(form) if sample.says_none else method.sentence()
    thought = sample.rationale.replace(TOKEN, "SEG")  # the token has one place
    text = form.put(f"<think>{thought}</think>", f"<answer>{said}</answer>")
    if not _is_read(sample, text, sample.step):
        msg = f"sample {sample.id}: the true completion is not read as the truth: {text[:200]!r}"
        raise InputError(msg)
    return text


def _is_read(sample: SegSample, text: str, step: SegmentStep) -> bool:
    masks: tuple[Mask, ...] = tuple(sample.masks)
    found = () if sample.says_none else (Segmented(masks=masks, qualities=(1.0,) * len(masks)),)
    read = read_completion(step, text.replace(TOKEN, mark_of(0)), found)
    wanted = TargetsFound if sample.masks.any() else NoTarget
    return read.form_kept and isinstance(read.verdict.part, wanted)


def masks_text(masks: Collection[Mask]) -> str:
    """Masks as text: a list of COCO's run lengths."""
    return json.dumps([asdict(rle_from_mask(mask)) for mask in masks])


def masks_from_text(text: str) -> BoolArray:
    """The masks (F, H, W) that `masks_text` wrote; of one size."""
    return np.stack([mask_from_rle(MaskRle(**value)) for value in json.loads(text)])


def resized(mask: Mask, size_hw: tuple[int, ...]) -> Mask:
    """A mask in the size of a frame that was reduced: each pixel as the one at its centre."""
    if mask.shape == size_hw:
        return mask
    rows, columns = (
        ((np.arange(count) + 0.5) * side / count).astype(np.intp)
        for count, side in zip(size_hw, mask.shape, strict=True)
    )
    found: Mask = mask[rows][:, columns]
    return found
