# SPDX-License-Identifier: Apache-2.0
"""Prompts on one frame of a sequence, tracked over all of it: forward, and backward.

What the papers do with an answer once all frames are there. Does not know: questions, truths, time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from foreseg.errors import InputError
from foreseg.frames import Frame
from foreseg.masks import Mask, MaskRle, mask_from_rle, rle_from_mask
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import Tracker, TrackKey


def track_prompts(
    tracker: Tracker,
    frames: Sequence[Frame],
    prompts: Sequence[SpatialPrompt],
    keyframe: int,
    drawn: Mapping[int, MaskRle] | None = None,
) -> tuple[MaskRle, ...]:
    """Track the objects of one frame through all frames, both ways from it.

    Args:
        tracker: with a row for each prompt; it is reset before, between the ways, and after.
        frames: of one camera, in order; each is taken when its turn comes, so that a sequence
            may read them from files.
        prompts: source pixels of the keyframe; none: nothing is tracked, and every mask is empty.
        keyframe: its place in `frames`.
        drawn: masks of the object on other frames, by place: of a single prompt they become
            conditioning frames beside the keyframe (as Sa2VA-i has it); of several it is not known whose
            they are.

    Returns:
        One mask a frame: the union of the objects.

    Raises:
        InputError: the keyframe is none of the frames, a prompt does not fit it, or there are
            more prompts than rows.
    """
    if not 0 <= keyframe < len(frames):
        msg = f"a keyframe wants to be one of {len(frames)} frames, got {keyframe}"
        raise InputError(msg)
    masks: dict[int, MaskRle] = {}
    for places in (range(keyframe, -1, -1), range(keyframe, len(frames))):
        tracker.reset()
        _condition(tracker, frames, prompts, keyframe, drawn or {})
        masks.update(zip(places, _tracked(tracker, frames, prompts, places), strict=True))
    tracker.reset()
    return tuple(masks[place] for place in range(len(frames)))


def _condition(
    tracker: Tracker,
    frames: Sequence[Frame],
    prompts: Sequence[SpatialPrompt],
    keyframe: int,
    drawn: Mapping[int, MaskRle],
) -> None:
    """Prompt the only object on the other frames on which it is drawn; the keyframe comes last."""
    if len(prompts) != 1:
        return
    for place in sorted(drawn):
        if place != keyframe and not drawn[place].is_absent:
            tracker.prompt(frames[place], _key(0), SpatialPrompt(mask=drawn[place]))


def _key(number: int) -> TrackKey:
    return TrackKey(f"target-{number}")


def _tracked(
    tracker: Tracker,
    frames: Sequence[Frame],
    prompts: Sequence[SpatialPrompt],
    places: Sequence[int],
) -> Iterator[MaskRle]:
    keys = [_key(i) for i in range(len(prompts))]
    for place in places:
        frame = frames[place]
        if place == places[0]:
            for key, prompt in zip(keys, prompts, strict=True):
                tracker.prompt(frame, key, prompt)
        union: Mask = np.zeros(frame.ref.size_wh[::-1], dtype=np.bool_)
        for item in tracker.track(frame, keys).objects if keys else ():
            union |= mask_from_rle(item.mask)
        yield rle_from_mask(union)
