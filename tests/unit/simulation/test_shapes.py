# SPDX-License-Identifier: Apache-2.0
"""The shapes world: reproducible, exact in its masks, and honest about the future."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="the shapes world draws with OpenCV")

from foreseg_simulation.foresight import SceneConfig  # noqa: E402
from foreseg_simulation.scenes import make_scene  # noqa: E402
from foreseg_simulation.shapes.figures import ShapeKind, outline  # noqa: E402
from foreseg_simulation.shapes.sprites import Pose, Sprite, draw_sprite, full_area_px  # noqa: E402
from foreseg_simulation.shapes.wandering import WanderingConfig, wander  # noqa: E402
from foreseg_simulation.write_clips import promptable_objects  # noqa: E402

RIM_PX = 0.8  # OpenCV's antialiased edge lies about half a pixel outside the polygon


def plain_sprite(kind: ShapeKind, colour: tuple[int, int, int]) -> Sprite:
    texture = np.full((8, 8, 3), colour, dtype=np.uint8)
    return Sprite(texture=texture, outline=outline(kind, np.random.default_rng(0)))


def test_equal_seeds_wander_alike_to_the_byte() -> None:
    runs = [list(itertools.islice(wander(7, WanderingConfig()), 12)) for _ in range(2)]
    for a, b in zip(*runs, strict=True):
        assert a.image.tobytes() == b.image.tobytes()
        assert a.instance_ids.tobytes() == b.instance_ids.tobytes()
    other = next(wander(8, WanderingConfig()))
    assert other.image.tobytes() != runs[0][0].image.tobytes()


def test_wandering_objects_hide_leave_and_return() -> None:
    shares = []
    for seed in range(20):
        frames = list(itertools.islice(wander(seed, WanderingConfig()), 40))
        for k in promptable_objects(frames[0]):
            seen = [np.count_nonzero(f.instance_ids == k) for f in frames]
            shares.append(min(seen) / seen[0])
    assert np.mean(np.array(shares) < 0.5) > 0.15
    assert np.mean(np.array(shares) > 0.8) > 0.2


@pytest.mark.parametrize("kind", list(ShapeKind))
def test_mask_has_the_outlines_area_and_holds_the_sprites_colour(kind: ShapeKind) -> None:
    sprite = plain_sprite(kind, (10, 200, 30))
    pose = Pose(x_px=70.3, y_px=61.8, radius_px=40.0, angle_rad=0.7, stretch=1.1)
    image = np.full((120, 160, 3), 90, dtype=np.uint8)
    ids = np.zeros((120, 160), dtype=np.uint8)
    draw_sprite(image, ids, sprite, pose, 3)
    mask = ids == 3
    rim = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    full = full_area_px(sprite, pose)
    assert full * 0.99 < mask.sum() < full + RIM_PX * rim.sum()
    inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    outside = ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    assert (image[inside] == (10, 200, 30)).all()
    assert (image[outside] == 90).all()


def test_the_sprite_drawn_last_owns_the_common_pixels() -> None:
    image = np.zeros((80, 80, 3), dtype=np.uint8)
    ids = np.zeros((80, 80), dtype=np.uint8)
    low, high = (plain_sprite(ShapeKind.SQUARE, c) for c in ((255, 0, 0), (0, 0, 255)))
    draw_sprite(image, ids, low, Pose(x_px=35, y_px=40, radius_px=25), 1)
    draw_sprite(image, ids, high, Pose(x_px=45, y_px=40, radius_px=15), 2)
    assert ids[40, 45] == 2
    assert ids[40, 22] == 1
    assert tuple(image[40, 45]) == (0, 0, 255)


def test_a_sprite_outside_the_view_draws_nothing() -> None:
    image = np.zeros((50, 50, 3), dtype=np.uint8)
    ids = np.zeros((50, 50), dtype=np.uint8)
    sprite = plain_sprite(ShapeKind.BALL, (255, 255, 255))
    draw_sprite(image, ids, sprite, Pose(x_px=-80, y_px=20, radius_px=20), 1)
    assert not ids.any()
    assert not image.any()


def test_habit_repeats_its_order() -> None:
    scene = make_scene("hit_habit", 2, SceneConfig(size_wh=(160, 120), rate_hz=5.0))
    targets: dict[int, int | None] = {}
    for frame in itertools.islice(scene.frames(), 500):
        targets.setdefault(frame.truths[0].event_ns, frame.truths[0].target_id)
    order = list(targets.values())
    num_targets = len(scene.names) - 1
    assert len(order) > 2 * num_targets
    assert all(a == b for a, b in zip(order, order[num_targets:], strict=False))


GOLDEN = {  # what the demo shows: places of all objects and first truths, on 40 frames
    "hit": "ad6781a577ae460e",
    "hit_cushion": "c4bf79095b24f78e",
    "hit_habit": "a7ba4f41e5254729",
    "leave": "6f254c13dfe36b4b",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_demos_scenes_stay_as_they_are(name: str) -> None:
    digest = hashlib.sha256()
    for frame in itertools.islice(make_scene(name, 4, SceneConfig(rate_hz=2.0)).frames(), 40):
        truth = frame.truths[0]
        seen = [(k, frame.instance_ids == k) for k in range(1, 6)]
        places = [
            (k, *np.argwhere(m).mean(axis=0).round(0).astype(int)) for k, m in seen if m.any()
        ]
        digest.update(repr((truth.question, truth.target_id, truth.event_ns)).encode())
        digest.update(repr([tuple(map(int, place)) for place in places]).encode())
    assert digest.hexdigest()[:16] == GOLDEN[name]


def test_unknown_scene_and_bad_config_are_refused_with_the_value() -> None:
    with pytest.raises(ValueError, match="'juggle'"):
        make_scene("juggle", 0)
    with pytest.raises(ValueError, match="9"):
        SceneConfig(num_targets=9)
