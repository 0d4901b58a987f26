# SPDX-License-Identifier: Apache-2.0
"""Small random SAM2 models for tests, and frames to run them on. torch only inside functions."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef
from tests.support.once import made_once

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

SIZE_WH = (96, 72)


def make_frame(index: int, *, size_wh: tuple[int, int] = SIZE_WH, seed: int = 0) -> Frame:
    """A textured frame; the same index and seed give the same pixels."""
    w, h = size_wh
    rng = np.random.default_rng((seed, index))
    ground = np.random.default_rng(seed).integers(0, 255, (h // 8 + 1, w // 8 + 1, 3))
    image = ground.repeat(8, 0).repeat(8, 1)[:h, :w].astype(np.int64)
    x, y = 8 + index % (w // 2), h // 3
    image[y : y + h // 3, x : x + w // 4] = (230, 40, 90)
    image = np.clip(image + rng.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)
    ref = FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(index),
        epoch=0,
        stamp_ns=index * 40_000_000,
        received_ns=index * 40_000_000,
        size_wh=size_wh,
    )
    return Frame(ref=ref, image=image)


def tiny_hiera(*, image_size: int = 64, hidden: int = 128, seed: int = 0) -> Sam2VideoModel:
    """SAM2 as Meta built it (a Hiera trunk), small; random, but with masks that mean something.

    transformers starts its weights so near zero that masks are flat: they are made larger here,
    and the object score is shifted so that objects are visible on most frames.
    """
    import torch
    from transformers import Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(seed)
    sides = [[image_size // s] * 2 for s in (4, 8, 16)]
    vision = {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 16,
            "num_attention_heads": 1,
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [16, 32, 64, 128],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "window_size_per_stage": [8, 4, 4, 2],
            "window_positional_embedding_background_size": [4, 4],
            "global_attention_blocks": [3],
            "image_size": [image_size, image_size],
        },
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": sides,
        "fpn_hidden_size": hidden,
    }
    heads = {"hidden_size": hidden, "mlp_dim": 2 * hidden, "num_attention_heads": 4}
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": hidden, "image_size": image_size, "patch_size": 16},
        mask_decoder_config={**heads, "iou_head_hidden_dim": hidden},
        image_size=image_size,
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=2 * hidden,
        memory_attention_rope_feat_sizes=sides[-1],
        memory_encoder_hidden_size=hidden,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=2 * hidden,
    )
    model = Sam2VideoModel(config).eval()
    enliven(model)
    return model


def tiny_nano(path: Path, *, seed: int = 0) -> Path:
    """A checkpoint of a random nano tracker at 64 px, hidden size 128 (split pointers)."""
    import torch

    from foreseg_torch.tracker.nano_tracker import (
        NanoTrackerConfig,
        build_nano_tracker,
        save_nano_tracker,
    )

    torch.manual_seed(seed)
    config = NanoTrackerConfig(
        image_size=64, widths=(8, 16, 24, 32), hidden_size=128, attention_mlp_size=64
    )
    model = build_nano_tracker(config)
    enliven(model)
    save_nano_tracker(model, config, path)
    return path


def tiny_bundle(kind: str) -> Path:
    """The bundle of a random model, "hiera" or "nano", exported once a test run; not to be changed.

    Its checkpoint, and what the command line printed (`log.txt`), lie beside it.
    """
    return made_once(f"tiny-{kind}", _EXPORTS[kind]) / "bundle"


def export_bundle(folder: Path, checkpoint: Path, stored: str = "fp32") -> None:
    """`foreseg-export sam2` into `folder/bundle`; what it prints goes to `folder/log.txt`."""
    from foreseg_export.cli import main

    told = io.StringIO()
    words = ["sam2", "--checkpoint", str(checkpoint), "--out", str(folder / "bundle")]
    with contextlib.redirect_stdout(told):
        code = main([*words, "--stored", stored])
    assert code == 0, told.getvalue()
    (folder / "log.txt").write_text(told.getvalue())


def half_graph(piece: str) -> Path:
    """The graph of a piece of `tiny_hiera` in half precision, exported once a test run."""
    return made_once(f"half-{piece}", lambda folder: _export_half(piece, folder)) / "half.onnx"


def _export_half(piece: str, folder: Path) -> None:
    from foreseg_export.graphs import export_piece, piece_specs
    from foreseg_torch.tracker.sam2_half import in_half
    from foreseg_torch.tracker.sam2_pieces import cut

    model = tiny_hiera()
    export_piece(in_half(cut(model)[piece]), piece_specs(model)[piece], folder / "half.onnx")


def _export_hiera(folder: Path) -> None:
    tiny_hiera().save_pretrained(folder / "checkpoint")
    export_bundle(folder, folder / "checkpoint")


def _export_nano(folder: Path) -> None:
    export_bundle(folder, tiny_nano(folder / "nano.safetensors"), "fp16")


_EXPORTS = {"hiera": _export_hiera, "nano": _export_nano}


def enliven(model: Sam2VideoModel) -> None:
    import torch

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                module.reset_parameters()
        for head in model.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight.mul_(12)
        for parameter in (
            model.no_memory_embedding,
            model.no_object_pointer,
            model.occlusion_spatial_embedding_parameter,
        ):
            if parameter is not None:
                parameter.normal_(std=0.2)
        model.memory_temporal_positional_encoding.normal_(std=2.0)
        for layer in model.memory_encoder.memory_fuser.layers:
            layer.scale.fill_(0.3)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(0.6)
