# SPDX-License-Identifier: Apache-2.0
"""The gate of every export: the bundle in foreseg's tracker against `transformers`' streaming.

Both get the same pixels; compared are mask logits on the model's grid, and masks at source size.
The clip is drawn here: a few textured shapes that move over a textured ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from foreseg.engines.load import Bundle
from foreseg.engines.manifest import Parity
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.masks import mask_from_rle
from foreseg.prompts import Point, SpatialPrompt
from foreseg.tracker.base import TrackKey
from foreseg.tracker.preprocess import pixels_from_image, points_from_prompt
from foreseg.tracker.sam2 import Sam2Tracker
from foreseg_torch.sam2_reference import Sam2Reference
from foreseg_torch.video_models import VideoModel

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

GATE_MEAN_IOU = 0.999
MIN_AREA_PX = 400
NOTES = {"sam2": "memory stored as float32; the reference stores bfloat16", "edgetam": ""}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """Frames (H, W, 3) RGB, and one prompt on the first of them for each object."""

    frames: tuple[U8Array, ...]
    prompts: tuple[SpatialPrompt, ...]


def moving_shapes(
    *, frames: int = 20, size_wh: tuple[int, int] = (320, 240), seed: int = 0
) -> Clip:
    """Three shapes on a textured ground: prompted by a box, a point, and a box with a point."""
    rng = np.random.default_rng(seed)
    w, h = size_wh
    ground = _texture(rng, w, h)
    radius = h // 6
    starts = np.asarray([(0.25, 0.3), (0.7, 0.35), (0.45, 0.75)]) * (w, h)
    speeds = rng.uniform(-1.5, 1.5, (3, 2))
    patches = [_texture(rng, 2 * radius, 2 * radius) for _ in starts]
    images = []
    for t in range(frames):
        image = ground.copy()
        for i, start in enumerate(starts):
            _paste(image, patches[i], start + t * speeds[i], round_=i != 1)
        images.append(image)
    boxes = [BoxXyxy(*(start - radius), *(start + radius)) for start in starts]
    points = [Point(float(x), float(y)) for x, y in starts]
    prompts = (
        SpatialPrompt(box=boxes[0]),
        SpatialPrompt(points=(points[1],)),
        SpatialPrompt(box=boxes[2], points=(points[2],)),
    )
    return Clip(frames=tuple(images), prompts=prompts)


def compare(model: VideoModel, bundle: Bundle, clip: Clip) -> Parity:
    """Stream a clip through both and measure."""
    tracker = Sam2Tracker(bundle, max_objects=len(clip.prompts))
    reference = Sam2Reference(model)
    geometry = bundle.manifest.geometry
    keys = [TrackKey(str(i)) for i in range(len(clip.prompts))]
    size_wh = (clip.frames[0].shape[1], clip.frames[0].shape[0])
    for i, prompt in enumerate(clip.prompts):
        points = points_from_prompt(prompt, size_wh, geometry.image_size)
        reference.prompt_points(i, points.coords, points.labels)
    differences, scale, ious = [], [], []
    for t, image in enumerate(clip.frames):
        frame = _frame(t, image)
        if t == 0:
            for key, prompt in zip(keys, clip.prompts, strict=True):
                tracker.prompt(frame, key, prompt)
        result = tracker.track(frame, keys)
        wanted, _ = reference.step(pixels_from_image(image, geometry))
        got = np.stack([tracker.logits_of(key) for key in keys])
        differences.append((got - wanted).ravel())
        scale.append(wanted.ravel())
        masks = [mask_from_rle(tracked.mask) for tracked in result.objects]
        ious += _ious(masks, _masks_at_source(wanted, size_wh))
    difference = np.concatenate(differences)
    return Parity(
        reference=f"transformers {type(model).__name__}, torch {torch.__version__}",
        frames=len(clip.frames),
        objects=len(keys),
        masks=len(ious),
        min_area_px=MIN_AREA_PX,
        max_abs_logit=float(np.abs(difference).max()),
        rms_logit=_rms(difference),
        reference_rms_logit=_rms(np.concatenate(scale)),
        min_iou=min(ious, default=0.0),
        mean_iou=float(np.mean(ious)) if ious else 0.0,
        gate_mean_iou=GATE_MEAN_IOU,
        note=NOTES[bundle.manifest.family],
    )


def _frame(t: int, image: U8Array) -> Frame:
    ref = FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(t),
        epoch=0,
        stamp_ns=t,
        received_ns=t,
        size_wh=(image.shape[1], image.shape[0]),
    )
    return Frame(ref=ref, image=image)


def _masks_at_source(logits: F32, size_wh: tuple[int, int]) -> list[Mask]:
    enlarged = functional.interpolate(
        torch.from_numpy(logits)[:, None],
        size=(size_wh[1], size_wh[0]),
        mode="bilinear",
        align_corners=False,
    )
    return [np.asarray(mask) for mask in (enlarged[:, 0] > 0).numpy()]


def _ious(got: list[Mask], wanted: list[Mask]) -> list[float]:
    return [
        float((a & b).sum() / (a | b).sum())
        for a, b in zip(got, wanted, strict=True)
        if b.sum() >= MIN_AREA_PX
    ]


def _rms(values: F32) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _texture(rng: np.random.Generator, w: int, h: int) -> U8Array:
    """(h, w, 3) smooth noise in a random hue."""
    coarse = rng.uniform(0, 1, (6, 6, 3)).astype(np.float32)
    hue = rng.uniform(0.3, 1.0, 3)
    fine = rng.uniform(-0.06, 0.06, (h, w, 3))
    smooth = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)
    return np.clip((smooth + fine) * hue * 255, 0, 255).astype(np.uint8)


def _paste(
    image: U8Array, patch: U8Array, centre_xy: NDArray[np.float64], *, round_: bool
) -> None:
    """Draw a patch, cut to a disc or a square; what leaves the image is cut off."""
    side = patch.shape[0]
    yy, xx = np.mgrid[:side, :side] - (side - 1) / 2
    inside = (xx**2 + yy**2 <= (side / 2) ** 2) if round_ else np.ones((side, side), np.bool_)
    x, y = (round(float(v) - side / 2) for v in centre_xy)
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + side, image.shape[1]), min(y + side, image.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    cut = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    image[y0:y1, x0:x1][inside[cut]] = patch[cut][inside[cut]]
