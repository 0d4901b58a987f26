# SPDX-License-Identifier: Apache-2.0
"""What each rung of the ladder changes in the pipeline, and that all comes back."""

from __future__ import annotations

from tests.support.bench import NS, Bench, still

from foreseg.config import Config, DegradationConfig
from foreseg.dialogue import AnswerStatus
from foreseg.pipeline.degradation import MachineReadings, Rung
from foreseg.pipeline.events import AskReasoner, MachineRead, PublishMasks, RunTracker
from foreseg.pipeline.tracks import TrackState

SHORT = MachineReadings(available_memory_share=0.01)
FINE = MachineReadings(available_memory_share=0.5)


def bench_of(max_rung: int = 4, **settings: float) -> Bench:
    limits = {"climb_s": 0.1, "recover_s": 0.1, **settings}
    degradation = DegradationConfig(max_rung=max_rung, **limits)  # type: ignore[arg-type]
    return Bench({"cup": still(10, 10)}, config=Config(degradation=degradation), reasoner_s=0.2)


def strained(bench: Bench, rung: Rung, readings: MachineReadings = SHORT) -> None:
    """Let the machine suffer, or recover, until the rung is reached."""
    for _ in range(20):
        if bench.state.ladder.rung == rung:
            return
        bench.send(MachineRead(readings=readings, at_ns=bench.now_ns))
        bench.run(0.15)
    msg = f"stands on {bench.state.ladder.rung}"
    raise AssertionError(msg)


def test_a_question_may_think_less_and_its_answer_is_still_its_own() -> None:
    bench = bench_of(max_rung=1, reasoning_tokens=50)
    bench.run(1.1)
    strained(bench, Rung.FEWER_TOKENS)
    for wanted, got in ((0, 50), (700, 50), (20, 20)):
        request = bench.ask(query_id=f"q{wanted}", max_reasoning_tokens=wanted)
        bench.run(1.0)
        assert bench.asks[-1].query.max_reasoning_tokens == got
        answer = bench.replies[request].answer
        assert answer is not None
        assert answer.status is AnswerStatus.OK


def test_standing_queries_are_asked_less_often() -> None:
    bench = bench_of(max_rung=2, period_factor=5.0)
    bench.run(1.1)
    bench.ask(period_s=1.0)
    bench.run(5.0)
    usual = len(bench.asks)
    assert usual >= 5
    strained(bench, Rung.LONGER_PERIODS)
    bench.run(1.0)
    before = len(bench.asks)
    bench.run(10.0)
    assert len(bench.asks) - before == 2


def test_the_tracker_is_slower_and_frames_between_are_counted() -> None:
    bench = bench_of(max_rung=3, tracker_hz=4.0)
    bench.run(0.5)
    bench.point("cup")
    bench.run(0.5)
    strained(bench, Rung.SLOWER_TRACKER)
    masks, dropped = len(bench.masks), bench.count("dropped_tracker_busy")
    bench.run(5.0)
    assert 17 <= len(bench.masks) - masks <= 21
    assert bench.count("dropped_tracker_busy") - dropped > 100
    assert bench.masks[-1].tracks[0].state is TrackState.TRACKED


def test_masks_are_held_and_marked_nothing_runs_and_all_comes_back() -> None:
    bench = bench_of()
    bench.run(0.5)
    bench.point("cup")
    bench.run(0.5)
    strained(bench, Rung.HELD_MASKS)
    bench.run(0.5)
    last = bench.masks[-1].tracks[0].mask
    begun, masks = len(bench.log), len(bench.masks)
    request = bench.ask()
    bench.run(1.0)
    new = [command for _, commands in bench.log[begun:] for command in commands]
    assert not [c for c in new if isinstance(c, (RunTracker, AskReasoner))]
    held = bench.masks[masks:]
    assert len(held) == len({m.frame.index for m in held}) >= 25
    assert all(m.job_id is None for m in held)
    assert all(m.tracks[0].state is TrackState.UNCERTAIN for m in held)
    assert all(m.tracks[0].mask == last for m in held)
    strained(bench, Rung.NORMAL, FINE)
    bench.run(1.0)
    assert bench.masks[-1].tracks[0].state is TrackState.TRACKED
    answer = bench.replies[request].answer
    assert answer is not None
    assert answer.status is AnswerStatus.OK
    assert bench.count("degradation_steps") == 4


def test_without_an_object_held_masks_are_empty_maps() -> None:
    bench = bench_of()
    bench.run(0.5)
    strained(bench, Rung.HELD_MASKS)
    masks = len(bench.masks)
    bench.run(1.0)
    assert len(bench.masks) - masks >= 25
    assert bench.masks[-1].tracks == ()
    assert isinstance(bench.masks[-1], PublishMasks)


def test_the_time_of_a_reading_is_the_events() -> None:
    bench = bench_of()
    bench.run(0.5)
    bench.send(MachineRead(readings=SHORT, at_ns=bench.now_ns))
    bench.send(MachineRead(readings=SHORT, at_ns=bench.now_ns + NS))
    assert bench.state.ladder.rung is Rung.FEWER_TOKENS
    assert bench.state.ladder.reason.startswith("1.0% of the memory")
