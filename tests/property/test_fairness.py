# SPDX-License-Identifier: Apache-2.0
"""No due query starves, whatever else is asked, lost, or changes."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.bench import NS, Bench, still

from foreseg.config import Config, SchedulerConfig, TrackerConfig
from foreseg.dialogue import QueryId
from foreseg.frames import DEFAULT_CAMERA
from foreseg.pipeline.events import Event, RequestId, ResetRequested, SceneChange, SceneMeasured

MAX_QUERIES = 4
CONFIG = Config(
    tracker=TrackerConfig(lost_after_s=0.2),
    scheduler=SchedulerConfig(max_queries=MAX_QUERIES, warm_up_s=0.0, reask_pause_s=0.5),
)
STANDING = ("a", "b", "c", "d")


class Fair(Bench):
    """A bench that counts how many others are asked while a query is due."""

    def __init__(self) -> None:
        self.passed_over: dict[QueryId, int] = {}
        self.most_passed_over = 0
        world = {
            "cup": still(10, 10),
            "blink": lambda index: still(50, 20)(index) if index % 20 < 10 else None,
        }
        super().__init__(world, config=CONFIG, camera_hz=10.0, reasoner_s=0.4)

    def send(self, event: Event) -> None:
        num_asked = len(self.asks)
        due = {e.query.id for e in self.state.queries if e.due_ns <= event.at_ns}
        super().send(event)
        asked = [command.query.id for command in self.asks[num_asked:]]
        standing = {e.query.id for e in self.state.queries}
        for query_id in {*due, *self.passed_over}:
            if query_id in asked or query_id not in standing:
                self.passed_over.pop(query_id, None)
            elif query_id in due:
                count = self.passed_over.get(query_id, 0) + len(asked)
                self.passed_over[query_id] = count
                self.most_passed_over = max(self.most_passed_over, count)


ACTIONS = st.one_of(
    st.tuples(st.just("stand"), st.sampled_from(STANDING), st.sampled_from([0.5, 1.0, 3.0])),
    st.tuples(st.just("once")),
    st.tuples(st.just("once")),
    st.tuples(st.just("scene")),
    st.tuples(st.just("target"), st.sampled_from(["cup", "blink"])),
    st.tuples(st.just("reset")),
)


def act(bench: Fair, number: int, action: tuple[object, ...]) -> None:
    kind, *args = action
    known = {e.query.id for e in bench.state.queries}
    if kind == "stand" and args[0] not in known:
        bench.ask("what?", str(args[0]), period_s=args[1])
    elif kind == "once":
        bench.ask("what now?", f"once-{number}")
    elif kind == "scene":
        changes = tuple(SceneChange(query_id=i, share=1.0) for i in sorted(known))
        bench.send(SceneMeasured(camera=DEFAULT_CAMERA, changes=changes, at_ns=bench.now_ns))
    elif kind == "target":
        bench.target = str(args[0])
    elif kind == "reset":
        bench.send(ResetRequested(request_id=RequestId(5_000 + number), at_ns=bench.now_ns))


@settings(
    deadline=None, derandomize=True, max_examples=25, suppress_health_check=list(HealthCheck)
)
@given(st.lists(st.tuples(ACTIONS, st.sampled_from([0.0, 0.1, 0.4])), min_size=20, max_size=50))
def test_a_due_query_waits_for_at_most_one_asking_of_each_other(
    actions: list[tuple[tuple[object, ...], float]],
) -> None:
    bench = Fair()
    bench.run(0.2)
    for number, (action, pause_s) in enumerate(actions):
        act(bench, number, action)
        bench.run(pause_s)
    assert bench.most_passed_over < MAX_QUERIES
    assert len(bench.state.queries) <= MAX_QUERIES


def test_an_endless_row_of_single_questions_does_not_starve_a_standing_one() -> None:
    bench = Fair()
    bench.run(0.2)
    bench.ask("what moves?", "standing", period_s=1.0)
    for number in range(40):
        bench.ask("what now?", f"once-{number}")
        bench.run(0.3)  # faster than they are answered: there is always a fresh one
    asked = [command.query.id for command in bench.asks]
    assert asked.count(QueryId("standing")) >= len(asked) // MAX_QUERIES
    assert bench.most_passed_over < MAX_QUERIES


def test_a_scene_that_flickers_asks_no_more_often_than_the_pause_allows() -> None:
    bench = Fair()
    bench.reasoner_s = 0.05
    bench.run(0.2)
    bench.ask("what moves?", "q", period_s=60.0)
    began = bench.now_ns
    for _ in range(100):
        changes = (SceneChange(query_id=QueryId("q"), share=1.0),)
        bench.send(SceneMeasured(camera=DEFAULT_CAMERA, changes=changes, at_ns=bench.now_ns))
        bench.run(0.1)
    elapsed_s = (bench.now_ns - began) / NS
    assert elapsed_s / 0.5 / 1.5 < len(bench.asks) <= elapsed_s / 0.5 + 1
    assert bench.count("asked_early_scene_changed") == len(bench.asks) - 1
