# SPDX-License-Identifier: Apache-2.0
"""A vision-language model that segments: its [SEG] token's state becomes a prompt of SAM2.

The state is the last layer's (after the norm) at the position that *reads* the token: both papers
speak of the embedding of the token, and Sa2VA's public code takes this one in training and
inference (VISA's, as LISA's, takes the position before, which predicts it). A two-layer perceptron
maps it to the decoder's width; it is the only sparse prompt but for padding, and there is no dense
one. Of the decoder's masks the first is taken, for a model that was trained here; what a published
one wants is said by its `SegDecode`.

Does not know how completions are generated, nor where the parts are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreseg.errors import ConfigError
from foreseg.frames import Frame, U8Array
from foreseg.masks import Mask
from foreseg_torch.seg.decode import FrameResize, MaskChoice, SegDecode, StatePosition
from foreseg_torch.tracker.nano_tracker import NanoTrackerConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # as SAM2's own processor normalises
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodedMasks:
    """N tokens on F frames."""

    logits: Tensor  # (F, N, m, m) float; above 0 is the object
    quality: Tensor  # (F, N), 0..1: the decoder's own judgement, see `MaskHead.decoded`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegOutput:
    """What completions say, and what their tokens mean."""

    token_logits: Tensor
    """(B, L', V): of the token after each position, from the last one before a completion on."""
    states: tuple[Tensor, ...]  # of each completion (N, D): of its tokens, in their order
    masks: tuple[DecodedMasks, ...]  # likewise


class MaskHead(nn.Module):
    """The projection and SAM2's image encoder, prompt encoder and mask decoder."""

    def __init__(
        self,
        sam: Any,  # noqa: ANN401 (of transformers)
        hidden_size: int,
        nano_config: NanoTrackerConfig | None = None,
        decode: SegDecode | None = None,
    ) -> None:
        """Take over `sam`, a `Sam2Model` or `Sam2VideoModel` of transformers; float32."""
        super().__init__()
        self.hidden_size = hidden_size
        self.decode = decode or SegDecode()
        self.nano_config = nano_config  # of a nano tracker
        self.sam: Any = sam.float()
        self.sam.mask_decoder.dynamic_multimask_via_stability = False
        width = self.sam.prompt_encoder.hidden_size
        self.projection = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, width)
        )

    def train(self, mode: bool = True) -> MaskHead:  # noqa: FBT001, FBT002 (torch has it so)
        """As torch; SAM2 stays as it is used, whatever of it is trained."""
        super().train(mode)
        self.sam.eval()
        return self

    @property
    def image_size(self) -> int:
        """Side of the square that SAM2 sees."""
        return int(self.sam.prompt_encoder.input_image_size)

    def pixels_of(self, images: Sequence[U8Array]) -> Tensor:
        """(F, 3, S, S) normalised pixels of (h, w, 3) frames, squeezed to a square."""
        device = next(self.projection.parameters()).device
        mean, std = (
            torch.tensor(values, device=device).reshape(1, 3, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        squares = []
        for image in images:
            pixels = torch.tensor(image).permute(2, 0, 1)[None]
            side = (self.image_size, self.image_size)
            if self.decode.frame_resize is FrameResize.BICUBIC:  # in 8 bits; only CPUs can
                square = functional.interpolate(pixels, side, mode="bicubic", antialias=True)
                squares.append(square.to(device).float() / 255)
                continue
            square = pixels.to(device).float()
            squares.append(
                functional.interpolate(square, side, mode="bilinear", antialias=True) / 255
            )
        return (torch.cat(squares) - mean) / std

    def encoded(self, pixels: Tensor) -> list[Tensor]:
        """The frames' feature maps, finest first, as the mask decoder takes them."""
        found = self.sam.get_image_features(pixels, return_dict=True).fpn_hidden_states
        maps = [*found[:-1], found[-1] + self.sam.no_memory_embedding]
        return [
            flat.permute(1, 2, 0).reshape(pixels.shape[0], -1, *size)
            for flat, size in zip(maps, self.sam.backbone_feature_sizes, strict=False)
        ]

    def forward(self, states: Tensor, maps: list[Tensor]) -> DecodedMasks:
        """Decode N states (N, D) on F encoded frames."""
        return self.decoded(self.prompts(states), maps)

    def prompts(self, states: Tensor) -> Tensor:
        """N states (N, D) as sparse prompts (N, P, C): the padding, then the projected state."""
        projected = self.projection(states.float())[:, None]
        if not self.decode.num_padding_tokens:
            return projected
        padding = self.sam.prompt_encoder.not_a_point_embed.weight[None]
        num_tokens = self.decode.num_padding_tokens
        return torch.cat((padding.expand(len(states), num_tokens, -1), projected), dim=1)

    def decoded(self, prompts: Tensor, maps: list[Tensor]) -> DecodedMasks:
        """Decode N sparse prompts (N, P, C) on F encoded frames.

        The quality is the predicted IoU; of the first mask, which is trained together with it,
        times the probability that the object is visible.
        """
        frames = maps[-1].shape[0]
        if not len(prompts):  # a completion without the token
            empty = maps[0].new_zeros(frames, 0, *maps[0].shape[-2:])
            return DecodedMasks(logits=empty, quality=empty[..., 0, 0])
        _, dense = self.sam.prompt_encoder(None, None, None, None)
        masks, iou, _, object_logit = self.sam.mask_decoder(
            image_embeddings=maps[-1],
            image_positional_embeddings=self.sam.get_image_wide_positional_embeddings().expand(
                frames, -1, -1, -1
            ),
            sparse_prompt_embeddings=prompts[None].expand(frames, -1, -1, -1),
            dense_prompt_embeddings=dense.expand(frames, -1, -1, -1),
            multimask_output=self.decode.mask_choice is MaskChoice.BEST_OF_THREE,
            high_resolution_features=maps[:-1],
        )
        if self.decode.mask_choice is MaskChoice.BEST_OF_THREE:
            best_iou, best = iou.max(dim=-1)
            chosen = best[..., None, None, None].expand(-1, -1, 1, *masks.shape[-2:])
            return DecodedMasks(
                logits=masks.gather(2, chosen)[:, :, 0], quality=best_iou.clamp(0, 1)
            )
        quality = iou[:, :, 0].clamp(0, 1) * torch.sigmoid(object_logit[:, :, 0])
        return DecodedMasks(logits=masks[:, :, 0], quality=quality)


class SegVlm(nn.Module):
    """Model, projection and mask decoder; each may have its own precision."""

    def __init__(self, vlm: Any, head: MaskHead, token_id: int) -> None:  # noqa: ANN401
        """Take over a model of transformers that knows the token, and a head of its width.

        The model may be under adapters of peft.
        """
        super().__init__()
        self.vlm: Any = vlm
        self.head = head
        self.token_id = token_id
        width = backbone(vlm).config.get_text_config().hidden_size
        if width != head.hidden_size:
            msg = (
                f"the projection wants states of {head.hidden_size} numbers, the model has {width}"
            )
            raise ConfigError(msg)

    def forward(
        self, inputs: dict[str, Tensor], completion: Tensor, pixels: Sequence[Tensor]
    ) -> SegOutput:
        """Completions after their prompts, teacher-forced; differentiable.

        Args:
            inputs: what the model's own `forward` takes: `input_ids` (B, L) and the images.
            completion: (B, L) bool: the completions' tokens. [SEG] elsewhere means nothing.
            pixels: of each row (F, 3, S, S) as `MaskHead.pixels_of` makes them.
        """
        base = backbone(self.vlm)
        hidden = base.model(**inputs).last_hidden_state
        first = int(completion.any(dim=0).int().argmax())
        states = token_states(
            hidden,
            inputs["input_ids"],
            completion,
            self.token_id,
            self.head.decode.state_position,
        )
        return SegOutput(
            token_logits=base.lm_head(hidden[:, max(0, first - 1) :]),
            states=states,
            masks=tuple(
                self.head(one, self.head.encoded(frames))
                for one, frames in zip(states, pixels, strict=True)
            ),
        )


def backbone(vlm: Any) -> Any:  # noqa: ANN401 (of transformers)
    """A model itself, whether it is under adapters or not."""
    return vlm.get_base_model() if hasattr(vlm, "get_base_model") else vlm


def token_states(
    hidden: Tensor,
    input_ids: Tensor,
    completion: Tensor,
    token_id: int,
    position: StatePosition = StatePosition.READS,
) -> tuple[Tensor, ...]:
    """The states (N, D) of each row's tokens, in their order.

    Args:
        hidden: (B, L, D), of the last layer.
        input_ids: (B, L).
        completion: (B, L) bool: where tokens mean something.
        token_id: of [SEG].
        position: whose state is the token's.
    """
    is_token = (input_ids == token_id) & completion.bool()
    if position is StatePosition.PREDICTS:
        is_token = torch.roll(is_token, -1, dims=1)  # a prompt stands before every completion
    return tuple(one[where] for one, where in zip(hidden, is_token, strict=True))


def source_masks(decoded: DecodedMasks, frames: Sequence[Frame], token: int) -> tuple[Mask, ...]:
    """The masks of one token in source pixels of each frame."""
    masks = []
    for logits, frame in zip(decoded.logits[:, token], frames, strict=True):
        width, height = frame.ref.size_wh
        enlarged = functional.interpolate(
            logits[None, None].float(), (height, width), mode="bilinear", align_corners=False
        )
        mask: Mask = (enlarged[0, 0] > 0).cpu().numpy()
        masks.append(mask)
    return tuple(masks)
