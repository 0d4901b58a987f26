# SPDX-License-Identifier: Apache-2.0
"""Plain drawings: of many kinds, equal for equal seeds, and parted from what was seen in training beside photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="draws with OpenCV")
pytest.importorskip("torch", reason="fits with torch")

from foreseg.nano.familiar import Familiarity
from foreseg_export.familiar import familiar_from
from foreseg_export.plain_drawings import plain_drawings

_CHANNELS = 8


def test_drawings_are_pictures_of_many_kinds_and_equal_for_equal_seeds() -> None:
    drawn, again = list(plain_drawings(60, 3)), list(plain_drawings(60, 3))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not np.array_equal(drawn[0], next(plain_drawings(1, 4)))
    assert all(one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3 for one in drawn)
    assert len({one.shape for one in drawn}) > 4
    num_colours = [len(np.unique(one.reshape(-1, 3), axis=0)) for one in drawn]
    assert min(num_colours) < 12  # flat
    assert max(num_colours) > 1000  # noisy
    assert list(plain_drawings(0)) == []


def test_what_looks_like_a_drawing_is_unlike_though_no_photograph_looks_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    np.save(tmp_path / "seen.npy", rng.normal(size=(600, 4, _CHANNELS)).astype(np.float16))
    photos, drawings = (rng.normal(size=(300, _CHANNELS)).astype(np.float32) / 2 for _ in range(2))
    photos[:, 0] += 4
    drawings[:, 1] += 4
    passed = []
    for others in ((photos,), (photos, drawings[::2])):
        statistics, limits = familiar_from(tmp_path / "seen.npy", _CHANNELS, *others)
        found = Familiarity(statistics)
        seen = np.load(tmp_path / "seen.npy").astype(np.float32).mean(axis=1)
        assert (found.leans(photos) > limits.lean).all()
        assert (found.leans(seen) <= limits.lean).mean() > 0.98
        passed.append((found.leans(drawings[1::2]) <= limits.lean).mean())
    assert passed[0] > 0.5
    assert passed[1] < 0.1
