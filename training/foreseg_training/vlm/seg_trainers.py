# SPDX-License-Identifier: Apache-2.0
"""TRL's two trainers, with the masks of completions in their losses and rewards.

Needs the extra `train` when it is imported. Does not know: recipes, samples, rewards' formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from trl import GRPOTrainer, SFTTrainer

from foreseg_torch.seg.store import HEAD
from foreseg_training.vlm.rows import Row
from foreseg_training.vlm.seg_decoding import decoded_unions
from foreseg_training.vlm.seg_loss import MaskForward, MaskTruth, MaskWeights
from foreseg_training.vlm.seg_model import settle
from foreseg_training.vlm.seg_rows import masks_from_text

_PIXELS, _MASKS = "decoded_pixels", "decoded_masks"  # of a batch: a tensor for each row
_ROW, _IS_BEST = "decoded_row", "is_best_of_group"  # of a batch of completions


class SegSftTrainer(SFTTrainer):
    """An `SFTTrainer` whose loss has the masks' cost in it."""

    def learn_masks(self, token_id: int, weights: MaskWeights) -> MaskForward:
        """Before training: decode in the forward."""
        settle(self.model)
        self._masks = MaskForward(self.model, token_id, weights, HEAD)
        return self._masks

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 (TRL has it so)
        num_items_in_batch: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """TRL's, and the masks'."""
        pixels, masks = inputs.pop(_PIXELS), inputs.pop(_MASKS)
        self._masks.want(
            [MaskTruth(pixels=p, masks=m) for p, m in zip(pixels, masks, strict=True)]
        )
        found = super().compute_loss(
            model,
            inputs,
            return_outputs=return_outputs,
            num_items_in_batch=num_items_in_batch,
        )
        losses = self._masks.losses()
        if not losses:
            return found
        cost = torch.stack(losses).mean()
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["mask_loss"].append(float(cost.detach()))
        steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        loss, *rest = found if return_outputs else (found,)
        loss = loss + cost / steps
        return (loss, *rest) if return_outputs else loss


class SegGrpoTrainer(GRPOTrainer):
    """A `GRPOTrainer` that decodes what was sampled, for rewards and for the mask loss."""

    def learn_masks(self, token_id: int, weights: MaskWeights, mask_loss_weight: float) -> None:
        """Before training: decode in the forward."""
        settle(self.model)
        self._masks = MaskForward(self.model, token_id, weights, HEAD)
        self._token_id = token_id
        self._mask_loss_weight = mask_loss_weight
        self._truths: list[MaskTruth] = []

    def _calculate_rewards(
        self,
        inputs: list[Row],
        prompts: Any,  # noqa: ANN401
        completions: Any,  # noqa: ANN401
        completion_ids_list: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """TRL's, over rows that have what each completion decodes to."""
        truths = [truth_of_row(row, self._masks) for row in inputs]
        unions = decoded_unions(
            self.model,
            self._masks.head,
            self.processing_class,
            self._token_id,
            [
                {**row, "completion_ids": ids}
                for row, ids in zip(inputs, completion_ids_list, strict=True)
            ],
            truths,
            at_once=self.args.per_device_train_batch_size,
        )
        self._truths = truths if self._mask_loss_weight else []
        rows = [{**row, "decoded": union} for row, union in zip(inputs, unions, strict=True)]
        return super()._calculate_rewards(rows, prompts, completions, completion_ids_list)

    def _generate_and_score_completions(self, inputs: list[Row]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self._mask_loss_weight:
            count = len(output["completion_ids"])
            output[_ROW] = torch.arange(count, device=output["completion_ids"].device)
            output[_IS_BEST] = self._best_of_groups(output["advantages"])
        return output

    def _best_of_groups(self, advantages: torch.Tensor) -> torch.Tensor:
        """Of each group the first completion of the highest reward; this process's rows."""
        every = self.accelerator.gather(advantages).view(-1, self.num_generations)
        best = torch.zeros_like(every, dtype=torch.bool)
        best[torch.arange(len(every)), every.argmax(dim=1)] = True
        own = slice(
            self.accelerator.process_index * len(advantages),
            (self.accelerator.process_index + 1) * len(advantages),
        )
        return best.flatten()[own]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:  # noqa: ANN401
        """TRL's, and the masks' of the best completions, mean over groups."""
        if not self._mask_loss_weight:
            return super()._compute_loss(model, inputs)
        numbers, is_best = inputs[_ROW].tolist(), inputs[_IS_BEST].tolist()
        self._masks.want(
            [
                self._truths[i].on(self.accelerator.device) if best else None
                for i, best in zip(numbers, is_best, strict=True)
            ]
        )
        loss = super()._compute_loss(model, inputs)
        losses = self._masks.losses()
        if not losses:
            return loss
        cost = torch.stack(losses)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["mask_loss"].append(float(cost.detach().mean()))
        groups = len(numbers) * self.current_gradient_accumulation_steps / self.num_generations
        return loss + self._mask_loss_weight * cost.sum() / groups


def with_masks(
    collate: Callable[[list[Row]], dict[str, Any]], masks: MaskForward
) -> Callable[[list[Row]], dict[str, Any]]:
    """A collator that also gives the pixels to decode and the true masks, a tensor for each row."""

    def collated(rows: list[Row]) -> dict[str, Any]:
        own = ("decoded_images", "masks", "id")
        batch = collate([{k: v for k, v in row.items() if k not in own} for row in rows])
        truths = [truth_of_row(row, masks) for row in rows]
        batch[_PIXELS] = [truth.pixels for truth in truths]
        batch[_MASKS] = [truth.masks for truth in truths]
        return batch

    return collated


def truth_of_row(row: Row, masks: MaskForward) -> MaskTruth:
    """What a row's completion decodes."""
    frames = [np.asarray(image.convert("RGB")) for image in row["decoded_images"]]
    return MaskTruth(
        pixels=masks.head.pixels_of(frames),
        masks=torch.from_numpy(masks_from_text(row["masks"])),
    )
