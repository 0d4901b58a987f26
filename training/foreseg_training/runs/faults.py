# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on a machine while a run trains, as one sentence that names what to turn.

Does not know: methods, rewards, trainers.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError

from foreseg.errors import ConfigError, InputError

DEVICES = ("auto", "cuda", "cpu")
KNOBS = ("per_device", "num_frames", "frame_pixels", "num_generations", "max_completion_tokens")
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "std::bad_alloc")
_NO_DISK = (
    "no space left",
    "disk quota exceeded",
    "file write failed",
    "failed writing file",
    "unexpected pos",
    "error while serializing",  # safetensors, of any write
)
_FLAGS = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP")


@contextlib.contextmanager
def told(numbers: Mapping[str, object], out: Path) -> Iterator[None]:
    """Memory that ran out, and a disk that takes no more, as one sentence.

    Args:
        numbers: of the recipe.
        out: the run's folder.

    Raises:
        InputError: with what to lower, or where there is no space.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        words = str(error).lower()
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
            part in words for part in _NO_MEMORY
        ):
            raise InputError(_out_of_memory(numbers)) from error
        is_full = isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
        )
        if is_full or any(part in words for part in _NO_DISK):
            msg = (
                f"{out} cannot be written, the disk is full or refuses: make space, then"
                " --resume goes on from the last whole checkpoint"
            )
            raise InputError(msg) from error
        raise


def _out_of_memory(numbers: Mapping[str, object]) -> str:
    stage = numbers.get("stage")
    knobs = [f"{name} (now {numbers[name]})" for name in KNOBS if name in numbers]
    if stage != "grpo":
        knobs = [knob for knob in knobs if "generation" not in knob and "completion" not in knob]
    ways = f"lower {', '.join(knobs)}"
    if not numbers.get("lora_r"):
        ways += ", or train adapters (lora_r: 8) in place of all weights"
    return f"out of memory on {_place()}: {ways}"


def _place() -> str:
    if not torch.cuda.is_available():
        return "this machine"
    return f"{torch.cuda.get_device_name()} with {torch.cuda.mem_get_info()[1] / 1e9:.0f} GB"


def on_cpu(device: str) -> bool:
    """Whether a run is on the CPU.

    Args:
        device: "auto" takes the GPU where torch sees one.

    Raises:
        ConfigError: a GPU is wanted, by name or by what `accelerate launch` was told, and absent.
    """
    if device not in DEVICES:
        msg = f"device wants one of {', '.join(DEVICES)}, got {device!r}"
        raise ConfigError(msg)
    if device == "cpu":
        return True
    if torch.cuda.is_available():
        return False
    environment = os.environ
    launched = any(environment.get(flag, "false").lower() == "true" for flag in _FLAGS) or (
        environment.get("ACCELERATE_USE_CPU", "true").lower() == "false"
    )
    if device == "cuda" or launched:
        wanted = "--device cuda" if device == "cuda" else "accelerate's configuration"
        msg = (
            f"{wanted} wants a GPU, and torch {torch.__version__} sees none: train with --device cpu,"
            " or install a torch with CUDA and look at nvidia-smi"
        )
        raise ConfigError(msg)
    return True
