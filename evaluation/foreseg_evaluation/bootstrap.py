# SPDX-License-Identifier: Apache-2.0
"""How sure a mean is: the percentile bootstrap over episodes (Efron 1979).

Does not know: what the values measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
LEVEL = 0.95
_CHUNK_VALUES = 4_000_000  # drawn at once: 32 MB of indices, however many episodes there are


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanInterval:
    """A mean and the bounds that hold it with 95 % confidence; all NaN without values."""

    mean: float
    low: float
    high: float
    count: int  # values behind the mean

    def scaled(self, factor: float) -> MeanInterval:
        """The same in another unit, such as 100 for percent."""
        return MeanInterval(
            mean=self.mean * factor,
            low=self.low * factor,
            high=self.high * factor,
            count=self.count,
        )


def mean_interval(values: Sequence[float] | NDArray[np.float64], *, seed: int = 0) -> MeanInterval:
    """Average and bound by resampling with replacement; equal values give equal bounds.

    One value says nothing of its spread: its bounds are NaN. For two runs of the same episodes
    pass the paired differences.

    Args:
        values: one number an episode; NaN = does not apply, left out.
        seed: of the resampling.
    """
    array = np.asarray(values, dtype=np.float64)
    array = np.sort(array[~np.isnan(array)])  # in whatever order they come
    count = array.size
    if count == 0:
        return MeanInterval(mean=np.nan, low=np.nan, high=np.nan, count=0)
    mean = float(array.mean())
    if count == 1:
        return MeanInterval(mean=mean, low=np.nan, high=np.nan, count=1)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK_VALUES // count)
    means = [
        array[rng.integers(0, count, size=(min(rows, NUM_RESAMPLES - start), count))].mean(axis=1)
        for start in range(0, NUM_RESAMPLES, rows)
    ]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return MeanInterval(mean=mean, low=float(low), high=float(high), count=count)
