# SPDX-License-Identifier: Apache-2.0
"""A `Sam2VideoModel` cut into the four graphs that the numpy runtime drives.

Each piece is a module with tensors in and tensors out, without state, without Python branches on
data, with masks instead of lists of varying length. Position encodings and RoPE tables are
constants. Inputs and outputs are float32 (or int32) whatever precision a piece computes in; see
`sam2_half`. Does not know how the pieces are exported or what runs them.

Where EdgeTAM's parts are the same, `edgetam_pieces` takes them from here.

Letters: B rows, P points, C hidden channels, Cm memory channels, L cells of the stride-16 map,
S model input side, m mask side (S / 4), K memory entries, R object pointers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import get_1d_sine_pe

from foreseg_torch.tracker.sam2_attention import MemoryAttentionLayer, Tables
from foreseg_torch.tracker.sam2_positions import frame_position, memory_position, rotation_tables
from foreseg_torch.tracker.sam2_preparing import checked_copy, fold_batch_norms

_MASKED = -1.0e4  # added to the attention logits of unused entries; finite, and fit for float16
_ABSENT = -1024.0  # mask logit of an absent object, as the reference has it
_NOT_A_POINT = -1


class ImageEncoder(nn.Module):
    """pixels (1, 3, S, S) -> stride4 (1, C/8, ..), stride8 (1, C/4, ..), feat, feat_no_memory.

    The neck's and the decoder's 1x1 convolutions are composed, and nearest upsampling commutes
    with them: the wide maps at strides 4 and 8 are never made.
    """

    no_memory: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        neck = model.vision_encoder.neck
        laterals = list(reversed(neck.convs))  # the neck counts from the coarsest map
        s0, s1 = model.mask_decoder.conv_s0, model.mask_decoder.conv_s1
        self.backbone = model.vision_encoder.backbone
        self.coarse = nn.ModuleList(laterals[2:])  # strides 16 and, with four stages, 32
        self.adds_coarser = [
            level in neck.fpn_top_down_levels and level < len(laterals) - 1
            for level in range(len(laterals))
        ]
        self.narrow8 = _composed(s1, laterals[1], with_bias=True)
        self.narrow4 = _composed(s0, laterals[0], with_bias=True)
        self.narrow4_from8 = _composed(s0, laterals[1], with_bias=False)
        self.narrow8_from16 = _without_bias(s1)
        self.narrow4_from16 = _without_bias(s0)
        self.register_buffer("no_memory", model.no_memory_embedding.detach().reshape(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode one frame."""
        stages = self.backbone(pixels.to(self.no_memory.dtype)).intermediate_hidden_states
        x4, x8, *coarse = (stage.permute(0, 3, 1, 2) for stage in stages)
        maps = [lateral(x) for lateral, x in zip(self.coarse, coarse, strict=True)]
        feat = maps[-1]
        for i in range(len(maps) - 2, -1, -1):
            feat = maps[i] + _twice(feat) if self.adds_coarser[2 + i] else maps[i]
        stride8, stride4 = self.narrow8(x8), self.narrow4(x4)
        if self.adds_coarser[0]:
            coarser = self.narrow4_from8(x8)
            if self.adds_coarser[1]:
                coarser = coarser + _twice(self.narrow4_from16(feat))
            stride4 = stride4 + _twice(coarser)
        if self.adds_coarser[1]:
            stride8 = stride8 + _twice(self.narrow8_from16(feat))
        return stride4.float(), stride8.float(), feat.float(), (feat + self.no_memory).float()


class MemoryAttention(nn.Module):
    """A frame's feat (1, C, h, w), conditioned on each row's memory: (B, C, h, w).

    The frame is shared by the rows; the first self-attention runs once for all of them.
    """

    time_table: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        source = model.memory_attention
        self.layers = nn.ModuleList(MemoryAttentionLayer(layer) for layer in source.layers)
        self.norm = source.layer_norm
        self.time_projection = model.temporal_positional_encoding_projection_layer
        self.side = model.backbone_feature_sizes[-1][0]
        self.hidden = model.hidden_dim
        self.splits = model.hidden_dim // model.mem_dim
        self.time_in_pointers = model.config.enable_temporal_pos_encoding_for_object_pointers
        self.age_scale = 1.0 / (model.config.max_object_pointers_in_encoder - 1)
        cos, sin = rotation_tables(source, source.position_ids)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        self.register_buffer("frame_position", 0.1 * frame_position(model))
        self.register_buffer("memory_position", memory_position(model))
        table = model.memory_temporal_positional_encoding.detach()
        self.register_buffer("time_table", table.reshape(model.num_maskmem, model.mem_dim))

    def forward(
        self,
        feat: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        memory_valid: Tensor,
        pointer: Tensor,
        pointer_age: Tensor,
        pointer_valid: Tensor,
    ) -> Tensor:
        """Condition; see `foreseg.tracker.memory_bank.MemoryBatch` for the inputs."""
        dtype = self.time_table.dtype
        memory, pointer = memory.to(dtype), pointer.to(dtype)
        batch, slots, cells, channels = memory.shape
        time = self.time_table[memory_position.reshape(-1).long()]
        keys = memory + self.memory_position + time.reshape(batch, slots, 1, channels)
        tokens = pointer.reshape(batch, -1, channels)
        token_keys = tokens
        if self.time_in_pointers:
            sine = get_1d_sine_pe(pointer_age * self.age_scale, dim=self.hidden)
            when = self.time_projection(sine.to(dtype)).unsqueeze(2)
            token_keys = tokens + when.expand(-1, -1, self.splits, -1).reshape(batch, -1, channels)
        slot_bias = (1.0 - memory_valid) * _MASKED
        token_bias = (1.0 - pointer_valid) * _MASKED
        bias = torch.cat(
            (
                slot_bias.unsqueeze(2).expand(-1, -1, cells).reshape(batch, -1),
                token_bias.unsqueeze(2).expand(-1, -1, self.splits).reshape(batch, -1),
            ),
            dim=1,
        ).unsqueeze(1)
        bias = bias.to(dtype)
        x = feat.to(dtype).flatten(2).transpose(1, 2) + self.frame_position
        tables, key_tables = (self.cos, self.sin), self._key_tables()
        for layer in self.layers:
            x = layer(x, (keys, memory, token_keys, tokens), tables, key_tables, bias)
        x = self.norm(x).float().transpose(1, 2)
        return x.reshape(batch, self.hidden, self.side, self.side)

    def _key_tables(self) -> Tables:
        """How the keys of a memory map are rotated: here as the frame's cells are."""
        return self.cos, self.sin


class Decoder(nn.Module):
    """Prompt encoder, mask decoder, choice of the mask, object pointer.

    One graph for points, boxes (two points with labels 2 and 3), masks and plain tracking (one
    point with label -1). `multimask` and `has_mask` are 0 or 1 for each row.
    """

    tokens: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        prompts, decoder = model.prompt_encoder, model.mask_decoder
        self.decoder = decoder
        self.pointer_projection = model.object_pointer_proj
        self.mask_embed = prompts.mask_embed
        self.side = float(model.image_size)
        self.num_masks = decoder.num_mask_tokens
        self.delta = decoder.dynamic_multimask_stability_delta
        self.least_stability = (
            decoder.dynamic_multimask_stability_thresh
            if decoder.dynamic_multimask_via_stability
            else 0.0
        )
        self.register_buffer(
            "point_frequencies", prompts.shared_embedding.positional_embedding.detach()
        )
        self.register_buffer("point_table", prompts.point_embed.weight.detach())
        self.register_buffer("not_a_point", prompts.not_a_point_embed.weight.detach())
        self.register_buffer("no_mask", prompts.no_mask_embed.weight.detach().reshape(1, -1, 1, 1))
        self.register_buffer("no_pointer", model.no_object_pointer.detach())
        with torch.no_grad():
            position = model.get_image_wide_positional_embeddings()
            tokens = (decoder.obj_score_token, decoder.iou_token, decoder.mask_tokens)
            self.register_buffer("image_position", position.clone())
            self.register_buffer("tokens", torch.cat([t.weight.detach() for t in tokens]))

    def forward(
        self,
        feat: Tensor,
        stride4: Tensor,
        stride8: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
        multimask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Decode B rows: mask logits (B, m, m), score (B,), object logit (B,), pointer (B, C)."""
        dtype = self.tokens.dtype
        sparse = self._embed_points(point_coords, point_labels).to(dtype)
        given = has_mask.to(dtype).reshape(-1, 1, 1, 1)
        mask_input = mask_input.to(dtype).unsqueeze(1)
        dense = given * self.mask_embed(mask_input) + (1.0 - given) * self.no_mask
        batch = feat.shape[0]
        tokens = torch.cat((self.tokens.unsqueeze(0).expand(batch, -1, -1), sparse), dim=1)
        hidden, image = self.decoder.transformer(
            point_embeddings=tokens.unsqueeze(1),
            image_embeddings=feat.to(dtype) + dense,
            image_positional_embeddings=self.image_position,
            attention_similarity=None,
        )
        hidden = hidden.squeeze(1)
        mask_tokens = hidden[:, 2 : 2 + self.num_masks]
        masks = self._masks(image.squeeze(1), mask_tokens, stride4.to(dtype), stride8.to(dtype))
        masks = masks.float()
        scores = self.decoder.iou_prediction_head(hidden[:, 1].float())
        object_logit = self.decoder.pred_obj_score_head(hidden[:, 0].float())
        mask_weights, token_weights = self._choice(masks, scores, multimask.reshape(-1, 1))
        mask = (mask_weights.unsqueeze(2).unsqueeze(3) * masks).sum(1)
        score = (mask_weights * scores).sum(1)
        token = (token_weights.unsqueeze(2) * mask_tokens.float()).sum(1).to(dtype)
        visible = (object_logit > 0).to(mask.dtype)
        mask = torch.where(object_logit.unsqueeze(2) > 0, mask, torch.full_like(mask, _ABSENT))
        pointer = self.pointer_projection(token).float()
        pointer = visible * pointer + (1.0 - visible) * self.no_pointer.float()
        return mask, score, object_logit.squeeze(1), pointer

    def _embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """(B, P + 1, C): the points at their pixels' centres, and one point that is none."""
        coords = functional.pad(coords + 0.5, (0, 0, 0, 1))
        labels = functional.pad(labels, (0, 1), value=_NOT_A_POINT).unsqueeze(2)
        angles = 2 * math.pi * ((2.0 * coords / self.side - 1.0) @ self.point_frequencies)
        encoded = torch.cat((angles.sin(), angles.cos()), dim=-1)
        kinds = self.point_table[labels.squeeze(2).clamp(min=0).long()]
        return torch.where(labels >= 0, encoded + kinds, self.not_a_point.expand_as(encoded))

    def _masks(
        self, image: Tensor, mask_tokens: Tensor, stride4: Tensor, stride8: Tensor
    ) -> Tensor:
        """All candidate masks (B, 4, m, m)."""
        decoder = self.decoder
        side = stride8.shape[-1] // 2
        image = image.transpose(1, 2).reshape(-1, image.shape[2], side, side)
        up = decoder.upscale_conv1(image) + stride8
        up = decoder.activation(decoder.upscale_layer_norm(up))
        up = decoder.activation(decoder.upscale_conv2(up) + stride4)
        heads = [
            head(mask_tokens[:, i]) for i, head in enumerate(decoder.output_hypernetworks_mlps)
        ]
        masks = torch.stack(heads, dim=1) @ up.flatten(2)
        return masks.reshape(-1, self.num_masks, up.shape[2], up.shape[3])

    def _choice(self, masks: Tensor, scores: Tensor, multimask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 4) weights, one of them 1: of the mask, and of the token that becomes the pointer.

        Where one mask is asked for, an unstable one gives way to the best of the others; the
        pointer stays with the first token, as in the reference.
        """
        best = torch.argmax(scores[:, 1:], dim=1, keepdim=True) + 1
        index = torch.arange(self.num_masks, device=scores.device).unsqueeze(0)
        of_several = (index == best).to(scores.dtype)
        first = (index == 0).to(scores.dtype).expand_as(of_several)
        flat = masks[:, 0].flatten(1)
        inner = (flat > self.delta).float().sum(1, keepdim=True)
        outer = (flat > -self.delta).float().sum(1, keepdim=True)
        stable = inner >= self.least_stability * outer
        of_one = torch.where(stable, first, of_several)
        return (
            multimask * of_several + (1.0 - multimask) * of_one,
            multimask * of_several + (1.0 - multimask) * first,
        )


class MemoryEncoder(nn.Module):
    """feat (1, C, h, w), mask logits (B, m, m), object logit and `hard` (B,) -> (B, L, Cm)."""

    absent: Tensor

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        source = model.memory_encoder
        self.downsampler = source.mask_downsampler
        self.feature_projection = source.feature_projection
        self.fuser = source.memory_fuser
        self.projection = source.projection
        self.scale = float(model.config.sigmoid_scale_for_mem_enc)
        self.bias = float(model.config.sigmoid_bias_for_mem_enc)
        absent = model.occlusion_spatial_embedding_parameter
        absent = torch.zeros(1, model.mem_dim) if absent is None else absent.detach()
        self.register_buffer("absent", absent.reshape(1, 1, -1))

    def forward(
        self, feat: Tensor, mask_logits: Tensor, object_logit: Tensor, hard: Tensor
    ) -> Tensor:
        """Encode B masks on one frame; `hard` = 1 takes the mask's sign, 0 its probability."""
        fine = functional.interpolate(
            mask_logits.unsqueeze(1), scale_factor=4.0, mode="bilinear", align_corners=False
        )
        hard = hard.reshape(-1, 1, 1, 1)
        masks = hard * (fine > 0).to(fine.dtype) + (1.0 - hard) * torch.sigmoid(fine)
        dtype = self.absent.dtype
        masks = self.downsampler((masks * self.scale + self.bias).to(dtype))
        fused = self.projection(self.fuser(self.feature_projection(feat.to(dtype)) + masks))
        visible = (object_logit > 0).float().reshape(-1, 1, 1)
        memory = fused.float().flatten(2).transpose(1, 2)
        return memory + (1.0 - visible) * self.absent.float()


def cut(model: Sam2VideoModel) -> dict[str, nn.Module]:
    """The four pieces, on a copy of the model with batch norms folded, in the order of a frame.

    Raises:
        ValueError: for a geometry that the pieces do not cover.
    """
    model = checked_copy(model)
    fold_batch_norms(model)
    return {
        "image_encoder": ImageEncoder(model).eval(),
        "memory_attention": MemoryAttention(model).eval(),
        "decoder": Decoder(model).eval(),
        "memory_encoder": MemoryEncoder(model).eval(),
    }


@torch.no_grad()
def _composed(outer: nn.Conv2d, inner: nn.Conv2d, *, with_bias: bool) -> nn.Conv2d:
    """One 1x1 convolution for `inner`, then `outer`; the latter's bias is left out on request."""
    if inner.bias is None or outer.bias is None:
        msg = "the neck and the mask decoder want convolutions with a bias"
        raise ValueError(msg)
    conv = nn.Conv2d(inner.in_channels, outer.out_channels, 1)
    matrix = outer.weight[:, :, 0, 0].double()
    conv.weight.copy_((matrix @ inner.weight[:, :, 0, 0].double())[:, :, None, None])
    bias = matrix @ inner.bias.double()
    conv.bias = nn.Parameter((bias + outer.bias if with_bias else bias).float())
    return conv


@torch.no_grad()
def _without_bias(source: nn.Conv2d) -> nn.Conv2d:
    conv = nn.Conv2d(source.in_channels, source.out_channels, 1, bias=False)
    conv.weight.copy_(source.weight)
    return conv


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
