# SPDX-License-Identifier: Apache-2.0
"""What is familiar to a nano reasoner: statistics of the frames that its tower saw in training.

Also of pictures that it is not for, where there are some. Reads the tokens that `foreseg-train nano`
keeps; does not know questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.language.images import F32Array
from foreseg.media.pictures import decoded_picture
from foreseg.nano.familiar import Familiarity, FamiliarLimits
from foreseg.nano.seeing import VisionEncoder

MAX_FRAMES = 20_000  # looked at, evenly over the file
MIN_FRAMES = 100
HELD_OUT = 10  # one of so many, the last frames and every so-manieth picture, is not fitted
QUANTILE = 0.995  # of the frames held out, for either limit
LONE_QUANTILE = 0.9  # of the distance, where no other pictures were shown: it parts them badly
MAX_PASSED = 0.1  # of the other pictures held out
IMAGES = (".jpg", ".jpeg", ".png")
_SHRINKAGE = 0.01  # of the covariance towards a multiple of one: what never varied says little
_DECAY = 1e-3  # of the regression, times the weights' squares
_STEPS = 200


def familiar_from(
    path: Path,
    channels: int,
    others: F32Array | None = None,
    drawings: F32Array | None = None,
) -> tuple[F32Array, FamiliarLimits]:
    """Statistics for `Familiarity`, and the limits beyond which pictures are unlike the training's.

    Args:
        path: (frames, tokens, channels) of `.npy`, in the order in which they were drawn.
        channels: of the model's tokens.
        others: (N, channels), the tokens' means of pictures that it is not for; None: it knows none.
        drawings: (N, channels), of plain drawings, to be told from the training's beside the others; None: it knows none.

    Raises:
        InputError: no such file, of another model, too few frames or others, or others that cannot be told from them.
    """
    means = _means_of(path, channels)
    first_held_out = len(means) - len(means) // HELD_OUT
    fitted, held_out = means[:first_held_out], means[first_held_out:].astype(np.float32)
    centre = fitted.mean(axis=0)
    spread = np.cov(fitted.T)
    spread += _SHRINKAGE * np.trace(spread) / channels * np.eye(channels)
    whitening = np.linalg.cholesky(np.linalg.inv(spread))
    statistics = np.zeros((2 + channels, channels), np.float32)
    statistics[0], statistics[1:-1] = centre, whitening
    familiarity = Familiarity(statistics)
    if others is None:
        limit = np.quantile(familiarity.distances(held_out), LONE_QUANTILE)
        return statistics, FamiliarLimits(distance=round(float(limit), 4), lean=0.0)
    if len(others) < MIN_FRAMES:
        msg = f"{len(others)} other pictures are too few, wanted are at least {MIN_FRAMES}"
        raise InputError(msg)
    is_new = np.arange(len(others)) % HELD_OUT == 0
    white = familiarity.white(fitted.astype(np.float32))
    unlike = others[~is_new] if drawings is None else np.concatenate([others[~is_new], drawings])
    statistics[-1] = _direction(white, familiarity.white(unlike))
    familiarity = Familiarity(statistics)
    limits = FamiliarLimits(
        distance=round(float(np.quantile(familiarity.distances(held_out), QUANTILE)), 4),
        lean=round(float(np.quantile(familiarity.leans(held_out), QUANTILE)), 4),
    )
    passed = float((familiarity.leans(others[is_new]) <= limits.lean).mean())
    if passed > MAX_PASSED:
        msg = (
            f"{100 * passed:.0f} % of the other pictures look like the training's, at most"
            f" {100 * MAX_PASSED:.0f} may: are they others?"
        )
        raise InputError(msg)
    return statistics, limits


def means_of_pictures(encoder: VisionEncoder, folder: Path) -> F32Array:
    """(N, C): the tokens' means of all JPEG and PNG pictures in a folder and below it.

    Raises:
        InputError: there is none, or one is damaged.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGES]
    if not paths:
        msg = f"{folder} has no pictures ({', '.join(IMAGES)})"
        raise InputError(msg)
    return means_of_images(encoder, map(_read, paths))


def means_of_images(encoder: VisionEncoder, images: Iterable[U8Array]) -> F32Array:
    """(N, C): the tokens' means of pictures (H, W, 3) RGB."""
    return np.stack([_mean(encoder, image) for image in images])


def _read(path: Path) -> U8Array:
    try:
        image = decoded_picture(cv2, path.read_bytes(), cv2.IMREAD_COLOR)
    except (OSError, InputError) as error:
        msg = f"{path} cannot be read: {error}"
        raise InputError(msg) from error
    return image[..., ::-1]


def _mean(encoder: VisionEncoder, image: U8Array) -> F32Array:
    found = [seen for seen in encoder.encode([image]) if seen is not None]
    mean: F32Array = found[-1][0].tokens.mean(axis=0)
    return mean


def _means_of(path: Path, channels: int) -> NDArray[np.float64]:
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
    return means


def _direction(own: F32Array, others: F32Array) -> F32Array:
    """(C,) weights of a logistic regression that tells others from its own, each kind worth as much."""
    own_rows, other_rows = (torch.from_numpy(rows).double() for rows in (own, others))
    weights = torch.zeros(own.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        missed = functional.softplus(own_rows @ weights + bias).mean()
        lost = functional.softplus(-(other_rows @ weights + bias)).mean()
        found = missed + lost + _DECAY * weights.square().sum()
        found.backward()
        return found

    solver.step(loss)
    return weights.detach().numpy().astype(np.float32)
