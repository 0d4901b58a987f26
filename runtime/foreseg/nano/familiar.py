# SPDX-License-Identifier: Apache-2.0
"""How much pictures are like those that a nano reasoner was trained on, by what its tower sees in them.

A frame is its tokens' mean, made white by what the training showed. Two numbers tell of it: its
distance, Mahalanobis' per channel, about 1 where a frame is one of many; and how far it leans towards
other pictures, photographs above all, which a logistic regression was fitted to tell from the
training's ("outlier exposure", Hendrycks et al., 2019, with nothing but the last layer fitted).
Does not know questions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreseg.errors import EngineError
from foreseg.language.images import F32Array
from foreseg.nano.seeing import SeenFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Strangeness:
    """Of frames, the mean over them.

    Attributes:
        distance: from the training's frames.
        lean: towards other pictures, a log-odds but for a constant; 0 where none were ever shown.
    """

    distance: float
    lean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FamiliarLimits:
    """Up to which frames are answered about."""

    distance: float
    lean: float

    def broken_by(self, found: Strangeness) -> str:
        """Which limit, in words; "" where none is."""
        if found.distance > self.distance:
            return f"distance {found.distance:.2f}, it answers up to {self.distance:.2f}"
        if found.lean > self.lean:
            return f"nearer to other pictures, {found.lean:.1f}, it answers up to {self.lean:.1f}"
        return ""


class Familiarity:
    """Statistics of the frames seen in training, and of pictures that it is not for.

    Args:
        statistics: (2 + C, C) float32: the mean, the matrix that makes what is around it white, and
            the direction of other pictures in what is white; zeros where none were shown.
    """

    def __init__(self, statistics: F32Array) -> None:
        self._mean, self._whitening, self._direction = (
            statistics[0],
            statistics[1:-1],
            statistics[-1],
        )

    def strangeness(self, frames: Sequence[SeenFrame]) -> Strangeness:
        """Of frames, at least one."""
        means = np.stack([frame.tokens.mean(axis=0) for frame in frames])
        return Strangeness(
            distance=float(self.distances(means).mean()), lean=float(self.leans(means).mean())
        )

    def white(self, means: F32Array) -> F32Array:
        """(N, C) of (N, C): without what the channels of the training's frames have in common."""
        found: F32Array = (means - self._mean) @ self._whitening
        return found

    def distances(self, means: F32Array) -> F32Array:
        """(N,) of (N, C): of frames whose tokens have these means."""
        found: F32Array = np.sqrt(np.square(self.white(means)).mean(axis=1))
        return found

    def leans(self, means: F32Array) -> F32Array:
        """Likewise, towards other pictures."""
        found: F32Array = self.white(means) @ self._direction
        return found


def familiarity_from(content: bytes, channels: int, where: str) -> Familiarity:
    """Read the statistics' file.

    Raises:
        EngineError: it is no array of these channels.
    """
    try:
        statistics = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        msg = f"{where} cannot be read: {error}"
        raise EngineError(msg) from error
    if not isinstance(statistics, np.ndarray) or (
        statistics.shape != (2 + channels, channels)
        or statistics.dtype != np.dtype(np.float32)
        or not np.isfinite(statistics).all()
    ):
        msg = f"{where} wants finite float32 of {2 + channels} x {channels}"
        raise EngineError(msg)
    return Familiarity(statistics)
