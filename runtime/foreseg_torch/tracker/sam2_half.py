# SPDX-License-Identifier: Apache-2.0
"""A piece of a SAM2 in half precision, with islands of float32 where half breaks masks.

The pieces cast at their boundary, so inputs and outputs stay float32. The islands:

- every layer norm: it squares, and half ends at 65504;
- every squeeze of a `timm` trunk, such as EdgeTAM's RepViT: it averages up to 65536 values, and
  not every kernel adds them up in float32;
- the encoding of prompt points: a half knows a pixel near 1024 only to 0.5;
- candidate masks, the counts that judge their stability (up to 65536 pixels), the head that
  scores them and the one that says whether the object is there: near a tie, half flips the choice;
- in the memory encoder the enlarged mask up to its threshold, and ages of pointers before their
  sines. (The softmax of memory attention is no island: kernels add it up in float32, and what
  goes in and comes out is half either way.)

Does not know what runs the result.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

# of the decoder: buffers and heads that keep float32
_ISLANDS = (
    "point_frequencies",
    "point_table",
    "not_a_point",
    "decoder.iou_prediction_head",
    "decoder.pred_obj_score_head",
)


class Float32Island(nn.Module):
    """A module of one input that computes in float32 whatever it is given."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return self.module(x.float()).to(x.dtype)


def in_half(piece: nn.Module) -> nn.Module:
    """A copy of a piece that computes in half precision outside its islands."""
    half = copy.deepcopy(piece).half()
    for name in _ISLANDS:
        owner, _, last = name.rpartition(".")
        island = _at(piece, name)
        if island is not None:  # as it was, not as half has rounded it
            setattr(_at(half, owner), last, copy.deepcopy(island))
    for name, module in piece.named_modules():
        if isinstance(module, nn.LayerNorm) or _is_squeeze(module):
            owner, _, last = name.rpartition(".")
            setattr(_at(half, owner), last, Float32Island(copy.deepcopy(module)))
    return half.eval()


def _is_squeeze(module: nn.Module) -> bool:
    """True for squeeze-and-excitation as `timm` writes it, which need not be installed."""
    layers = (getattr(module, name, None) for name in ("fc1", "fc2"))
    return hasattr(module, "gate") and all(isinstance(layer, nn.Conv2d) for layer in layers)


def _at(module: nn.Module, path: str) -> nn.Module | Tensor | None:
    """What lies at a dotted path; None if nothing does."""
    found: nn.Module | Tensor | None = module
    for part in filter(None, path.split(".")):
        found = getattr(found, part, None)
    return found
