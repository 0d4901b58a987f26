# SPDX-License-Identifier: Apache-2.0
"""Batches: clips, chosen objects and one kind of prompt, as tensors.

One kind of prompt per batch keeps the tokens of every row equal in number, as at run time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from foreseg_simulation.textures import U8Array

from .clips import Clip, MakeClip

_MIN_AREA_SHARE = 0.002  # of the frame, for an object on the prompted frame


class PromptKind(enum.Enum):
    """What the first frame is prompted with."""

    BOX = "box"
    POINT = "point"
    POINTS = "points"
    BOX_POINTS = "box and points"
    MASK = "mask"
    MASK_POINTS = "mask that is not exact, and points"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Objects as rows, each in one of the clips.

    Points are model pixels; labels as in SAM 2: 1 foreground, 0 background, 2 and 3 corners.
    """

    pixels: torch.Tensor  # (B, T, 3, S, S) float32, normalised
    rows: torch.Tensor  # (O,) int64, the clip of each object
    targets: torch.Tensor  # (O, T, S, S) float32, 0 or 1
    kind: PromptKind
    points: torch.Tensor | None  # (O, 1, P, 2) float32
    labels: torch.Tensor | None  # (O, 1, P) int32
    drawn: torch.Tensor | None = None  # (O, S, S) float32, the masks that the points correct
    refine_at: int | None = None  # a later frame on which every row gets a click on its error
    click_seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShape:
    """How much goes into a batch."""

    num_clips: int
    num_frames: int
    num_objects: int
    image_size: int


def normalise(images: U8Array, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Turn (..., S, S, 3) RGB into (..., 3, S, S) float32 as the model wants it."""
    pixels = torch.from_numpy(images).to(torch.float32).div_(255)
    pixels = (pixels - torch.tensor(mean)) / torch.tensor(std)
    return pixels.movedim(-1, -3)


def make_batch(
    rng: np.random.Generator,
    make_clip: MakeClip,
    shape: BatchShape,
    kind: PromptKind,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    refine: bool = False,
) -> Batch:
    """Render clips, choose objects visible on the first frame, and prompt them.

    With `refine`, clips of several frames get a correcting click on one later frame.
    """
    clips: list[Clip] = []
    chosen: list[list[int]] = []
    while len(clips) < shape.num_clips:
        clip = make_clip(int(rng.integers(1 << 40)), shape.num_frames, shape.image_size)
        visible = float(rng.choice([0.3, 0.6]))
        objects = choose_objects(
            rng, clip.instance_ids[0], clip.full_areas_px, visible, shape.num_objects
        )
        if objects:
            clips.append(clip)
            chosen.append(objects)
    masks = [
        clip.instance_ids == k
        for clip, objects in zip(clips, chosen, strict=True)
        for k in objects
    ]
    first = [mask[0] for mask in masks]
    points, labels = prompt_points(rng, first, kind)
    drawn = None
    if kind is PromptKind.MASK_POINTS:
        drawn = np.stack([inexact(rng, mask) for mask in first])
        truths, count = np.stack(first), int(rng.integers(1, 4))
        clicks = [correcting_clicks(rng, drawn, truths) for _ in range(count)]
        points = torch.cat([xy for xy, _ in clicks], dim=2)
        labels = torch.cat([label for _, label in clicks], dim=2)
    return Batch(
        pixels=normalise(np.stack([clip.images for clip in clips]), mean, std),
        rows=torch.arange(shape.num_clips).repeat_interleave(shape.num_objects),
        targets=torch.from_numpy(np.stack(masks)).to(torch.float32),
        kind=kind,
        points=points,
        labels=labels,
        drawn=None if drawn is None else torch.from_numpy(drawn.astype(np.float32)),
        refine_at=int(rng.integers(1, shape.num_frames))
        if refine and shape.num_frames > 1
        else None,
        click_seed=int(rng.integers(1 << 40)),
    )


def choose_objects(
    rng: np.random.Generator,
    ids: U8Array,
    full_areas_px: tuple[float, ...],
    visible: float,
    num_objects: int,
) -> list[int]:
    """Pick objects to prompt on a frame; repeats where there are few, empty where none fits.

    Args:
        rng: source of the order.
        ids: (S, S) instance ids of the frame.
        full_areas_px: area of object k at k - 1, hidden parts included.
        visible: least share of the full area that must be seen, 0..1.
        num_objects: how many to return.
    """
    areas = np.bincount(ids.ravel(), minlength=len(full_areas_px) + 1)
    least = _MIN_AREA_SHARE * ids.size
    eligible = [
        k
        for k, full in enumerate(full_areas_px, start=1)
        if areas[k] >= max(least, visible * full)
    ]
    if not eligible:
        return []
    order = [int(k) for k in rng.permutation(eligible)]
    return (order * num_objects)[:num_objects]


def prompt_points(
    rng: np.random.Generator, masks: list[np.ndarray], kind: PromptKind
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Prompt (S, S) bool masks; returns points (O, 1, P, 2) and labels (O, 1, P), of masks Nones."""
    if kind in {PromptKind.MASK, PromptKind.MASK_POINTS}:
        return None, None
    points: list[np.ndarray] = [np.zeros((0, 2))] * len(masks)
    labels: list[tuple[int, ...]] = [()] * len(masks)
    if kind in {PromptKind.BOX, PromptKind.BOX_POINTS}:
        points = [_jittered_box(rng, mask).reshape(2, 2) for mask in masks]
        labels = [(2, 3)] * len(masks)
    if kind is not PromptKind.BOX:
        num_points = 1
        if kind is PromptKind.POINTS:
            num_points = int(rng.integers(2, 6))
        elif kind is PromptKind.BOX_POINTS:
            num_points = int(rng.integers(1, 4))
        clicks = [_clicks(rng, mask, num_points) for mask in masks]
        points = [
            np.concatenate([corners, *([xy[None] for xy, _ in click])])
            for corners, click in zip(points, clicks, strict=True)
        ]
        labels = [
            (*corners, *(label for _, label in click))
            for corners, click in zip(labels, clicks, strict=True)
        ]
    return (
        torch.from_numpy(np.stack(points).astype(np.float32))[:, None],
        torch.tensor(labels, dtype=torch.int32)[:, None],
    )


def inexact(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Draw an (S, S) bool mask as a person or another model might: not quite.

    Grown or shrunk, moved, a side of it missing, something beside it taken along, or exact.
    """
    ys, xs = np.nonzero(mask)
    size = float(np.sqrt(len(ys)))
    way = rng.choice(["grown", "shrunk", "moved", "cut", "more", "exact"])
    drawn = mask.astype(np.uint8)
    if way in {"grown", "shrunk"}:
        side = 1 + 2 * max(1, round(float(rng.uniform(0.03, 0.12)) * size))
        shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        drawn = cv2.dilate(drawn, shape) if way == "grown" else cv2.erode(drawn, shape)
    elif way == "moved":
        dx, dy = rng.uniform(-0.25, 0.25, 2) * size
        shift = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
        drawn = cv2.warpAffine(drawn, shift, drawn.shape[::-1], flags=cv2.INTER_NEAREST)
    elif way == "cut":
        angle = rng.uniform(0, 2 * np.pi)
        along = np.cos(angle) * xs + np.sin(angle) * ys
        gone = along > np.quantile(along, rng.uniform(0.3, 0.9))
        drawn[ys[gone], xs[gone]] = 0
    elif way == "more":
        j = rng.integers(len(ys))
        axes = np.maximum(1, np.round(rng.uniform(0.1, 0.6, 2) * size)).astype(int)
        centre = int(xs[j]), int(ys[j])
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(drawn, centre, (int(axes[0]), int(axes[1])), turn, 0, 360, 1, thickness=-1)
    result = drawn.astype(bool)
    return result if result.any() else mask


def correcting_clicks(
    rng: np.random.Generator, predicted: np.ndarray, truth: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Click where masks (O, H, W) bool are wrong, as SAM 2 does in training.

    Inside a region that was missed, or (label 0) one that was taken wrongly; on the object where
    nothing is wrong, and on the background where the object is away.

    Returns:
        Points (O, 1, 1, 2) float32 in pixels of the masks, labels (O, 1, 1) int32.
    """
    points = np.zeros((len(truth), 1, 1, 2), np.float32)
    labels = np.zeros((len(truth), 1, 1), np.int32)
    for row, (said, true) in enumerate(zip(predicted, truth, strict=True)):
        wrong = said ^ true
        region = wrong if wrong.any() else true if true.any() else ~true
        inner = cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        ys, xs = np.nonzero(inner if inner.any() else region)
        j = rng.integers(len(ys))
        points[row, 0, 0] = xs[j], ys[j]
        labels[row] = int(true[ys[j], xs[j]])
    return torch.from_numpy(points), torch.from_numpy(labels)


def _jittered_box(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Box the mask by its outer edges, (4,) x0 y0 x1 y1, off by up to a tenth of a side."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float64)
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    if rng.random() < 0.7:
        box += np.clip(rng.normal(0, 0.04, 4), -0.1, 0.1) * sides
    return np.clip(box, 0, mask.shape[0])


def _clicks(
    rng: np.random.Generator, mask: np.ndarray, num_points: int
) -> list[tuple[np.ndarray, int]]:
    """Click inside the mask first; further clicks fall inside, or outside but near."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    inside = inner if inner.any() else mask
    near = cv2.dilate(mask.astype(np.uint8), np.ones((25, 25), np.uint8)).astype(bool) & ~mask
    clicks = []
    for i in range(num_points):
        background = i > 0 and bool(near.any()) and rng.random() < 0.5
        ys, xs = np.nonzero(near if background else inside)
        j = rng.integers(len(ys))
        clicks.append((np.array([xs[j], ys[j]], dtype=np.float64), 0 if background else 1))
    return clicks
