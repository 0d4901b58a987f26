# SPDX-License-Identifier: Apache-2.0
"""Frames from which the ranges of int8 values are taken: the user's clips, or a drawn one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.manifest import Calibration, Sam2Geometry
from foreseg.errors import InputError
from foreseg.media.sources import frames_of, open_source
from foreseg.tracker.drawn_clip import moving_shapes
from foreseg.tracker.preprocess import pixels_from_image

F32 = NDArray[np.float32]

DRAWN = "drawn"
MAX_FRAMES = 48  # of all clips together

_DRAWN_SEED = 1  # the clip of the parity gate has another
_MAX_STRIDE = 30  # a second or so: the end of an hour is not worth reading all of it


def calibration_pixels(
    sources: Sequence[str], geometry: Sam2Geometry, *, method: str
) -> tuple[list[F32], Calibration]:
    """Model inputs of up to `MAX_FRAMES` frames, spread over each clip, and what they are.

    Args:
        sources: videos, pictures or folders of pictures; none: a drawn clip.
        geometry: of the model.
        method: only recorded.

    Raises:
        InputError: a camera, or a source without a frame.
        StreamError: a source cannot be opened or read.
    """
    if sources:
        share = max(1, MAX_FRAMES // len(sources))
        pixels = [p for source in sources for p in _pixels_of(source, geometry, share)]
        names = tuple(Path(source).name for source in sources)
    else:
        clip = moving_shapes(seed=_DRAWN_SEED)
        pixels = [pixels_from_image(image, geometry) for image in clip.frames]
        names = (DRAWN,)
    return pixels, Calibration(method=method, sources=names, frames=len(pixels))


def _pixels_of(spec: str, geometry: Sam2Geometry, limit: int) -> list[F32]:
    if not Path(spec).expanduser().exists():
        msg = (
            f"--calibration wants a video, a picture or a folder of pictures, nothing is at {spec}"
        )
        raise InputError(msg)
    with open_source(spec) as source:
        known = source.num_frames
        stride = _MAX_STRIDE if known is None else max(1, min(_MAX_STRIDE, known // limit))
        picked = itertools.islice(frames_of(source), 0, stride * limit, stride)
        found = [pixels_from_image(item.image, geometry) for item in picked]
    if not found:
        msg = f"--calibration wants clips with frames, {spec} has none"
        raise InputError(msg)
    return found
