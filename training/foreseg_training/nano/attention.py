# SPDX-License-Identifier: Apache-2.0
"""Attention in float32 while the matrices around it are multiplied in bfloat16.

On a processor torch's fused attention is the slower one in bfloat16: half as fast over narrow heads,
forward and back (docs/log.md). Does not know: models, data.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

FLOAT32_ATTENTION = "foreseg_float32"
"""What `set_attn_implementation` calls it."""


def float32_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,  # noqa: ANN401 (of transformers)
) -> tuple[torch.Tensor, None]:
    """Of `transformers`' own "sdpa", from tensors of any type; returns the queries' type."""
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.float()
    with torch.autocast(query.device.type, enabled=False):
        found, _ = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), attention_mask, **settings
        )
    return found.to(value.dtype), None


AttentionInterface.register(FLOAT32_ATTENTION, float32_attention)
AttentionMaskInterface.register(FLOAT32_ATTENTION, sdpa_mask)
