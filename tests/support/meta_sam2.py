# SPDX-License-Identifier: Apache-2.0
"""A small random SAM2 of Meta's own package, its `.pt`, and its streaming. torch in functions.

The `sam2` package is no part of the test extra: tests of what needs it skip without it. The names
and shapes of the small model's tensors are kept in `tests/golden/sam2_meta_tiny.json`, so that
loading is tested everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pytest
    import torch
    from numpy.typing import NDArray

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "sam2_meta_tiny.json"
HIDDEN = 128
MEMORY = 64
# what SAM2.1 has and SAM2 has not
OF_21 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias")


def know_tiny_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loader know the small trunk of these tests, as it knows Meta's four."""
    from foreseg_torch.tracker.sam2_meta import KNOWN_TRUNKS, Trunk

    trunk = Trunk(name="test", heads=1, windows=(8, 4, 4, 2), global_blocks=(3,))
    monkeypatch.setitem(KNOWN_TRUNKS, (16, (1, 1, 2, 1)), trunk)


def tiny_state(*, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors with the names and shapes of the small model: needs no package of Meta's."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    shapes = json.loads(GOLDEN.read_text("utf-8"))
    return {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def tiny_meta(*, generation: str = "2.1", image_size: int = 64, seed: int = 0):  # noqa: ANN201
    """A `SAM2Base` with the flags of Meta's configurations and a small trunk; random, but lively."""
    import torch
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam2_base import SAM2Base

    torch.manual_seed(seed)
    trunk = Hiera(
        embed_dim=16,
        stages=(1, 1, 2, 1),
        global_att_blocks=(3,),
        window_spec=(8, 4, 4, 2),
        window_pos_embed_bkg_spatial_size=(4, 4),
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=HIDDEN),
        d_model=HIDDEN,
        backbone_channel_list=[128, 64, 32, 16],
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    new = generation == "2.1"
    model = SAM2Base(
        image_encoder=ImageEncoder(trunk=trunk, neck=neck, scalp=1),
        memory_attention=_memory_attention(image_size // 16),
        memory_encoder=_memory_encoder(),
        image_size=image_size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
        no_obj_embed_spatial=new,
        add_tpos_enc_to_obj_ptrs=new,
        proj_tpos_enc_in_obj_ptrs=new,
        use_signed_tpos_enc_to_obj_ptrs=new,
        # as Meta's video predictor adds them
        binarize_mask_from_pts_for_mem_enc=True,
        sam_mask_decoder_extra_args={
            "dynamic_multimask_via_stability": True,
            "dynamic_multimask_stability_delta": 0.05,
            "dynamic_multimask_stability_thresh": 0.98,
        },
    )
    _enliven(model)
    return model.eval()


def save_meta(state: dict[str, torch.Tensor], path: Path) -> Path:
    """Write tensors as Meta's files hold them."""
    import torch

    torch.save({"model": state}, path)
    return path


class MetaStream:
    """One object through Meta's own `track_step`, frame by frame; frame 0 is prompted."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._outputs: dict[str, dict[int, object]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        self._next = 0

    def step(
        self, pixels: NDArray[np.float32], points: tuple[np.ndarray, np.ndarray] | None = None
    ) -> tuple[NDArray[np.float32], float]:
        """Mask logits (m, m) and the object logit on the next frame, (1, 3, S, S)."""
        import torch

        with torch.no_grad():
            features = self._model.forward_image(torch.from_numpy(pixels))
            _, maps, positions, sizes = self._model._prepare_backbone_features(features)
            given = None
            if points is not None:
                given = {
                    "point_coords": torch.from_numpy(points[0])[None],
                    "point_labels": torch.from_numpy(points[1])[None],
                }
            out = self._model.track_step(
                frame_idx=self._next,
                is_init_cond_frame=given is not None,
                current_vision_feats=maps,
                current_vision_pos_embeds=positions,
                feat_sizes=sizes,
                point_inputs=given,
                mask_inputs=None,
                output_dict=self._outputs,
                num_frames=1000,
            )
        kind = "non_cond_frame_outputs" if given is None else "cond_frame_outputs"
        self._outputs[kind][self._next] = out
        self._next += 1
        return out["pred_masks"][0, 0].numpy(), float(out["object_score_logits"])


def _memory_attention(side: int) -> torch.nn.Module:
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.sam.transformer import RoPEAttention

    heads = {"embedding_dim": HIDDEN, "num_heads": 1, "downsample_rate": 1, "dropout": 0.1}
    size = (side, side)
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=2 * HIDDEN,
        dropout=0.1,
        pos_enc_at_attn=False,
        self_attention=RoPEAttention(feat_sizes=size, **heads),
        d_model=HIDDEN,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=RoPEAttention(
            feat_sizes=size, rope_k_repeat=True, kv_in_dim=MEMORY, **heads
        ),
    )
    return MemoryAttention(d_model=HIDDEN, pos_enc_at_input=True, layer=layer, num_layers=2)


def _memory_encoder() -> torch.nn.Module:
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    return MemoryEncoder(
        out_dim=MEMORY,
        in_dim=HIDDEN,
        position_encoding=PositionEmbeddingSine(num_pos_feats=MEMORY),
        mask_downsampler=MaskDownSampler(embed_dim=HIDDEN, kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(HIDDEN, kernel_size=7, padding=3, use_dwconv=True), num_layers=2),
    )


def _enliven(model: torch.nn.Module) -> None:
    """Make the parts that start at or near zero take part, so that a comparison sees them."""
    import torch

    with torch.no_grad():
        for parameter in (
            model.image_encoder.trunk.pos_embed,
            model.image_encoder.trunk.pos_embed_window,
            model.no_mem_embed,
            model.no_obj_ptr,
        ):
            parameter.normal_(std=0.2)
        if model.no_obj_embed_spatial is not None:
            model.no_obj_embed_spatial.normal_(std=0.2)
        model.maskmem_tpos_enc.normal_(std=2.0)
        for layer in model.memory_encoder.fuser.layers:
            layer.gamma.fill_(0.3)
        for head in model.sam_mask_decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(12)
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(0.6)
