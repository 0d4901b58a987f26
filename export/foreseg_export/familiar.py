# SPDX-License-Identifier: Apache-2.0
"""What is familiar to a nano reasoner: statistics of the frames that its tower saw in training.

Does not know pictures; it reads the tokens that `foreseg-train nano` keeps of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import InputError
from foreseg.nano.familiar import Familiarity

MAX_FRAMES = 20_000  # looked at, evenly over the file
MIN_FRAMES = 100
HELD_OUT = 10  # one of so many, the last, are not fitted
QUANTILE = 0.9  # of the frames held out: what little of the real pictures at hand falls below (docs/log.md)
_SHRINKAGE = 0.01  # of the covariance towards a multiple of one: what never varied says little


def familiar_from(path: Path, channels: int) -> tuple[NDArray[np.float32], float]:
    """Statistics for `Familiarity`, and the distance beyond which pictures are unlike the training's.

    Args:
        path: (frames, tokens, channels) of `.npy`, in the order in which they were drawn.
        channels: of the model's tokens.

    Raises:
        InputError: no such file, of another model, or too few frames.
    """
    try:
        seen = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        msg = f"{path} cannot be read: {error}"
        raise InputError(msg) from error
    if seen.ndim != 3 or seen.shape[0] < MIN_FRAMES or seen.shape[2] != channels:
        msg = (
            f"{path} wants tokens of at least {MIN_FRAMES} frames, with {channels} channels, got"
            f" {' x '.join(map(str, seen.shape))}"
        )
        raise InputError(msg)
    chosen = np.linspace(0, len(seen) - 1, min(len(seen), MAX_FRAMES)).round().astype(np.int64)
    means = np.stack([seen[i].astype(np.float64).mean(axis=0) for i in chosen])
    if not np.isfinite(means).all():
        msg = f"{path} holds tokens that are not finite"
        raise InputError(msg)
    first_held_out = len(means) - len(means) // HELD_OUT
    fitted, held_out = means[:first_held_out], means[first_held_out:]
    centre = fitted.mean(axis=0)
    spread = np.cov(fitted.T)
    spread += _SHRINKAGE * np.trace(spread) / channels * np.eye(channels)
    whitening = np.linalg.cholesky(np.linalg.inv(spread))
    statistics = np.concatenate([centre[None], whitening]).astype(np.float32)
    distances = Familiarity(statistics).distances(held_out.astype(np.float32))
    return statistics, round(float(np.quantile(distances, QUANTILE)), 4)
