# SPDX-License-Identifier: Apache-2.0
"""The training loop: stages of growing clips within a budget of wall-clock minutes.

Checkpoints and scores every few minutes, so that the best model so far can be exported at
any time, and resumes from `state.pt` after an interruption.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Sam2VideoModel

from foreseg_torch.tracker.nano_tracker import (
    NanoTrackerConfig,
    build_nano_tracker,
    load_nano_tracker,
    read_nano_tracker_config,
    save_nano_tracker,
)

from .batches import Batch, BatchShape, PromptKind, make_batch
from .clips import MakeClip, make_clip, mixed
from .in_windows import in_windows
from .losses import step_loss
from .photo_clips import PhotoClipMaker
from .photos import PhotoSet
from .presence import presence_batches, set_presence
from .unroll import unroll
from .validation import held_out_batch, held_out_clips, score

_LOG = logging.getLogger(__name__)
_KIND_SHARES = {
    PromptKind.BOX: 0.38,
    PromptKind.POINT: 0.18,
    PromptKind.POINTS: 0.10,
    PromptKind.BOX_POINTS: 0.12,
    PromptKind.MASK: 0.15,
    PromptKind.MASK_POINTS: 0.07,
}
_EMA_DECAY = 0.998
_REFINE_SHARE = 0.15  # of the batches with later frames
_PHOTO_SHARE = 0.6  # of the clips, where there are photographs; the others are simulated
_WINDOW_SHARE = 0.5  # of the clips that are shown in windows around an object
_STEADY_SHARE = 0.7  # of the budget at the peak rate, after which it falls


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Batches of clips of one length."""

    share: float  # of the steps, against the other lengths of a stage
    num_clips: int
    num_frames: int
    num_objects: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Clips of some lengths at one size, until a share of the budget is spent."""

    until: float
    image_scale: float  # of the model's image size
    lengths: tuple[Length, ...]


_ONE = Length(share=0.4, num_clips=12, num_frames=1)
_THREE = Length(share=0.3, num_clips=6, num_frames=3)
_ALL = (
    _ONE,
    _THREE,
    Length(share=0.2, num_clips=4, num_frames=5),
    Length(share=0.1, num_clips=3, num_frames=8),
)
STAGES: tuple[Stage, ...] = (
    Stage(until=0.08, image_scale=5 / 7, lengths=(Length(share=1, num_clips=16, num_frames=1),)),
    Stage(until=0.20, image_scale=6 / 7, lengths=(_ONE, _THREE)),
    Stage(until=0.55, image_scale=6 / 7, lengths=_ALL),
    Stage(until=1.0, image_scale=1.0, lengths=_ALL),
)
STAGES_GOING_ON: tuple[Stage, ...] = (
    Stage(until=0.4, image_scale=6 / 7, lengths=_ALL),
    Stage(until=1.0, image_scale=1.0, lengths=_ALL),
)
"""Those of a run that starts from a trained tracker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """What a run needs.

    Attributes:
        out: folder for `state.pt`, `best.safetensors`, `latest.safetensors`, and at the end
            `nano_tracker.safetensors`: the best one, with where "absent" begins set.
        minutes: budget of the training thread's own processor time, over all resumed parts: what a
            core of its own takes by the clock.
        start: weights to start from; without them it starts from nothing.
        photos: photographs with masks for six clips of ten; without them all are simulated.
        peak_rate: AdamW's rate after warm-up.
        score_every_s: seconds between scores on held-out clips, each with a checkpoint.
        bfloat16: run the network under bfloat16 autocast.
    """

    out: Path
    minutes: float = 60.0
    start: Path | None = None
    photos: PhotoSet | None = None
    seed: int = 0
    peak_rate: float = 1e-3
    weight_decay: float = 0.02
    score_every_s: float = 240.0
    num_held_out: int = 10
    bfloat16: bool = True
    resume: bool = False


def train(config: TrainingConfig, tracker: NanoTrackerConfig) -> Path:
    """Train within the budget; returns the path of the best checkpoint, "absent" set."""
    run = _Run(config, tracker)
    run.go()
    best, finished = config.out / "best.safetensors", config.out / "nano_tracker.safetensors"
    model, geometry = load_nano_tracker(best), read_nano_tracker_config(best)
    held_out = None if config.photos is None else config.photos.split()[1]
    shift = set_presence(model, presence_batches(held_out, geometry, 4 * config.num_held_out))
    notes = {**run.notes, "foreseg.presence_shift": f"{shift:.4f}"}
    save_nano_tracker(model, geometry, finished, notes=notes)
    return finished


class _Run:
    def __init__(self, config: TrainingConfig, tracker: NanoTrackerConfig) -> None:
        torch.manual_seed(config.seed)
        self.config, self.tracker = config, tracker
        self.rng = np.random.default_rng([config.seed, 3])
        self.step, self.spent_s, self.best = 0, 0.0, -1.0
        self.notes: dict[str, str] = {}
        self.make_clip: MakeClip = in_windows(make_clip, _WINDOW_SHARE)
        self.selection: MakeClip | None = None
        if config.photos is not None:
            train_photos, held_out = config.photos.split()
            self.selection = PhotoClipMaker(photos=held_out).make
            maker = PhotoClipMaker(photos=train_photos)
            self.make_clip = in_windows(mixed(maker.make, make_clip, _PHOTO_SHARE), _WINDOW_SHARE)
        self.stages = STAGES
        self._build(tracker)
        if config.start is not None:
            self.stages = STAGES_GOING_ON
            weights = load_nano_tracker(config.start).state_dict()
            self.model.load_state_dict(weights)
            self.average.load_state_dict(weights)
        if config.resume:
            self._restore()
        self._enter(self._stage())

    def _stage(self) -> Stage:
        progress = self.spent_s / (self.config.minutes * 60)
        return next((s for s in self.stages if progress < s.until), self.stages[-1])

    def _enter(self, stage: Stage) -> None:
        """Go on at a stage's image size: no weight's shape depends on it."""
        size = round(self.tracker.image_size * stage.image_scale / 16) * 16
        current = dataclasses.replace(self.tracker, image_size=size)
        states = self.model.state_dict(), self.average.state_dict()
        optimiser = self.optimiser.state_dict()
        self._build(current)
        self.model.load_state_dict(states[0])
        self.average.load_state_dict(states[1])
        self.optimiser.load_state_dict(optimiser)
        self.stage, self.current, self.best = stage, current, -1.0
        mean, std = current.pixel_mean, current.pixel_std
        self.held_out = {"simulated": held_out_batch(self.config.num_held_out, size, mean, std)}
        if self.selection is not None:
            number = 2 * self.config.num_held_out
            self.held_out["photos"] = held_out_clips(self.selection, number, size, mean, std)
            seen = in_windows(self.selection, 1.0)
            self.held_out["windows"] = held_out_clips(seen, number, size, mean, std)
        _LOG.info("stage %s at %d px", stage, size)

    def _build(self, tracker: NanoTrackerConfig) -> None:
        self.model: Sam2VideoModel = build_nano_tracker(tracker)
        self.model.to(memory_format=torch.channels_last)
        _attend_eagerly(self.model)
        self.average: Sam2VideoModel = copy.deepcopy(self.model)
        self.average.requires_grad_(requires_grad=False)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), weight_decay=self.config.weight_decay, betas=(0.9, 0.97)
        )

    def go(self) -> None:
        budget_s = self.config.minutes * 60
        started = time.thread_time() - self.spent_s
        next_score_s = self.spent_s + self.config.score_every_s
        losses: list[float] = []
        while self.spent_s < budget_s:
            if self._stage() is not self.stage:
                self._enter(self._stage())
            losses.append(self._update(self.spent_s / budget_s))
            self.spent_s = time.thread_time() - started
            if len(losses) % 50 == 0:
                recent = float(np.mean(losses[-50:]))
                _LOG.info("%7.1f s step %6d loss %.4f", self.spent_s, self.step, recent)
            if self.spent_s >= min(next_score_s, budget_s):
                self._checkpoint(float(np.mean(losses[-200:])))
                next_score_s = self.spent_s + self.config.score_every_s

    def _update(self, progress: float) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.peak_rate * _rate_factor(progress, self.step)
        self.model.train()
        batch = self._draw(self.stage)
        single = batch.points is not None and batch.points.shape[2] > 1
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            outputs = list(unroll(self.model, batch))
        losses = [
            step_loss(output, batch.targets[:, t], single_mask=single and t == 0)
            for t, output in enumerate(outputs)
        ]
        loss = torch.stack(losses).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        self._average()
        return float(loss.detach())

    def _draw(self, stage: Stage) -> Batch:
        kinds = list(_KIND_SHARES)
        kind = kinds[self.rng.choice(len(kinds), p=list(_KIND_SHARES.values()))]
        shares = np.array([length.share for length in stage.lengths])
        length = stage.lengths[self.rng.choice(len(shares), p=shares / shares.sum())]
        shape = BatchShape(
            num_clips=length.num_clips,
            num_frames=length.num_frames,
            num_objects=length.num_objects,
            image_size=self.current.image_size,
        )
        mean, std = self.tracker.pixel_mean, self.tracker.pixel_std
        refine = bool(self.rng.random() < _REFINE_SHARE)
        return make_batch(self.rng, self.make_clip, shape, kind, mean, std, refine=refine)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(_EMA_DECAY, (1 + self.step) / (10 + self.step))
        new = [v for v in self.model.state_dict().values() if v.is_floating_point()]
        old = [v for v in self.average.state_dict().values() if v.is_floating_point()]
        torch._foreach_lerp_(old, new, 1 - decay)

    def _checkpoint(self, loss: float) -> None:
        results = {name: score(self.average, batch) for name, batch in self.held_out.items()}
        quality = float(np.mean([0.5 * (r.prompted + r.tracked) for r in results.values()]))
        best = quality > self.best
        self.best = max(self.best, quality)
        _LOG.info("%7.1f s step %6d loss %.4f%s", self.spent_s, self.step, loss, " best" * best)
        for name, result in results.items():
            _LOG.info(
                "  held-out %-9s J prompted %.3f tracked %.3f (repeat %.3f)"
                " said absent: %.2f of absent, %.3f of visible (AUROC %.3f)",
                name, result.prompted, result.tracked, result.repeated,
                result.absent_found, result.visible_lost, result.auroc,
            )  # fmt: skip
        self.notes = {
            "foreseg.step": str(self.step),
            "foreseg.seed": str(self.config.seed),
            "foreseg.held_out_j": "; ".join(
                f"{name} prompted {r.prompted:.4f} tracked {r.tracked:.4f}"
                for name, r in results.items()
            ),
        }
        for name in ("latest", "best") if best else ("latest",):
            path = self.config.out / f"{name}.safetensors"
            save_nano_tracker(self.average, self.current, path, notes=self.notes)
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.bit_generator.state,
            "step": self.step,
            "spent_s": self.spent_s,
        }
        partial = self.config.out / "state.pt.partial"
        torch.save(state, partial)
        partial.replace(self.config.out / "state.pt")

    def _restore(self) -> None:
        state = torch.load(self.config.out / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = state["rng"]
        self.step, self.spent_s = state["step"], state["spent_s"]
        _LOG.info("resumed at step %d, %.0f s spent", self.step, self.spent_s)


def _attend_eagerly(model: Sam2VideoModel) -> None:
    """Use plain attention: on a CPU, with a dozen keys, it takes 0.7 of the fused one's time."""
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"  # noqa: SLF001


def _rate_factor(progress: float, step: int) -> float:
    """Warm up over 200 steps, stay, then fall linearly to a fiftieth.

    A steady rate lets a run be given more minutes later without having been spent already.
    """
    warm = min(1.0, (step + 1) / 200)
    fallen = max(0.0, (progress - _STEADY_SHARE) / (1 - _STEADY_SHARE))
    return warm * (1 - 0.98 * min(1.0, fallen))
