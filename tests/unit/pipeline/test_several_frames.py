# SPDX-License-Identifier: Apache-2.0
"""One object, prompted on several frames: an answer that was drawn on all of them, or a user."""

from __future__ import annotations

import pytest
from tests.support.bench import SIZE_WH, Bench, moving, still

from foreseg.dialogue import (
    AnswerDone,
    AnswerPart,
    AnswerStatus,
    ObservedMask,
    TargetsFound,
)
from foreseg.frames import DEFAULT_CAMERA, FrameRef
from foreseg.masks import MaskRle, mask_from_box, rle_from_mask
from foreseg.pipeline.catch_up import BRANCH_MARK
from foreseg.pipeline.events import (
    AskReasoner,
    ForkStep,
    JobStep,
    PromptStep,
    RunTracker,
    TrackerFailed,
    TrackStep,
)
from foreseg.pipeline.objects import MAX_FRAMES_BESIDE
from foreseg.pipeline.tracks import TrackState
from foreseg.prompts import SpatialPrompt

ABSENT = MaskRle(height=SIZE_WH[1], width=SIZE_WH[0], counts="")


def mask_on(index: int) -> MaskRle:
    return rle_from_mask(mask_from_box(moving(index), SIZE_WH))


def drawn(
    keyframe: int = 1, *, num_targets: int = 1, gone: tuple[int, ...] = (), num_drawn: int = 1
) -> object:
    """Parts of an answer that was decoded on every frame that is held."""

    def parts(command: AskReasoner, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
        del command
        masks = tuple(
            ObservedMask(
                frame_index=frame.index, mask=ABSENT if i in gone else mask_on(frame.index)
            )
            for i, frame in enumerate(frames)
        )
        prompt = SpatialPrompt(mask=masks[keyframe].mask)
        found = TargetsFound(
            keyframe_index=frames[keyframe].index,
            prompts=(prompt,) * num_targets,
            masks_by_frame=masks,
            num_drawn=num_drawn,
        )
        return [found, AnswerDone(tokens=7)]

    return parts


def steps_of_hop(bench: Bench) -> tuple[JobStep, ...]:
    """Of the first job with a prompt."""
    jobs = (
        c.job.steps for _, commands in bench.log for c in commands if isinstance(c, RunTracker)
    )
    return next(steps for steps in jobs if any(isinstance(s, PromptStep) for s in steps))


def prompted(bench: Bench) -> list[int]:
    return [int(s.frame_index) for s in steps_of_hop(bench) if isinstance(s, PromptStep)]


def test_an_answer_drawn_on_its_frames_is_prompted_on_all_of_them_and_hops_from_the_newest() -> (
    None
):
    bench = Bench({"ball": moving})
    bench.parts = drawn(keyframe=1, gone=(3,))  # type: ignore[assignment]
    bench.run(1.2)
    bench.ask()
    bench.run(0.1)
    assert bench.state.asking is not None
    held = [frame.index for frame in bench.state.asking.frames]
    bench.run(4.0)
    keyframe = held[1]
    assert prompted(bench) == [keyframe, held[0], held[2], held[4], held[5]]  # the newest last
    steps = steps_of_hop(bench)
    assert isinstance(steps[-1], TrackStep)
    assert isinstance(steps[-2], ForkStep)  # with all that the row was prompted with
    assert all(s.prompt.mask is not None for s in steps if isinstance(s, PromptStep))
    walked = [
        int(s.frame_index)
        for _, commands in bench.log
        for c in commands
        if isinstance(c, RunTracker)
        for s in c.job.steps
        if isinstance(s, TrackStep) and BRANCH_MARK in s.keys[0]
    ]
    assert min(walked) > held[5]  # it catches up from the newest, too
    answer = bench.answers[-1]
    assert (answer.status, answer.keyframe_index) == (AnswerStatus.OK, keyframe)
    assert bench.masks[-1].tracks[0].state is TrackState.TRACKED
    assert not bench.held


@pytest.mark.parametrize("fields", [{"num_targets": 2}, {"num_drawn": 2}])
def test_of_several_targets_the_keyframe_alone_is_prompted(fields: dict[str, int]) -> None:
    bench = Bench({"ball": moving})
    bench.parts = drawn(**fields)  # type: ignore[assignment, arg-type]
    bench.run(1.2)
    bench.ask()
    bench.run(1.5)
    assert len(set(prompted(bench))) == 1


def test_a_mask_that_does_not_fit_its_frame_fails_the_answer() -> None:
    def parts(command: AskReasoner, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
        del command
        odd = ObservedMask(
            frame_index=frames[0].index,
            mask=rle_from_mask(mask_from_box(moving(0), (50, 60))),
        )
        prompt = SpatialPrompt(mask=mask_on(int(frames[1].index)))
        index = frames[1].index
        return [TargetsFound(keyframe_index=index, prompts=(prompt,), masks_by_frame=(odd,))]

    bench = Bench({"ball": moving})
    bench.parts = parts
    bench.run(1.2)
    bench.ask()
    bench.run(1.5)
    assert bench.answers[-1].status is AnswerStatus.FAILED
    assert "96 x 64" in bench.answers[-1].reason


def test_the_window_is_segmented_from_all_frames_that_were_drawn() -> None:
    bench = Bench({"ball": moving})
    bench.parts = drawn(keyframe=1)  # type: ignore[assignment]
    bench.run(1.2)
    bench.ask(want_observed_masks=True)
    bench.run(4.0)
    begins = [
        [int(s.frame_index) for s in c.job.steps if isinstance(s, PromptStep)]
        for _, commands in bench.log
        for c in commands
        if isinstance(c, RunTracker)
        and any(isinstance(s, PromptStep) and s.key.startswith("observed") for s in c.job.steps)
    ]
    assert [len(indices) for indices in begins] == [6, 6]  # forward, backward
    assert begins[0][-1] == bench.answers[-1].keyframe_index
    assert len(bench.answers[-1].observed) == 6


def test_a_user_prompts_one_object_on_two_frames() -> None:
    bench = Bench({"ball": moving, "other": still(70, 40)})
    bench.run(1.0)
    request = bench.point("ball", "it", frame_index=20, beside=(5,))
    bench.run(0.1)
    assert prompted(bench) == [5, 20]
    assert bench.replies[request].success
    assert bench.replies[request].object_ids == ("it",)
    bench.run(1.0)
    assert [t.object_id for t in bench.masks[-1].tracks] == ["it"]


def test_a_frame_beside_may_be_the_newer_one() -> None:
    bench = Bench({"ball": moving})
    bench.run(1.0)
    newest = bench.num_frames[DEFAULT_CAMERA] - 1
    bench.point("ball", "it", frame_index=5, beside=(newest,))
    bench.work(0.1)
    assert prompted(bench) == [5, newest]
    assert bench.masks[-1].tracks[0].state is TrackState.TRACKED  # it is seen now: no hop
    assert not bench.state.cameras[DEFAULT_CAMERA].catch_ups


@pytest.mark.parametrize(
    ("object_id", "beside", "said"),
    [
        ("", (5,), "wants the id of an object"),
        ("it", (20,), "'it' is prompted twice on one frame"),
        ("it", (5, 5), "'it' is prompted twice on one frame"),
        ("it", tuple(range(MAX_FRAMES_BESIDE + 1)), "on more than 8 frames"),
    ],
)
def test_odd_prompts_beside_are_refused(
    object_id: str, beside: tuple[int, ...], said: str
) -> None:
    bench = Bench({"ball": moving})
    bench.run(1.0)
    request = bench.point("ball", object_id, frame_index=20, beside=beside)
    assert not bench.replies[request].success
    assert said in bench.replies[request].message


def test_a_frame_beside_that_has_left_the_history_is_told() -> None:
    bench = Bench({"ball": moving})
    bench.run(1.0)
    request = bench.point("ball", "it", frame_index=20, beside=(5,))
    assert bench.state.running is not None
    reason = "frame 5 has left the history"
    bench.send(
        TrackerFailed(
            job_id=bench.state.running.job.id, reason=reason, is_evicted=True, at_ns=bench.now_ns
        )
    )
    assert bench.replies[request].message == reason
    bench.run(0.5)  # the rows that were begun go with the next job
    assert bench.tracker[DEFAULT_CAMERA].rows == {}
