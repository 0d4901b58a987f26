# SPDX-License-Identifier: Apache-2.0
"""How much pictures are like those that a nano reasoner was trained on, by what its tower sees in them.

A frame is its tokens' mean; its distance is Mahalanobis', per channel: about 1 where a frame is one
of many. Does not know questions, nor which distance is too far.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from foreseg.errors import EngineError
from foreseg.language.images import F32Array
from foreseg.nano.seeing import SeenFrame


class Familiarity:
    """Statistics of the frames seen in training.

    Args:
        statistics: (1 + C, C) float32: the mean, and the matrix that makes what is around it white.
    """

    def __init__(self, statistics: F32Array) -> None:
        self._mean, self._whitening = statistics[0], statistics[1:]

    def distance(self, frames: Sequence[SeenFrame]) -> float:
        """The mean over frames, at least one, of how far each is from those of the training."""
        means = np.stack([frame.tokens.mean(axis=0) for frame in frames])
        return float(self.distances(means).mean())

    def distances(self, means: F32Array) -> F32Array:
        """(N,) of (N, C): of frames whose tokens have these means."""
        white = (means - self._mean) @ self._whitening
        found: F32Array = np.sqrt(np.square(white).mean(axis=1))
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
        statistics.shape != (1 + channels, channels)
        or statistics.dtype != np.dtype(np.float32)
        or not np.isfinite(statistics).all()
    ):
        msg = f"{where} wants finite float32 of {1 + channels} x {channels}"
        raise EngineError(msg)
    return Familiarity(statistics)
