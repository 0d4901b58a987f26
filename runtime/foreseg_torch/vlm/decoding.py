# SPDX-License-Identifier: Apache-2.0
"""One prompt in a vision-language model and the tokens after it, step by step, without a thread.

All that a completion depends on is kept here, not in the model: several may be under way in turn.
Does not choose tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from foreseg_torch.vlm.loading import LoadedVlm
from foreseg_torch.vlm.vision_features import ImageFeatures, VisionEncoder
from foreseg_torch.vlm.vision_inputs import ModelInputs

PREFILL_TOKENS = {"cpu": 64, "cuda": 2_048}  # at a time: a sign of life may follow


class Decoding:
    """The keys and values so far, and what the model says comes next.

    `prefill` reads the prompt; `branch` makes several rows of it; `advance` adds a token to each.
    """

    def __init__(
        self,
        loaded: LoadedVlm,
        encoder: VisionEncoder,
        inputs: ModelInputs,
        features: Sequence[ImageFeatures],
    ) -> None:
        self._model = loaded.model
        self._device = loaded.device
        self._encoder = encoder
        self._inputs = inputs
        self._features = features
        self._cache = DynamicCache(config=self._model.config.get_text_config())
        self._length = 0
        self._positions, self._delta = self._all_positions()
        self._logits = torch.empty(0)
        self._hidden = torch.empty(0)

    @property
    def logits(self) -> torch.Tensor:
        """(rows, vocabulary) float32: of the token after the last one."""
        return self._logits

    @property
    def hidden(self) -> torch.Tensor:
        """(rows, C): the last layer's state at the last token, as the output layer reads it."""
        return self._hidden

    def prefill(self) -> Iterator[None]:
        """Read the prompt in pieces; yields after each."""
        step = PREFILL_TOKENS[self._device.type]
        num_tokens = self._inputs.num_tokens
        for start in range(0, num_tokens, step):
            self._read(start, min(start + step, num_tokens))
            yield

    def branch(self, num_rows: int) -> None:
        """Go on from here in several rows."""
        self._cache.batch_repeat_interleave(num_rows)
        self._logits = self._logits.repeat_interleave(num_rows, dim=0)
        self._hidden = self._hidden.repeat_interleave(num_rows, dim=0)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        chosen = torch.tensor(rows, device=self._device)
        self._cache.batch_select_indices(chosen)
        self._logits, self._hidden = self._logits[chosen], self._hidden[chosen]

    def advance(self, tokens: Sequence[int]) -> None:
        """Add a token to each row."""
        ids = torch.tensor(tokens, device=self._device)[:, None]
        shape = (*self._positions.shape[:-2], *ids.shape)
        place = torch.full(shape, self._length + self._delta, device=self._device)
        self._forward(ids, place, {})

    def _read(self, start: int, end: int) -> None:
        ids = self._inputs.input_ids[:, start:end]
        is_image = self._inputs.mm_token_type_ids[0].bool()
        before, inside = int(is_image[:start].sum()), int(is_image[start:end].sum())
        options = {}
        if inside:
            outputs = self._encoder.as_outputs(self._features, before, before + inside)
            options = {"mm_encoder_outputs": {"image": outputs}}
        place = self._positions[..., start:end].to(self._device)
        self._forward(ids.to(self._device), place, options)

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, place: torch.Tensor, options: dict[str, Any]) -> None:
        output = self._model.model(
            input_ids=ids,
            position_ids=place,
            past_key_values=self._cache,
            use_cache=True,
            **options,
        )
        self._length += ids.shape[1]
        self._hidden = output.last_hidden_state[:, -1]
        self._logits = self._model.lm_head(self._hidden).float()

    def _all_positions(self) -> tuple[torch.Tensor, int]:
        """(3, 1, L) positions in time, rows and columns, and how far the text is ahead of them.

        Of a model that counts tokens, images' as any other, (1, L) and 0.
        """
        inputs = self._inputs
        if not hasattr(self._model.model, "get_rope_index"):
            return torch.arange(inputs.num_tokens)[None], 0
        grid = inputs.image_grid_thw if inputs.images else None
        positions, deltas = self._model.model.get_rope_index(
            inputs.input_ids, mm_token_type_ids=inputs.mm_token_type_ids, image_grid_thw=grid
        )
        return positions, int(deltas[0])
