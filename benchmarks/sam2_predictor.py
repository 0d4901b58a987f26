# SPDX-License-Identifier: Apache-2.0
"""The `sam2` package's video predictor with the geometry and the weights of a `Sam2VideoModel`.

Works for SAM2.1's own geometry and for the nano tracker, whose trunk is plugged in. Built from
the package's modules, since its configuration files know Meta's four sizes only.
"""

from __future__ import annotations

import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.transformer import RoPEAttention, TwoWayTransformer
from sam2.sam2_video_predictor import SAM2VideoPredictor
from torch import nn
from transformers import Sam2VideoConfig, Sam2VideoModel

from foreseg_torch.tracker.nano_tracker import NanoTrunk
from foreseg_torch.tracker.sam2_meta import renamed_tensors

_POINT = "sam_prompt_encoder.point_embeddings.{}.weight"
_TRUNK = ("image_encoder.trunk.", "vision_encoder.backbone.")
_DECODER = {  # as the package's `build_sam2_video_predictor` sets them
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


class PluggedTrunk(nn.Module):
    """The nano tracker's trunk as the package wants one: maps with channels first, coarsest last."""

    def __init__(self, trunk: NanoTrunk, channels: list[int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.channel_list = channels

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Encode (B, 3, S, S)."""
        maps = self.trunk(pixels).intermediate_hidden_states
        return [one.permute(0, 3, 1, 2) for one in maps]


def predictor_from_model(model: Sam2VideoModel) -> SAM2VideoPredictor:
    """Build the predictor and give it every tensor of the model."""
    config = model.config
    predictor = SAM2VideoPredictor(
        image_encoder=_image_encoder(model),
        memory_attention=_memory_attention(config),
        memory_encoder=_memory_encoder(config),
        num_maskmem=config.num_maskmem,
        image_size=config.image_size,
        sigmoid_scale_for_mem_enc=config.sigmoid_scale_for_mem_enc,
        sigmoid_bias_for_mem_enc=config.sigmoid_bias_for_mem_enc,
        binarize_mask_from_pts_for_mem_enc=True,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=config.multimask_output_in_sam,
        multimask_min_pt_num=config.multimask_min_pt_num,
        multimask_max_pt_num=config.multimask_max_pt_num,
        multimask_output_for_tracking=config.multimask_output_for_tracking,
        use_multimask_token_for_obj_ptr=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        max_obj_ptrs_in_encoder=config.max_object_pointers_in_encoder,
        add_tpos_enc_to_obj_ptrs=True,
        proj_tpos_enc_in_obj_ptrs=True,
        use_signed_tpos_enc_to_obj_ptrs=True,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        use_mlp_for_obj_ptr_proj=True,
        no_obj_embed_spatial=True,
        sam_mask_decoder_extra_args=_DECODER,
    )
    predictor.sam_mask_decoder = _mask_decoder(config)
    _fill(predictor, model)
    return predictor.eval()


def _image_encoder(model: Sam2VideoModel) -> ImageEncoder:
    vision = model.config.vision_config
    channels = list(vision.backbone_channel_list)
    trunk: nn.Module
    if isinstance(model.vision_encoder.backbone, NanoTrunk):
        trunk, scalp = PluggedTrunk(model.vision_encoder.backbone, channels), 0
    else:
        backbone, scalp = vision.backbone_config, 1
        trunk = Hiera(
            embed_dim=backbone.hidden_size,
            num_heads=backbone.num_attention_heads,
            stages=tuple(backbone.blocks_per_stage),
            global_att_blocks=tuple(backbone.global_attention_blocks),
            window_spec=tuple(backbone.window_size_per_stage),
            window_pos_embed_bkg_spatial_size=tuple(
                backbone.window_positional_embedding_background_size
            ),
        )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=vision.fpn_hidden_size),
        d_model=vision.fpn_hidden_size,
        backbone_channel_list=channels,
        fpn_top_down_levels=list(vision.fpn_top_down_levels),
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=scalp)


def _memory_attention(config: Sam2VideoConfig) -> MemoryAttention:
    hidden = config.memory_attention_hidden_size
    common = {
        "embedding_dim": hidden,
        "num_heads": config.memory_attention_num_attention_heads,
        "downsample_rate": config.memory_attention_downsample_rate,
        "feat_sizes": tuple(config.memory_attention_rope_feat_sizes),
        "rope_theta": config.memory_attention_rope_theta,
    }
    memory = config.memory_encoder_output_channels
    layer = MemoryAttentionLayer(
        activation=config.memory_attention_feed_forward_hidden_act,
        dim_feedforward=config.memory_attention_feed_forward_hidden_size,
        dropout=0.0,
        pos_enc_at_attn=False,
        self_attention=RoPEAttention(**common),
        d_model=hidden,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=RoPEAttention(rope_k_repeat=True, kv_in_dim=memory, **common),
    )
    return MemoryAttention(
        d_model=hidden,
        pos_enc_at_input=True,
        layer=layer,
        num_layers=config.memory_attention_num_layers,
    )


def _memory_encoder(config: Sam2VideoConfig) -> MemoryEncoder:
    hidden, inner = config.memory_fuser_embed_dim, config.memory_fuser_intermediate_dim
    block = CXBlock(
        hidden, kernel_size=config.memory_fuser_kernel_size, padding=config.memory_fuser_padding
    )
    block.pwconv1, block.pwconv2 = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
    memory = config.memory_encoder_output_channels
    return MemoryEncoder(
        out_dim=memory,
        in_dim=hidden,
        position_encoding=PositionEmbeddingSine(num_pos_feats=memory),
        mask_downsampler=MaskDownSampler(
            embed_dim=config.mask_downsampler_embed_dim, kernel_size=3, stride=2, padding=1
        ),
        fuser=Fuser(block, num_layers=config.memory_fuser_num_layers),
    )


def _mask_decoder(config: Sam2VideoConfig) -> MaskDecoder:
    """The package builds one with 8 heads and an MLP of 2048 whatever the model."""
    heads = config.mask_decoder_config
    return MaskDecoder(
        num_multimask_outputs=heads.num_multimask_outputs,
        transformer=TwoWayTransformer(
            depth=heads.num_hidden_layers,
            embedding_dim=heads.hidden_size,
            mlp_dim=heads.mlp_dim,
            num_heads=heads.num_attention_heads,
        ),
        transformer_dim=heads.hidden_size,
        iou_head_depth=heads.iou_head_depth,
        iou_head_hidden_dim=heads.iou_head_hidden_dim,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        **_DECODER,
    )


def _fill(predictor: SAM2VideoPredictor, model: Sam2VideoModel) -> None:
    """Each tensor under the package's name; a plugged trunk has its own already."""
    given = model.state_dict()
    plugged = isinstance(predictor.image_encoder.trunk, PluggedTrunk)
    names = {
        name: value
        for name, value in predictor.state_dict().items()
        if not (plugged and name.startswith(_TRUNK[0]))
    }
    renamed, source = renamed_tensors(names)
    rest = {n for n in given if not (plugged and n.startswith(_TRUNK[1]))}
    if renamed.keys() != rest:
        msg = f"the models differ in the tensors {sorted(renamed.keys() ^ rest)}"
        raise ValueError(msg)
    state = {source[name]: given[name] for name in renamed}
    points = given["prompt_encoder.point_embed.weight"]
    state |= {_POINT.format(i): points[i : i + 1] for i in range(len(points))}
    faults = predictor.load_state_dict(state, strict=False)
    missing = [n for n in faults.missing_keys if not (plugged and n.startswith(_TRUNK[0]))]
    if missing or faults.unexpected_keys:
        msg = f"tensors without a value: {missing}, without a place: {faults.unexpected_keys}"
        raise ValueError(msg)
