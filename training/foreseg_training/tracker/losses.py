# SPDX-License-Identifier: Apache-2.0
"""Losses of one unrolled frame.

Masks: cross entropy and dice, on the best of the mask tokens and on the one that streaming
would select. IoU head: all masks. Object score: always supervised, or the masks of absent
objects blank everything and no gradient flows.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .unroll import StepOutput

SLIVER_PX = 12.0  # visible area, model pixels, below which presence is not judged
_CROSS_ENTROPY_WEIGHT = 5.0
_IOU_WEIGHT = 0.5
_OBJECT_WEIGHT = 0.5
_ABSENT_WEIGHT = 1.5  # absent objects are about one row in ten; 3 blanked a fifth of the visible


def step_loss(output: StepOutput, target: torch.Tensor, *, single_mask: bool) -> torch.Tensor:
    """Score one frame.

    Args:
        output: predictions of O rows.
        target: (O, S, S) float32, 0 or 1.
        single_mask: whether the prompt asks for the first mask token (a box, several points).

    Returns:
        Scalar, the mean over rows.
    """
    area = target.flatten(1).sum(dim=1)
    present = area > 0
    fine = functional.avg_pool2d(target[:, None], 2)[:, 0]
    coarse = functional.avg_pool2d(fine[:, None], 2)[:, 0]
    judged = (area == 0) | (area >= SLIVER_PX)
    object_loss = functional.binary_cross_entropy_with_logits(
        output.object_logits, present.float(), reduction="none"
    )
    rarity = torch.where(present, 1.0, _ABSENT_WEIGHT)
    loss = _OBJECT_WEIGHT * (object_loss * judged * rarity).mean()
    if not bool(present.any()):
        return loss
    every = torch.arange(len(target))
    with torch.no_grad():
        quality = _mask_losses(output.masks, coarse[:, None].expand_as(output.masks))
        best = quality[:, 1:].argmin(dim=1) + 1
        true_ious = _ious(output.masks > 0, coarse[:, None] > 0.5)
    first = torch.zeros_like(best) if single_mask else output.selected
    picked = torch.stack([output.masks[every, best], output.masks[every, first]], dim=1)
    side = fine.shape[-2:]
    picked = functional.interpolate(picked, size=side, mode="bilinear", align_corners=False)
    mask_losses = _mask_losses(picked, fine[:, None].expand_as(picked))
    weight = picked.new_tensor([0.5, 1.0] if single_mask else [0.7, 0.3])
    mask_loss = ((mask_losses * weight).sum(dim=1) * present).sum() / len(target)
    iou_errors = (output.ious - true_ious).abs().mean(dim=1)
    return loss + mask_loss + _IOU_WEIGHT * (iou_errors * present).mean()


def _mask_losses(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus dice of (O, M, h, w), per mask: (O, M)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    entropy = entropy.flatten(2).mean(dim=2)
    prob = logits.sigmoid().flatten(2)
    flat = target.flatten(2)
    overlap = 2 * (prob * flat).sum(dim=2) + 1
    dice = 1 - overlap / (prob.sum(dim=2) + flat.sum(dim=2) + 1)
    return _CROSS_ENTROPY_WEIGHT * entropy + dice


def _ious(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    union = (a | b).flatten(2).sum(dim=2)
    return (a & b).flatten(2).sum(dim=2) / union.clamp(min=1)
