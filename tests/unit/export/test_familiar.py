# SPDX-License-Identifier: Apache-2.0
"""Statistics of a training's frames, and of pictures that are none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="exporting wants torch")

from foreseg.errors import InputError
from foreseg.nano.familiar import Familiarity
from foreseg_export.familiar import LONE_QUANTILE, MIN_FRAMES, familiar_from

CHANNELS = 8


def frames(rng: np.random.Generator, count: int) -> np.ndarray:
    """Means that vary in all channels but the last, which hardly does."""
    spread = np.array([*[1.0] * (CHANNELS - 1), 0.1])
    return (rng.normal(size=(count, CHANNELS)) * spread + 5).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    means = frames(np.random.default_rng(0), 2000)
    np.save(tmp_path / "frames.npy", np.stack([means - 0.25, means + 0.25], axis=1))
    return tmp_path / "frames.npy"


def test_without_others_only_a_distance_counts(store: Path) -> None:
    statistics, limits = familiar_from(store, CHANNELS)
    assert not statistics[-1].any()
    assert limits.lean == 0
    new = frames(np.random.default_rng(1), 4000)
    passed = (Familiarity(statistics).distances(new) <= limits.distance).mean()
    assert passed == pytest.approx(LONE_QUANTILE, abs=0.04)


def test_others_are_parted_where_a_distance_alone_lets_them_through(store: Path) -> None:
    rng = np.random.default_rng(2)
    others, new_others = frames(rng, 400), frames(rng, 400)
    for some in (others, new_others):
        some[:, 0] = 5 + 3.5 + 0.2 * rng.normal(size=len(some))  # of one channel, far but not very
    statistics, limits = familiar_from(store, CHANNELS, others)
    familiarity, new = Familiarity(statistics), frames(rng, 4000)
    is_near = familiarity.distances(new_others) <= limits.distance
    assert is_near.mean() > 0.5
    assert (familiarity.leans(new_others) <= limits.lean).mean() < 0.02
    kept = (familiarity.distances(new) <= limits.distance) & (
        familiarity.leans(new) <= limits.lean
    )
    assert kept.mean() > 0.97


def test_others_that_are_none_are_refused(store: Path) -> None:
    same = frames(np.random.default_rng(3), 400)
    with pytest.raises(InputError, match=r"\d+ % of the other pictures look like the training's"):
        familiar_from(store, CHANNELS, same)


def test_too_few_others_are_refused(store: Path) -> None:
    few = frames(np.random.default_rng(3), MIN_FRAMES - 1)
    with pytest.raises(InputError, match=f"{MIN_FRAMES - 1} other pictures are too few"):
        familiar_from(store, CHANNELS, few)
