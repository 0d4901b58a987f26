# SPDX-License-Identifier: Apache-2.0
"""How much of a scene counts as changed."""

from __future__ import annotations

import numpy as np
import pytest

from foreseg.dialogue import QueryId
from foreseg.frames import U8Array
from foreseg.pipeline.scenes import SceneMemory, changed_share, sketch_from_image

SIZE_HW = (120, 160)
Q = QueryId("q")


def scene(seed: int = 0) -> U8Array:
    blocks = np.random.default_rng(seed).choice(np.array([60, 160], np.uint8), (8, 8, 1))
    return np.kron(blocks, np.ones((15, 20, 3), dtype=np.uint8))


def share(before: U8Array, after: U8Array) -> float:
    return changed_share(sketch_from_image(before), sketch_from_image(after))


def test_another_scene_is_another_scene() -> None:
    assert share(scene(0), scene(1)) > 0.35


def test_noise_and_light_change_nothing() -> None:
    noise = np.random.default_rng(1).normal(0, 12, (*SIZE_HW, 3))
    noisy = (scene() + noise).clip(0, 255).astype(np.uint8)
    assert share(scene(), noisy) < 0.02
    assert share(scene(), (scene() + np.uint8(45)).astype(np.uint8)) == 0


@pytest.mark.parametrize("part", [0.25, 0.4])
def test_the_share_is_that_of_the_picture(part: float) -> None:
    after = scene()
    after[:, : round(160 * part)] = 220 - after[:, : round(160 * part)]
    assert share(scene(), after) == pytest.approx(part, abs=0.05)


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 500), (480, 640)])
def test_any_size_has_a_sketch(size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 77, np.uint8)
    assert np.all(sketch_from_image(image) == 77)


def test_a_query_that_stands_no_more_is_forgotten() -> None:
    memory = SceneMemory()
    memory.remember(Q, scene(0))
    assert memory.changes(scene(0), {Q}) == {Q: 0.0}
    assert memory.changes(scene(0), set()) == {}
    assert memory.changes(scene(1), {Q}) == {}
