# SPDX-License-Identifier: Apache-2.0
"""Which files hold a model's weights, and what stands in their place in folders that are no models yet.

Names of files and tensors only: nothing is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from foreseg.errors import InputError
from foreseg.texts import first_names

WEIGHTS = "*.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_VERL = re.compile(r"model_world_size_\d+_rank_\d+\.pt")
_ADAPTER = re.compile(r"\.?(lora_[AB]|lora_embedding_[AB]|base_layer|modules_to_save)\.")
MAX_LISTED = 3  # names of tensors in a sentence


def weight_files(folder: Path) -> list[Path]:
    """The files with a whole model's weights, by name."""
    return [path for path in sorted(folder.glob(WEIGHTS)) if path.name != ADAPTER_WEIGHTS]


def refuse_other_weights(folder: Path) -> None:
    """Refuse a folder whose weights are something else, and say what is to be done with it.

    A folder without any weights passes: what else it lacks says more of it.

    Raises:
        InputError: verl's shards, an adapter, or pickles.
    """
    names = sorted(item.name for item in folder.iterdir() if item.is_file())
    if weight_files(folder):
        if ADAPTER_CONFIG in names:
            msg = (
                f"{folder} holds an adapter ({ADAPTER_CONFIG}) beside its weights, and does not say"
                " whether these have it already: merge it (peft's merge_and_unload) into a new"
                " folder, or take the adapter's files out"
            )
            raise InputError(msg)
        return
    shards = [name for name in names if _VERL.fullmatch(name)]
    if shards:
        msg = (
            f"{folder} holds verl's training shards ({shards[0]}), which are pickles: merge them where"
            " they were trained (python -m verl.model_merger merge, or Seg-Zero's model_merger.py),"
            " and give the folder of safetensors that it writes"
        )
        raise InputError(msg)
    if ADAPTER_CONFIG in names or ADAPTER_WEIGHTS in names:
        msg = (
            f"{folder} holds an adapter alone: merge it into its base (peft's merge_and_unload), and"
            " give the merged folder"
        )
        raise InputError(msg)
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        msg = (
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code and is not"
            " opened: ask its publisher for safetensors"
        )
        raise InputError(msg)


def check_has_weights(folder: Path) -> None:
    """Refuse a folder that has none that can be opened.

    Raises:
        InputError: so.
    """
    refuse_other_weights(folder)
    if not weight_files(folder):
        msg = f"{folder} wants weights in .safetensors files, it has none"
        raise InputError(msg)


def refuse_adapters(where: str, names: Iterable[str]) -> None:
    """Refuse tensors of adapters that were never merged.

    Raises:
        InputError: there are some.
    """
    left = sorted(name for name in names if _ADAPTER.search(name))
    if left:
        msg = (
            f"{where} holds adapters that were never merged ({first_names(left, most=MAX_LISTED)}): merge them where it"
            " was trained (peft's merge_and_unload), and give the merged folder"
        )
        raise InputError(msg)
