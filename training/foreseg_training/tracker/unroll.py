# SPDX-License-Identifier: Apache-2.0
"""`Sam2VideoModel`'s streaming, batched over objects and differentiable.

The same steps as `Sam2VideoModel.forward` with an inference session: one conditioning entry,
six recent ones, sixteen pointers. A test holds the two to each other. Differences in
training: soft masks enter memory on tracked frames, and every mask token is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import NO_OBJ_SCORE, get_1d_sine_pe

from .attention import MemoryAttention, ProjectedMemory
from .batches import Batch, PromptKind, correcting_clicks

_NUM_POINTERS = 16
_DRAWN_LOGIT = 10.0  # inside a mask that points correct; outside minus this, as at run time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepOutput:
    """One frame's predictions for every row."""

    masks: torch.Tensor  # (O, 4, S/4, S/4) logits, not blanked
    ious: torch.Tensor  # (O, 4) 0..1
    object_logits: torch.Tensor  # (O,)
    selected: torch.Tensor  # (O,) int64, the mask that streaming would use


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Features:
    s0: torch.Tensor  # (O, C/8, S/4, S/4)
    s1: torch.Tensor  # (O, C/4, S/8, S/8)
    top: torch.Tensor  # (O, C, S/16, S/16)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Memory:
    projected: ProjectedMemory
    pointer: torch.Tensor  # (O, C)


def unroll(model: Sam2VideoModel, batch: Batch) -> Iterator[StepOutput]:
    """Prompt the first frame and track through the others, yielding each frame's output.

    On the batch's `refine_at` a click on the tracked mask's error is decoded with the same memory,
    and the frame becomes the conditioning one, as `foreseg.tracker.sam2` does; what is yielded
    there is the refined output.
    """
    num_frames = batch.pixels.shape[1]
    features_at, position = _encode_frames(model, batch)
    attention = MemoryAttention(model, position)
    memories: list[_Memory] = []
    conditioning = [0]  # frames that were one; the last is
    for t in range(num_frames):
        current = features_at(t)
        mask_prompt = drawn = None
        points, labels = (batch.points, batch.labels) if t == 0 else (None, None)
        if t:
            conditioned = _attend(model, attention, current.top, memories, conditioning)
        elif batch.kind is PromptKind.MASK:
            conditioned = current.top
            mask_prompt = batch.targets[:, 0:1]
        else:
            conditioned = current.top + model.no_memory_embedding[0, 0, :, None, None]
            drawn = None if batch.drawn is None else _as_logits(batch.drawn)
        prompted = t in (0, batch.refine_at)
        if t and prompted:
            points, labels = _clicks(model, batch, t, current, conditioned)
            conditioning.append(t)
        output, tokens = _decode(
            model,
            current,
            conditioned,
            points=points,
            labels=labels,
            mask_prompt=mask_prompt,
            drawn=drawn,
        )
        yield output
        if t + 1 < num_frames:
            features, pointer = _remember(model, current, output, tokens, mask_prompt, prompted)
            memories.append(_Memory(projected=attention.project(features), pointer=pointer))


@torch.no_grad()
def _clicks(
    model: Sam2VideoModel,
    batch: Batch,
    t: int,
    current: _Features,
    conditioned: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Track the frame, and click on what came out wrong."""
    tracked, _ = _decode(model, current, conditioned, points=None, labels=None, mask_prompt=None)
    logits = tracked.masks[torch.arange(len(tracked.masks)), tracked.selected][:, None]
    side = batch.targets.shape[-2:]
    logits = functional.interpolate(logits, size=side, mode="bilinear", align_corners=False)
    said = (logits[:, 0] > 0) & (tracked.object_logits > 0)[:, None, None]
    rng = np.random.default_rng([batch.click_seed, t])
    return correcting_clicks(rng, said.numpy(), batch.targets[:, t].numpy() > 0.5)


def _as_logits(masks: torch.Tensor) -> torch.Tensor:
    """(O, S, S) masks as the prompt encoder reads those of before: (O, 1, S/4, S/4)."""
    logits = (2 * masks[:, None] - 1) * _DRAWN_LOGIT
    size = (masks.shape[-2] // 4, masks.shape[-1] // 4)
    return functional.interpolate(
        logits, size=size, mode="bilinear", align_corners=False, antialias=True
    )


def _encode_frames(
    model: Sam2VideoModel, batch: Batch
) -> tuple[Callable[[int], _Features], torch.Tensor]:
    """Run the trunk once over all frames; returns a getter by time and the position map."""
    num_clips, num_frames = batch.pixels.shape[:2]
    pixels = batch.pixels.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    s0, s1, top = _pyramid(model, pixels)
    maps = tuple(m.unflatten(0, (num_clips, num_frames)) for m in (s0, s1, top))
    encoding = model.vision_encoder.neck.position_encoding
    shape = torch.Size((1, *top.shape[1:]))
    position = encoding(shape, top.device, torch.float32).flatten(2).permute(2, 0, 1)

    def at(t: int) -> _Features:
        a, b, c = (m[:, t].index_select(0, batch.rows) for m in maps)
        return _Features(s0=a, s1=b, top=c)

    return at, position


def _pyramid(
    model: Sam2VideoModel, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Do what neck and decoder do to the trunk's maps: s0, s1 and top.

    Lateral, top-down and decoder convolutions are 1x1, and nearest upsampling commutes with
    them: composing them first never makes the wide maps at strides 4 and 8.
    """
    x4, x8, x16 = (
        feature.permute(0, 3, 1, 2)
        for feature in model.vision_encoder.backbone(pixels).intermediate_hidden_states
    )
    top_lateral, lateral8, lateral4 = model.vision_encoder.neck.convs
    conv_s0, conv_s1 = model.mask_decoder.conv_s0, model.mask_decoder.conv_s1
    top = top_lateral(x16)
    s1 = _composed(x8, lateral8, conv_s1) + _twice(functional.conv2d(top, conv_s1.weight))
    narrow8 = functional.conv2d(x8, _product(conv_s0, lateral8), _bias(conv_s0, lateral8))
    narrow8 = narrow8 + _twice(functional.conv2d(top, conv_s0.weight))
    s0 = _composed(x4, lateral4, conv_s0) + _twice(narrow8)
    return s0, s1, top


def _composed(x: torch.Tensor, inner: nn.Conv2d, outer: nn.Conv2d) -> torch.Tensor:
    bias = _bias(outer, inner)
    return functional.conv2d(
        x, _product(outer, inner), bias if outer.bias is None else bias + outer.bias
    )


def _product(outer: nn.Conv2d, inner: nn.Conv2d) -> torch.Tensor:
    return (outer.weight[:, :, 0, 0] @ inner.weight[:, :, 0, 0])[:, :, None, None]


def _bias(outer: nn.Conv2d, inner: nn.Conv2d) -> torch.Tensor:
    assert inner.bias is not None  # noqa: S101 (the neck's convolutions have one)
    return outer.weight[:, :, 0, 0] @ inner.bias


def _twice(x: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _attend(
    model: Sam2VideoModel,
    attention: MemoryAttention,
    top: torch.Tensor,
    memories: list[_Memory],
    conditioning: list[int],
) -> torch.Tensor:
    """Condition top features (O, C, h, w) on the memories of all frames so far.

    Of the frames that were conditioning ones only the last counts: a new prompt took its place.
    """
    now, first = len(memories), conditioning[-1]
    others = [i for i in range(now) if i not in conditioning]
    recent = [i for i in others if now - i < model.num_maskmem]
    entries = [
        (0, memories[first].projected),
        *((now - i, memories[i].projected) for i in recent),
    ]
    pointer_frames = [first, *others[::-1][: _NUM_POINTERS - 1]]
    ages = torch.tensor([now - i for i in pointer_frames], dtype=torch.float32)
    sine = get_1d_sine_pe(ages / (_NUM_POINTERS - 1), dim=model.hidden_dim)
    positions = model.temporal_positional_encoding_projection_layer(sine)
    splits = model.hidden_dim // model.mem_dim
    pointers = torch.stack([memories[i].pointer for i in pointer_frames], dim=1)  # (O, F, C)
    attended = attention.attend(
        top.flatten(2).transpose(1, 2),
        entries,
        pointers.unflatten(2, (splits, model.mem_dim)).flatten(1, 2),
        positions.repeat_interleave(splits, dim=0)[None],
    )
    return attended.transpose(1, 2).unflatten(2, top.shape[-2:])


def _decode(
    model: Sam2VideoModel,
    current: _Features,
    conditioned: torch.Tensor,
    *,
    points: torch.Tensor | None,
    labels: torch.Tensor | None,
    mask_prompt: torch.Tensor | None,
    drawn: torch.Tensor | None = None,
) -> tuple[StepOutput, torch.Tensor]:
    """Run prompt encoder and mask decoder; returns all four masks and their tokens (O, 4, C).

    `drawn`: (O, 1, S/4, S/4) logits of a mask that the points correct.
    """
    num_rows = len(conditioned)
    single_mask = points is not None and points.shape[2] > 1
    if points is None:
        points = conditioned.new_zeros((num_rows, 1, 1, 2), dtype=torch.float32)
        labels = torch.full((num_rows, 1, 1), -1, dtype=torch.int32)
    dense_prompt = drawn if mask_prompt is None else model.mask_downsample(mask_prompt)
    sparse, dense = model.prompt_encoder(points, labels, None, dense_prompt)
    decoder = model.mask_decoder
    own = torch.cat(
        [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
    )
    tokens = torch.cat([own.expand(num_rows, 1, -1, -1), sparse], dim=2)
    image_position = model.get_image_wide_positional_embeddings().expand(num_rows, -1, -1, -1)
    tokens, image = decoder.transformer(
        point_embeddings=tokens,
        image_embeddings=conditioned + dense,
        image_positional_embeddings=image_position,
        attention_similarity=None,
    )
    image = image.squeeze(1).transpose(1, 2).unflatten(2, conditioned.shape[-2:])
    upscaled = decoder.upscale_conv1(image) + current.s1
    upscaled = decoder.activation(decoder.upscale_layer_norm(upscaled))
    upscaled = decoder.activation(decoder.upscale_conv2(upscaled) + current.s0)
    mask_tokens = tokens[:, 0, 2 : 2 + decoder.num_mask_tokens]
    kernels = torch.stack(
        [mlp(mask_tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    masks = (kernels @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:]).float()
    ious = decoder.iou_prediction_head(tokens[:, 0, 1]).float()
    object_logits = decoder.pred_obj_score_head(tokens[:, 0, 0]).float().squeeze(-1)
    selected = _select(model, masks.detach(), ious.detach(), single_mask=single_mask)
    output = StepOutput(masks=masks, ious=ious, object_logits=object_logits, selected=selected)
    return output, mask_tokens


def _select(
    model: Sam2VideoModel, masks: torch.Tensor, ious: torch.Tensor, *, single_mask: bool
) -> torch.Tensor:
    """Choose as streaming does: by IoU, or the first mask unless it is unstable."""
    best = ious[:, 1:].argmax(dim=1) + 1
    if not single_mask:
        return best
    if model.training:
        return torch.zeros_like(best)
    stability = model.mask_decoder._get_stability_scores(masks[:, 0])  # noqa: SLF001
    stable = stability >= model.mask_decoder.dynamic_multimask_stability_thresh
    return torch.where(stable, torch.zeros_like(best), best)


def _remember(
    model: Sam2VideoModel,
    current: _Features,
    output: StepOutput,
    tokens: torch.Tensor,
    mask_prompt: torch.Tensor | None,
    prompted: bool,  # noqa: FBT001
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode a frame and its selected mask: features (O, hw, 64) and pointer (O, C)."""
    every = torch.arange(len(tokens))
    believed = visible = (output.object_logits.detach() > 0)[:, None]
    logits = output.masks.detach()[every, output.selected][:, None]
    logits = torch.where(visible[..., None, None], logits, torch.tensor(NO_OBJ_SCORE))
    if mask_prompt is not None:
        visible = mask_prompt.flatten(1).any(dim=1, keepdim=True)
        weight = mask_prompt
    else:
        side = (model.image_size, model.image_size)
        large = functional.interpolate(logits, size=side, mode="bilinear", align_corners=False)
        weight = (large > 0).float() if prompted else large.sigmoid()
    config = model.config
    weight = weight * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
    features, _ = model.memory_encoder(current.top, weight)
    occlusion = model.occlusion_spatial_embedding_parameter[..., None, None]
    features = features + (~visible).float()[..., None, None] * occlusion
    pointer = model.object_pointer_proj(tokens[every, output.selected])
    pointer = torch.where(visible & believed, pointer.float(), model.no_object_pointer)
    return features.to(torch.bfloat16).float().flatten(2).transpose(1, 2), pointer
