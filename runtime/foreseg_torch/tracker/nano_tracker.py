# SPDX-License-Identifier: Apache-2.0
"""The nano tracker: SAM 2.1's video architecture behind a small convolutional trunk.

Everything but the trunk (neck, memory attention, memory encoder, prompt encoder, mask
decoder, pointers) is `transformers`' `Sam2VideoModel` with a small config, so streaming
with `Sam2VideoInferenceSession` works unchanged and stays the reference for the engines.

Does not know: how it was trained, where its frames come from, how masks are shown.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2.configuration_sam2 import Sam2VisionConfig
from transformers.utils import ModelOutput

CONFIG_KEY = "foreseg.nano_tracker"
_MEMORY_CHANNELS = 64  # Sam2VideoModel's memory attention has this width built in


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoTrackerConfig:
    """Geometry of the nano tracker.

    Attributes:
        image_size: side of the square model input, model pixels, a multiple of 16.
        widths: trunk channels at strides 2, 4, 8 and 16.
        num_blocks: residual blocks at strides 4, 8 and 16.
        hidden_size: channels of neck and heads, a multiple of 64, at least 128.
        pixel_mean: per RGB channel, of pixels in 0..1.
        pixel_std: per RGB channel, of pixels in 0..1.
    """

    image_size: int = 224
    widths: tuple[int, int, int, int] = (24, 48, 96, 144)
    num_blocks: tuple[int, int, int] = (1, 2, 4)
    hidden_size: int = 128
    num_attention_layers: int = 2
    attention_mlp_size: int = 512
    decoder_mlp_size: int = 256
    num_decoder_heads: int = 4
    memory_mlp_size: int = 256
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.image_size % 16 or self.image_size <= 0:
            msg = f"image_size must be a positive multiple of 16, got {self.image_size}"
            raise ValueError(msg)
        if self.hidden_size % _MEMORY_CHANNELS or self.hidden_size < 2 * _MEMORY_CHANNELS:
            msg = f"hidden_size must be a multiple of 64, at least 128, got {self.hidden_size}"
            raise ValueError(msg)

    @property
    def feature_sizes(self) -> tuple[int, int, int]:
        """Sides of the feature maps at strides 4, 8 and 16."""
        return (self.image_size // 4, self.image_size // 8, self.image_size // 16)

    def to_json(self) -> str:
        """Serialise, keys sorted."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> NanoTrackerConfig:
        """Read what `to_json` wrote."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(text).items()
        }
        return cls(**fields)


@dataclass
class NanoTrunkOutput(ModelOutput):
    """What `Sam2VisionModel` reads from its backbone; feature maps are (B, h, w, C)."""

    last_hidden_state: torch.Tensor | None = None
    intermediate_hidden_states: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) float to the same shape."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(x + self.norm2(self.conv2(y)))


class NanoTrunk(nn.Module):
    """Residual 3x3 network with feature maps at strides 4, 8 and 16."""

    def __init__(self, config: NanoTrackerConfig) -> None:
        super().__init__()
        stem, *stages = config.widths
        self.stem = _downsample(3, stem)
        self.stages = nn.ModuleList()
        width_in = stem
        for width, num_blocks in zip(stages, config.num_blocks, strict=True):
            blocks = [ResidualBlock(width) for _ in range(num_blocks)]
            self.stages.append(nn.Sequential(_downsample(width_in, width), *blocks))
            width_in = width

    def forward(self, pixel_values: torch.Tensor, **_: object) -> NanoTrunkOutput:
        """Encode (B, 3, S, S) normalised float pixels; maps come out channels last."""
        x = self.stem(pixel_values)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x.permute(0, 2, 3, 1))
        return NanoTrunkOutput(last_hidden_state=maps[-1], intermediate_hidden_states=tuple(maps))


def build_nano_tracker(config: NanoTrackerConfig) -> Sam2VideoModel:
    """Build an untrained nano tracker, in evaluation mode.

    Weights come from torch's global generator: seed it for a reproducible model.
    """
    model = Sam2VideoModel(_sam2_config(config))
    model.vision_encoder.backbone = NanoTrunk(config)
    _initialise(model)
    return model.eval()


def save_nano_tracker(
    model: Sam2VideoModel,
    config: NanoTrackerConfig,
    path: Path,
    *,
    dtype: torch.dtype = torch.float16,
    notes: dict[str, str] | None = None,
) -> None:
    """Write a safetensors checkpoint with the config, and notes on its origin, inside it."""
    tensors = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    metadata = {**(notes or {}), CONFIG_KEY: config.to_json()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata=metadata)


def read_nano_tracker_config(path: Path) -> NanoTrackerConfig:
    """Read only the config of a checkpoint."""
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
    if CONFIG_KEY not in metadata:
        msg = f"{path} is no nano tracker: its metadata lacks {CONFIG_KEY!r}"
        raise ValueError(msg)
    return NanoTrackerConfig.from_json(metadata[CONFIG_KEY])


def load_nano_tracker(path: Path, *, image_size: int | None = None) -> Sam2VideoModel:
    """Load a checkpoint into a float32 model on the CPU, in evaluation mode.

    Args:
        path: of the file.
        image_size: another than it was trained at; its tensors fit any.
    """
    config = read_nano_tracker_config(path)
    if image_size is not None:
        config = dataclasses.replace(config, image_size=image_size)
    model = build_nano_tracker(config)
    with safe_open(str(path), framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model.load_state_dict(state, strict=True)
    return model.eval()


def _downsample(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(),
    )


def _sam2_config(config: NanoTrackerConfig) -> Sam2VideoConfig:
    hidden, size = config.hidden_size, config.image_size
    vision = Sam2VisionConfig(
        backbone_config=_placeholder_backbone(),
        backbone_channel_list=list(reversed(config.widths[1:])),
        backbone_feature_sizes=[[side, side] for side in config.feature_sizes],
        fpn_hidden_size=hidden,
        fpn_top_down_levels=[0, 1, 2],
        num_feature_levels=3,
    )
    return Sam2VideoConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config={"hidden_size": hidden, "image_size": size, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": hidden,
            "mlp_dim": config.decoder_mlp_size,
            "num_attention_heads": config.num_decoder_heads,
            "iou_head_hidden_dim": hidden,
        },
        image_size=size,
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=config.num_attention_layers,
        memory_attention_feed_forward_hidden_size=config.attention_mlp_size,
        memory_attention_dropout=0.0,
        memory_attention_rope_dropout=0.0,
        memory_attention_rope_feat_sizes=[config.feature_sizes[-1]] * 2,
        memory_encoder_hidden_size=hidden,
        memory_encoder_output_channels=_MEMORY_CHANNELS,
        mask_downsampler_embed_dim=hidden,
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=config.memory_mlp_size,
    )


def _placeholder_backbone() -> dict[str, object]:
    """Describe the least Hiera that `Sam2VisionModel` can build before the trunk takes its place."""
    return {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "blocks_per_stage": [1, 1, 1, 1],
        "embed_dim_per_stage": [8, 8, 8, 8],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "global_attention_blocks": [],
    }


@torch.no_grad()
def _initialise(model: Sam2VideoModel) -> None:
    """Give every part the start that lets a small model learn: `transformers`' 0.02 does not."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
    for block in model.vision_encoder.backbone.modules():
        if isinstance(block, ResidualBlock):
            nn.init.constant_(block.norm2.weight, 0.5)
    for layer in model.memory_encoder.memory_fuser.layers:
        nn.init.constant_(layer.scale, 0.1)
    for parameter in (
        model.no_memory_embedding,
        model.no_memory_positional_encoding,
        model.memory_temporal_positional_encoding,
        model.no_object_pointer,
        model.occlusion_spatial_embedding_parameter,
    ):
        nn.init.trunc_normal_(parameter, std=0.02)
    shared = model.prompt_encoder.shared_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.copy_(shared)
