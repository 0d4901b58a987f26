# SPDX-License-Identifier: Apache-2.0
"""From frames and spatial prompts in source pixels to the arrays that the engines take."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.manifest import Sam2Geometry
from foreseg.errors import MissingExtraError
from foreseg.frames import U8Array
from foreseg.geometry import resize_matrix
from foreseg.masks import Mask
from foreseg.prompts import SpatialPrompt

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

NOT_A_POINT = -1  # labels as SAM2's prompt encoder counts them
_BOX_CORNERS = (2, 3)
_BILINEAR_UP_TO = 1.5  # source pixels to a model pixel; at 2 every other one may get nothing
MASK_LOGIT = 10.0  # inside a mask prompt; outside it is minus this


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptPoints:
    """A prompt as the decoder takes it: a box is two points with the labels 2 and 3."""

    coords: F32  # (P, 2) model pixels
    labels: I32  # (P,)

    def __len__(self) -> int:
        return int(self.labels.size)

    def joined(self, other: PromptPoints) -> PromptPoints:
        """These points, then `other`'s."""
        return PromptPoints(
            coords=np.concatenate((self.coords, other.coords)),
            labels=np.concatenate((self.labels, other.labels)),
        )


def no_points() -> PromptPoints:
    """What the decoder gets where nobody pointed: one point that is none."""
    return PromptPoints(
        coords=np.zeros((1, 2), np.float32), labels=np.full(1, NOT_A_POINT, np.int32)
    )


def import_cv2() -> ModuleType:
    """OpenCV, imported where it is needed.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        package, extra = "cv2", "video"
        raise MissingExtraError(package, extra, "resizing frames and masks") from error


def pixels_from_image(image: U8Array, geometry: Sam2Geometry) -> F32:
    """(1, 3, S, S) normalised pixels of an (h, w, 3) RGB frame, squeezed to a square.

    Sides are halved down to less than twice S. From 1.5 times S on, a bilinear filter gives every
    pixel at least half its share, and takes a sixth of the time of areas of broken pixels.
    """
    cv2 = import_cv2()
    side = geometry.image_size
    while max(image.shape[:2]) >= 2 * side:
        height, width = (n // 2 if n >= 2 * side else n for n in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (side, side):
        is_near = max(image.shape[:2]) <= _BILINEAR_UP_TO * side
        how = cv2.INTER_LINEAR if is_near or min(image.shape[:2]) < side else cv2.INTER_AREA
        image = cv2.resize(image, (side, side), interpolation=how)
    scale = np.float32(1 / 255) / np.asarray(geometry.pixel_std, np.float32)
    offset = np.asarray(geometry.pixel_mean, np.float32) / np.asarray(
        geometry.pixel_std, np.float32
    )
    pixels = np.empty((1, 3, side, side), np.float32)
    for channel, plane in enumerate(cv2.split(image)):  # whole planes: strides of 3 are slow
        np.multiply(plane, scale[channel], out=pixels[0, channel])
        pixels[0, channel] -= offset[channel]
    return pixels


def points_from_prompt(
    prompt: SpatialPrompt, size_wh: tuple[int, int], image_size: int
) -> PromptPoints:
    """A box's corners, then the points, scaled from source to model pixels."""
    corners = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
    coords = np.asarray([*corners, *((p.x, p.y) for p in prompt.points)], np.float32)
    labels = [*_BOX_CORNERS[: len(corners)], *(int(p.label) for p in prompt.points)]
    scale = np.asarray((image_size / size_wh[0], image_size / size_wh[1]), np.float32)
    return PromptPoints(
        coords=(coords.reshape(-1, 2) * scale).astype(np.float32),
        labels=np.asarray(labels, np.int32),
    )


def logits_from_mask(mask: Mask, geometry: Sam2Geometry) -> tuple[F32, F32]:
    """What the memory and the prompt encoder want for an (H, W) mask prompt.

    Returns:
        (m, m) mask logits for the memory, within +-MASK_LOGIT, and the (m, m) input of the prompt
        encoder.
    """
    side, m = geometry.image_size, geometry.mask_size
    square = _shrunk(mask.astype(np.float32), side)
    logits = _shrunk(square * (2 * MASK_LOGIT) - MASK_LOGIT, m)
    kernel = np.asarray(geometry.mask_kernel, np.float32).reshape(4, 4)
    patches = square.reshape(m, side // m, m, side // m)
    encoded = np.einsum("ayxb,yb->ax", patches.transpose(0, 1, 2, 3), kernel)
    return logits, (encoded + np.float32(geometry.mask_bias)).astype(np.float32)


def _shrunk(image: F32, side: int) -> F32:
    """(side, side), by the bilinear filter that widens where it shrinks (antialiased)."""
    rows = resize_matrix(image.shape[0], side)
    columns = resize_matrix(image.shape[1], side)
    resized: F32 = rows @ image @ columns.T
    return resized
