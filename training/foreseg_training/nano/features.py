# SPDX-License-Identifier: Apache-2.0
"""Rows whose frames are seen already: a frozen tower's tokens, kept on disk, in place of pixels.

The tower takes most of a step's time, and says the same of a frame each time. Does not know:
recordings, trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling


class SeenFrames(nn.Module):
    """Stands for a vision tower whose tokens are handed over as `pixel_values`.

    Takes (tokens, width) in place of patches; returns them as they are.
    """

    def __init__(self, tower: Any) -> None:  # noqa: ANN401 (of transformers)
        super().__init__()
        self.spatial_merge_size = tower.spatial_merge_size
        self.dtype = torch.float32

    def forward(
        self, tokens: torch.Tensor, grid_thw: torch.Tensor | None = None, **_: object
    ) -> BaseModelOutputWithPooling:
        """The tokens of all images, one after the other."""
        del grid_thw
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=tokens)


class FrameStore:
    """Tokens of frames by number, float16 in one file that grows to its full size at once."""

    def __init__(self, path: Path, shape: tuple[int, int, int] | None = None) -> None:
        """Open a file; make it with a shape of frames, tokens, width."""
        self.path = path
        if shape is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        else:
            self.array = np.load(path, mmap_mode="r", allow_pickle=False)

    def tokens(self, numbers: Sequence[int]) -> torch.Tensor:
        """Tokens (frames x tokens, width) float32 of frames, one after the other."""
        taken = np.asarray(self.array[np.array(numbers, np.intp)], np.float32)
        return torch.from_numpy(taken.reshape(-1, taken.shape[-1]))


class SeenCollator:
    """Makes a batch of rows: `input_ids`, `num_prompt` tokens that are not learnt, and `frames`."""

    def __init__(
        self, store: FrameStore, grid_thw: tuple[int, int, int], pad_id: int, image_id: int
    ) -> None:
        self.store, self.grid_thw = store, grid_thw
        self.pad_id, self.image_id = pad_id, image_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad on the right; labels are -100 in prompts and padding."""
        longest = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), longest), self.pad_id)
        labels = torch.full((len(rows), longest), -100)
        mask = torch.zeros((len(rows), longest), dtype=torch.int64)
        for i, row in enumerate(rows):
            own = torch.as_tensor(row["input_ids"])
            ids[i, : len(own)], mask[i, : len(own)] = own, 1
            labels[i, row["num_prompt"] : len(own)] = own[row["num_prompt"] :]
        frames = [number for row in rows for number in row["frames"]]
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "mm_token_type_ids": (ids == self.image_id).to(torch.int32),
            "pixel_values": self.store.tokens(frames),
            "image_grid_thw": torch.tensor([self.grid_thw] * len(frames)),
        }
