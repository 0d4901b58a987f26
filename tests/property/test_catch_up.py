# SPDX-License-Identifier: Apache-2.0
"""In the whole pipeline a branch arrives when the formula says, and live tracks keep their share."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.support.bench import NS, Bench, still

from foreseg.config import CatchUpConfig, Config
from foreseg.geometry import BoxXyxy

CONFIG = Config(catch_up=CatchUpConfig(budget_s=5.0, max_stride=8, live_share=0.8))
CLOCK_STEPS = 4  # a frame, a live and a branch step may each be under way; then the join itself


def ball(index: int) -> BoxXyxy:
    return BoxXyxy(5 + index * 0.01, 20, 17 + index * 0.01, 32)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(
    camera_hz=st.sampled_from([10.0, 15.0, 30.0]),
    tracker_ms=st.integers(2, 60),
    reasoner_s=st.sampled_from([0.3, 1.0, 3.0]),
)
def test_a_planned_branch_arrives_in_time_and_live_tracks_keep_their_share(
    camera_hz: float, tracker_ms: int, reasoner_s: float
) -> None:
    tracker_s = tracker_ms / 1000
    bench = Bench(
        {"ball": ball, "cup": still(70, 40)},
        config=CONFIG,
        camera_hz=camera_hz,
        tracker_s=tracker_s,
        reasoner_s=reasoner_s,
    )
    bench.run(1.2)
    bench.point("cup", "cup")
    bench.run(4.0)  # rates are measured
    bench.ask()
    bench.run(reasoner_s)
    while not bench.count("catch_ups_planned") and not bench.count("catch_ups_impossible"):
        bench.run(0.005)
    assume(bench.count("catch_ups_planned"))
    while not bench.state.cameras["camera"].catch_ups:  # type: ignore[index]
        bench.run(0.001)
    (branch,) = bench.state.cameras["camera"].catch_ups  # type: ignore[index]
    rates = bench.state.cameras["camera"].rates  # type: ignore[index]
    newest = bench.num_frames["camera"] - 1  # type: ignore[index]
    gain_hz = rates.share_hz(0.8) * branch.stride - rates.camera_hz
    predicted_s = (newest - branch.began_index) / gain_hz
    start_ns, shown = bench.now_ns, len(bench.masks)
    while bench.state.cameras["camera"].catch_ups:  # type: ignore[index]
        bench.run(0.01)
        assert bench.now_ns - start_ns < 20 * NS
    slack_s = CLOCK_STEPS * max(tracker_s, 1 / camera_hz, 1 / rates.share_hz(0.8))
    assert bench.state.catch_up_s <= predicted_s + slack_s
    took_s = (bench.now_ns - start_ns) / NS
    kept_hz = 0.8 * min(camera_hz, 1 / tracker_s)
    assert len(bench.masks) - shown >= kept_hz * took_s - CLOCK_STEPS
