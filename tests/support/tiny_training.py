# SPDX-License-Identifier: Apache-2.0
"""Tiny runs of both stages, the same in a test and in the processes that it starts.

As a program: `python -m tests.support.tiny_training STAGES OUT [NAME=VALUE ...]` trains as `train` does, each stage in
its folder of OUT. Three names are its own: `die_at=N` kills the process after step N, `die_saving=N`
in the middle of the checkpoint of step N; `words=fixed` has completions drawn by the place of a prompt
among those of all processes, which share the work where several are started. `python -m tests.support.tiny_training golden`
writes `tests/golden/training.json` anew, where samples, words or recipes changed on purpose.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Trainer

from foreseg_evaluation.episode import Episode, Question, QuestionKind, TruthSpan
from foreseg_training.runs.metrics_file import MetricsFile
from foreseg_training.runs.telemetry import Telemetry
from foreseg_training.vlm.recipe import read_recipe
from foreseg_training.vlm.rewards_veason import VeasonRewards, text_of
from tests.support.once import made_once
from tests.support.tiny_vlm import save_tiny_vlm

SIZE_WH = (56, 56)
CHANGES = {
    "sft": {"batch_size": "2", "per_device": "2", "show_steps": "100"},
    "grpo": {"batch_size": "2", "num_generations": "2", "per_device": "4", "kl_beta": "0.1"}
    | {"max_completion_tokens": "8", "show_steps": "100", "reward_weights": "{letters: 1.0}"},
}
COMMON = {"max_steps": "10", "save_steps": "4", "num_frames": "3", "frame_pixels": "3136"}
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "training.json"
GOLDEN_FIGURES = {"sft": ("loss", "entropy"), "grpo": ("loss", "kl", "reward", "entropy")}
TIMES = ("seconds", "tokens_per_s", "step_time")


class _Square:
    """A square that slides to the right."""

    def __init__(self, number: int) -> None:
        self._number = number

    def image(self, position: int) -> np.ndarray:
        picture = np.full((*SIZE_WH[::-1], 3), 20 * self._number, np.uint8)
        picture[self.mask("square", position)] = (200, 10 * position, 0)
        return picture

    def mask(self, object_id: str, position: int) -> np.ndarray:
        del object_id
        mask = np.zeros(SIZE_WH[::-1], bool)
        mask[10 + self._number : 30, 4 * position : 12 + 4 * position] = True
        return mask

    def void(self, position: int) -> None:
        del position

    foreground = void


def tiny_episodes(count: int = 6) -> tuple[Episode, ...]:
    """Clips of eight frames, each with a question and a chain of thought."""
    found = []
    for number in range(count):
        question = Question(
            text=f"What slides at height {number}?",
            kind=QuestionKind.REASONING,
            rationale=f"The square of clip {number} slides to the right.",
        )
        found.append(
            Episode(
                id=f"clip{number}/0",
                video=f"clip{number}",
                expression_id="0",
                frame_names=tuple(f"{i:05}" for i in range(8)),
                question=question,
                object_ids=("square",),
                spans=(TruthSpan(first=0, end=8, object_ids=("square",)),),
                annotated=tuple(range(8)),
                scored=tuple(range(8)),
                size_wh=SIZE_WH,
                media=_Square(number),
            )
        )
    return tuple(found)


def tiny_start() -> Path:
    """The folder of the model that all of them begin with."""
    return made_once("tiny-training-start", lambda folder: save_tiny_vlm(folder / "tiny")) / "tiny"


def train(stage: str, out: Path, changes: Mapping[str, str], *, resume: bool = False) -> Path:
    """Train a stage; GRPO's reward is the share of letters, which random words have, too."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    recipe = read_recipe(f"veason-{stage}-tiny", {**COMMON, **CHANGES[stage], **changes})
    if stage == "sft":
        from foreseg_training.vlm.sft import train_sft as run
    else:
        from foreseg_training.vlm.grpo import train_grpo as run

        VeasonRewards.functions = _letters_alone  # type: ignore[method-assign]
    return run(recipe, tiny_start(), tiny_episodes(), out, resume=resume, device="cpu")


def figures(out: Path) -> list[dict[str, str]]:
    """The rows of a run without what a clock says."""
    rows = MetricsFile(out / "metrics.csv").rows()
    return [{name: row[name] for name in row if name not in TIMES} for row in rows]


def letters(completions: list[Any], **_: object) -> list[float | None]:
    """The share of letters in what was said."""
    texts = [text_of(said) for said in completions]
    return [sum(c.isalpha() for c in text) / max(1, len(text)) for text in texts]


def golden() -> None:
    """Write the figures of ten steps of each stage."""
    os.environ.setdefault("FORESEG_TEST_FOLDER", tempfile.mkdtemp())
    found = {}
    for stage, names in GOLDEN_FIGURES.items():
        out = Path(tempfile.mkdtemp())
        train(stage, out, {})
        rows = figures(out)
        lines = {name: " ".join(f"{float(row[name]):.7g}" for row in rows) for name in names}
        record = json.loads((out / "run.json").read_text("utf-8"))
        found[stage] = {"data": record["data"], "figures": lines}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _letters_alone(
    _: VeasonRewards, weights: Mapping[str, float]
) -> tuple[list[Any], list[float]]:
    return [letters], [weights["letters"]]


def fixed_words(_: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **__: Any) -> Any:
    """Eight bytes after each prompt, drawn by it and by its place among those of all processes."""
    first = int(os.environ.get("RANK", "0")) * len(input_ids)
    asked = (input_ids * attention_mask).sum(dim=1).tolist()
    rows = [
        np.random.default_rng((prompt, first + i)).integers(32, 127, 8)
        for i, prompt in enumerate(asked)
    ]
    return torch.cat([input_ids, torch.from_numpy(np.stack(rows))], dim=1)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(step: int) -> None:
    original = Telemetry.on_log

    def on_log(self: Telemetry, args: Any, state: Any, *rest: Any, **more: Any) -> None:
        original(self, args, state, *rest, **more)
        if state.global_step == step:
            _die()

    Telemetry.on_log = on_log  # type: ignore[method-assign]


def _die_saving(step: int) -> None:
    original = Trainer._save_rng_state

    def save(self: Any, output_dir: str) -> None:
        if self.state.global_step == step:
            _die()
        original(self, output_dir)

    Trainer._save_rng_state = save


def main(arguments: list[str]) -> None:
    if arguments == ["golden"]:
        golden()
        return
    stages, out, *words = arguments
    changes = dict(word.split("=", 1) for word in words)
    for name, act in (("die_at", _die_at), ("die_saving", _die_saving)):
        if name in changes:
            act(int(changes.pop(name)))
    if changes.pop("words", "") == "fixed":
        Qwen2_5_VLForConditionalGeneration.generate = fixed_words
    share = int(os.environ.get("WORLD_SIZE", "1"))
    for stage in stages.split(","):
        at_once = {"per_device": str(int(CHANGES[stage]["per_device"]) // share)}
        train(stage, Path(out) / stage, {**at_once, **changes})


if __name__ == "__main__":
    main(sys.argv[1:])
