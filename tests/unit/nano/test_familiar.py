# SPDX-License-Identifier: Apache-2.0
"""How far pictures are from those of a training, and how near to others."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from foreseg.errors import EngineError
from foreseg.nano.familiar import Familiarity, FamiliarLimits, Strangeness, familiarity_from
from foreseg.nano.seeing import SeenFrame


def seen(tokens: np.ndarray) -> SeenFrame:
    return SeenFrame(key=b"", grid=(1, 2, 2), tokens=tokens.astype(np.float32))


def statistics(mean: np.ndarray, deviation: np.ndarray, direction: np.ndarray) -> np.ndarray:
    rows = [mean[None], np.diag(1 / deviation), direction[None]]
    return np.concatenate(rows).astype(np.float32)


def test_a_distance_is_mahalanobis_per_channel_of_the_tokens_mean() -> None:
    mean, deviation = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    familiar = Familiarity(statistics(mean, deviation, np.zeros(2)))
    at_mean = seen(mean + np.array([[1.0, 3.0], [-1.0, -3.0]]))  # two tokens around it
    aside = seen((mean + 2 * deviation)[None])
    assert familiar.strangeness([at_mean]).distance == pytest.approx(0)
    assert familiar.strangeness([aside]) == Strangeness(distance=pytest.approx(2), lean=0.0)
    assert familiar.strangeness([at_mean, aside]).distance == pytest.approx(1)


def test_a_lean_is_measured_in_white_channels() -> None:
    mean, deviation = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    familiar = Familiarity(statistics(mean, deviation, np.array([3.0, -1.0])))
    aside = seen((mean + np.array([2.0, 1.0]) * deviation)[None])
    assert familiar.strangeness([aside]).lean == pytest.approx(3 * 2 - 1)
    assert familiar.strangeness([seen(mean[None]), aside]).lean == pytest.approx(2.5)


def test_either_limit_is_told_by_its_number() -> None:
    limits = FamiliarLimits(distance=1.2, lean=-0.5)
    assert not limits.broken_by(Strangeness(distance=1.2, lean=-0.5))
    far = limits.broken_by(Strangeness(distance=1.3, lean=-9.0))
    assert far == "distance 1.30, it answers up to 1.20"
    near_others = limits.broken_by(Strangeness(distance=0.9, lean=2.0))
    assert near_others == "nearer to other pictures, 2.0, it answers up to -0.5"


@pytest.mark.parametrize("fault", ["empty", "shape", "kind", "nan", "text"])
def test_damaged_statistics_are_refused(fault: str, tmp_path: Path) -> None:
    array = np.zeros((4, 2), np.float64 if fault == "kind" else np.float32)
    if fault == "shape":
        array = array[:3]
    if fault == "nan":
        array[0, 0] = np.nan
    file = io.BytesIO()
    np.save(file, array)
    content = {"empty": b"", "text": b"no array"}.get(fault, file.getvalue())
    with pytest.raises(EngineError, match="familiar"):
        familiarity_from(content, 2, str(tmp_path / "familiar.npy"))


def test_whole_statistics_are_read() -> None:
    file = io.BytesIO()
    np.save(file, statistics(np.zeros(2), np.ones(2), np.array([0.0, 1.0])))
    familiar = familiarity_from(file.getvalue(), 2, "familiar.npy")
    found = familiar.strangeness([seen(np.array([[3.0, 3.0]]))])
    assert (found.distance, found.lean) == (pytest.approx(3), pytest.approx(3))
