# SPDX-License-Identifier: Apache-2.0
"""How far pictures are from those of a training."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from foreseg.errors import EngineError
from foreseg.nano.familiar import Familiarity, familiarity_from
from foreseg.nano.seeing import SeenFrame


def seen(tokens: np.ndarray) -> SeenFrame:
    return SeenFrame(key=b"", grid=(1, 2, 2), tokens=tokens.astype(np.float32))


def test_a_distance_is_mahalanobis_per_channel_of_the_tokens_mean() -> None:
    mean, deviation = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    statistics = np.concatenate([mean[None], np.diag(1 / deviation)]).astype(np.float32)
    familiar = Familiarity(statistics)
    at_mean = seen(mean + np.array([[1.0, 3.0], [-1.0, -3.0]]))  # two tokens around it
    aside = seen((mean + 2 * deviation)[None])
    assert familiar.distance([at_mean]) == pytest.approx(0)
    assert familiar.distance([aside]) == pytest.approx(2)
    assert familiar.distance([at_mean, aside]) == pytest.approx(1)


@pytest.mark.parametrize("fault", ["empty", "shape", "kind", "nan", "text"])
def test_damaged_statistics_are_refused(fault: str, tmp_path: Path) -> None:
    array = np.zeros((3, 2), np.float64 if fault == "kind" else np.float32)
    if fault == "shape":
        array = array[:2]
    if fault == "nan":
        array[0, 0] = np.nan
    file = io.BytesIO()
    np.save(file, array)
    content = {"empty": b"", "text": b"no array"}.get(fault, file.getvalue())
    with pytest.raises(EngineError, match="familiar"):
        familiarity_from(content, 2, str(tmp_path / "familiar.npy"))


def test_whole_statistics_are_read() -> None:
    file = io.BytesIO()
    np.save(file, np.concatenate([np.zeros((1, 2)), np.eye(2)]).astype(np.float32))
    familiar = familiarity_from(file.getvalue(), 2, "familiar.npy")
    assert familiar.distance([seen(np.array([[3.0, 3.0]]))]) == pytest.approx(3)
