# SPDX-License-Identifier: Apache-2.0
"""A recipe: every number of a training run, from a YAML file, frozen, and saved beside its result.

Does not know: models, samples, trainers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foreseg.errors import ConfigError
from foreseg.methods.grammar import Form
from foreseg.methods.labels import LabelForm

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
STAGES = ("sft", "grpo")
TRAINS = ("answer", "sampler", "both")
METHODS = ("veason", "videoseg", "visa", "fevos")
PRECISIONS = ("fp32", "bf16")
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
ROLLOUTS = ("transformers", "vllm-colocate", "vllm-server")
_RANGES: dict[str, tuple[float, float]] = {
    "num_frames": (2, 64),
    "image_side_px": (16, 4096),
    "frame_pixels": (1, 1 << 26),
    "num_key_frames": (1, 32),
    "num_reference_frames": (0, 32),
    "segment_share": (0, 1),
    "any_target_share": (0, 1),
    "length_beta": (0, 1),
    "label_offset": (0, 1_000_000),
    "label_stride": (1, 1000),
    "negative_share": (0, 0.99),
    "lora_r": (0, 4096),
    "lora_alpha": (1, 65_536),
    "lora_dropout": (0, 0.99),
    "bce_weight": (0, 1000),
    "dice_weight": (0, 1000),
    "mask_points": (0, 1 << 24),
    "mask_loss_weight": (0, 1000),
    "decode_side_px": (16, 4096),
    "least_references": (0, 32),
    "most_references": (0, 32),
    "adam_beta2": (0.1, 0.99999),
    "learning_rate": (1e-12, 10),
    "warmup_ratio": (0, 0.99),
    "weight_decay": (0, 10),
    "max_grad_norm": (1e-6, 1e6),
    "epochs": (1e-6, 10_000),
    "max_steps": (0, 1 << 40),
    "batch_size": (1, 1 << 20),
    "per_device": (1, 1 << 16),
    "save_steps": (1, 1 << 40),
    "show_steps": (1, 1 << 40),
    "seed": (0, (1 << 32) - 1),
    "num_generations": (1, 1024),
    "max_completion_tokens": (1, 1 << 20),
    "temperature": (1e-3, 100),
    "kl_beta": (0, 100),
    "epsilon": (1e-6, 10),
    "tracker_workers": (1, 256),
    "tracker_timeout_s": (0.01, 86_400),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Numbers of a run. Comments in the YAML files say which are a paper's and which are ours.

    Attributes:
        stage: "sft" or "grpo".
        form: in which completions are asked for, and trained.
        trains: videoseg: "answer", its last request; sft alone: "sampler", what is asked before it,
            or "both".
        tells_budget: all but visa: the words say how long the thoughts may be.
        labels: veason: "absolute", or "rank".
        num_frames: shown in a prompt at most; of videoseg's last request the next two count.
        num_key_frames: videoseg: from a stretch around the target frame.
        num_reference_frames: videoseg: from elsewhere.
        segment_share: videoseg: that stretch's share of the video.
        any_target_share: videoseg: so many target frames are drawn from all frames, the others
            from those with much of the target.
        length_beta: videoseg: what each token of thought beyond a sample's budget costs of the sum of
            the other rewards.
        frame_pixels: each at this many at most.
        label_offset: labels begin at a random number up to this.
        label_stride: labels of neighbouring frames are a random number up to this apart.
        negative_share: of the samples, so many ask another clip's question, and nothing fits.
        decode_side_px: visa, fevos: masks are decoded on frames of this size at most.
        least_references: visa: of the frames beside the target frame, drawn for each sample.
        most_references: likewise.
        bce_weight: visa, fevos: of the mask's binary cross entropy, beside the words' cross entropy.
        dice_weight: likewise of its Dice loss.
        mask_points: both are taken over so many random points of a mask; 0: over its pixels.
        mask_loss_weight: fevos, grpo: of the mask loss on the best completion of each group.
        lora_targets: the language model's layers that are adapted, by their first letters.
        lora_r: rank of the adapters on the language model's linear layers; 0: all of its weights
            are trained. The vision tower never is.
        batch_size: sft: samples; grpo: prompts, each with `num_generations` completions; of one
            step, over all processes.
        per_device: sft: samples; grpo: completions; on a device at once.
        max_steps: 0: as many as `epochs` take.
        save_steps: steps between checkpoints.
        show_steps: steps between completions that are put on the run's page.
        rollouts: grpo: who writes completions: "transformers", or vLLM in the same processes
            ("vllm-colocate") or in its own (`trl vllm-serve`, "vllm-server").
        kl_beta: grpo: weight of the divergence from where the run started.
        reward_weights: grpo: by the reward's name; those left out count nothing.
        tracker, tracker_backend: grpo: the frozen tracker of the rewards `consistency` and `mask`: a bundle's
            name or folder, and what runs it, as the robot's settings have them.
        tracker_workers: processes that track, for each process that trains.
        tracker_timeout_s: for the tracking of one completion.
        tracker_ray: address of a Ray cluster that tracks instead; "" = the workers do.
    """

    stage: str
    method: str = "veason"
    form: str = "think-first"
    trains: str = "answer"
    tells_budget: bool = True
    labels: str = "absolute"
    num_frames: int = 8
    num_key_frames: int = 6
    num_reference_frames: int = 4
    segment_share: float = 0.25
    any_target_share: float = 0.2
    length_beta: float = 0.01
    image_side_px: int = 448
    frame_pixels: int = 448 * 448
    label_offset: int = 200
    label_stride: int = 1
    negative_share: float = 0.0
    decode_side_px: int = 1024
    least_references: int = 8
    most_references: int = 12
    bce_weight: float = 2.0
    dice_weight: float = 0.5
    mask_points: int = 0
    mask_loss_weight: float = 0.0
    lora_targets: str = "q,k,v,o,gate,up,down"
    lora_r: int = 0
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    learning_rate: float = 1e-4
    schedule: str = "cosine"
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    epochs: float = 1.0
    max_steps: int = 0
    batch_size: int = 16
    per_device: int = 1
    precision: str = "bf16"
    save_steps: int = 500
    show_steps: int = 50
    seed: int = 0
    num_generations: int = 8
    max_completion_tokens: int = 1024
    temperature: float = 1.0
    rollouts: str = "transformers"
    kl_beta: float = 0.005
    epsilon: float = 0.2
    tracker: str = "nano"
    tracker_backend: str = "cpu"
    tracker_workers: int = 2
    tracker_timeout_s: float = 60.0
    tracker_ray: str = ""
    reward_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("stage", self.stage, STAGES),
            ("method", self.method, METHODS),
            ("trains", self.trains, TRAINS),
            ("labels", self.labels, tuple(form.value for form in LabelForm)),
            ("precision", self.precision, PRECISIONS),
            ("schedule", self.schedule, SCHEDULES),
            ("rollouts", self.rollouts, ROLLOUTS),
            ("form", self.form, tuple(form.value for form in Form)),
        ):
            if value not in known:
                msg = f"{name} wants one of {', '.join(known)}, got {value!r}"
                raise ConfigError(msg)
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:  # NaN is in no range
                msg = f"{name} wants {least:g} to {most:g}, got {value}"
                raise ConfigError(msg)
        if self.trains != "answer" and self.method != "videoseg":
            msg = f"trains wants answer for the method {self.method}, which has no sampler, got {self.trains}"
            raise ConfigError(msg)
        if self.stage == "grpo" and self.num_generations < 2:
            msg = f"num_generations wants at least 2, of which to compare, got {self.num_generations}"
            raise ConfigError(msg)
        for name, weight in self.reward_weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                msg = f"reward_weights want numbers, got {weight!r} for {name}"
                raise ConfigError(msg)
            if not math.isfinite(weight):
                msg = f"reward_weights want finite numbers, got {weight} for {name}"
                raise ConfigError(msg)

    @property
    def is_tracked(self) -> bool:
        """True if a reward needs a tracker."""
        return any(self.reward_weights.get(name) for name in ("consistency", "mask"))

    def to_yaml(self) -> str:
        """The recipe with every number in it."""
        values = {**dataclasses.asdict(self), "reward_weights": dict(self.reward_weights)}
        return yaml.safe_dump(values, sort_keys=False)


def read_recipe(name: str, changes: Mapping[str, str] | None = None) -> Recipe:
    """Read a shipped recipe by name, or a YAML file; then apply changes, NAME=VALUE in YAML.

    Raises:
        ConfigError: no such recipe, an unknown name, or a value of another type.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
        given = {key: yaml.safe_load(text) for key, text in (changes or {}).items()}
    except OSError as error:
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        msg = f"a recipe wants a YAML file or one of {known}, got {name!r}: {error.strerror}"
        raise ConfigError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path}, or a change to it, is no YAML: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if not isinstance(values, dict):
        msg = f"{path} wants names and values, got a {type(values).__name__}"
        raise ConfigError(msg)
    return _checked({**values, **given}, path)


def _checked(values: dict[str, Any], path: Path) -> Recipe:
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    defaults = Recipe(stage="sft")
    for key, value in values.items():
        if key not in fields:
            msg = f"{path.name} has {key!r}; known are {', '.join(fields)}"
            raise ConfigError(msg)
        kind = type(getattr(defaults, key))
        if kind is float and isinstance(value, str):
            value = values[key] = _number(value)  # noqa: PLW2901 (YAML takes 1e-4 for text)
        is_number = kind is float and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not kind and not is_number:
            msg = f"{path.name}: {key} wants {kind.__name__}, got {value!r}"
            raise ConfigError(msg)
    if "stage" not in values:
        msg = f"{path.name} names no stage: one of {', '.join(STAGES)}"
        raise ConfigError(msg)
    return Recipe(**values)


def _number(text: str) -> float | str:
    """The number that a text is; the text where it is none."""
    try:
        return float(text)
    except ValueError:
        return text
