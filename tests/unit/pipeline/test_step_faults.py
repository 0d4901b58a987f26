# SPDX-License-Identifier: Apache-2.0
"""Each bug that the pipeline once had, as the sentence that is true now."""

from __future__ import annotations

import pytest
from tests.support.bench import NS, Bench, still

from foreseg.config import Config, TrackerConfig
from foreseg.dialogue import (
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    AnswerStatus,
    RationalePart,
    TargetsFound,
)
from foreseg.frames import CameraId, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.pipeline.events import (
    AnswerPartArrived,
    AskReasoner,
    DropStep,
    EnableSet,
    ObjectRemoved,
    RequestId,
    ResetRequested,
    TrackerFailed,
)
from foreseg.pipeline.tracks import TrackState
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.tracker.base import TrackKey


def moving(index: int) -> BoxXyxy:
    return BoxXyxy(5 + index * 0.05, 20, 17 + index * 0.05, 32)


def remove(bench: Bench, object_id: str) -> None:
    request = RequestId(10_000 + len(bench.log))
    removed = ObjectRemoved(object_id=ObjectId(object_id), request_id=request, at_ns=bench.now_ns)
    bench.send(removed)


def fail_running_job(bench: Bench) -> None:
    running = bench.state.running
    assert running is not None
    bench._queue.clear()
    failed = TrackerFailed(
        job_id=running.job.id, reason="broke off", is_evicted=False, at_ns=bench.now_ns
    )
    bench.send(failed)


def run_until_hop(bench: Bench) -> None:
    for _ in range(10_000):
        running = bench.state.running
        if running is not None and running.arrivals:
            return
        bench.run(0.001)
    pytest.fail("no hop began")


def test_a_completion_that_breaks_after_its_target_hopped_releases_its_window() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.5)

    def parts(ask: AskReasoner, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
        failed = AnswerFailed(reason="out of memory")
        at_ns = bench.now_ns + 2 * NS
        bench.post(2.0, AnswerPartArrived(ask_id=ask.ask_id, part=failed, at_ns=at_ns))
        return bench._answer(ask, frames)[:1]

    bench.parts = parts
    bench.run(1.1)
    request = bench.ask()
    bench.run(1.0)
    assert bench.replies[request].success
    assert bench.held
    bench.run(2.0)
    assert bench.held == set()


@pytest.mark.parametrize(("is_wanted", "rationale"), [(True, "because"), (False, "")])
def test_what_is_said_while_the_hop_runs_reaches_the_answer_if_wanted(
    is_wanted: bool,  # noqa: FBT001 (of a parametrised test)
    rationale: str,
) -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.5, tracker_s=0.2)
    bench.parts = lambda ask, frames: [
        bench._answer(ask, frames)[0],
        RationalePart(text="because"),
        AnswerDone(tokens=42),
    ]
    bench.run(1.1)
    request = bench.ask(want_rationale=is_wanted)
    bench.run(2.0)
    answer = bench.replies[request].answer
    assert answer is not None
    assert (answer.rationale, answer.tokens) == (rationale, 42)
    assert {published.rationale for published in bench.answers} == {rationale}


def test_an_object_removed_while_it_is_refined_stays_gone() -> None:
    bench = Bench({"cup": still(10, 10), "can": still(60, 10)}, tracker_s=0.05)
    bench.run(0.2)
    bench.point("cup", "it")
    bench.run(0.3)
    bench.point("can", "it")
    run_until_hop(bench)
    remove(bench, "it")
    bench.run(0.5)
    assert bench.masks[-1].tracks == ()
    assert bench.tracker["camera"].rows == {}


def test_rows_to_drop_are_dropped_even_if_the_job_that_should_failed() -> None:
    bench = Bench({"cup": still(10, 10), "can": still(60, 10)}, tracker_s=0.02)
    bench.run(0.2)
    bench.point("cup", "cup")
    bench.point("can", "can")
    bench.run(0.3)
    remove(bench, "can")
    while bench.state.running is None or not any(
        isinstance(item, DropStep) for item in bench.state.running.job.steps
    ):
        bench.run(0.001)
    can = TrackKey("can")
    bench.tracker["camera"].rows[can] = ("can", 0)  # the job failed before its first step
    fail_running_job(bench)
    bench.run(0.3)
    assert set(bench.tracker["camera"].rows) == {"cup"}


def test_an_answers_object_never_takes_an_id_that_a_user_gave() -> None:
    bench = Bench({"ball": moving, "cup": still(70, 40)}, reasoner_s=0.2)
    bench.run(1.1)
    bench.point("cup", "object-1")
    bench.ask()
    bench.run(1.0)
    shown = {t.object_id: t.box for t in bench.masks[-1].tracks}
    assert set(shown) == {"object-1", "object-2"}
    assert shown[ObjectId("object-1")] == still(70, 40)(0)


def test_a_hop_that_runs_at_a_reset_leads_to_nothing() -> None:
    bench = Bench({"cup": still(10, 10)}, tracker_s=0.1)
    bench.run(0.2)
    request = bench.point("cup", "cup")
    run_until_hop(bench)
    bench.send(ResetRequested(request_id=RequestId(77), at_ns=bench.now_ns))
    assert bench.replies[request].message == "tracks were reset"
    bench.run(1.0)
    assert bench.masks[-1].tracks == ()
    assert bench.tracker["camera"].rows == {}


def test_a_hop_on_one_camera_does_not_hold_back_anothers_empty_maps() -> None:
    left, right = CameraId("left"), CameraId("right")
    bench = Bench({"cup": still(10, 10)}, cameras=(left, right), tracker_s=0.5)
    bench.run(0.2)
    bench.point("cup", "cup", camera=left)
    bench.run(1.0)
    shown = [m.frame.index for m in bench.masks if m.frame.camera == right]
    assert shown == list(range(bench.num_frames[right]))


def test_rows_are_dropped_though_another_camera_keeps_the_tracker_busy() -> None:
    left, right = CameraId("left"), CameraId("right")
    bench = Bench({"cup": still(10, 10)}, cameras=(left, right))
    bench.run(0.2)
    bench.point("cup", "l", camera=left)
    bench.point("cup", "r", camera=right)
    bench.run(0.3)
    remove(bench, "r")
    bench.run(0.3)
    assert bench.tracker[right].rows == {}


def test_a_full_roster_makes_room_for_an_answer_at_once() -> None:
    config = Config(tracker=TrackerConfig(max_tracks=1, index_reuse_s=60.0))
    bench = Bench({"ball": moving, "cup": still(70, 40)}, config=config, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask()
    bench.run(1.0)
    bench.target = "cup"
    second = bench.ask(query_id="r")
    bench.run(1.0)
    assert bench.replies[second].success
    assert [(t.box, t.index) for t in bench.masks[-1].tracks] == [(still(70, 40)(0), 1)]


def test_a_users_object_takes_the_place_of_one_that_nobody_wants_any_more() -> None:
    config = Config(tracker=TrackerConfig(max_tracks=1))
    bench = Bench({"ball": moving, "cup": still(70, 40)}, config=config, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask()
    bench.run(1.0)
    request = bench.point("cup", "mine")
    bench.run(0.5)
    assert bench.replies[request].success
    assert [t.object_id for t in bench.masks[-1].tracks] == ["mine"]


def test_an_object_for_a_paused_pipeline_is_refused_at_once() -> None:
    bench = Bench({"cup": still(10, 10)})
    bench.run(0.2)
    bench.send(EnableSet(enabled=False, request_id=RequestId(5), at_ns=bench.now_ns))
    assert "paused" in bench.replies[bench.point("cup")].message


@pytest.mark.parametrize("object_id", ["x" * 129, "object-1~3"])
def test_an_object_id_that_is_too_long_or_looks_like_a_branch_is_refused(object_id: str) -> None:
    bench = Bench({"cup": still(10, 10)})
    bench.run(0.2)
    assert "an object id wants" in bench.replies[bench.point("cup", object_id)].message


def test_prompts_beyond_a_bound_are_refused_while_the_tracker_is_busy() -> None:
    bench = Bench({"cup": still(10, 10)}, tracker_s=100.0)
    bench.run(0.2)
    requests = [bench.point("cup", "it") for _ in range(200)]
    refused = [bench.replies[r] for r in requests if r in bench.replies]
    assert len(refused) > 100
    assert all("wait for the tracker already" in reply.message for reply in refused)


def test_a_replaced_hop_is_never_published_as_tracked() -> None:
    world = {"ball": moving, "decoy": still(70, 45)}
    bench = Bench(world, reasoner_s=2.0)
    bench.tracker["camera"].loses_after = 40
    bench.tracker["camera"].astray = "decoy"
    bench.run(1.1)
    bench.ask()
    bench.run(6.0)
    assert bench.count("catch_ups_disagreed") == 1
    trusted = [m for m in bench.masks if m.tracks and m.tracks[0].state is TrackState.TRACKED]
    assert trusted
    assert all(m.tracks[0].box == moving(m.frame.index) for m in trusted)


def test_a_camera_that_was_away_is_not_thought_to_be_slow() -> None:
    bench = Bench({"cup": still(10, 10)})
    bench.run(3.0)
    bench.now_ns += 3600 * 10**9
    bench.frame()
    assert bench.state.cameras[CameraId("camera")].rates.camera_hz > 7


def test_rates_are_measured_from_the_first_frames_on() -> None:
    bench = Bench({"cup": still(10, 10)}, camera_hz=10.0, tracker_s=0.004)
    bench.run(0.5)
    bench.point("cup")
    bench.run(0.5)
    rates = bench.state.cameras[CameraId("camera")].rates
    assert rates.camera_hz == pytest.approx(10.0, rel=0.01)
    assert rates.live_hz == pytest.approx(250.0, rel=0.01)


def test_after_a_restart_an_unseen_object_is_lost_in_due_time() -> None:
    bench = Bench({"ball": lambda index: moving(index) if index < 40 else None}, tracker_s=0.02)
    bench.run(1.0)
    bench.point("ball", "ball")
    bench.run(0.2)
    while bench.state.running is None:  # a job of the old stream ends in the new one
        bench.run(0.001)
    start_ns = bench.now_ns
    for _ in range(120):
        bench.frame(stamp_ns=bench.now_ns - start_ns)
        bench.work(0.033)
    assert [m.tracks[0].state for m in bench.masks[-5:]] == [TrackState.LOST] * 5


def test_a_deadline_withdraws_what_is_on_its_way() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.5, tracker_s=5.0)
    bench.run(1.1)
    request = bench.ask(timeout_s=1.0)
    bench.run(2.0)
    answer = bench.replies[request].answer
    assert answer is not None
    assert answer.status is AnswerStatus.FAILED
    bench.run(10.0)
    assert len(bench.answers) == 1
    assert bench.masks[-1].tracks == ()


def restarted(bench: Bench) -> None:
    """The camera's clock begins anew, two seconds of it."""
    start_ns = bench.now_ns
    for _ in range(60):
        bench.frame(stamp_ns=bench.now_ns - start_ns)
        bench.work(1 / 30)


@pytest.mark.parametrize(
    ("fields", "after_s"),
    [
        ({"reasoner_s": 1.0}, 0.5),  # the reasoner has the question
        ({"reasoner_s": 0.1, "tracker_s": 1.0}, 0.5),  # its answer hops
    ],
)
def test_an_answer_that_is_on_its_way_at_a_restart_is_stale(
    fields: dict[str, float], after_s: float
) -> None:
    bench = Bench({"ball": moving}, **fields)
    bench.run(3.0)
    request = bench.ask()
    bench.run(after_s)
    assert bench.answers == []
    restarted(bench)
    (answer,) = bench.answers
    assert (answer.status, answer.reason) == (AnswerStatus.STALE, "the stream began anew")
    assert answer.asked_stamp_ns <= answer.answered_stamp_ns
    assert bench.replies[request].answer == answer
    assert not bench.replies[request].success
    assert bench.state.queries == ()
    assert bench.state.asking is None
    assert bench.held == set()
    assert bench.count("answers_stale") == 1
    assert bench.masks[-1].tracks == ()


def test_a_standing_query_is_asked_again_of_the_new_stream() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.5)
    bench.run(3.0)
    bench.ask(period_s=30.0)
    bench.run(0.2)
    restarted(bench)
    stale, answer = bench.answers
    assert (stale.status, answer.status) == (AnswerStatus.STALE, AnswerStatus.OK)
    assert 0 < answer.asked_stamp_ns < answer.answered_stamp_ns < 2 * NS
    assert [q.query.id for q in bench.state.queries] == ["q"]
    assert bench.masks[-1].tracks[0].query_ids == ("q",)


def test_a_rationale_ends_at_a_restart_and_its_answer_stays_as_it_is() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.1)

    def parts(command: AskReasoner, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
        bench.post_part(command, 1.0, RationalePart(text="because"))
        bench.post_part(command, 1.1, AnswerDone(tokens=9))
        box = moving(int(frames[-1].index))
        return [TargetsFound(keyframe_index=frames[-1].index, prompts=(SpatialPrompt(box=box),))]

    bench.parts = parts
    bench.run(3.0)
    bench.ask(want_rationale=True)
    bench.run(0.5)
    assert [a.status for a in bench.answers] == [AnswerStatus.OK]
    restarted(bench)
    assert [a.status for a in bench.answers] == [AnswerStatus.OK]
    assert bench.state.asking is None
    assert bench.cancelled == {bench.asks[0].ask_id}
    assert bench.count("answer_parts_stale") == 2


def test_a_window_that_is_segmented_at_a_restart_ends_with_the_reason() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.1, tracker_s=0.03)
    bench.run(3.0)
    request = bench.ask(want_observed_masks=True)
    while not bench.answers:
        bench.run(0.01)
    assert request not in bench.replies
    restarted(bench)
    answer = bench.replies[request].answer
    assert answer is not None
    assert answer.status is AnswerStatus.OK
    assert answer.reason == "the window was not segmented: the stream began anew"
    assert bench.state.followed == ()


def test_a_restart_of_one_camera_leaves_the_others_questions_alone() -> None:
    left, right = CameraId("left"), CameraId("right")
    bench = Bench({"ball": moving}, cameras=(left, right), reasoner_s=0.5)
    bench.run(3.0)
    request = bench.ask(camera=left)
    bench.run(0.2)
    bench.frame(right, stamp_ns=0)
    bench.run(1.0)
    answer = bench.replies[request].answer
    assert answer is not None
    assert answer.status is AnswerStatus.OK
