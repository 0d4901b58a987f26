# SPDX-License-Identifier: Apache-2.0
"""The life of a frame and of a query, on a manual clock."""

from __future__ import annotations

import pytest
from tests.support.bench import NS, Bench, moving, still

from foreseg.config import Config, SchedulerConfig
from foreseg.dialogue import (
    Abstained,
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
    EnableSet,
    FrameDropped,
    ReasonerChanged,
    RequestId,
    ResetRequested,
    RunTracker,
    TrackerFailed,
)
from foreseg.pipeline.tracks import TrackState
from foreseg.prompts import SpatialPrompt
from foreseg.telemetry import DropCause


def test_without_tracks_every_frame_publishes_an_empty_map_at_once() -> None:
    bench = Bench({})
    bench.run(1.0)
    assert [m.frame.index for m in bench.masks] == list(range(bench.num_frames["camera"]))
    assert all(m.job_id is None and m.tracks == () for m in bench.masks)


def test_a_users_box_is_tracked_from_the_newest_frame_on() -> None:
    bench = Bench({"cup": still(10, 10)})
    bench.run(0.5)
    request = bench.point("cup", "mug")
    bench.run(0.5)
    reply = bench.replies[request]
    assert (reply.success, reply.object_ids, reply.label_indices) == (True, ("mug",), (1,))
    track = bench.masks[-1].tracks[0]
    assert (track.object_id, track.index, track.state) == ("mug", 1, TrackState.TRACKED)


def test_a_slow_tracker_takes_the_newest_frame_and_counts_the_rest() -> None:
    bench = Bench({"cup": still(10, 10)}, tracker_s=0.1)
    bench.run(0.1)
    bench.point("cup")
    bench.run(5.0)
    shown = [m.frame.index for m in bench.masks]
    assert shown == sorted(set(shown))
    missed = bench.num_frames["camera"] - len(shown)
    assert bench.count("dropped_tracker_busy") == pytest.approx(missed, abs=4)
    assert missed > 50


def test_late_answer_hops_as_uncertain_then_catches_up_and_is_confirmed() -> None:
    bench = Bench({"ball": moving}, reasoner_s=2.0)
    bench.run(1.1)
    request = bench.ask()
    bench.run(2.0)
    bench.run(0.2)
    hopped = next(m for m in bench.masks if m.tracks)
    answer = bench.replies[request].answer
    assert answer is not None
    assert answer.status is AnswerStatus.OK
    assert answer.keyframe_index is not None
    assert hopped.frame.index - answer.keyframe_index > 50
    assert hopped.tracks[0].state is TrackState.UNCERTAIN
    assert hopped.tracks[0].catching_up
    assert hopped.tracks[0].answer_age_s == pytest.approx(2.0, abs=0.2)
    bench.run(3.0)
    last = bench.masks[-1].tracks[0]
    assert (last.state, last.catching_up) == (TrackState.TRACKED, False)
    assert bench.count("catch_ups_agreed") == 1
    assert bench.held == set()


def test_a_hop_that_went_astray_is_replaced_by_the_catch_up() -> None:
    world = {"ball": moving, "decoy": still(70, 45)}
    bench = Bench(world, reasoner_s=2.0)
    bench.tracker["camera"].loses_after = 40
    bench.tracker["camera"].astray = "decoy"
    bench.run(1.1)
    bench.ask()
    bench.run(6.0)
    hopped = next(m for m in bench.masks if m.tracks)
    assert hopped.tracks[0].box == world["decoy"](0)
    assert bench.count("catch_ups_disagreed") == 1
    last = bench.masks[-1]
    assert last.tracks[0].box == moving(last.frame.index)
    assert len(bench.tracker["camera"].rows) == 1


def test_catch_up_leaves_live_tracks_their_share() -> None:
    config = Config()
    bench = Bench({"cup": still(10, 10), "ball": moving}, tracker_s=0.025, reasoner_s=3.0)
    bench.target = "ball"
    bench.run(0.2)
    bench.point("cup")
    bench.run(1.0)
    bench.ask()
    bench.run(3.0)
    start = bench.now_ns
    bench.run(2.0)
    during = [m for m in bench.masks if start < m.frame.stamp_ns]
    if bench.count("catch_ups_planned"):
        assert bench.count("catch_up_steps") > 0
    assert len(during) >= config.catch_up.live_share * 2.0 * 30 * 0.95


def test_no_stride_arrives_so_the_hop_stays_uncertain() -> None:
    bench = Bench({"ball": moving}, tracker_s=0.5, reasoner_s=2.0)
    bench.run(1.1)
    bench.ask()
    bench.run(8.0)
    bench.ask(query_id="r")
    bench.run(8.0)
    assert bench.count("catch_ups_impossible") >= 1


def test_an_evicted_keyframe_is_a_clean_counted_result() -> None:
    bench = Bench({"ball": moving}, reasoner_s=1.0)
    bench.parts = lambda command, frames: [
        replace_keyframe(part) for part in bench._answer(command, frames)
    ]

    def replace_keyframe(part):  # noqa: ANN001, ANN202
        from dataclasses import replace

        return replace(part, keyframe_index=3) if hasattr(part, "keyframe_index") else part

    bench.run(1.5)
    request = bench.ask()
    bench.run(2.0)
    answer = bench.replies[request].answer
    assert answer is not None
    assert answer.status is AnswerStatus.EVICTED
    assert "keyframe 3" in answer.reason
    assert bench.count("answers_evicted") == 1
    assert bench.held == set()


def test_an_answer_to_a_changed_query_is_stale_dropped_and_counted() -> None:
    bench = Bench({"ball": moving}, reasoner_s=1.0)
    bench.run(1.1)
    first = bench.ask("what falls?")
    bench.run(0.5)
    second = bench.ask("what rolls?")
    bench.run(3.0)
    assert bench.replies[first].success is False
    assert bench.replies[second].success is True
    assert bench.count("answers_stale") == 1
    assert bench.cancelled == {1}
    assert [a.query_text for a in bench.answers if a.status is AnswerStatus.OK] == ["what rolls?"]
    assert bench.held == set()


def test_a_query_removed_while_its_answer_hops_leaves_no_track() -> None:
    bench = Bench({"ball": moving}, reasoner_s=1.0, tracker_s=0.2)
    bench.run(1.1)
    bench.ask(period_s=5.0)
    bench.run(1.1)  # the answer has come, the hop runs
    assert bench.state.running is not None
    assert bench.state.running.arrivals
    bench.forget()
    bench.run(1.0)
    assert bench.masks[-1].tracks == ()
    assert bench.tracker["camera"].rows == {}
    assert bench.held == set()


def test_re_asking_about_the_same_object_leaves_its_track_untouched() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.5)
    bench.run(1.1)
    bench.ask(period_s=2.0)
    bench.run(12.0)
    assert len(bench.asks) >= 5
    assert bench.count("answers_matched") >= 4
    track = bench.masks[-1].tracks[0]
    assert (track.object_id, track.index) == ("object-1", 1)
    assert {a.object_ids for a in bench.answers} == {("object-1",)}
    assert bench.tracker["camera"].max_rows_seen <= 4


def test_another_answer_that_leads_to_the_same_mask_confirms_a_hopped_track() -> None:
    bench = Bench({"ball": moving}, tracker_s=0.5, reasoner_s=2.0)
    bench.run(1.1)
    bench.ask(period_s=6.0)
    bench.run(5.0)
    assert bench.masks[-1].tracks[0].state is TrackState.UNCERTAIN
    bench.run(8.0)
    assert bench.count("answers_matched") >= 1
    assert bench.masks[-1].tracks[0].state is TrackState.TRACKED


def asked_in_turn(targets: list[str], config: Config | None = None) -> tuple[Bench, list[str]]:
    """The object id after each answer of one query; boxes of 20 px, so IoUs are exact."""
    world = {
        "here": still(10, 10, 20),
        "near": still(17, 10, 20),  # IoU 13 / 27 = 0.48 with `here`
        "nearer": still(16, 10, 20),  # 14 / 26 = 0.54
        "apart": still(22, 10, 20),  # 8 / 32 = 0.25, and 0.6 with `near`
        "away": still(24, 10, 20),  # 6 / 34 = 0.18
    }
    bench = Bench(world, config=config, reasoner_s=0.2)
    bench.run(1.1)
    ids = []
    for number, target in enumerate(targets):
        bench.target = target
        if number == 0:
            bench.ask(period_s=2.0)
        bench.run(2.0)
        (track,) = bench.masks[-1].tracks
        ids.append(str(track.object_id))
        assert bench.answers[-1].object_ids == (track.object_id,)
    return bench, ids


def test_masks_whose_overlap_jitters_about_the_threshold_keep_their_id() -> None:
    bench, ids = asked_in_turn(["here", *["near", "nearer"] * 4, "near", "here"])
    assert set(ids) == {"object-1"}
    assert bench.count("answers_doubted") == 5
    assert bench.count("answers_matched") == 5
    (track,) = bench.masks[-1].tracks
    assert track.answer_age_s < 2.5


def test_an_answer_that_goes_on_disagreeing_gets_a_track_of_its_own() -> None:
    bench, ids = asked_in_turn(["here", "near", "near", "near", "near"])
    assert len(set(ids[:2])) == 1
    assert len(set(ids[2:])) == 1
    assert ids[1] != ids[2]
    assert bench.count("answers_doubted") == 1


def test_a_doubted_track_is_no_younger_than_its_last_sure_answer() -> None:
    bench, _ = asked_in_turn(["here", "near"])
    assert bench.masks[-1].tracks[0].answer_age_s > 3.5


@pytest.mark.parametrize(
    ("target", "let_go", "keeps"), [("apart", 2, True), ("away", 2, False), ("near", 1, False)]
)
def test_what_overlaps_too_little_is_replaced_at_once(
    target: str, let_go: int, *, keeps: bool
) -> None:
    config = Config(scheduler=SchedulerConfig(answers_to_let_go=let_go))
    _, ids = asked_in_turn(["here", target], config)
    assert (ids[0] == ids[1]) is keeps


def test_several_targets_of_one_answer_catch_up_together() -> None:
    bench = Bench({"ball": moving, "cup": still(70, 10), "can": still(70, 40)}, reasoner_s=1.0)

    def all_three(command: AskReasoner, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
        del command
        boxes = [truth(int(frames[-1].index)) for truth in bench.world.values()]
        prompts = tuple(SpatialPrompt(box=box) for box in boxes)
        return [TargetsFound(keyframe_index=frames[-1].index, prompts=prompts), AnswerDone()]

    bench.parts = all_three
    bench.run(1.1)
    bench.ask()
    bench.run(1.0 + 5.5)  # the answer, and the budget
    assert [t.state for t in bench.masks[-1].tracks] == [TrackState.TRACKED] * 3
    assert bench.count("catch_ups_agreed") == 3


def test_a_different_answer_takes_the_place_of_the_one_before() -> None:
    bench = Bench({"ball": moving, "cup": still(70, 10)}, reasoner_s=0.5)
    bench.run(1.1)
    bench.ask(period_s=2.0)
    bench.run(2.0)
    first = [t.object_id for t in bench.masks[-1].tracks]
    bench.target = "cup"
    bench.run(1.2)
    (track,) = bench.masks[-1].tracks
    assert [track.object_id] != first
    assert len(first) == 1


def test_an_answer_that_names_nothing_must_repeat_before_the_object_is_let_go() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.5)
    bench.run(1.1)
    bench.ask(period_s=2.0)
    bench.run(2.0)
    bench.target = None
    bench.run(1.2)
    assert [a.status for a in bench.answers][-1] is AnswerStatus.NO_TARGET
    assert len(bench.masks[-1].tracks) == 1
    bench.run(2.0)
    assert bench.masks[-1].tracks == ()


def test_no_target_is_an_answer_with_its_reason() -> None:
    bench = Bench({}, reasoner_s=0.2)
    bench.run(1.1)
    request = bench.ask()
    bench.run(1.0)
    answer = bench.replies[request].answer
    assert answer is not None
    assert (answer.status, answer.reason) == (AnswerStatus.NO_TARGET, "nothing fits")
    assert bench.state.queries == ()


def test_abstaining_is_no_evidence_and_lets_nothing_go() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.5)
    bench.run(1.1)
    bench.ask(period_s=1.0)
    bench.run(1.0)
    (track,) = bench.masks[-1].tracks
    bench.parts = lambda _command, _frames: [Abstained(reason="the camera moves"), AnswerDone()]
    bench.run(6.0)
    assert sum(a.status is AnswerStatus.ABSTAINED for a in bench.answers) >= 4
    assert {a.reason for a in bench.answers[1:]} == {"the camera moves"}
    assert [t.object_id for t in bench.masks[-1].tracks] == [track.object_id]
    assert bench.state.counters["answers_abstained"] >= 4
    request = bench.ask(text="what rolls?")
    bench.run(2.0)
    reply = bench.replies[request]
    assert reply.answer is not None
    assert (reply.success, reply.message) == (False, "the camera moves")
    assert reply.answer.status is AnswerStatus.ABSTAINED


def test_the_first_question_waits_until_the_stream_is_warm() -> None:
    bench = Bench({"ball": moving})
    bench.ask()
    bench.run(0.9)
    assert bench.asks == []
    bench.run(0.4)
    assert len(bench.asks) == 1


def test_the_reasoner_dying_fails_its_question_and_masks_go_on() -> None:
    bench = Bench({"cup": still(10, 10)}, reasoner_s=30.0)
    bench.run(1.1)
    bench.point("cup")
    request = bench.ask()
    bench.run(0.5)
    bench.send(ReasonerChanged(is_up=False, reason="killed by signal 9", at_ns=bench.now_ns))
    answer = bench.replies[request].answer
    assert answer is not None
    assert answer.status is AnswerStatus.FAILED
    assert "signal 9" in answer.reason
    before = len(bench.masks)
    bench.run(1.0)
    assert len(bench.masks) - before >= 29
    bench.reasoner_s = 0.2
    bench.send(ReasonerChanged(is_up=True, reason="again", at_ns=bench.now_ns))
    again = bench.ask()
    bench.run(1.0)
    assert bench.replies[again].success
    assert bench.held == set()


def test_what_is_to_be_known_of_a_reasoner_stands_in_the_state_while_it_is_up() -> None:
    bench = Bench({"cup": still(10, 10)})
    known = "UNCHECKED: it sees nothing"
    bench.send(ReasonerChanged(is_up=True, reason="new", at_ns=bench.now_ns, caution=known))
    assert bench.state.reasoner_caution == known
    bench.send(ReasonerChanged(is_up=False, reason="killed", at_ns=bench.now_ns))
    assert bench.state.reasoner_caution == ""


def test_a_question_without_an_end_times_out() -> None:
    config = Config()
    bench = Bench({"ball": moving}, config=config)
    bench.parts = lambda *_: [RationalePart(text="hm")]
    bench.run(1.1)
    request = bench.ask(want_rationale=True)
    bench.run(config.reasoner.timeout_s + 1)
    answer = bench.replies[request].answer
    assert answer is not None
    assert (answer.status, answer.rationale) == (AnswerStatus.FAILED, "hm")
    assert bench.held == set()


def test_a_users_own_deadline_ends_the_wait() -> None:
    bench = Bench({"ball": moving}, reasoner_s=20)
    bench.run(1.1)
    request = bench.ask(timeout_s=1.5)
    bench.run(2.0)
    assert bench.replies[request].success is False
    assert bench.state.queries == ()
    assert bench.state.asking is None


def test_a_failed_answer_says_why() -> None:
    bench = Bench({"ball": moving})
    bench.parts = lambda *_: [AnswerFailed(reason="unparsable")]
    bench.run(1.1)
    request = bench.ask()
    bench.run(2.0)
    assert "unparsable" in bench.replies[request].message


def test_a_period_shorter_than_an_answer_takes_is_refused() -> None:
    bench = Bench({"ball": moving}, reasoner_s=2.0)
    bench.run(1.1)
    bench.ask()
    bench.run(3.0)
    reply = bench.replies[bench.ask(query_id="often", period_s=0.5)]
    assert reply.success is False
    assert "0.5 s is shorter" in reply.message


def test_queries_are_bounded_and_take_turns() -> None:
    config = Config(scheduler=SchedulerConfig(max_queries=3))
    bench = Bench({"ball": moving}, config=config, reasoner_s=0.5)
    for name in "abc":
        bench.ask(query_id=name, period_s=1.0)
    reply = bench.replies[bench.ask(query_id="d", period_s=1.0)]
    assert reply.success is False
    bench.run(12.0)
    counts = [sum(a.query.id == name for a in bench.asks) for name in "abc"]
    assert max(counts) - min(counts) <= 1


def test_an_unseen_object_is_occluded_then_lost_and_asked_again() -> None:
    def hidden(index: int) -> BoxXyxy | None:
        return None if 90 < index < 300 else moving(index)

    bench = Bench({"ball": hidden}, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask(period_s=1000.0)
    bench.run(2.5)
    assert bench.masks[-1].tracks[0].state is TrackState.OCCLUDED
    asked = len(bench.asks)
    bench.run(4.0)
    assert bench.masks[-1].tracks[0].state is TrackState.LOST
    assert len(bench.asks) == asked + 1
    bench.run(5.0)
    assert bench.masks[-1].tracks[0].state is TrackState.TRACKED


def test_two_cameras_share_the_tracker_fairly_and_stay_apart() -> None:
    left, right = CameraId("left"), CameraId("right")
    bench = Bench({"cup": still(10, 10)}, cameras=(left, right), tracker_s=0.03)
    bench.run(0.5)
    bench.point("cup", "l", camera=left)
    bench.point("cup", "r", camera=right)
    bench.run(4.0)
    shown = {
        c: [m for m in bench.masks if m.frame.camera == c and m.tracks] for c in (left, right)
    }
    assert abs(len(shown[left]) - len(shown[right])) <= 2
    assert {t.object_id for m in shown[left] for t in m.tracks} == {"l"}
    assert {t.object_id for m in shown[right] for t in m.tracks} == {"r"}


def test_a_failed_job_gives_up_its_arrival_and_live_tracks_go_on() -> None:
    bench = Bench({"cup": still(10, 10), "ball": moving})
    bench.run(0.2)
    bench.point("cup", "cup")
    bench.run(0.2)
    request = bench.point("ball", "ball")
    running = bench.state.running
    while running is None or not running.arrivals:
        bench.run(0.005)
        running = bench.state.running
    bench._queue.clear()
    bench.send(
        TrackerFailed(
            job_id=running.job.id, reason="no row is free", is_evicted=False, at_ns=bench.now_ns
        )
    )
    assert bench.replies[request].message == "no row is free"
    bench.run(0.5)
    assert [t.object_id for t in bench.masks[-1].tracks] == ["cup"]
    assert set(bench.tracker["camera"].rows) == {"cup"}


def test_reset_forgets_tracks_and_asks_standing_queries_anew() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask(period_s=100.0)
    bench.run(1.0)
    bench.send(ResetRequested(request_id=RequestId(77), at_ns=bench.now_ns))
    assert bench.replies[RequestId(77)].success
    bench.run(1.0)
    assert [t.object_id for t in bench.masks[-1].tracks] == ["object-2"]
    assert len(bench.asks) == 2


def test_a_standing_query_waits_while_its_camera_is_silent() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask(period_s=1.0)
    bench.run(1.5)
    bench.target = None  # each answer names nothing from here on
    for _ in range(40):
        bench.work(0.5)
        bench.tick()
    assert len(bench.asks) == 3  # the one after the last frame, and no more in 20 s
    assert bench.asks[-1].ask_id not in bench.held
    bench.frame()
    assert len(bench.asks) == 4, "at once, with the next frame"
    bench.work(2.0)
    bench.tick()
    bench.send(ResetRequested(request_id=RequestId(77), at_ns=bench.now_ns))
    assert len(bench.asks) == 5, "a user who resets asks anew, about the same frame too"


def test_disabled_asks_and_tracks_nothing() -> None:
    bench = Bench({"ball": moving})
    bench.run(1.1)
    bench.send(EnableSet(enabled=False, request_id=RequestId(5), at_ns=bench.now_ns))
    bench.ask()
    bench.run(2.0)
    assert bench.asks == []
    assert not any(isinstance(c, RunTracker) for _, commands in bench.log for c in commands)


def test_drops_are_counted_by_cause() -> None:
    bench = Bench({})
    for _ in range(3):
        bench.send(FrameDropped(camera=CameraId("camera"), cause=DropCause.BAD_IMAGE, at_ns=0))
    assert bench.count(f"dropped_{DropCause.BAD_IMAGE.value}") == 3


def test_a_restarted_stream_keeps_its_tracks() -> None:
    bench = Bench({"cup": still(10, 10)})
    bench.run(2.0)
    bench.point("cup", "cup")
    bench.run(0.2)
    bench.frame(stamp_ns=0)
    assert bench.count("stream_restarts") == 1
    bench.run(0.025)
    track = bench.masks[-1].tracks[0]
    assert track.answer_age_s == 0
    assert track.state is TrackState.TRACKED


def test_parts_for_a_question_that_is_over_are_ignored() -> None:
    bench = Bench({"ball": moving}, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask()
    bench.run(1.0)
    part = RationalePart(text="late")
    bench.send(AnswerPartArrived(ask_id=bench.asks[0].ask_id, part=part, at_ns=bench.now_ns))
    assert bench.count("answer_parts_stale") == 1


def test_the_state_does_not_grow_with_the_stream() -> None:
    import pickle

    bench = Bench({"ball": moving}, reasoner_s=0.3)
    bench.run(1.1)
    bench.ask(period_s=1.0)
    sizes = []
    for _ in range(6):
        bench.run(20.0)
        sizes.append(len(pickle.dumps(bench.state)))
    assert max(sizes[1:]) <= sizes[0] * 1.3
    assert bench.now_ns > 100 * NS
