# SPDX-License-Identifier: Apache-2.0
"""Small random EdgeTAM models for tests: its memory behind a small Hiera trunk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.once import made_once
from tests.support.sam2_models import enliven, export_bundle, tiny_hiera

if TYPE_CHECKING:
    from transformers import EdgeTamVideoModel

NUM_FREE = 3  # latents that look at the whole map; no square, and not as many as the others
GRID = 2  # side of the grid of the others


def tiny_edgetam(*, image_size: int = 64, as_published: bool = False) -> EdgeTamVideoModel:
    """EdgeTAM, small and random, but with masks that mean something.

    Args:
        image_size: model pixels.
        as_published: without the two encodings that EdgeTAM's own checkpoint lacks: of absence
            in memory maps, and of time in object pointers.
    """
    import torch
    from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

    hidden = 128
    vision = tiny_hiera(image_size=image_size, hidden=hidden).config.vision_config
    heads = {"hidden_size": hidden, "mlp_dim": 2 * hidden, "num_attention_heads": 4}
    config = EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": hidden, "image_size": image_size, "patch_size": 16},
        mask_decoder_config={**heads, "iou_head_hidden_dim": hidden},
        image_size=image_size,
        enable_occlusion_spatial_embedding=not as_published,
        enable_temporal_pos_encoding_for_object_pointers=not as_published,
        memory_attention_hidden_size=hidden,
        memory_attention_mlp_hidden_size=2 * hidden,
        memory_attention_rope_feat_sizes=[image_size // 16] * 2,
        memory_attention_rope_k_sizes=[GRID, GRID],
        perceiver_resampler_num_latents=NUM_FREE,
        perceiver_resampler_num_latents_2d=GRID**2,
        memory_encoder_hidden_size=hidden,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=2 * hidden,
    )
    torch.manual_seed(0)
    model = EdgeTamVideoModel(config).eval()
    enliven(model)
    with torch.no_grad():
        for latents in (model.spatial_perceiver.latents_1d, model.spatial_perceiver.latents_2d):
            latents.normal_()
    return model


def tiny_edgetam_bundle() -> Path:
    """The bundle of a random EdgeTAM, exported once a test run; not to be changed."""
    return made_once("tiny-edgetam", _export) / "bundle"


def _export(folder: Path) -> None:
    tiny_edgetam().save_pretrained(folder / "checkpoint")
    export_bundle(folder, folder / "checkpoint")
