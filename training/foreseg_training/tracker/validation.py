# SPDX-License-Identifier: Apache-2.0
"""A quick look at held-out clips while training: J at half the model's resolution.

The published table comes from `foreseg_evaluation`, at source resolution, not from here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional
from transformers import Sam2VideoModel

from foreseg_simulation.shapes.wandering import WanderingConfig, wander

from .batches import Batch, PromptKind, choose_objects, normalise, prompt_points
from .clips import MakeClip
from .losses import SLIVER_PX
from .unroll import unroll

HELD_OUT_SEED = 900_000_000  # training draws seeds at random below 2**40: a collision is a 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutScore:
    """Mean IoU over objects, 0..1; empty predictions of absent objects count 1."""

    prompted: float
    tracked: float
    repeated: float  # the first true mask, repeated
    absent_found: float  # share of absent object-frames that are said absent; NaN without any
    visible_lost: float  # share of visible object-frames, slivers apart, that are said absent
    auroc: float  # of the object score, visible against absent; NaN without any absent


def held_out_batch(
    num_clips: int, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Batch:
    """Render 20-frame clips with two boxed objects each, at least 80 % visible at first."""
    config = WanderingConfig()
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    rng = np.random.default_rng(HELD_OUT_SEED)
    seed = HELD_OUT_SEED
    while len(images) < num_clips:
        frames = list(itertools.islice(wander(seed, config), 20))
        seed += 1
        side = (image_size, image_size)
        ids = np.stack(
            [cv2.resize(f.instance_ids, side, interpolation=cv2.INTER_NEAREST) for f in frames]
        )
        scale = ids[0].size / frames[0].instance_ids.size
        full_areas = tuple(scale * area for area in frames[0].full_areas_px)
        objects = choose_objects(rng, ids[0], full_areas, 0.8, 2)
        if not objects:
            continue
        images.append(
            np.stack([cv2.resize(f.image, side, interpolation=cv2.INTER_AREA) for f in frames])
        )
        masks += [ids == k for k in objects]
    return _boxed(rng, images, masks, mean, std)


def held_out_clips(
    make_clip: MakeClip,
    num_clips: int,
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    num_frames: int = 6,
) -> Batch:
    """Draw clips with two boxed objects each, at least 80 % visible at first."""
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    rng = np.random.default_rng(HELD_OUT_SEED)
    seed = HELD_OUT_SEED
    while len(images) < num_clips:
        clip = make_clip(seed, num_frames, image_size)
        seed += 1
        objects = choose_objects(rng, clip.instance_ids[0], clip.full_areas_px, 0.8, 2)
        if objects:
            images.append(clip.images)
            masks += [clip.instance_ids == k for k in objects]
    return _boxed(rng, images, masks, mean, std)


def _boxed(
    rng: np.random.Generator,
    images: list[np.ndarray],
    masks: list[np.ndarray],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Batch:
    """Make a batch of two boxed objects a clip."""
    points, labels = prompt_points(rng, [mask[0] for mask in masks], PromptKind.BOX)
    return Batch(
        pixels=normalise(np.stack(images), mean, std),
        rows=torch.arange(len(images)).repeat_interleave(2),
        targets=torch.from_numpy(np.stack(masks)).to(torch.float32),
        kind=PromptKind.BOX,
        points=points,
        labels=labels,
    )


@torch.no_grad()
def score(model: Sam2VideoModel, batch: Batch) -> HeldOutScore:
    """Track a held-out batch; leaves the model in evaluation mode."""
    model.eval()
    targets = functional.avg_pool2d(batch.targets, 2) > 0.5  # (O, T, h, w)
    every = torch.arange(len(targets))
    ious, repeated = [], []
    scores, areas = [], []
    for t, output in enumerate(unroll(model, batch)):
        logits = output.masks[every, output.selected][:, None]
        side = targets.shape[-2:]
        logits = functional.interpolate(logits, size=side, mode="bilinear", align_corners=False)
        visible = output.object_logits > 0
        predicted = (logits[:, 0] > 0) & visible[:, None, None]
        ious.append(_iou(predicted, targets[:, t]))
        repeated.append(_iou(targets[:, 0], targets[:, t]))
        scores.append(output.object_logits)
        areas.append(batch.targets[:, t].flatten(1).sum(dim=1))
    logits, area = torch.stack(scores[1:]), torch.stack(areas[1:])
    said, away, there = logits > 0, area == 0, area >= SLIVER_PX
    return HeldOutScore(
        prompted=float(ious[0].mean()),
        tracked=float(torch.stack(ious[1:]).mean()),
        repeated=float(torch.stack(repeated[1:]).mean()),
        absent_found=float((~said)[away].float().mean()),
        visible_lost=float((~said)[there].float().mean()),
        auroc=_auroc(logits[there], logits[away]),
    )


def _auroc(above: torch.Tensor, below: torch.Tensor) -> float:
    """Share of pairs in the right order, ties half; NaN without pairs."""
    differences = above.flatten()[:, None] - below.flatten()[None]
    return float(((differences > 0).float() + 0.5 * (differences == 0).float()).mean())


def _iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    union = (a | b).flatten(1).sum(dim=1)
    overlap = (a & b).flatten(1).sum(dim=1)
    return torch.where(union == 0, 1.0, overlap / union.clamp(min=1))
