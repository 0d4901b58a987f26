# SPDX-License-Identifier: Apache-2.0
"""What a model that learns from true completions says itself, every so many steps, beside the truth.

Greedily, so that no random number is used up: a run with a page steps as one without. Not where
weights are sharded over processes: there one of them cannot speak alone. Does not know: methods.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled

from foreseg.methods.grammar import Form
from foreseg_training.rewards import grammar_reward
from foreseg_training.runs.completions_page import CompletionsPage, Said, Shown
from foreseg_training.runs.watched_rewards import text_of
from foreseg_training.vlm.recipe import Recipe

SAMPLES = 2
MAX_SHOWN_TOKENS = 256  # of what the model says for the page
Scored = Callable[[str], Mapping[str, float | None]]


class SaidSamples(TrainerCallback):
    """Asks the model about the first samples, and puts what it says on the page.

    Args:
        rows: with prompt, images and completion, and `id`.
        processor: as the trainer has it.
        page: takes what is said.
        every: steps.
        max_tokens: of a completion.
        scored: rewards of a completion, by name.
    """

    def __init__(
        self,
        rows: Any,  # noqa: ANN401 (a Dataset)
        processor: Any,  # noqa: ANN401 (of transformers)
        page: CompletionsPage,
        *,
        every: int,
        max_tokens: int,
        scored: Scored,
    ) -> None:
        self._rows = [rows[i] for i in range(min(SAMPLES, len(rows)))]
        self._processor = processor
        self._page = page
        self._every = every
        self._max_tokens = max_tokens
        self._scored = scored

    def on_step_end(
        self,
        args: Any,  # noqa: ANN401
        state: Any,  # noqa: ANN401
        control: Any,  # noqa: ANN401
        model: Any = None,  # noqa: ANN401
        **_: Any,  # noqa: ANN401
    ) -> None:
        """A step is done."""
        del args, control
        is_due = state.global_step % self._every == 0 or state.global_step == state.max_steps
        if not is_due or not state.is_world_process_zero or _is_sharded():
            return
        model.eval()
        try:
            self._page.add([self._asked(row, model, state.global_step) for row in self._rows])
        finally:
            model.train()

    def _asked(self, row: Mapping[str, Any], model: Any, step: int) -> Shown:  # noqa: ANN401
        asked = self._processor.apply_chat_template(
            row["prompt"], add_generation_prompt=True, tokenize=False
        )
        inputs = self._processor(images=[row["images"]], text=[asked], return_tensors="pt")
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        with torch.no_grad():
            ids = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=self._max_tokens,
                pad_token_id=self._processor.tokenizer.pad_token_id,
            )
        said = self._processor.decode(
            ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return Shown(
            step=step,
            id=row["id"],
            asked=text_of(row["prompt"]),
            pictures=row["images"],
            said=[Said(text=said, rewards=self._scored(said))],
            truth=text_of(row["completion"]),
        )


def said_samples(
    recipe: Recipe,
    processor: Any,  # noqa: ANN401 (of transformers)
    rows: Any,  # noqa: ANN401 (a Dataset)
    page: CompletionsPage,
) -> SaidSamples:
    """As a recipe of supervised fine-tuning has it, with how well its form is kept."""
    form = Form(recipe.form)
    return SaidSamples(
        rows,
        processor,
        page,
        every=recipe.show_steps,
        max_tokens=min(recipe.max_completion_tokens, MAX_SHOWN_TOKENS),
        scored=lambda text: {"grammar": grammar_reward(text, form)},
    )


def _is_sharded() -> bool:
    return is_deepspeed_zero3_enabled() or os.environ.get("ACCELERATE_USE_FSDP") == "true"
