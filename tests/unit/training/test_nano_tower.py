# SPDX-License-Identifier: Apache-2.0
"""The nano reasoner's tower over many frames at once, and objects pasted into the frames that teach it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the nano reasoner's training needs torch")
pytest.importorskip("transformers", reason="the nano reasoner is built from transformers")

from foreseg.geometry import BoxXyxy  # noqa: E402
from foreseg_training.nano.architecture import (  # noqa: E402
    NanoReasonerConfig,
    build_nano_reasoner,
)
from foreseg_training.nano.frames_at_once import FramesAtOnce  # noqa: E402
from foreseg_training.nano.labelled import LabelledFrame  # noqa: E402
from foreseg_training.nano.pasting import MAX_PASTED, pasted  # noqa: E402
from foreseg_training.nano.tokenizer import train_tokenizer  # noqa: E402


@pytest.mark.parametrize(
    ("patch_px", "merge", "grid"),
    [(7, 4, (1, 16, 24)), (14, 2, (1, 8, 8)), (14, 2, (1, 8, 12)), (7, 4, (1, 12, 20))],
    ids=["as shipped", "one window", "windows of two sizes", "windows of four sizes"],
)
def test_frames_at_once_are_what_the_tower_says_of_each(
    patch_px: int, merge: int, grid: tuple[int, int, int]
) -> None:
    torch.set_num_threads(1)
    config = NanoReasonerConfig(
        width=64, vision_width=64, vision_layers=2, text_layers=1, patch_px=patch_px, merge=merge
    )
    model = build_nano_reasoner(config, train_tokenizer(["a"], []), 0)
    tower = model.model.visual
    patches = torch.randn(3 * grid[1] * grid[2], 3 * patch_px**2)
    true = tower(patches, grid_thw=torch.tensor([grid] * 3)).pooler_output
    true.square().sum().backward()
    gradients = [p.grad.clone() for p in tower.parameters()]
    tower.zero_grad()
    said = FramesAtOnce(tower, grid)(patches)
    said.square().sum().backward()
    assert torch.allclose(said, true, atol=1e-5)
    for parameter, gradient in zip(tower.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-3, rtol=1e-3)
    coarse = FramesAtOnce(tower, grid, bf16=True)(patches).detach()
    assert coarse.dtype == torch.float32
    assert float((coarse - true.detach()).abs().mean() / true.detach().abs().mean()) < 0.05


def _square(x: int, y: int, side: int, colour: tuple[int, int, int], name: str) -> LabelledFrame:
    image, mask = np.full((80, 100, 3), 90, np.uint8), np.zeros((80, 100), np.uint8)
    image[y : y + side, x : x + side] = colour
    mask[y : y + side, x : x + side] = 1
    box = BoxXyxy(float(x), float(y), float(x + side), float(y + side))
    return LabelledFrame(image=image, names=[name], masks=[mask], boxes=[box])


def test_what_is_pasted_is_told_where_it_is_and_keeps_its_colour() -> None:
    rng = np.random.default_rng(3)
    own = _square(40, 30, 16, (250, 10, 10), "left red square")
    other = _square(20, 40, 14, (10, 10, 250), "blue square")
    before = own.image.copy(), own.masks[0].copy()
    counts = []
    for _ in range(60):
        frame = pasted(own, [other], rng)
        counts.append(len(frame.names))
        assert set(frame.names) <= {
            "red square",
            "blue square",
        }  # nothing is left of much else now
        claimed = np.sum(frame.masks, axis=0) if frame.masks else np.zeros((80, 100))
        assert claimed.max() <= 1  # a pixel shows one thing
        for name, mask, box in zip(frame.names, frame.masks, frame.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            colour = np.median(frame.image[mask > 0], axis=0)
            assert (colour.argmax() == 2) == (name == "blue square")
    assert max(counts) > 3
    assert min(counts) <= 1
    assert max(counts) <= 1 + MAX_PASTED
    assert np.array_equal(own.image, before[0])
    assert np.array_equal(own.masks[0], before[1])


def test_what_touches_the_edge_or_is_wide_is_pasted_nowhere() -> None:
    rng = np.random.default_rng(3)
    own = _square(40, 30, 16, (250, 10, 10), "red square")
    for other in (
        _square(0, 40, 14, (10, 10, 250), "blue square"),
        _square(20, 20, 50, (10, 10, 250), "blue square"),
        LabelledFrame(image=own.image, names=[], masks=[], boxes=[]),
    ):
        assert all(pasted(own, [other], rng).names == ["red square"] for _ in range(20))
