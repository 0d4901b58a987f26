# SPDX-License-Identifier: Apache-2.0
"""Attention in blocks of queries gives what attention over all of them gives."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the reference attention is torch's")
pytest.importorskip("transformers", reason="the layers are made from transformers'")

from foreseg_torch.tracker import sam2_attention  # noqa: E402
from foreseg_torch.tracker.sam2_attention import attended, query_block  # noqa: E402


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3])  # the frame's queries may be shared by the rows
def test_blocks_change_nothing(
    rows: int,
    with_bias: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(rows, 37, 8), torch.randn(3, 50, 8), torch.randn(3, 50, 5)
    bias = torch.randn(3, 1, 50) if with_bias else None
    whole = attended(query, key, value, bias)
    monkeypatch.setattr(sam2_attention, "WEIGHT_BYTES", 4 * 50 * 10)
    assert query_block(37, 50) == 10
    assert torch.allclose(attended(query, key, value, bias), whole, atol=1e-6)
    scores = query @ key.transpose(1, 2) + (0 if bias is None else bias)
    assert torch.allclose(scores.softmax(-1) @ value, whole, atol=1e-6)


def test_only_what_is_large_is_cut_and_evenly() -> None:
    assert query_block(196, 7 * 196 + 64) == 196  # nano
    assert query_block(1024, 7 * 1024 + 64) == 1024  # SAM2.1 at 512 px
    block = query_block(4096, 7 * 4096 + 64)  # and at 1024
    assert 4 * block * (7 * 4096 + 64) <= sam2_attention.WEIGHT_BYTES
    assert 0.9 * block < 4096 - 14 * block <= block  # fifteen, and the last is no rest
    assert query_block(5, 10**9) == 1
