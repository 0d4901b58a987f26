# SPDX-License-Identifier: Apache-2.0
"""A model with an adapter that can be set aside: the same weights answer tuned and sample untuned.

An adapter is a folder of PEFT's (LoRA). Does not know: methods, how adapters are trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from foreseg.errors import InputError, MissingExtraError
from foreseg.language.base import CompletionStream, LanguageModel, LanguageRequest
from foreseg_torch.vlm.loading import LoadedVlm, loading


def load_adapter(loaded: LoadedVlm, folder: Path) -> Any:  # noqa: ANN401 (of peft)
    """Put a folder's adapter into a loaded model, where it works from now on.

    Returns:
        What sets it aside: `WithoutAdapter` takes it.

    Raises:
        InputError: no adapter, one for another model, or one that reaches into the vision tower,
            whose features are kept for both.
        MissingExtraError: PEFT is absent.
    """
    try:
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    except ImportError as error:
        package, extra = "peft", "train"
        raise MissingExtraError(package, extra, "an adapter") from error
    config_file, weights_file = (
        folder / "adapter_config.json",
        folder / "adapter_model.safetensors",
    )
    if not (config_file.is_file() and weights_file.is_file()):
        msg = f"an adapter wants a folder with {config_file.name} and {weights_file.name}, got {folder}"
        raise InputError(msg)
    with loading(folder):  # not by PEFT's own loader: that reads pickles, too
        config = LoraConfig.from_peft_type(**LoraConfig.from_json_file(str(config_file)))
        config.inference_mode = True
        adapted = get_peft_model(loaded.model, config)
        found = set_peft_model_state_dict(adapted, load_file(weights_file))
    if found.unexpected_keys:
        msg = f"{folder} is of another model: {found.unexpected_keys[0]} has no place in {loaded.name}"
        raise InputError(msg)
    adapted.eval()
    layers = [name for name, _ in adapted.named_parameters() if ".lora_" in name]
    if not layers or any(".visual." in name for name in layers):
        what = "the vision tower, which stays as it is" if layers else "no layer of this model"
        msg = f"{folder} adapts {what}: an adapter wants the language model's layers"
        raise InputError(msg)
    return adapted


class WithoutAdapter:
    """A language model as it was before its adapter, on the same weights.

    Args:
        model: with the adapter in it.
        adapted: what `load_adapter` gave.
    """

    def __init__(self, model: LanguageModel, adapted: Any) -> None:  # noqa: ANN401 (of peft)
        self._model = model
        self._adapted = adapted

    def generate(self, request: LanguageRequest) -> CompletionStream:
        """Complete the messages; the adapter is back when the stream ends or is closed."""
        with self._adapted.disable_adapter():
            yield from self._model.generate(request)
