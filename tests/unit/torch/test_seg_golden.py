# SPDX-License-Identifier: Apache-2.0
"""The decode of Sa2VA held against Meta's own SAM2 code: kept numbers, and the package where it is.

`python -m tests.unit.torch.test_seg_golden` writes the numbers anew; it needs the package `sam2`
(`pip install --no-deps sam2`, and hydra-core, iopath). Weights, frames and states come from numpy's
seeded generator, which gives the same everywhere.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.support.meta_sam2 import GOLDEN as SHAPES
from tests.support.meta_sam2 import HIDDEN, OF_21, know_tiny_trunk, tiny_meta

from foreseg_torch.seg.decode import SA2VA_DECODE, MaskChoice, SegDecode
from foreseg_torch.seg.model import MaskHead
from foreseg_torch.tracker.sam2_meta import config_from_meta, model_from_meta

F32 = NDArray[np.float32]
GOLDEN = SHAPES.parent / "sa2va_decode.npz"
SIDE, NUM_FRAMES, NUM_STATES = 64, 2, 3
TOLERANCE = 2e-5  # of the logits' scale: float32 sums in another order
PADDING_TOLERANCE = 20 * TOLERANCE  # what two prompts less change in these weights is more


def drawn(seed: int, *shape: int) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def weights() -> dict[str, torch.Tensor]:
    """SAM2.0's tensors under Meta's names."""
    shapes = json.loads(SHAPES.read_text("utf-8"))
    names = [name for name in sorted(shapes) if name not in OF_21]
    state = {name: 0.1 * drawn(i, *shapes[name]) for i, name in enumerate(names)}
    for name in names:
        if "norm" in name and name.endswith(".weight"):
            state[name] += 1
        elif name.startswith("sam_mask_decoder.") and name.endswith(".weight"):
            state[name] *= 2  # lively: another state, another mask
    state["sam_prompt_encoder.not_a_point_embed.weight"] *= 10  # so that padding is seen
    return state


def pixels() -> torch.Tensor:
    return drawn(1001, NUM_FRAMES, 3, SIDE, SIDE)


def embeddings() -> torch.Tensor:
    """What `text_hidden_fcs` makes of the states of three [SEG]."""
    return drawn(1002, NUM_STATES, HIDDEN)


def published_masks() -> tuple[F32, F32]:
    """Logits (F, N, m, m) of the chosen masks, and IoUs (F, N, 3), as Sa2VA's code has them.

    `_forward_sam_heads` without points and without memory, with the embedding after the sparse
    prompts: one point of label -1, and the one that the prompt encoder pads.
    """
    model = tiny_meta(generation="2", image_size=SIDE)
    model.load_state_dict(weights())
    chosen, ious = [], []
    with torch.no_grad():
        features = model.forward_image(pixels())
        _, maps, _, sizes = model._prepare_backbone_features(features)
        maps = [
            flat.permute(1, 2, 0).reshape(NUM_FRAMES, -1, *size)
            for flat, size in zip(maps, sizes, strict=True)
        ]
        maps[-1] = maps[-1] + model.no_mem_embed.reshape(1, -1, 1, 1)
        for embedding in embeddings():
            sparse, dense = model.sam_prompt_encoder(
                points=(
                    torch.zeros(NUM_FRAMES, 1, 2),
                    -torch.ones(NUM_FRAMES, 1, dtype=torch.int32),
                ),
                boxes=None,
                masks=None,
            )
            sparse = torch.cat((sparse, embedding.expand(NUM_FRAMES, 1, -1)), dim=1)
            masks, iou, _, _ = model.sam_mask_decoder(
                image_embeddings=maps[-1],
                image_pe=model.sam_prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
                repeat_image=False,
                high_res_features=maps[:-1],
            )
            best = iou.argmax(dim=-1)
            chosen.append(masks[torch.arange(NUM_FRAMES), best].numpy())
            ious.append(iou.numpy())
    return np.stack(chosen, axis=1), np.stack(ious, axis=1)


def our_masks(decode: SegDecode, monkeypatch: pytest.MonkeyPatch) -> tuple[F32, F32]:
    """Likewise, of the head that decodes here, and the chosen masks' quality (F, N)."""
    know_tiny_trunk(monkeypatch)
    state = weights()
    head = MaskHead(model_from_meta(state, config_from_meta(state, SIDE)), 8, decode=decode)
    padding = head.sam.prompt_encoder.not_a_point_embed.weight[None]
    padding = padding.expand(NUM_STATES, decode.num_padding_tokens, -1)
    with torch.no_grad():
        prompts = torch.cat((padding, embeddings()[:, None]), dim=1)
        found = head.eval().decoded(prompts, head.encoded(pixels()))
    return found.logits.numpy(), found.quality.numpy()


def golden() -> tuple[F32, F32]:
    with np.load(GOLDEN, allow_pickle=False) as kept:
        return kept["logits"], kept["iou"]


def test_our_decode_draws_what_metas_code_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, iou = golden()
    found, quality = our_masks(SA2VA_DECODE, monkeypatch)
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * scale)
    np.testing.assert_allclose(quality, iou.max(axis=-1).clip(0, 1), rtol=0, atol=TOLERANCE)
    assert len(set(iou.argmax(axis=-1).ravel().tolist())) > 1, "one mask is always the best"


@pytest.mark.parametrize(
    "decode",
    [
        SegDecode(num_padding_tokens=2, mask_choice=MaskChoice.FIRST),
        SegDecode(num_padding_tokens=0, mask_choice=MaskChoice.BEST_OF_THREE),
        SegDecode(num_padding_tokens=1, mask_choice=MaskChoice.BEST_OF_THREE),
    ],
)
def test_any_other_decode_draws_another_thing(
    decode: SegDecode, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = golden()
    found, _ = our_masks(decode, monkeypatch)
    assert float(np.abs(found - wanted).max()) > PADDING_TOLERANCE * float(np.abs(wanted).max())


def test_the_kept_numbers_are_those_of_the_package() -> None:
    pytest.importorskip(
        "sam2.modeling.sam2_base", reason="`pip install --no-deps sam2` and others"
    )
    for found, kept in zip(published_masks(), golden(), strict=True):
        np.testing.assert_allclose(found, kept, rtol=0, atol=TOLERANCE * float(np.abs(kept).max()))


def write(path: Path = GOLDEN) -> None:
    logits, iou = published_masks()
    np.savez_compressed(path, logits=logits, iou=iou)


if __name__ == "__main__":
    assert importlib.util.find_spec("sam2") is not None, "pip install --no-deps sam2"
    write()
