# SPDX-License-Identifier: Apache-2.0
"""Opens SAM2 checkpoints: a nano tracker's safetensors, or a `transformers` Sam2Video folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from transformers import Sam2VideoModel

from foreseg.errors import InputError
from foreseg_torch.nano_tracker import load_nano_tracker, read_nano_tracker_config

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what SAM2 was trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A loaded model and how its pixels are normalised."""

    model: Sam2VideoModel
    name: str
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]


def open_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint on the CPU in float32, in evaluation mode.

    Raises:
        InputError: there is none, it is no SAM2 video checkpoint, or it is damaged. A `.pt`
            file (a pickle) is never opened.
    """
    if not path.exists():
        msg = f"no checkpoint at {path}"
        raise InputError(msg)
    return _open_folder(path) if path.is_dir() else _open_nano(path)


def _open_nano(path: Path) -> Checkpoint:
    if path.suffix != ".safetensors":
        msg = (
            f"a checkpoint is a nano tracker's .safetensors or a transformers folder, got {path.name};"
            " pickles (.pt, .pth) are not opened"
        )
        raise InputError(msg)
    try:
        config = read_nano_tracker_config(path)
        model = load_nano_tracker(path)
    except (SafetensorError, ValueError, RuntimeError, TypeError, OSError) as error:
        msg = f"{path} is not a nano SAM2 checkpoint: {error}"
        raise InputError(msg) from error
    return Checkpoint(
        model=model, name=path.name, pixel_mean=config.pixel_mean, pixel_std=config.pixel_std
    )


def _open_folder(path: Path) -> Checkpoint:
    config = _read_json(path / "config.json")
    kind = config.get("model_type")
    if kind != "sam2_video":
        msg = (
            f"{path} is not a SAM2 video checkpoint: its model_type is {kind!r}, not 'sam2_video'"
        )
        raise InputError(msg)
    try:
        model = Sam2VideoModel.from_pretrained(str(path), local_files_only=True)
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        msg = f"{path} does not load as a SAM2 video checkpoint: {error}"
        raise InputError(msg) from error
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    processor = path / "preprocessor_config.json"
    if processor.exists():
        settings = _read_json(processor)
        mean = _three(settings.get("image_mean"), mean)
        std = _three(settings.get("image_std"), std)
    return Checkpoint(
        model=model.float().eval(), name=path.resolve().name, pixel_mean=mean, pixel_std=std
    )


def _read_json(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path} cannot be read: {error}"
        raise InputError(msg) from error
    if not isinstance(data, dict):
        msg = f"{path} wants a JSON object, got {type(data).__name__}"
        raise InputError(msg)
    return data


def _three(value: object, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if isinstance(value, list) and len(value) == 3:
        return float(value[0]), float(value[1]), float(value[2])
    return default
