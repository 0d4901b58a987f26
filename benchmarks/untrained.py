# SPDX-License-Identifier: Apache-2.0
"""SAM2.1-tiny with random weights: for the time it takes, not for its masks."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Sam2VideoConfig, Sam2VideoModel

from foreseg_torch.tracker.sam2_geometry import set_image_size

_LAYERS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)


@torch.no_grad()
def save_untrained_tiny(folder: Path, image_size: int, *, seed: int = 0) -> None:
    """Write a checkpoint folder of transformers'.

    Its own start is so near zero that every mask is flat, and an absent object is less work:
    the layers start as torch starts them, and the object score is shifted to "visible".
    """
    torch.manual_seed(seed)
    config = Sam2VideoConfig()  # SAM2.1-tiny's geometry
    set_image_size(config, image_size)
    model = Sam2VideoModel(config).eval()
    for module in model.modules():
        if isinstance(module, _LAYERS):
            module.reset_parameters()
    for head in model.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.mul_(12)
    model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(1.0)
    one = model.prompt_encoder.shared_embedding.positional_embedding  # transformers has it twice
    model.shared_image_embedding.positional_embedding.copy_(one)
    model.save_pretrained(folder)
