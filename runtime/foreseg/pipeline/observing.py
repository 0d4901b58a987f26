# SPDX-License-Identifier: Apache-2.0
"""The window of an answer, segmented backward and forward from its keyframe: the papers' output.

One target after the other in a row of its own, one step at a time, of what live tracks leave; it
comes after every catch-up. Does not know who wants the masks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from foreseg.dialogue import ObservedMask
from foreseg.frames import FrameIndex
from foreseg.masks import rle_union
from foreseg.pipeline import following
from foreseg.pipeline.catch_up import BRANCH_MARK
from foreseg.pipeline.events import AskId, DropStep, JobStep, PromptStep, StepResult, TrackStep
from foreseg.pipeline.state import Arrival, CameraState, Followed, Observation, State
from foreseg.pipeline.tracks import NS
from foreseg.pipeline.turn import Turn
from foreseg.tracker.base import TrackKey

QUIET_NS = NS  # without a frame for so long, nothing is taken from live tracks


def observation_from_arrival(arrival: Arrival, ask_id: AskId) -> Observation | None:
    """The jobs that segment the window of an arrival; None if that was not wanted."""
    if not arrival.window:
        return None
    key = TrackKey(f"observed{BRANCH_MARK}{ask_id}")
    keyframe = arrival.keyframe_index
    later = [index for index in arrival.window if index > keyframe]
    earlier = [index for index in reversed(arrival.window) if index < keyframe]
    jobs: list[tuple[JobStep, ...]] = []
    for object_id, prompt in zip(arrival.object_ids, arrival.prompts, strict=True):
        beside = tuple(
            PromptStep(frame_index=each.frame_index, key=key, prompt=each.prompt)
            for each in arrival.beside
            if each.object_id == object_id
        )
        at_keyframe = PromptStep(frame_index=keyframe, key=key, prompt=prompt)
        begin: tuple[JobStep, ...] = (DropStep(key=key), *beside, at_keyframe)
        jobs.append((*begin, TrackStep(frame_index=keyframe, keys=(key,))))
        jobs += _steps_over(later, key)
        if earlier:
            jobs.append(begin)
            jobs += _steps_over(earlier, key)
    return Observation(key=key, jobs=tuple(jobs))


def is_observing(state: State) -> bool:
    """Whether a window is still to be segmented."""
    return any(followed.observation is not None for followed in state.followed)


def waiting_on(turn: Turn, camera: CameraState) -> Followed | None:
    """The answer whose window is to be segmented next on a camera; the oldest comes first."""
    return next(
        (
            followed
            for followed in turn.state.followed
            if followed.observation is not None and followed.answer.camera == camera.camera
        ),
        None,
    )


def may_step(turn: Turn, camera: CameraState) -> bool:
    """Whether live tracks leave a step: they have earned it, there are none, or no frame comes."""
    if not camera.tracks or camera.branch_credit >= 1 or camera.newest is None:
        return True
    return turn.at_ns - camera.newest.received_ns > QUIET_NS


def take_results(turn: Turn, ask_id: AskId, results: Iterable[StepResult]) -> None:
    """One job is done: add its masks."""
    followed = next((f for f in turn.state.followed if f.ask_id == ask_id), None)
    if followed is None or followed.observation is None:
        return  # it is not wanted any more
    observation = followed.observation
    masks = {observed.frame_index: observed.mask for observed in observation.masks}
    for result in results:
        for found in result.objects:
            known = masks.get(result.frame_index)
            masks[result.frame_index] = (
                found.mask if known is None else rle_union(known, found.mask)
            )
    turn.count("observed_steps")
    advanced = replace(
        observation,
        jobs=observation.jobs[1:],
        masks=tuple(ObservedMask(frame_index=i, mask=masks[i]) for i in sorted(masks)),
    )
    following.advance_observation(turn, ask_id, advanced)


def give_up(turn: Turn, ask_id: AskId, reason: str) -> None:
    """A job broke off: the answer has no masks of its window."""
    followed = next((f for f in turn.state.followed if f.ask_id == ask_id), None)
    if followed is not None:
        following.end_observation(turn, followed, reason)


def _steps_over(indices: Iterable[FrameIndex], key: TrackKey) -> Iterable[tuple[JobStep, ...]]:
    return ((TrackStep(frame_index=index, keys=(key,)),) for index in indices)
