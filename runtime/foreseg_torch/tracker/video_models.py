# SPDX-License-Identifier: Apache-2.0
"""The families of video trackers that are cut into the same four graphs: SAM2 and EdgeTAM.

What differs between them is asked here; does not know where a checkpoint comes from.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import nn
from transformers import EdgeTamVideoModel, Sam2VideoModel

from foreseg_torch.tracker import edgetam_pieces, sam2_pieces

VideoModel: TypeAlias = Sam2VideoModel | EdgeTamVideoModel


def family_of(model: VideoModel) -> str:
    """As a bundle's manifest names it."""
    return "edgetam" if isinstance(model, EdgeTamVideoModel) else "sam2"


def memory_tokens(model: VideoModel) -> int:
    """Tokens that a remembered frame has: cells of its map, or latents."""
    if isinstance(model, EdgeTamVideoModel):
        config = model.config
        return int(
            config.perceiver_resampler_num_latents + config.perceiver_resampler_num_latents_2d
        )
    return int(model.backbone_feature_sizes[-1][0]) ** 2


def cut(model: VideoModel) -> dict[str, nn.Module]:
    """The four pieces, on a copy of the model, in the order of a frame.

    Raises:
        ValueError: for a geometry that the pieces do not cover.
    """
    if isinstance(model, EdgeTamVideoModel):
        return edgetam_pieces.cut(model)
    return sam2_pieces.cut(model)
