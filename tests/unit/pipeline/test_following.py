# SPDX-License-Identifier: Apache-2.0
"""What becomes of an answer after its delivery: whether its foresight came true."""

from __future__ import annotations

import pytest
from tests.support.bench import NS, SIZE_WH, Bench, still

from foreseg.config import Config, SchedulerConfig
from foreseg.dialogue import Answer, AnswerDone, AnswerPart, Outcome, RationalePart, TargetsFound
from foreseg.frames import FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.pipeline.events import AskReasoner, RequestId, ResetRequested
from foreseg.prompts import SpatialPrompt

HORIZON_S = 3.0


def leaving(index: int) -> BoxXyxy | None:
    """Gone to the right after 3 s of 30 Hz."""
    x = 20 + index
    return BoxXyxy(x, 20, min(SIZE_WH[0], x + 12), 32) if x < SIZE_WH[0] - 1 else None


def final(bench: Bench) -> Answer:
    """The last word on the first answer, which has the same query and keyframe as the first."""
    first = bench.answers[0]
    same = [a for a in bench.answers if a.keyframe_index == first.keyframe_index]
    assert all(a.query_id == first.query_id for a in same)
    return same[-1]


@pytest.mark.parametrize(
    ("target", "text", "outcome"),
    [
        ("leaver", "What will leave the view first?", Outcome.CAME_TRUE),
        ("cup", "What will leave the view first?", Outcome.DID_NOT),
        ("leaver", "Which object starts to move?", Outcome.CAME_TRUE),
        ("cup", "Which object starts to move?", Outcome.DID_NOT),
        ("cup", "Which object is the most beautiful?", Outcome.UNKNOWN),
    ],
)
def test_an_answer_is_judged_when_its_horizon_has_passed(
    target: str, text: str, outcome: Outcome
) -> None:
    bench = Bench({"leaver": leaving, "cup": still(10, 45)}, reasoner_s=0.3)
    bench.target = target
    bench.run(1.1)
    request = bench.ask(text, horizon_s=HORIZON_S)
    bench.run(2.8)
    assert [a.outcome for a in bench.answers] == [Outcome.UNKNOWN], "nothing is said too early"
    assert bench.replies[request].success
    bench.run(2.0)
    first, last = bench.answers
    assert (last.outcome, bool(last.reason)) == (outcome, True)
    assert last.valid_until_stamp_ns == first.keyframe_stamp_ns + round(HORIZON_S * NS)
    assert (last.query_id, last.keyframe_index, last.object_ids) == (
        first.query_id,
        first.keyframe_index,
        first.object_ids,
    )
    assert bench.state.followed == ()
    assert bench.count(f"foresights_{outcome.name.lower()}") == 1


def test_without_a_horizon_nothing_is_followed() -> None:
    bench = Bench({"leaver": leaving}, reasoner_s=0.3)
    bench.run(1.1)
    bench.ask("What will leave the view first?")
    bench.run(6.0)
    assert len(bench.answers) == 1
    assert bench.state.followed == ()


def test_an_answer_that_comes_after_its_horizon_is_not_judged() -> None:
    bench = Bench({"cup": still(10, 45)}, reasoner_s=4.0)
    bench.run(1.1)
    bench.ask("What will leave the view?", horizon_s=2.0)
    bench.run(6.0)
    assert final(bench).outcome is Outcome.UNKNOWN
    assert "after its horizon" in final(bench).reason


def test_a_standing_querys_answers_are_judged_one_by_one() -> None:
    bench = Bench({"cup": still(10, 45)}, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask("What starts to move?", period_s=1.0, horizon_s=2.5)
    bench.run(10.0)
    judged = [a for a in bench.answers if a.reason]
    assert len(judged) >= 6
    assert {a.outcome for a in judged} == {Outcome.DID_NOT}
    assert len({a.keyframe_index for a in judged}) == len(judged)
    assert len(bench.state.followed) <= 3


def test_a_track_that_was_let_go_denies_nothing() -> None:
    bench = Bench({"cup": still(10, 45)}, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask("What starts to move?", horizon_s=HORIZON_S)
    bench.run(1.5)
    bench.send(ResetRequested(request_id=RequestId(9_000), at_ns=bench.now_ns))
    bench.run(3.0)
    assert final(bench).outcome is Outcome.UNKNOWN
    assert "let go" in final(bench).reason


def test_a_stream_that_begins_anew_ends_every_horizon() -> None:
    bench = Bench({"cup": still(10, 45)}, reasoner_s=0.2)
    bench.run(5.0)
    bench.ask("What starts to move?", horizon_s=HORIZON_S)
    bench.run(1.0)
    bench.frame(stamp_ns=0)
    assert final(bench).reason == "the stream began anew"
    assert bench.state.followed == ()


def test_a_removed_query_is_not_judged() -> None:
    bench = Bench({"cup": still(10, 45)}, reasoner_s=0.2)
    bench.run(1.1)
    bench.ask("What starts to move?", period_s=2.0, horizon_s=HORIZON_S)
    bench.run(1.0)
    bench.forget()
    bench.run(5.0)
    assert len(bench.answers) == 1
    assert bench.state.followed == ()


def test_a_rationale_that_ends_after_the_horizon_keeps_the_outcome() -> None:
    bench = Bench({"cup": still(10, 45)}, reasoner_s=0.2)

    def parts(command: AskReasoner, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
        box = bench.world["cup"](0)
        found = TargetsFound(keyframe_index=frames[-1].index, prompts=(SpatialPrompt(box=box),))
        for after_s, part in ((3.0, RationalePart(text="since")), (3.1, AnswerDone(tokens=4))):
            bench.post_part(command, after_s, part)
        return [found]

    bench.parts = parts
    bench.run(1.1)
    bench.ask("What starts to move?", horizon_s=1.0, want_rationale=True)
    bench.run(5.0)
    assert (final(bench).outcome, final(bench).rationale) == (Outcome.DID_NOT, "since")


def test_answers_with_endless_horizons_are_bounded() -> None:
    config = Config(scheduler=SchedulerConfig(max_queries=4))
    bench = Bench({"cup": still(10, 45)}, reasoner_s=0.02, config=config)
    bench.run(1.1)
    bench.ask("What starts to move?", period_s=0.1, horizon_s=10_000.0)
    bench.run(12.0)
    assert len(bench.state.followed) == 64
    assert bench.count("foresights_let_go") > 20


def test_the_masks_of_a_window_are_published_once_and_the_outcome_after_them() -> None:
    bench = Bench({"cup": still(10, 45)}, reasoner_s=0.3)
    bench.run(1.1)
    bench.ask("What starts to move?", horizon_s=2.0, want_observed_masks=True)
    bench.run(5.0)
    first, observed, judged = bench.answers
    assert (first.observed, len(observed.observed), judged.observed) == ((), 6, ())
    assert [a.outcome for a in bench.answers] == [Outcome.UNKNOWN] * 2 + [Outcome.DID_NOT]
