# SPDX-License-Identifier: Apache-2.0
"""What a mask costs, and a model's forward that decodes the masks of its completions as it goes.

The mask of a completion is the union of its tokens' masks. Its cost is the weighted sum of binary
cross entropy and Dice loss, mean over frames. Does not know: trainers, samples, words.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foreseg_torch.seg.model import MaskHead, backbone, token_states

IGNORED = -100  # a label that is not learnt: no token of a completion


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskWeights:
    """How much a mask's parts cost; points 0: over all pixels."""

    bce: float
    dice: float
    num_points: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskTruth:
    """The true mask of a completion on each frame that it decodes."""

    pixels: Tensor  # (F, 3, S, S) as `MaskHead.pixels_of` makes them
    masks: Tensor  # (F, H, W) bool

    def on(self, device: torch.device) -> MaskTruth:
        """The same on a device."""
        return MaskTruth(pixels=self.pixels.to(device), masks=self.masks.to(device))


def mask_loss(logits: Tensor, masks: Tensor, weights: MaskWeights) -> Tensor:
    """The cost of masks, a scalar.

    Args:
        logits: (F, h, w), of any size.
        masks: (F, H, W) bool; logits are enlarged to this.
        weights: of its parts. The points, where there are any, are drawn anew for each mask.
    """
    truth = masks.to(logits.dtype)[:, None]
    if weights.num_points:
        places = torch.rand(len(logits), weights.num_points, 1, 2, device=logits.device) * 2 - 1
        said = functional.grid_sample(logits[:, None], places, align_corners=False)
        truth = functional.grid_sample(truth, places, mode="nearest", align_corners=False)
    else:
        size = truth.shape[-2:]
        said = functional.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)
    said, truth = said.flatten(1), truth.flatten(1)
    bce = functional.binary_cross_entropy_with_logits(said, truth)
    shown = said.sigmoid()
    overlap, areas = 2 * (shown * truth).sum(1), shown.sum(1) + truth.sum(1)
    dice = (1 - (overlap + 1) / (areas + 1)).mean()  # 1 pixel: an empty mask may be learnt
    return weights.bce * bce + weights.dice * dice


def union_logits(head: MaskHead, states: Tensor, pixels: Tensor) -> Tensor:
    """The logits (F, h, w) of the union of N tokens' masks (N, D), in float32."""
    with torch.autocast(pixels.device.type, enabled=False):
        logits = head(states.float(), head.encoded(pixels)).logits
    return logits.amax(dim=1)


class MaskForward:
    """Lets a model's forward decode the tokens of its completions, where a trainer wants it.

    It does so within the forward itself, so that wrappers for several processes see these
    parameters used. Only a forward with labels is such: what is labelled is the completion.

    Args:
        model: of transformers, with a `MaskHead` under the name `head_name`; adapters may be
            around it, and a trainer's own changes to its forward are kept.
        token_id: of [SEG].
        weights: of the mask's parts.
        head_name: attribute of the model.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        token_id: int,
        weights: MaskWeights,
        head_name: str,
    ) -> None:
        self._base = backbone(model)
        self._token_id = token_id
        self._weights = weights
        self._head_name = head_name
        self._hidden: Tensor | None = None
        self._wanted: Sequence[MaskTruth | None] | None = None
        self._losses: list[Tensor] = []
        self._forward = self._base.forward

        @functools.wraps(type(self._base).forward)  # generation looks at its arguments
        def called(_base: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            return self._called(*arguments, **options)

        self._base.forward = types.MethodType(called, self._base)
        self._base.model.register_forward_hook(self._keep)

    @property
    def head(self) -> MaskHead:
        """The model's."""
        head: MaskHead = getattr(self._base, self._head_name)
        return head

    def want(self, truths: Sequence[MaskTruth | None]) -> None:
        """Let the next forward decode; None for a row of which no mask is wanted."""
        self._wanted, self._losses = truths, []

    def losses(self) -> list[Tensor]:
        """What the masks of that forward cost, of each row that was wanted and said the token."""
        found, self._losses, self._wanted = self._losses, [], None
        return found

    def _keep(self, _module: Any, _given: Any, output: Any) -> None:  # noqa: ANN401 (torch's)
        if self._wanted is not None:
            self._hidden = output.last_hidden_state

    def _called(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 (the model's)
        labels = options.get("labels")
        output = self._forward(*arguments, **options)
        if self._wanted is None or labels is None or self._hidden is None:
            return output
        ids, hidden = options["input_ids"], self._hidden
        self._hidden = None
        position = self.head.decode.state_position
        states = token_states(hidden, ids, labels != IGNORED, self._token_id, position)
        for one, truth in zip(states, self._wanted, strict=True):
            if truth is not None and len(one):
                logits = union_logits(self.head, one, truth.pixels)
                self._losses.append(mask_loss(logits, truth.masks, self._weights))
        if self._losses:  # a wrapper looks for what is used in what comes out
            output["loss"] = output["loss"] + 0.0 * torch.stack(self._losses).sum()
        return output
