# SPDX-License-Identifier: Apache-2.0
"""Meta's own SAM2 and SAM2.1 checkpoints (`sam2*_hiera_*.pt`) as a `Sam2VideoModel`.

The geometry is read off the tensors. What they do not show (heads, windows and global blocks of
the trunk) is looked up by the trunk's width and depth; the rest is equal in Meta's eight
configurations. Names and values were established by comparing the state dicts of the `sam2`
package and of `transformers`. Does not know how a checkpoint is exported.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel

from foreseg.errors import InputError
from foreseg.texts import first_names

IMAGE_SIZE = 1024  # what all of Meta's checkpoints were trained at
_NUM_DECODER_HEADS = 8  # built into Meta's mask decoder

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """What the tensors of a Hiera trunk do not show."""

    name: str
    heads: int  # of the first stage; each stage has twice as many
    windows: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]


# (channels, blocks) of the first stage, and of every stage
KNOWN_TRUNKS: dict[tuple[int, tuple[int, ...]], Trunk] = {
    (96, (1, 2, 7, 2)): Trunk(
        name="tiny", heads=1, windows=(8, 4, 14, 7), global_blocks=(5, 7, 9)
    ),
    (96, (1, 2, 11, 2)): Trunk(
        name="small", heads=1, windows=(8, 4, 14, 7), global_blocks=(7, 10, 13)
    ),
    (112, (2, 3, 16, 3)): Trunk(
        name="base_plus", heads=2, windows=(8, 4, 14, 7), global_blocks=(12, 16, 20)
    ),
    (144, (2, 6, 36, 4)): Trunk(
        name="large", heads=2, windows=(8, 4, 16, 8), global_blocks=(23, 33, 43)
    ),
}

_MLP3 = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d|obj_ptr_proj)"
# Meta's name -> transformers' name: all of these are applied, in this order
_RENAMES: tuple[tuple[str, str], ...] = (
    (rf"{_MLP3}\.layers\.0\.", r"\1.proj_in."),
    (rf"{_MLP3}\.layers\.1\.", r"\1.layers.0."),
    (rf"{_MLP3}\.layers\.2\.", r"\1.proj_out."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.(layers\.\d+)\.gamma$", r".\1.scale"),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"\.mask_downsampler\.encoder\.0\.", ".mask_downsampler.layers.0.conv."),
    (r"\.mask_downsampler\.encoder\.1\.", ".mask_downsampler.layers.0.layer_norm."),
    (r"\.mask_downsampler\.encoder\.3\.", ".mask_downsampler.layers.1.conv."),
    (r"\.mask_downsampler\.encoder\.4\.", ".mask_downsampler.layers.1.layer_norm."),
    (r"\.mask_downsampler\.encoder\.6\.", ".mask_downsampler.layers.2.conv."),
    (r"\.mask_downsampler\.encoder\.7\.", ".mask_downsampler.layers.2.layer_norm."),
    (r"\.mask_downsampler\.encoder\.9\.", ".mask_downsampler.layers.3.conv."),
    (r"\.mask_downsampler\.encoder\.10\.", ".mask_downsampler.layers.3.layer_norm."),
    (r"\.mask_downsampler\.encoder\.12\.", ".mask_downsampler.final_conv."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (
        r"\.pe_layer\.positional_encoding_gaussian_matrix$",
        ".shared_embedding.positional_embedding",
    ),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.convs\.(\d)\.conv\.", r".convs.\1."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm(\d?|_final_attn)\.(weight|bias)$", r".layer_norm\1.\2"),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.", "vision_encoder.neck."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
)
_POINT = "sam_prompt_encoder.point_embeddings.{}.weight"
_NUM_POINT_KINDS = 4  # background, foreground, a box's two corners


def read_meta_checkpoint(path: Path) -> State:
    """Read the tensors of a `.pt`; code in it is never run.

    Only the zip form that torch writes since 1.6 is opened, and only as bare weights: the older
    forms, and TorchScript, have run code in some releases of torch even so.

    Raises:
        InputError: another form, objects besides tensors, a damaged file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            script = any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        msg = f"{path} is not in the zip form of torch.save ({error}); bare pickles are not opened"
        raise InputError(msg) from error
    if script:
        msg = f"{path} is a TorchScript program, not a checkpoint: it is not opened"
        raise InputError(msg)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = (
            f"{path} holds Python objects besides tensors: it is not opened, nothing in it was run"
        )
        raise InputError(msg) from error
    except (RuntimeError, ValueError, KeyError, EOFError, OSError) as error:
        msg = f"{path} is damaged: {_first_line(error)}"
        raise InputError(msg) from error
    state = data.get("model", data) if isinstance(data, dict) else data
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        msg = f"{path} wants tensors by name under 'model', got {type(state).__name__}"
        raise InputError(msg)
    return {str(name): value for name, value in state.items()}


def config_from_meta(state: State, image_size: int = IMAGE_SIZE) -> Sam2VideoConfig:
    """The geometry that Meta's tensors have, at any input size: no tensor depends on that.

    Raises:
        InputError: a tensor is missing, or the trunk is of no known size.
    """
    trunk, backbone = _backbone(state, image_size)
    laterals = [f"image_encoder.neck.convs.{i}.conv.weight" for i in range(4)]
    hidden = _shape(state, laterals[0])[0]
    sides = [[image_size // stride] * 2 for stride in (4, 8, 16)]
    decoder = "sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight"
    fuser = "memory_encoder.fuser.layers.0."
    kernel = _shape(state, f"{fuser}dwconv.weight")[-1]
    return Sam2VideoConfig(
        name_or_path=trunk.name,
        image_size=image_size,
        vision_config={
            "backbone_config": backbone,
            "backbone_channel_list": [_shape(state, name)[1] for name in laterals],
            "backbone_feature_sizes": sides,
            "fpn_hidden_size": hidden,
        },
        prompt_encoder_config={"hidden_size": hidden, "image_size": image_size, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": hidden,
            "mlp_dim": _shape(state, decoder)[0],
            "num_attention_heads": _NUM_DECODER_HEADS,
            "iou_head_hidden_dim": _shape(
                state, "sam_mask_decoder.iou_prediction_head.layers.0.weight"
            )[0],
        },
        num_maskmem=_shape(state, "maskmem_tpos_enc")[0],
        # the two that SAM2.1 added to SAM2
        enable_occlusion_spatial_embedding="no_obj_embed_spatial" in state,
        enable_temporal_pos_encoding_for_object_pointers="obj_ptr_tpos_proj.weight" in state,
        memory_attention_hidden_size=hidden,
        memory_attention_num_layers=_count(state, r"memory_attention\.layers\.(\d+)\."),
        memory_attention_feed_forward_hidden_size=_shape(
            state, "memory_attention.layers.0.linear1.weight"
        )[0],
        memory_attention_rope_feat_sizes=sides[-1],
        memory_encoder_hidden_size=hidden,
        memory_encoder_output_channels=_shape(state, "memory_encoder.out_proj.weight")[0],
        mask_downsampler_embed_dim=hidden,
        memory_fuser_num_layers=_count(state, r"memory_encoder\.fuser\.layers\.(\d+)\."),
        memory_fuser_embed_dim=hidden,
        memory_fuser_intermediate_dim=_shape(state, f"{fuser}pwconv1.weight")[0],
        memory_fuser_kernel_size=kernel,
        memory_fuser_padding=kernel // 2,
    )


def model_from_meta(state: State, config: Sam2VideoConfig) -> Sam2VideoModel:
    """Build the model and fill it with Meta's tensors, each of them, each once.

    Raises:
        InputError: lists tensors that are missing, unknown, or of another shape.
    """
    check_meta(state, config)
    renamed, _ = renamed_tensors(state)
    model = Sam2VideoModel(config)
    model.load_state_dict(renamed)
    return model.float().eval()


def check_meta(state: State, config: Sam2VideoConfig) -> None:
    """Refuse tensors that do not fit, of which names and shapes are enough.

    Raises:
        InputError: lists tensors that are missing, unknown, or of another shape.
    """
    renamed, source = renamed_tensors(state)
    with torch.device("meta"):
        wanted = Sam2VideoModel(config).state_dict()
    missing = sorted(wanted.keys() - renamed.keys())
    unknown = sorted(source[name] for name in renamed.keys() - wanted.keys())
    wrong = [
        f"{source[name]} {tuple(renamed[name].shape)} for {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in renamed and renamed[name].shape != value.shape
    ]
    faults = (("it lacks", missing), ("unknown are", unknown), ("wrong shapes are", wrong))
    found = [f"{what} {first_names(names)}" for what, names in faults if names]
    if found:
        raise InputError("; ".join(found))


def renamed_tensors(state: State) -> tuple[State, dict[str, str]]:
    """The tensors under transformers' names, and Meta's name of each."""
    renamed, source = {}, {}
    points = [_POINT.format(i) for i in range(_NUM_POINT_KINDS)]
    together = all(name in state for name in points)
    for name, value in state.items():
        if together and name in points:
            continue
        new = name
        for pattern, replacement in _RENAMES:
            new = re.sub(pattern, replacement, new)
        renamed[new], source[new] = value, name
    if together:
        new = "prompt_encoder.point_embed.weight"
        renamed[new] = torch.cat([state[name] for name in points])
        source[new] = points[0]
    shared = "prompt_encoder.shared_embedding.positional_embedding"
    if shared in renamed:  # transformers has it twice
        new = "shared_image_embedding.positional_embedding"
        renamed[new], source[new] = renamed[shared], source[shared]
    return renamed, source


def _backbone(state: State, image_size: int) -> tuple[Trunk, dict[str, object]]:
    blocks = "image_encoder.trunk.blocks."
    num_blocks = _count(state, rf"{re.escape(blocks)}(\d+)\.")
    widths = [_shape(state, f"{blocks}{i}.attn.proj.weight")[0] for i in range(num_blocks)]
    stages = [(width, len(list(same))) for width, same in groupby(widths)]
    key = (widths[0], tuple(count for _, count in stages))
    trunk = KNOWN_TRUNKS.get(key)
    if trunk is None:
        known = ", ".join(f"{t.name} {k[0]} x {k[1]}" for k, t in KNOWN_TRUNKS.items())
        msg = (
            f"a trunk of {key[0]} channels and {key[1]} blocks is of no known size ({known});"
            " the tensors alone do not tell its heads and windows"
        )
        raise InputError(msg)
    return trunk, {
        "model_type": "sam2_hiera_det_model",
        "image_size": [image_size, image_size],
        "hidden_size": widths[0],
        "num_attention_heads": trunk.heads,
        "blocks_per_stage": [count for _, count in stages],
        "embed_dim_per_stage": [width for width, _ in stages],
        "num_attention_heads_per_stage": [trunk.heads * 2**i for i in range(len(stages))],
        "window_size_per_stage": list(trunk.windows),
        "window_positional_embedding_background_size": list(
            _shape(state, "image_encoder.trunk.pos_embed")[-2:]
        ),
        "global_attention_blocks": list(trunk.global_blocks),
    }


def _shape(state: State, name: str) -> tuple[int, ...]:
    if name not in state or state[name].ndim == 0:
        msg = f"it lacks {name}"
        raise InputError(msg)
    return tuple(state[name].shape)


def _count(state: State, pattern: str) -> int:
    """One more than the highest number that a name has at this place."""
    numbers = [int(found[1]) for name in state if (found := re.match(pattern, name))]
    if not numbers:
        msg = f"no tensor is called like {pattern}"
        raise InputError(msg)
    return 1 + max(numbers)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
