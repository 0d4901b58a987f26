# SPDX-License-Identifier: Apache-2.0
"""What is done to a SAM2 or EdgeTAM before it is cut: checked, copied, put into forms for graphs.

The copy computes the same. Does not know which pieces it is cut into.
"""

from __future__ import annotations

import copy

from torch import nn
from transformers import Sam2VideoModel
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleBlock
from transformers.utils import logging as transformers_logging

from foreseg_torch.tracker.sam2_forms import centre_norms
from foreseg_torch.tracker.sam2_hiera import HieraBlock


def checked_copy(model: Sam2VideoModel) -> Sam2VideoModel:
    """A float32 copy in evaluation mode that attends explicitly.

    Raises:
        ValueError: for a geometry that the pieces do not cover.
    """
    config = model.config
    if (
        config.memory_attention_num_attention_heads != 1
        or config.memory_attention_downsample_rate != 1
    ):
        msg = (
            "memory attention wants one head and no downsampling, got"
            f" {config.memory_attention_num_attention_heads} heads and rate"
            f" {config.memory_attention_downsample_rate}"
        )
        raise ValueError(msg)
    if config.vision_config.fpn_kernel_size != 1 or len(model.vision_encoder.neck.convs) < 3:  # noqa: PLR2004
        msg = "the neck wants 1x1 convolutions at strides 4, 8 and 16 at least"
        raise ValueError(msg)
    model = copy.deepcopy(model).float().eval().requires_grad_(False)  # noqa: FBT003
    _attend_explicitly(model)
    centre_norms(model)
    for owner in model.vision_encoder.backbone.modules():
        for name, child in owner.named_children():
            if isinstance(child, Sam2MultiScaleBlock):
                setattr(owner, name, HieraBlock(child))
    return model


def _attend_explicitly(model: Sam2VideoModel) -> None:
    """Attention as (q k^T) s -> softmax -> v: fused forms are traced into what TensorRT breaks."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it warns of parts that have no class of their own
    model.set_attn_implementation("eager")
    transformers_logging.set_verbosity(level)
    model.config.mask_decoder_config._attn_implementation = "eager"  # noqa: SLF001


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution registered just before it in the same parent."""
    previous: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous is not None:
            conv_name, conv = previous
            if isinstance(conv, nn.Conv2d) and conv.out_channels == child.num_features:
                setattr(module, conv_name, nn.utils.fuse_conv_bn_eval(conv, child))
                setattr(module, name, nn.Identity())
        else:
            fold_batch_norms(child)
        previous = (name, child)
