# SPDX-License-Identifier: Apache-2.0
"""Pictures for viewers: frames with masks and names, reduced, as JPEG. No thread, no state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.masks import mask_from_rle
from foreseg.media.captions import OverlayLabel, overlay_labels
from foreseg.media.overlay import draw_overlay
from foreseg.media.pen import import_cv2
from foreseg.pipeline.tracks import Track
from foreseg.prompts import ObjectId
from foreseg.tracker.base import LabelMap

SIDES_PX = (320, 640, 1280, 2560)  # longer side at most; few, so that viewers share pictures
JPEG_QUALITY = 80


def fitting_side(wanted_px: int) -> int:
    """The size that is drawn for a view of so many pixels."""
    return next((side for side in SIDES_PX if side >= wanted_px), SIDES_PX[-1])


def drawn_jpeg(
    image: U8Array,
    label_map: LabelMap,
    tracks: tuple[Track, ...],
    side_px: int,
    name_of: Callable[[ObjectId], str],
) -> bytes:
    """A frame with masks and names as JPEG, reduced to `side_px` before it is drawn on."""
    cv2 = import_cv2("drawing")
    image = reduced(image, side_px)
    size_wh = (image.shape[1], image.shape[0])
    if size_wh != (label_map.shape[1], label_map.shape[0]):
        label_map = cv2.resize(label_map, size_wh, interpolation=cv2.INTER_NEAREST)
    labels = tuple(_named(label, name_of) for label in overlay_labels(tracks))
    drawn = draw_overlay(image, label_map, labels, has_legend=False)
    return encoded_jpeg(drawn)


def encoded_jpeg(image: U8Array) -> bytes:
    """An (H, W, 3) RGB image as JPEG.

    Raises:
        InputError: of a size that JPEG does not have.
    """
    cv2 = import_cv2("encoding pictures")
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    is_done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not is_done:
        msg = f"an image of shape {image.shape} cannot be a JPEG"
        raise InputError(msg)
    return bytes(data)


def reduced(image: U8Array, side_px: int) -> U8Array:
    """An image (H, W, 3) with its longer side at most `side_px`; itself if it fits."""
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return image
    cv2 = import_cv2("drawing")
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    smaller: U8Array = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    return smaller


def label_map_of(tracks: tuple[Track, ...], size_wh: tuple[int, int]) -> LabelMap:
    """The masks of tracks on one map, the surer one on top; those of another size are left out."""
    label_map: LabelMap = np.zeros((size_wh[1], size_wh[0]), dtype=np.uint16)
    for track in sorted(tracks, key=lambda track: track.score):
        if track.mask is not None and (track.mask.width, track.mask.height) == size_wh:
            label_map[mask_from_rle(track.mask)] = track.index
    return label_map


def _named(label: OverlayLabel, name_of: Callable[[ObjectId], str]) -> OverlayLabel:
    return replace(label, name=name_of(ObjectId(label.name)))
