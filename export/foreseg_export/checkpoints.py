# SPDX-License-Identifier: Apache-2.0
"""Opens SAM2 and EdgeTAM checkpoints of every form, at the input size and memory length that are asked for.

A `.safetensors` file is a nano tracker, a `.pt` file is Meta's, a folder is what `transformers`
saves, and `owner/name` is such a folder on the model hub. Nothing here runs code of a checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, Sam2VideoConfig, Sam2VideoModel
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_files

from foreseg.errors import InputError
from foreseg.texts import first_names
from foreseg_torch.hub import HUB_ID, told_of_hub
from foreseg_torch.json_file import read_json_object
from foreseg_torch.tracker.nano_tracker import load_nano_tracker, read_nano_tracker_config
from foreseg_torch.tracker.sam2_geometry import (
    check_image_size,
    keep_memory_slots,
    set_image_size,
    size_unit,
)
from foreseg_torch.tracker.sam2_meta import (
    config_from_meta,
    model_from_meta,
    read_meta_checkpoint,
)
from foreseg_torch.tracker.video_models import VideoModel

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what SAM2 and EdgeTAM were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
NANO_SIZE_UNIT = 16

_MAX_QUOTED = 300  # characters of another library's message

_FILES = (".pt", ".pth", ".safetensors")
_PROCESSOR = "preprocessor_config.json"
_FAMILIES = {  # by a folder's model_type
    "sam2_video": (Sam2VideoConfig, Sam2VideoModel),
    "edgetam_video": (EdgeTamVideoConfig, EdgeTamVideoModel),
}
# what else a folder may hold, and why it is refused
_OTHER_KINDS = dict.fromkeys(
    ("sam2", "edgetam"), "it is for single images, without memory: use the video checkpoint"
)
_TIMM = ("timm", "torchvision")  # what a trunk of timm needs where it is exported


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A loaded model, in float32 and evaluation mode, and how its pixels are normalised."""

    model: VideoModel
    name: str
    path: Path  # of the file or folder it was read from
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]


def open_checkpoint(
    where: Path, *, image_size: int | None = None, memory_slots: int | None = None
) -> Checkpoint:
    """Load a checkpoint on the CPU in float32, in evaluation mode.

    Args:
        where: a file, a folder, or the id `owner/name` of a model on the hub.
        image_size: side of the square model input, model pixels; None: the checkpoint's own.
        memory_slots: frames that an object remembers, the prompted one included; None: all that
            the checkpoint was trained with.

    Raises:
        InputError: there is none, it is no video checkpoint of SAM2 or EdgeTAM, it is damaged, it
            needs a package that is not here, or it cannot have this size or memory.
    """
    path = where if where.exists() else _downloaded(where)
    if path.is_dir():
        name = path.resolve().name if where.exists() else where.as_posix()
        checkpoint = _open_folder(path, image_size, name=name)
    elif path.suffix == ".safetensors":
        checkpoint = _open_nano(path, image_size)
    elif path.suffix in {".pt", ".pth"}:
        checkpoint = _open_meta(path, image_size)
    else:
        msg = (
            f"{path} is of no known form: a checkpoint is a nano tracker's .safetensors, a .pt of"
            " Meta's, or a folder that transformers saved"
        )
        raise InputError(msg)
    if memory_slots is not None:
        keep_memory_slots(checkpoint.model, memory_slots)
    return checkpoint


def _downloaded(where: Path) -> Path:
    """The folder of a model on the hub, from its cache where it is there."""
    name = where.as_posix()
    if where.suffix in _FILES or not HUB_ID.fullmatch(name):
        msg = f"no checkpoint at {where}"
        raise InputError(msg)
    with told_of_hub(name):
        files = cached_files(name, ["config.json", "model.safetensors"])
    with contextlib.suppress(OSError):  # most have none: then it is SAM2's own normalisation
        cached_files(name, ["config.json", _PROCESSOR])
    return Path(files[0]).parent


def _open_nano(path: Path, image_size: int | None) -> Checkpoint:
    try:
        config = read_nano_tracker_config(path)
        if image_size not in (None, config.image_size):
            check_image_size(image_size, unit=NANO_SIZE_UNIT)
        model = load_nano_tracker(path, image_size=image_size)
    except (SafetensorError, ValueError, RuntimeError, TypeError, OSError) as error:
        msg = f"{path} is not a nano SAM2 checkpoint: {_brief(error)}"
        raise InputError(msg) from error
    return Checkpoint(
        model=model,
        name=path.name,
        path=path,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    )


def _open_meta(path: Path, image_size: int | None) -> Checkpoint:
    state = read_meta_checkpoint(path)
    try:
        config = config_from_meta(state)
    except InputError as error:
        msg = f"{path} is no SAM2 checkpoint of Meta's: {error}"
        raise InputError(msg) from error
    _resize(config, image_size)
    try:
        model = model_from_meta(state, config)
    except InputError as error:
        msg = f"{path} does not fit SAM2: {error}"
        raise InputError(msg) from error
    return Checkpoint(
        model=model, name=path.name, path=path, pixel_mean=IMAGENET_MEAN, pixel_std=IMAGENET_STD
    )


def _open_folder(path: Path, image_size: int | None, *, name: str) -> Checkpoint:
    if not (path / "config.json").is_file():
        msg = f"{path} is no folder that transformers saved: it has no config.json"
        raise InputError(msg)
    if (path.parent / "seg.json").is_file():
        msg = (
            f"{path} belongs to a model that segments: its mask decoder was trained to read [SEG],"
            " and follows objects worse than SAM2's own; take a SAM 2.1 as it was published"
        )
        raise InputError(msg)
    kind = read_json_object(path / "config.json").get("model_type")
    if kind not in _FAMILIES:
        wanted = " or ".join(repr(family) for family in _FAMILIES)
        reason = _OTHER_KINDS.get(str(kind), f"its model_type is {kind!r}, not {wanted}")
        msg = f"{path} is not a SAM2 or EdgeTAM video checkpoint: {reason}"
        raise InputError(msg)
    config_class, model_class = _FAMILIES[str(kind)]
    with _quiet(), _loading(path):
        config = config_class.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
        _check_trunk(config, path)
        _resize(config, image_size)
        model, found = model_class.from_pretrained(
            str(path),
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    lacking = sorted(str(name) for name in found["missing_keys"])
    if lacking:
        msg = f"{path} is not whole: it lacks the tensors {first_names(lacking)}"
        raise InputError(msg)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    processor = path / _PROCESSOR
    if processor.exists():
        settings = read_json_object(processor)
        mean = _three(settings.get("image_mean"), mean, f"{processor} image_mean")
        std = _three(settings.get("image_std"), std, f"{processor} image_std")
        if not min(std) > 0:
            msg = f"{processor} wants an image_std above 0, got {std}"
            raise InputError(msg)
    return Checkpoint(
        model=model.float().eval(), name=name, path=path, pixel_mean=mean, pixel_std=std
    )


def _check_trunk(config: Sam2VideoConfig | EdgeTamVideoConfig, path: Path) -> None:
    """Refuse a trunk of timm's where timm is not installed."""
    trunk = config.vision_config.backbone_config
    if trunk.model_type != "timm_wrapper":
        return
    if any(importlib.util.find_spec(name) is None for name in _TIMM):
        msg = (
            f"{path} has the trunk {trunk.architecture} of the package timm: to export it, install"
            f" that here with `pip install {' '.join(_TIMM)}` (a finished bundle does without)"
        )
        raise InputError(msg)


def _resize(config: Sam2VideoConfig | EdgeTamVideoConfig, image_size: int | None) -> None:
    if not isinstance(config.image_size, int):
        msg = f"a square model input is wanted, its side as one number, got {config.image_size}"
        raise InputError(msg)
    if image_size not in (None, config.image_size):
        check_image_size(image_size, unit=size_unit(config))
        set_image_size(config, image_size)


def _three(
    value: object, default: tuple[float, float, float], where: str
) -> tuple[float, float, float]:
    if value is None:
        return default
    if isinstance(value, list) and len(value) == 3:
        first, second, third = value
        if all(isinstance(number, (int, float)) for number in value):
            return float(first), float(second), float(third)
    msg = f"{where} wants three numbers, got {value!r:.60}"
    raise InputError(msg)


@contextlib.contextmanager
def _loading(path: Path) -> Iterator[None]:
    """Whatever is raised while a folder of others is read says that the folder is faulty.

    A config is checked by `transformers`, by its hub's dataclasses and by the modules that are
    built of it: their exceptions have no base in common but this one.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        msg = f"{path} does not load as a video checkpoint: {_brief(error)}"
        raise InputError(msg) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tables that `transformers` logs of a faulty checkpoint: we say it in a line."""
    level, bar = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _brief(error: Exception) -> str:
    """What a library says, on one line."""
    return " ".join(str(error).split())[:_MAX_QUOTED] or type(error).__name__
