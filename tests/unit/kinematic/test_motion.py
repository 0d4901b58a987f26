# SPDX-License-Identifier: Apache-2.0
"""Motion, regions, contacts and reduced frames: the pieces of the kinematic reasoner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support.reasoners import Disc, discs_window, query, saying, textured

from foreseg.dialogue import (
    Abstained,
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    NoTarget,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import ConfigError
from foreseg.frames import FrameIndex
from foreseg.geometry import BoxXyxy
from foreseg.history.reduction import reduce_image, reduce_window
from foreseg.kinematic.appearance import colour_names
from foreseg.kinematic.motion import camera_shifts, find_motion
from foreseg.kinematic.phrases import COLOURS
from foreseg.kinematic.regions import (
    Region,
    dilated,
    eroded,
    label_map_from_mask,
    mean_filtered,
)
from foreseg.kinematic.salience import salient_regions
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner import exchange
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.restart import RestartPolicy

masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(mask=masks)
def test_components_are_those_of_a_flood_fill(mask: np.ndarray) -> None:
    labels = label_map_from_mask(mask)
    assert np.array_equal(labels > 0, mask)
    seen: set[int] = set()
    left = {(int(r), int(c)) for r, c in zip(*np.nonzero(mask), strict=True)}
    while left:
        stack, label = [left.pop()], None
        while stack:
            r, c = stack.pop()
            label = label or int(labels[r, c])
            assert labels[r, c] == label
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            stack += near
        assert label is not None
        assert label not in seen
        seen.add(label)


@given(mask=masks)
def test_growing_and_shrinking_contain_each_other(mask: np.ndarray) -> None:
    assert not (eroded(mask) & ~mask).any()
    assert not (mask & ~dilated(mask)).any()
    assert not (mask & ~eroded(dilated(mask))).any()


def test_mean_filter_is_a_mean() -> None:
    values = np.random.default_rng(0).uniform(0, 255, (7, 9)).astype(np.float32)
    smooth = mean_filtered(values)
    assert smooth[3, 4] == pytest.approx(values[2:5, 3:6].mean(), rel=1e-5)
    assert smooth[0, 0] == pytest.approx(np.pad(values, 1, mode="edge")[:3, :3].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("draw", "ratio"),
    [
        (lambda x, y: x**2 + y**2 < 900, 1.0),
        (lambda x, y: (abs(x) < 25) & (abs(y) < 25), 0.955),
        (lambda x, y: (y > -20) & (y + 1.7 * abs(x) < 30), 0.827),
    ],
)
def test_shapes_have_their_ellipse_ratio(draw, ratio: float) -> None:  # noqa: ANN001
    y, x = np.mgrid[-40:41, -40:41]
    rows, columns = np.nonzero(draw(x, y))
    region = Region(rows=rows, columns=columns, colour=np.zeros(3, np.float32))
    assert region.ellipse_ratio == pytest.approx(ratio, abs=0.01)


def stack_of(*discs: Disc, **options: float) -> tuple[np.ndarray, list[float]]:
    window = discs_window(*discs, size_wh=(160, 120), **options)  # type: ignore[arg-type]
    images = np.stack([frame.image for frame in window.frames]).astype(np.float32)
    return images, [frame.ref.stamp_ns / 1e9 for frame in window.frames]


@pytest.mark.parametrize("velocity", [(50.0, 0.0), (-30.0, 25.0), (0.0, -60.0)])
def test_velocity_of_a_mover(velocity: tuple[float, float]) -> None:
    vx, vy = velocity
    disc = Disc(x=80 - vx / 2, y=60 - vy / 2, radius=9, colour=(240, 60, 60), vx=vx, vy=vy)
    motion = find_motion(*stack_of(disc))
    assert len(motion.movers) == 1
    assert motion.camera_shift_px == 0
    assert motion.movers[0].velocity_xy == pytest.approx(velocity, abs=2.0)


def test_two_crossing_movers_keep_their_velocities() -> None:
    a = Disc(x=20, y=30, radius=8, colour=(240, 60, 60), vx=80)
    b = Disc(x=140, y=100, radius=8, colour=(60, 60, 240), vy=-70)
    movers = find_motion(*stack_of(a, b)).movers
    assert len(movers) == 2
    for disc in (a, b):
        assert any(m.velocity_xy == pytest.approx((disc.vx, disc.vy), abs=4) for m in movers)


def test_a_still_scene_has_no_movers() -> None:
    assert find_motion(*stack_of(Disc(x=50, y=50, radius=12, colour=(255, 0, 0)))).movers == ()


def test_the_shift_of_a_sliding_camera() -> None:
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 256, (30, 60, 3)).repeat(4, axis=0).repeat(4, axis=1)
    stack = np.stack([wide[10:110, 5 * i : 5 * i + 160] for i in range(4)]).astype(np.float32)
    assert camera_shifts(stack)[:, 0] == pytest.approx([-15, -10, -5, 0], abs=0.3)
    assert camera_shifts(stack)[:, 1] == pytest.approx([0, 0, 0, 0], abs=0.3)


def test_salient_regions_ignore_texture_and_smooth_light() -> None:
    image = textured((160, 120)).astype(np.float32)
    y, x = np.mgrid[0:120, 0:160]
    image += (60 * np.exp(-((x - 80) ** 2 + (y - 60) ** 2) / 4000))[..., None]
    image[(x - 40) ** 2 + (y - 40) ** 2 < 100] = (200, 60, 40)
    (region,) = salient_regions(image.clip(0, 255), np.zeros((120, 160), np.bool_))
    assert region.centre_xy == pytest.approx((40.5, 40.5), abs=1)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"), ((255, 140, 0), "orange"), ((240, 220, 40), "yellow"),
        ((30, 160, 60), "green"), ((0, 200, 220), "cyan"), ((40, 60, 220), "blue"),
        ((140, 50, 190), "purple"), ((255, 80, 180), "pink"), ((120, 70, 30), "brown"),
        ((10, 10, 10), "black"), ((250, 250, 250), "white"), ((128, 128, 128), "grey"),
    ],
)  # fmt: skip
def test_colour_names(rgb: tuple[int, int, int], name: str) -> None:
    assert COLOURS[int(colour_names(np.array([rgb], np.float32))[0])] == name


@given(height=st.integers(1, 40), width=st.integers(1, 40), side=st.integers(1, 50))
def test_reduced_images_fit_and_keep_the_mean_of_flat_ones(
    height: int, width: int, side: int
) -> None:
    flat = np.full((height, width, 3), 77, np.uint8)
    reduced = reduce_image(flat, side)
    assert max(reduced.shape) <= max(side, 3)
    assert (reduced == 77).all()
    assert (reduced is flat) == (max(height, width) <= side)


def test_reduction_by_a_whole_factor_is_the_block_mean() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    blocks = image.reshape(3, 4, 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduce_image(image, 4) - blocks).max() <= 0.5


def test_a_reduced_window_keeps_its_records() -> None:
    window = discs_window(num_frames=2)
    small = reduce_window(window, 100)
    assert small.indices == window.indices
    assert small.newest.image.shape == (75, 100, 3)
    assert small.newest.scale_xy == (3.2, 3.2)
    assert not small.newest.image.flags.writeable
    with pytest.raises(ConfigError, match="got 0"):
        reduce_window(window, 0)


def test_restarts_back_off_and_recover() -> None:
    second = 1_000_000_000
    policy = RestartPolicy()
    assert policy.wait_ns == 0
    waits = []
    for _ in range(9):
        policy = policy.after_death(ready_ns=None, died_ns=5 * second)
        waits.append(policy.wait_ns / second)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    short = policy.after_death(ready_ns=0, died_ns=59 * second)
    assert short.wait_ns == 30 * second
    assert policy.after_death(ready_ns=0, died_ns=60 * second).wait_ns == second // 2
    assert RestartPolicy(deaths=10_000).wait_ns == 30 * second
    with pytest.raises(ConfigError, match="got 0"):
        RestartPolicy(first_s=0)


# ---- one asking held to the contract ----

WINDOW = discs_window(num_frames=3, size_wh=(64, 48))
BOX = SpatialPrompt(box=BoxXyxy(4, 4, 20, 20))
FOUND = TargetsFound(keyframe_index=WINDOW.newest.index, prompts=(BOX,), confidence=0.5)


def heard(*parts: AnswerPart) -> list[AnswerPart]:
    return list(checked_ask(saying(*parts), query("x"), WINDOW))


def test_a_proper_answer_passes_unchanged() -> None:
    parts = [RationalePart(text="so"), FOUND, RationalePart(text="then"), AnswerDone(tokens=3)]
    assert heard(*parts) == parts


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((FOUND,), "stopped in the middle"),
        ((), "stopped in the middle"),
        ((AnswerDone(),), "ended without a verdict"),
        ((FOUND, NoTarget(reason="or not")), "second verdict"),
        ((Abstained(reason="dark"), FOUND), "second verdict"),
        (("hello",), "a str, which is no part"),
        ((TargetsFound(keyframe_index=FrameIndex(1), prompts=(BOX,)),), "was not given"),
        ((TargetsFound(keyframe_index=WINDOW.newest.index, prompts=()),), "0 targets"),
        ((TargetsFound(keyframe_index=WINDOW.newest.index, prompts=(BOX,) * 65),), "65 targets"),
        (
            (
                TargetsFound(
                    keyframe_index=WINDOW.newest.index,
                    prompts=(SpatialPrompt(box=BoxXyxy(100, 100, 120, 120)),),
                ),
            ),
            "outside the image",
        ),
        ((NoTarget(reason="no", confidence=1.5),), "confidence 1.5"),
        ((FramesWanted(indices=(FrameIndex(1),) * 257),), "257 frames"),
        ((FramesWanted(indices=(FrameIndex(1),)),) * 65, "more than 64 times"),
    ],
)
def test_a_broken_contract_ends_as_a_failure(parts: tuple[AnswerPart, ...], reason: str) -> None:
    last = heard(*parts)[-1]
    assert isinstance(last, AnswerFailed)
    assert reason in last.reason


def test_boxes_are_clipped_to_the_keyframe() -> None:
    wide = SpatialPrompt(box=BoxXyxy(-5, -5, 20, 200))
    found, _ = heard(
        TargetsFound(keyframe_index=WINDOW.newest.index, prompts=(wide,)), AnswerDone()
    )
    assert isinstance(found, TargetsFound)
    assert found.prompts[0].box == BoxXyxy(0, 0, 20, 48)


def test_an_endless_reply_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = RationalePart(text="x" * 70_000)
    parts = heard(talk, talk, NoTarget(reason="y" * 10), AnswerDone())
    assert sum(len(part.text) for part in parts if isinstance(part, RationalePart)) == 100_000
    monkeypatch.setattr(exchange, "MAX_PARTS", 5)
    last = heard(*[RationalePart(text="")] * 9)[-1]
    assert last == AnswerFailed(reason="the reasoner's answer has more than 5 parts")
