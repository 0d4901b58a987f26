# SPDX-License-Identifier: Apache-2.0
"""The tabletop world: its physics makes every truth come true, and it repeats itself."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

cv2 = pytest.importorskip("cv2", reason="the tabletop world paints its table with OpenCV")

from foreseg.errors import MissingExtraError, StreamError  # noqa: E402
from foreseg_simulation.clip import cut_clip, cut_stream  # noqa: E402
from foreseg_simulation.foresight import (  # noqa: E402
    FutureTruth,
    SceneConfig,
    Skill,
    StuckSceneError,
)
from foreseg_simulation.tabletop import roll, tabletop_scenes  # noqa: E402
from foreseg_simulation.tabletop.futures import listed  # noqa: E402
from foreseg_simulation.tabletop.scene import Moment, TabletopScene  # noqa: E402
from foreseg_simulation.tabletop.world import Renderer, World  # noqa: E402

pytestmark = pytest.mark.slow  # physics, and software pictures

ROOT = Path(__file__).resolve().parents[3]
NS_PER_S = 1_000_000_000
CONFIG = SceneConfig(size_wh=(160, 120), rate_hz=5.0)
SCENES = (
    "tabletop_roll",
    "tabletop_roll_habit",
    "tabletop_reach_habit",
    "tabletop_reach_part",
    "tabletop_leave",
    "tabletop_stack",
    "tabletop_push",
)


def scene_of(name: str, seed: int) -> TabletopScene:
    try:
        scene = tabletop_scenes()[name](seed, CONFIG)
    except (MissingExtraError, StreamError) as error:
        pytest.skip(str(error))
    assert isinstance(scene, TabletopScene)
    return scene


@functools.cache
def minute_of(name: str, seed: int = 3) -> tuple[Moment, ...]:
    return tuple(itertools.islice(scene_of(name, seed).moments(), 300))


def truths_of(name: str) -> list[FutureTruth]:
    return [truth for moment in minute_of(name) for truth in moment.truths]


def test_every_scene_is_tested() -> None:
    assert tuple(tabletop_scenes()) == SCENES


@pytest.mark.parametrize("name", SCENES)
def test_two_runs_are_equal_to_the_byte(name: str) -> None:
    a, b = (scene_of(name, 2) for _ in range(2))
    assert a.names == b.names
    for f, g in itertools.islice(zip(a.frames(), b.frames(), strict=False), 5):
        assert f.image.tobytes() == g.image.tobytes()
        assert f.instance_ids.tobytes() == g.instance_ids.tobytes()
    for m, n in itertools.islice(zip(a.moments(), b.moments(), strict=False), 30):
        assert (m.stamp_ns, m.state.tobytes(), m.truths) == (
            n.stamp_ns,
            n.state.tobytes(),
            n.truths,
        )
    assert scene_of(name, 4).names != a.names


@pytest.mark.parametrize("name", SCENES)
def test_truths_are_well_formed_for_a_minute(name: str) -> None:
    scene = scene_of(name, 3)
    stamps = [moment.stamp_ns for moment in minute_of(name)]
    assert stamps == [round(i * NS_PER_S / CONFIG.rate_hz) for i in range(300)]
    for moment in minute_of(name):
        assert tuple(truth.question for truth in moment.truths) == scene.questions
        for truth in moment.truths:
            assert truth.event_ns > moment.stamp_ns
            assert truth.target_id is None or truth.target_id in scene.names
            assert truth.extrapolated_id is None or truth.extrapolated_id in scene.names
            assert 3 <= len(truth.steps) <= 6
            assert truth.target_id is None or scene.names[truth.target_id] in truth.steps[-1]
            assert set(truth.evidence_ns) <= set(stamps)
            assert list(truth.evidence_ns) == sorted(set(truth.evidence_ns))
            assert truth.evidence_ns[-1] <= moment.stamp_ns
    assert len(set(scene.names.values())) == len(scene.names)


@pytest.mark.parametrize("name", SCENES)
def test_a_truth_keeps_to_its_answer_until_its_event(name: str) -> None:
    for now, following in itertools.pairwise(minute_of(name)):
        for truth, after in zip(now.truths, following.truths, strict=True):
            if following.stamp_ns < truth.event_ns:
                assert (after.target_id, after.event_ns) == (truth.target_id, truth.event_ns)


def test_half_of_all_truths_are_hard_and_some_are_not() -> None:
    truths = [truth for name in SCENES for truth in truths_of(name)]
    share = np.mean([truth.is_hard for truth in truths])
    assert 0.5 <= share < 0.95
    with_target = [truth for truth in truths if truth.target_id is not None]
    assert np.mean([truth.is_hard for truth in with_target]) >= 0.5


def shown(name: str) -> Iterator[tuple[Moment, NDArray[np.uint8]]]:
    """The first moment after each event of the first truth, with its instance ids."""
    stage = scene_of(name, 3)._plot.stage
    renderer = Renderer(World(stage, CONFIG.rate_hz))
    try:
        for moment, following in itertools.pairwise(minute_of(name)):
            if following.truths[0].event_ns != moment.truths[0].event_ns:
                yield moment, renderer.render(following.state)[1]
    finally:
        renderer.close()


def touches(a: NDArray[np.bool_], b: NDArray[np.bool_], within_px: int) -> bool:
    size = 2 * within_px + 1
    return bool((cv2.dilate(a.astype(np.uint8), np.ones((size, size), np.uint8)) & b).any())


@pytest.mark.parametrize("name", ["tabletop_roll", "tabletop_roll_habit"])
def test_the_ball_is_beside_what_it_hits(name: str) -> None:
    hits = [touches(ids == 1, ids == m.truths[0].target_id, 5) for m, ids in shown(name)]
    assert len(hits) >= 8
    assert all(hits)


def test_a_ball_that_cannot_reach_what_it_should_visits_others_first_and_keeps_that_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def visits() -> list[int]:
        scene = TabletopScene(CONFIG, roll.RollPlot(3, CONFIG, has_habit=True))
        truths = [m.truths[0] for m in itertools.islice(scene.moments(), 900)]
        told = {t.steps[0] for t in truths if t.skill is Skill.HABIT}
        hits = [key for key, _ in itertools.groupby(t.target_id for t in truths)]
        count = len(scene.names) - 1
        assert len(hits) > count
        assert sorted(hits[:count]) == sorted(set(hits[:count])), "each once in the first round"
        assert all(a == b for a, b in zip(hits, hits[count:], strict=False))
        names = [scene.names[k] for k in hits[:count] if k is not None]
        rounds = [[*names[n:], *names[:n]] for n in range(count)]
        assert told <= {f"So far the ball has visited {listed(r)}, in this order." for r in rounds}
        for truth in truths:
            if truth.skill is Skill.HABIT and truth.target_id is not None:
                n = hits.index(truth.target_id)
                assert (
                    truth.steps[0]
                    == f"So far the ball has visited {listed(rounds[n])}, in this order."
                )
                assert truth.steps[2] == f"After the {rounds[n][-1]} comes the {rounds[n][0]}."
        return [k for k in hits[:count] if k is not None]

    as_drawn = visits()
    monkeypatch.setattr(roll, "_FREE_KICKS", 1)
    assert visits() != as_drawn


def test_a_ball_that_reaches_nothing_says_so_and_another_seed_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roll, "_MOST_KICKS", 1)
    scene = scene_of("tabletop_roll", 1)
    with pytest.raises(StuckSceneError, match=r"seed 1.*draw another seed"):
        list(itertools.islice(scene.moments(), 900))
    maker = tabletop_scenes()["tabletop_roll"]
    for cut in (cut_clip, cut_stream):
        assert (
            cut(maker, 1, np.random.default_rng(1), size_wh=(160, 120), leg_s=(1.2, 1.8)) is None
        )


@pytest.mark.parametrize("name", ["tabletop_roll", "tabletop_reach_part"])
def test_without_images_masks_and_truths_are_the_same(name: str) -> None:
    config = replace(CONFIG, size_wh=(160, 120))
    make = tabletop_scenes()[name]
    full = itertools.islice(make(2, config).frames(), 3)
    bare = itertools.islice(make(2, replace(config, needs_images=False)).frames(), 3)
    for one, other in zip(full, bare, strict=True):
        assert np.array_equal(one.instance_ids, other.instance_ids)
        assert one.truths == other.truths
        assert one.image.any()
        assert not other.image.any()
        assert other.image.shape == one.image.shape
        assert other.image.dtype == np.uint8


@pytest.mark.parametrize("name", ["tabletop_reach_habit", "tabletop_reach_part"])
def test_the_gripper_holds_what_it_takes_and_carries_it(name: str) -> None:
    scene = scene_of(name, 3)
    world = World(scene._plot.stage, CONFIG.rate_hz)
    hand = world.body("o1")
    takes = 0
    stream = iter(scene.moments())
    for moment, following in itertools.pairwise(itertools.islice(stream, 300)):
        truth = moment.truths[0]
        if truth.target_id is None or following.truths[0].event_ns == truth.event_ns:
            continue
        places = world.places_of(following.state)
        reach = np.linalg.norm(places - places[hand], axis=1)
        tools = [world.body(f"o{k}") for k in scene.names if k > 1]
        assert min(tools, key=lambda row: reach[row]) == world.body(f"o{truth.target_id}")
        assert reach[world.body(f"o{truth.target_id}")] < 0.05
        takes += 1
    assert takes >= 6


def test_the_tool_that_is_taken_fits_the_part_at_work() -> None:
    scene = scene_of("tabletop_reach_part", 3)
    world = World(scene._plot.stage, CONFIG.rate_hz)
    rows = {world.model.body(i).name: i for i in range(world.model.nbody)}
    parts = [row for name, row in rows.items() if name.startswith("part")]
    fitting = set()
    for moment, following in itertools.pairwise(minute_of("tabletop_reach_part")):
        truth = moment.truths[0]
        if following.truths[0].event_ns == truth.event_ns:
            continue
        places = world.places_of(moment.state)
        at_work = [row for row in parts if np.hypot(places[row, 0], places[row, 2]) < 0.05]
        if truth.target_id is None:
            assert at_work == []
            continue
        (row,) = at_work
        kind = scene.names[truth.target_id].split()[1]
        fitting.add((world.model.body(row).name[:5], kind))
    assert len({kind for _, kind in fitting}) == len(fitting) >= 3


def test_what_leaves_is_out_of_view_at_its_event_and_was_in_view_before() -> None:
    renderer = Renderer(World(scene_of("tabletop_leave", 3)._plot.stage, CONFIG.rate_hz))
    minute = minute_of("tabletop_leave")
    num_left = 0
    for i, (now, following) in enumerate(itertools.pairwise(minute)):
        if following.truths[0].event_ns == now.truths[0].event_ns:
            continue
        target = now.truths[0].target_id
        before, after = (renderer.render(minute[k].state)[1] for k in (i - 4, i + 1))
        if target is None:  # nothing that was in view has left it
            assert set(np.unique(after)) >= set(np.unique(before))
            continue
        assert (before == target).any()
        assert not (after == target).any()
        num_left += 1
    renderer.close()
    assert num_left >= 5


@pytest.mark.parametrize("seed", [3, 4])
def test_the_block_that_falls_was_up_until_its_event_and_all_others_stay(seed: int) -> None:
    scene = scene_of("tabletop_stack", seed)
    world = World(scene._plot.stage, CONFIG.rate_hz)
    rows = {k: world.body(f"o{k}") for k in scene.names if k > 1}
    minute = minute_of("tabletop_stack", seed)
    fallen = []
    for i, (now, following) in enumerate(itertools.pairwise(minute[:-4])):
        target = now.truths[0].target_id
        if following.truths[0].event_ns == now.truths[0].event_ns or target is None:
            continue
        before, after = (world.places_of(minute[k].state)[:, 2] for k in (i - 1, i + 4))
        dropped = {k for k, row in rows.items() if after[row] < before[row] - 0.03}
        assert dropped == {target}
        fallen.append(target)
    assert len(fallen) >= 3
    assert len(set(fallen)) > 1


@pytest.mark.parametrize("seed", [3, 4])
def test_only_what_is_pushed_moves_at_its_event(seed: int) -> None:
    scene = scene_of("tabletop_push", seed)
    world = World(scene._plot.stage, CONFIG.rate_hz)
    rows = {k: world.body(f"o{k}") for k in scene.names if k > 1}
    minute = minute_of("tabletop_push", seed)
    pushed = []
    for i, (now, following) in enumerate(itertools.pairwise(minute[:-4])):
        target = now.truths[0].target_id
        if following.truths[0].event_ns == now.truths[0].event_ns or target is None:
            continue
        before, after = (world.places_of(minute[k].state) for k in (i - 1, i + 3))
        moved = {k: np.linalg.norm(after[row] - before[row]) for k, row in rows.items()}
        assert moved.pop(target) > 0.005
        assert max(moved.values()) < 0.003
        pushed.append(target)
    assert len(pushed) >= 4
    assert len(set(pushed)) > 1


def test_importing_needs_no_mujoco_and_making_a_scene_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['mujoco'] = None\n"
        "from foreseg_simulation.foresight import SceneConfig\n"
        "from foreseg_simulation.tabletop import tabletop_scenes\n"
        "tabletop_scenes()['tabletop_roll'](1, SceneConfig())\n"
    )
    run = _python(code)
    assert run.returncode == 1
    assert "MissingExtraError" in run.stderr
    assert "foreseg[tabletop]" in run.stderr


def test_without_a_graphics_library_it_says_which_to_install() -> None:
    code = (
        "import ctypes, os; os.environ.pop('MUJOCO_GL', None)\n"
        "def refuse(name, *rest): raise OSError(name)\n"
        "import foreseg_simulation.tabletop.graphics as graphics\n"
        "graphics.ctypes.CDLL = refuse\n"
        "graphics.load_mujoco()\n"
    )
    run = _python(code)
    assert run.returncode == 1
    assert "StreamError" in run.stderr
    assert "apt install libegl1 libgl1-mesa-dri" in run.stderr


def test_an_unknown_renderer_is_refused_with_its_name() -> None:
    scene_of("tabletop_roll", 1)
    code = (
        "import os; os.environ['MUJOCO_GL'] = 'crayon'\n"
        "from foreseg_simulation.tabletop.graphics import load_mujoco\n"
        "load_mujoco()\n"
    )
    run = _python(code)
    assert "StreamError" in run.stderr
    assert "MUJOCO_GL='crayon'" in run.stderr


def _python(code: str) -> subprocess.CompletedProcess[str]:
    paths = f"import sys; sys.path[:0] = {[str(ROOT / 'runtime'), str(ROOT / 'simulation')]!r}\n"
    return subprocess.run(
        [sys.executable, "-c", paths + code], capture_output=True, text=True, check=False
    )
