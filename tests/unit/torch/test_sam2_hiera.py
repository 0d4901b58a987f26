# SPDX-License-Identifier: Apache-2.0
"""Our Hiera block gives what `transformers`' gives, padding, pooling and all."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig  # noqa: E402
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleBlock  # noqa: E402

from foreseg_torch.tracker.sam2_hiera import HieraBlock  # noqa: E402

TOLERANCE = 1e-5  # float32, of values around 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A block: windows of the stage before and its own, and which block of the stage it is."""

    windows: tuple[int, int]
    block: int = 1
    whole_map: bool = False


CASES = {
    "whole windows": Case(windows=(4, 4)),
    "padded windows": Case(windows=(5, 5)),
    "whole map": Case(windows=(4, 4), whole_map=True),
    "pooled": Case(windows=(4, 2), block=0),
    "pooled and padded": Case(windows=(6, 3), block=0),
}


def _block(case: Case) -> Sam2MultiScaleBlock:
    torch.manual_seed(0)
    config = Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=2,
        blocks_per_stage=[1, 2, 1, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[2, 4, 4, 8],
        window_size_per_stage=[case.windows[0], case.windows[1], 4, 2],
        global_attention_blocks=[1] if case.whole_map else [],
    )
    config._attn_implementation = "eager"
    block = Sam2MultiScaleBlock(config, stage_idx=1, block_idx=case.block, total_block_idx=1)
    for name, parameter in block.named_parameters():
        is_weight = name.endswith("weight") and parameter.ndim == 1
        torch.nn.init.normal_(parameter, mean=1.0 if is_weight else 0.0, std=0.3)
    return block.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(8, 8), (8, 12), (10, 10)])
def test_a_block_gives_what_transformers_gives(name: str, size: tuple[int, int]) -> None:
    block = _block(CASES[name])
    x = torch.randn(1, *size, block.dim)
    got = HieraBlock(block)(x)
    expected = block(x)  # afterwards: ours must leave it as it was
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < TOLERANCE * expected.std()


def test_pooling_across_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2 cells, got 5"):
        HieraBlock(_block(Case(windows=(5, 5), block=0)))
