# SPDX-License-Identifier: Apache-2.0
"""The streaming protocol's times and scores, with latencies that are given."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="evaluation needs the extra [evaluation]")

from tests.support.episodes import Squares, make_dataset, make_episode, make_objects_episode

from foreseg.config import Config
from foreseg.dialogue import AnswerDone, AnswerStatus, Query, RationalePart
from foreseg.driving.player import Latencies
from foreseg.driving.trace import TraceWriter, read_steps
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, FrameWindow
from foreseg.pipeline.events import FrameArrived, PublishAnswer, PublishMasks
from foreseg.reasoner.base import AnswerStream
from foreseg_evaluation import streaming as streaming_module
from foreseg_evaluation import system as system_module
from foreseg_evaluation.episode import Episode, QuestionKind, TruthSpan
from foreseg_evaluation.reasoners import OracleReasoner
from foreseg_evaluation.results import TARGET
from foreseg_evaluation.scoring import score_episode, stream_scores
from foreseg_evaluation.streaming import (
    StepList,
    StreamRecord,
    play_episode,
    prediction_by_frame,
    prediction_on_screen,
    record_from_steps,
)
from foreseg_evaluation.system import System, SystemConfig

MS = 1_000_000


def play(
    episode: Episode,
    *,
    reasoner: str = "oracle_mask",
    tracker: str = "flow",
    reasoner_ms: float = 0.0,
    tracker_ms: float = 0.0,
    period_s: float = 0.0,
    trace: TraceWriter | None = None,
) -> StreamRecord:
    config = SystemConfig(
        name="test",
        reasoner=reasoner,
        tracker=tracker,
        period_s=period_s,
        settings={"scheduler.warm_up_s": 0.0},
        latencies={"reasoner_ms": reasoner_ms, "tracker_ms": tracker_ms},
    )
    return play_episode(System(config, make_dataset(episode)), episode, trace=trace)


def means(episode: Episode, record: StreamRecord) -> tuple[float, dict[str, float]]:
    result = score_episode(episode, prediction_on_screen(record, episode))
    js = [j for j in result.objects[0].j if j is not None]
    return sum(js) / len(js), {**result.scores, **stream_scores(episode, record)}


def test_a_slow_reasoner_costs_the_time_without_an_answer() -> None:
    episode = make_episode(num_frames=30, media=Squares(step=0))  # 3 s at 10 Hz
    quick_j, quick = means(episode, play(episode))
    slow_j, slow = means(episode, play(episode, reasoner_ms=900))
    assert quick["time_to_first_mask_s"] <= 0.1
    assert slow["time_to_first_mask_s"] == pytest.approx(0.9, abs=0.11)
    assert slow["no_answer_share"] == pytest.approx(0.9 / 3, abs=0.04)
    assert quick_j > 0.9
    assert slow_j == pytest.approx(quick_j * 2 / 3, abs=0.1)  # nothing for the first third


def test_a_slow_tracker_shows_old_masks() -> None:
    episode = make_episode(num_frames=30, media=Squares(step=2))
    quick_j, _ = means(episode, play(episode))
    slow_j, _ = means(episode, play(episode, tracker_ms=350))
    assert slow_j < quick_j - 0.15


def test_the_mask_counts_that_was_published_before_the_next_frame() -> None:
    episode = make_episode(num_frames=10)
    record = play(episode, tracker_ms=60)  # within the 100 ms of a frame
    late = play(episode, tracker_ms=140)
    shown = record.on_screen(record.end_ns(7))
    assert shown is not None
    assert shown.position == 7
    before = late.on_screen(late.end_ns(7))
    assert before is not None
    assert before.position < 7


def test_a_truth_that_expires_makes_an_old_answer_wrong_until_the_next() -> None:
    spans = (
        TruthSpan(first=0, end=15, object_ids=("red",), answer="red"),
        TruthSpan(first=15, end=40, object_ids=("blue",), answer="blue"),
    )
    episode = make_episode(num_frames=40, spans=spans, media=Squares(step=0))
    once = stream_scores(episode, play(episode))
    standing = stream_scores(episode, play(episode, period_s=1.0, reasoner_ms=300))
    assert once["wrong_target_s"] == pytest.approx(2.5, abs=0.1)
    assert 0.1 < standing["wrong_target_s"] < 2.0
    assert standing["answers"] >= 3
    assert once["j_and_f_after_answer_1s"] > 0.9
    assert standing["right_target"] == 1.0


def test_no_target_is_right_only_while_nothing_fits() -> None:
    spans = (
        TruthSpan(first=0, end=20, object_ids=()),
        TruthSpan(first=20, end=40, object_ids=("red",), answer="red"),
    )
    episode = make_episode(num_frames=40, spans=spans, media=Squares(step=0))
    told = stream_scores(episode, play(episode, period_s=1.0))
    assert told["right_target"] == 1.0  # "nothing" at first, then red
    never = make_episode(num_frames=40, kind=QuestionKind.NO_TARGET)
    record = play(never, period_s=1.0)
    assert stream_scores(episode, record)["right_target"] == pytest.approx(0.5, abs=0.05)


def test_what_is_said_between_two_truths_is_not_judged() -> None:
    spans = (
        TruthSpan(first=0, end=15, object_ids=("red",), answer="red"),
        TruthSpan(first=30, end=45, object_ids=("blue",), answer="blue"),
    )
    episode = make_episode(num_frames=45, spans=spans, media=Squares(step=0))
    told = stream_scores(episode, play(episode, period_s=0.5))
    assert told["right_target"] == 1.0  # "no target" from 1.5 to 3 s counts for nothing
    assert told["j_and_f_after_answer_1s"] > 0.9
    assert told["abstained"] == 0.0


@pytest.mark.parametrize("name", ["ignorant", "failing"])
def test_a_reasoner_that_knows_nothing_gets_nothing_for_its_silence(name: str) -> None:
    episode = make_episode(num_frames=30, kind=QuestionKind.NO_TARGET)
    kind = f"tests.support.reasoners:{name}"
    record = play(episode, reasoner=kind, period_s=0.5)
    j, scores = means(episode, record)
    assert j == 0.0
    assert scores["no_target_accuracy"] == 0.0
    assert (scores["answers"], scores["no_answer_share"]) == (0.0, 1.0)
    assert scores["wrong_target_share"] == 0.0
    if name == "ignorant":
        assert (scores["abstained"], scores["right_target"]) == (1.0, 0.0)
    by_frame = score_episode(episode, prediction_by_frame(record, episode))
    assert set(by_frame.objects[0].j) == {0.0}
    knowing, _ = means(episode, play(episode, period_s=0.5))  # says "no target" at once
    assert knowing > 0.9


def test_any_mask_is_wrong_where_nothing_fits() -> None:
    episode = make_episode(num_frames=20, kind=QuestionKind.NO_TARGET)
    record = play(episode, reasoner="random_box", tracker="repeat")
    scores = stream_scores(episode, record)
    assert scores["wrong_target_share"] > 0.8
    silent = play(episode)
    assert stream_scores(episode, silent)["wrong_target_s"] == 0.0
    result = score_episode(episode, prediction_on_screen(silent, episode))
    assert result.scores["no_target_accuracy"] == 1.0
    assert result.scores["right_target"] == 1.0


def test_without_any_answer_nothing_is_claimed() -> None:
    episode = make_episode(num_frames=10)
    scores = stream_scores(episode, play(episode, reasoner_ms=60_000))
    assert math.isnan(scores["time_to_first_mask_s"])
    assert scores["no_answer_share"] == 1.0
    assert scores["answers"] == 0.0


def test_objects_given_by_first_masks_are_streamed_too() -> None:
    episode = make_objects_episode()
    record = play(episode, reasoner="oracle_first_mask")
    result = score_episode(episode, prediction_on_screen(record, episode))
    by_id = {row.object_id: row for row in result.objects}
    assert by_id["blue"].j[0] == 1.0
    assert by_id["red"].j[0] == 1.0  # not there yet, and nothing shown
    assert (by_id["red"].j[5] or 0.0) > 0.8
    anywhere = play(episode, reasoner="random_box", tracker="repeat")
    result = score_episode(episode, prediction_on_screen(anywhere, episode))
    assert max(j for row in result.objects for j in row.j[3:] if j is not None) < 0.5


def test_every_object_of_the_first_frame_is_on_screen_with_that_frame() -> None:
    episode = replace(make_objects_episode(), media=Squares())
    record = play(episode, reasoner="oracle_first_mask")
    result = score_episode(episode, prediction_on_screen(record, episode))
    assert min(row.j[0] or 0.0 for row in result.objects) > 0.95
    alone = replace(episode, frame_names=episode.frame_names[:1], annotated=(0,))
    record = play(alone, reasoner="oracle_first_mask")
    assert [len(item.tracks) for item in record.published] == [2]


def test_device_latencies_take_the_place_of_the_systems_own() -> None:
    episode = make_episode(num_frames=30)
    config = SystemConfig(
        name="test",
        reasoner="oracle_mask",
        tracker="repeat",
        settings={"scheduler.warm_up_s": 0.0},
        latencies={"reasoner_ms": 0, "tracker_ms": 0},
    )
    device = Latencies(tracker_ns=10 * MS, reasoner_ns=1500 * MS)
    record = play_episode(System(config, make_dataset(episode)), episode, device)
    scores = stream_scores(episode, record)
    assert scores["time_to_first_answer_s"] == pytest.approx(1.5, abs=0.11)


class ThinksLater(OracleReasoner):
    """Answers, and tells why afterwards."""

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        for part in super().ask(query, window):
            if isinstance(part, AnswerDone) and query.want_rationale:
                yield RationalePart(text="It moves.")
            yield part


@pytest.mark.parametrize("kind", [QuestionKind.FORESIGHT, QuestionKind.NO_TARGET])
def test_an_answer_whose_rationale_follows_counts_once(
    kind: QuestionKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_module, "OracleReasoner", ThinksLater)
    record = play(make_episode(num_frames=20, kind=kind), reasoner_ms=100)
    (answer,) = record.answers
    assert answer.answer.rationale == "It moves."
    assert answer.answer.status is (
        AnswerStatus.OK if kind is QuestionKind.FORESIGHT else AnswerStatus.NO_TARGET
    )


def test_the_part_of_an_answer_that_comes_later_does_not_make_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    episode = make_episode(num_frames=20)
    record = play(episode, reasoner_ms=100)
    steps = StepList()
    monkeypatch.setattr(streaming_module, "StepList", lambda _trace: steps)
    assert play(episode, reasoner_ms=100) == record
    (answer,) = record.answers
    event, (command,) = next(
        (e, told)
        for e, commands in steps.steps
        if (told := [c for c in commands if isinstance(c, PublishAnswer)])
    )
    more = replace(command, answer=replace(command.answer, rationale="So.", tokens=9))
    again = record_from_steps(
        [*steps.steps, (replace(event, at_ns=event.at_ns + 1), [more])], episode
    )
    assert again.answers == (
        replace(answer, answer=replace(answer.answer, rationale="So.", tokens=9)),
    )


def test_a_trace_gives_the_record_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    writer = TraceWriter(path, Config(), (DEFAULT_CAMERA,))
    episode = make_episode(num_frames=20)
    record = play(episode, reasoner_ms=250, tracker_ms=20, trace=writer)
    writer.close()
    assert record_from_steps(read_steps(path), episode) == record
    (answer,) = record.answers
    assert answer.shown == (answer.asked_position,)  # the oracle looks at the newest frame
    assert prediction_on_screen(record, episode).spoken.shown == answer.shown
    by_frame = prediction_by_frame(record, episode)
    assert score_episode(episode, by_frame).objects[0].j[-2] is not None
    assert 0 not in by_frame.masks[TARGET]  # before the answer
    assert not by_frame.masks[TARGET][19].is_absent

    with pytest.raises(InputError, match="position"):
        record_from_steps(read_steps(path), replace(episode, rate_hz=30.0))
    with pytest.raises(InputError, match="pixels"):
        record_from_steps(read_steps(path), replace(episode, size_wh=(10, 10)))
    frameless = [(e, c) for e, c in read_steps(path) if not isinstance(e, FrameArrived)]
    masks = [c for _, c in read_steps(path) if any(isinstance(one, PublishMasks) for one in c)]
    with pytest.raises(InputError, match="frame 0, which never came"):
        record_from_steps([*frameless[:1], (frameless[0][0], masks[0])], episode)
