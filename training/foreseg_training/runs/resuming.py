# SPDX-License-Identifier: Apache-2.0
"""What trainers forget when they go on from a checkpoint: the names of weights, and the order of samples.

Both were found by holding a killed run against an unbroken one, with transformers 5.23 and TRL 1.16.
Does not know: where checkpoints lie.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foreseg.errors import ConfigError
from foreseg_torch.vlm.loading import loading, quiet


def goes_on_as_it_was(trainer: Any, checkpoint: Path) -> None:  # noqa: ANN401 (of transformers)
    """Let a trainer go on from a checkpoint with its weights, and with the samples that were next.

    Args:
        trainer: before `train(resume_from_checkpoint=...)`.
        checkpoint: whole.

    Raises:
        ConfigError: the checkpoint's state cannot be read.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
        epochs = int(state["epoch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{checkpoint} is no checkpoint to go on from: its trainer_state.json: {error}"
        raise ConfigError(msg) from error
    _restores_by_name(trainer)
    _skips_orders(trainer, epochs)


def _restores_by_name(trainer: Any) -> None:  # noqa: ANN401
    """Read weights under the names that the model has.

    Files have a family's names from before; the trainer looks for a Qwen-VL's new names in them,
    finds none, warns, and goes on with the weights that it began with. Adapters and shards have
    ways of their own, which work.
    """
    original = trainer._load_from_checkpoint  # noqa: SLF001 (there is no other way in)

    def load(checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        own = trainer.model
        if hasattr(own, "peft_config") or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            original(checkpoint, model)
            return
        with quiet(), loading(Path(checkpoint)):  # it would list each tensor of a head of masks
            found = type(own).from_pretrained(
                checkpoint,
                dtype=own.dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
            names = set(
                own.state_dict()
            )  # fewer than the file's kind has, where a part is left out
            known = {n: value for n, value in found.state_dict().items() if n in names}
            own.load_state_dict({**known, **_others(Path(checkpoint), names - set(known))})

    trainer._load_from_checkpoint = load  # noqa: SLF001


def _others(checkpoint: Path, names: set[str]) -> dict[str, Any]:
    """Weights that were joined to the model, as heads of masks are, under their own names."""
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in names & set(file.keys())}
    return found


def _skips_orders(trainer: Any, epochs: int) -> None:  # noqa: ANN401
    """Draw the orders of past epochs, as TRL's sampler of prompts draws one after the other.

    A new one begins with the first epoch's again.
    """
    from trl.trainer.utils import RepeatSampler

    original = trainer._get_train_sampler  # noqa: SLF001 (there is no other way in)

    def sampler(*arguments: Any) -> Any:  # noqa: ANN401
        made = original(*arguments)
        if isinstance(made, RepeatSampler):
            for _ in range(epochs):
                next(iter(made), None)
        return made

    trainer._get_train_sampler = sampler  # noqa: SLF001
