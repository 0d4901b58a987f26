# SPDX-License-Identifier: Apache-2.0
"""Supervised training of the nano reasoner's language model on frames that the tower has seen.

Its own loop and not TRL's: questions about one window share its frames, which are most of a prompt
and are run once for all of them (keys and values are handed on, with their gradients), so that a
step answers four times as many questions in the same time (docs/log.md). Does not know: recordings,
methods.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from foreseg.reasoner.prompt_card import CARD
from foreseg_torch.vlm.loading import vlm_parts

from .architecture import read_nano_reasoner, save_nano_reasoner
from .averaging import Averaged
from .batches import Batch, Batcher
from .drills import DrillBatch, Drills, run_drills
from .features import FrameStore, SeenCollator, SeenFrames
from .held_out import HeldOutExam
from .numbers import near_numbers, number_ids
from .rollouts import SHARED_ATTENTION
from .shared_frames import run_questions
from .windows import read_windows

_LOG = logging.getLogger(__name__)
_WARMUP_STEPS = 100
_EMA_DECAY = 0.995
_LOG_STEPS = 50
STAGES = ("listings", "places", "lessons", "windows")
"""What is learnt one after the other, by the names of the files that `prepare` leaves."""
TOLD = "told"  # windows of words alone, beside the stages
# Thoughts up to what is seen, of few frames and of whole windows; likewise.
GLANCES, SIGHTINGS = "glances", "sightings"
DRILLS = "drills"  # drawn as they are learnt
_BESIDE = (DRILLS, TOLD, GLANCES, SIGHTINGS)
_GOLDEN = (5**0.5 - 1) / 2  # multiples of it are spread evenly
_WINDOWS = {
    "listings": 4,
    "places": 4,
    "lessons": 1,
    "windows": 1,
    TOLD: 2,
    GLANCES: 5,
    SIGHTINGS: 2,
}  # times `num_windows` a batch: what is short


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoTraining:
    """Numbers of the stage: AdamW at a rate that warms up, stays, and falls linearly at the end.

    Attributes:
        minutes: of the thread's own processor time, lessons among them.
        stage_shares: of them, the first ones, on listings, after them on places, then on lessons; the rest
            are windows.
        drill_share: of the steps after the listings: beside the others, since drills alone undo what looking taught.
        told_share: of the steps, once there are windows: questions in words alone (`preparing.write_told`).
        glance_share: likewise: what one to three frames show.
        sighting_share: likewise: what a window's frames show, and how it moves.
        review_every: of so many later batches, one is of an earlier stage.
        num_windows: of a batch; of single frames more, since each is a line or two.
        num_asked: questions about a window, at most.
        num_drills: lines of a batch: few, since steps are what teaches to add.
        decay_share: of the minutes, the last ones, in which the rate falls to nothing.
        num_held_out: questions that are answered at each score, and told.
        score_every_s: seconds of processor time between scores; the state is saved then.
        start_share: of the weights at the start, in a second model, `average`, whose other weights are the mean of those at
            each score; 0: there is none. For what goes on from a trained model.
        bf16: matrix products in bfloat16; faster only where the processor has it.
    """

    minutes: float = 100.0
    stage_shares: tuple[float, float, float] = (0.08, 0.03, 0.04)
    drill_share: float = 0.1
    told_share: float = 0.25
    glance_share: float = 0.15
    sighting_share: float = 0.25
    review_every: int = 4
    num_windows: int = 12
    num_asked: int = 4
    num_drills: int = 40
    learning_rate: float = 1.5e-3
    decay_share: float = 0.5
    num_held_out: int = 100
    score_every_s: float = 600.0
    start_share: float = 0.0
    bf16: bool = True
    seed: int = 0

    def stage(self, spent_share: float, step: int) -> str:
        """What to learn from after a share of the minutes, at a step."""
        reached = sum(spent_share >= until for until in np.cumsum(self.stage_shares))
        drawn = step * _GOLDEN % 1
        shares = (self.drill_share, self.told_share, self.glance_share, self.sighting_share)
        beside = sum(drawn >= until for until in np.cumsum(shares))
        if reached and not beside:
            return DRILLS
        if STAGES[reached] == "windows" and beside < len(_BESIDE):
            return _BESIDE[beside]
        if reached and step % self.review_every == 0:
            return STAGES[step // self.review_every % reached]
        return STAGES[reached]

    def rate(self, spent_share: float, step: int) -> float:
        """The rate after a share of the minutes, at a step."""
        falling = min(1.0, (1 - spent_share) / self.decay_share)
        return self.learning_rate * min(1.0, (step + 1) / _WARMUP_STEPS) * max(0.0, falling)


@dataclass(slots=True, kw_only=True)
class _State:
    """What a run that was cut goes on from."""

    step: int = 0
    spent_s: float = 0.0


def train_language(training: NanoTraining, out: Path, *, resume: bool = False) -> Path:
    """Train on what `prepare` left in `out`; returns the trained model's folder, `out/model`, or `out/average`, whichever is better.

    Listings of single frames come first: they teach to read an object's place off a frame's tokens by its
    name, and places to read a name off by its place. Lessons of one to three frames teach to answer, and to say a frame's label. Beside all but the
    listings, drills teach to reckon with places.
    """
    start = out / "start"
    tokenizer, model = read_nano_reasoner(start)
    model.set_attn_implementation(SHARED_ATTENTION)
    tower = model.model.visual
    model.model.visual = SeenFrames(tower)
    grid_thw = collator_of(out).grid_thw
    store = FrameStore(out / "frames.npy")
    optimiser = torch.optim.AdamW(parameter_groups(model), lr=0.0, betas=(0.9, 0.98))
    begun, averaged = copy.deepcopy(model), Averaged()
    mean, state = copy.deepcopy(model), _State()
    if resume and (out / "state.pt").is_file():
        state = _read_state(out / "state.pt", model, mean, optimiser, averaged)
    exam = HeldOutExam(out, tokenizer, grid_thw, count=training.num_held_out, bf16=training.bf16)
    course = _Course(training, out, store, tokenizer, grid_thw, int(tower.patch_size))
    budget_s, scored_s, losses = training.minutes * 60, state.spent_s, []
    while state.spent_s < budget_s:
        began, share = time.thread_time(), state.spent_s / budget_s
        rng = np.random.default_rng([training.seed, state.step])
        stage = training.stage(share, state.step)
        for group in optimiser.param_groups:
            group["lr"] = training.rate(share, state.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=training.bf16):
            words, sides = course.losses(model, stage, rng)
        optimiser.zero_grad(set_to_none=True)
        (words + sides).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        _follow(mean, model, state.step)
        losses.append((stage, words.item(), sides.item()))
        state.step += 1
        state.spent_s += time.thread_time() - began
        if state.step % _LOG_STEPS == 0:
            _LOG.info("%6.0f s step %5d %s", state.spent_s, state.step, _told(losses))
            losses = []
        if state.spent_s - scored_s >= training.score_every_s and state.spent_s < budget_s:
            _LOG.info("%s", exam.score(mean))
            averaged.add(mean)
            _save_state(out / "state.pt", model, mean, optimiser, state, averaged)
            save_trained(mean, tower, tokenizer, out / "model", start)
            scored_s = state.spent_s
    found = exam.score(mean)
    _LOG.info("%s", found)
    _save_state(out / "state.pt", model, mean, optimiser, state, averaged)
    folder = save_trained(mean, tower, tokenizer, out / "model", start)
    if not training.start_share:
        return folder
    averaged.add(mean)
    mean.load_state_dict(averaged.mixed(begun, training.start_share))
    mixed = exam.score(mean)
    _LOG.info("averaged with its start: %s", mixed)
    average = save_trained(mean, tower, tokenizer, out / "average", start)
    return average if mixed.mean_iou > found.mean_iou else folder


class _Course:
    """What there is to learn from, by stage."""

    def __init__(
        self,
        training: NanoTraining,
        out: Path,
        store: FrameStore,
        tokenizer: Any,  # noqa: ANN401
        grid_thw: tuple[int, int, int],
        patch_px: int,
    ) -> None:
        self._numbers, self._grid = number_ids(tokenizer), grid_thw
        size_wh = (grid_thw[2] * patch_px, grid_thw[1] * patch_px)
        self._drills = Drills(tokenizer, size_wh=size_wh, count=training.num_drills)
        self._batchers = {
            stage: Batcher(
                read_windows(out / f"{stage}.jsonl"), store, tokenizer,
                num_windows=training.num_windows * times, num_asked=training.num_asked,
            )
            for stage, times in _WINDOWS.items()
        }  # fmt: skip

    def losses(
        self,
        model: Any,  # noqa: ANN401
        stage: str,
        rng: np.random.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of a batch at random, as `batch_loss` gives them."""
        if stage == DRILLS:
            return drill_loss(model, self._drills.draw(rng), self._numbers)
        return batch_loss(model, self._batchers[stage].draw(rng), self._numbers, self._grid)


def batch_loss(
    model: Any,  # noqa: ANN401 (of transformers, its tower `SeenFrames`)
    batch: Batch,
    numbers: torch.Tensor,
    grid_thw: tuple[int, int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropies of what is said: of words, and of the sides of boxes, of which near ones are near.

    Both are sums over their tokens, over the number of all tokens; `numbers` are the ids of
    numbers, `grid_thw` of a frame.
    """
    hidden = run_questions(model, batch, grid_thw).hidden
    return _losses(model, hidden, batch.labels, batch.side, numbers)


def drill_loss(
    model: Any,  # noqa: ANN401 (of transformers)
    batch: DrillBatch,
    numbers: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `batch_loss`, of lines without pictures."""
    return _losses(model, run_drills(model, batch), batch.labels, batch.side, numbers)


def _losses(
    model: Any,  # noqa: ANN401
    hidden: torch.Tensor,
    all_labels: torch.Tensor,
    all_sides: torch.Tensor,
    numbers: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    is_said = all_labels >= 0
    logits = model.lm_head(hidden[is_said]).float().log_softmax(dim=-1)
    labels, side = all_labels[is_said], all_sides[is_said]
    is_side = side >= 0
    words = functional.nll_loss(logits[~is_side], labels[~is_side], reduction="sum")
    near = near_numbers(side[is_side].float())
    sides = -(near * logits[is_side][:, numbers]).sum()
    return words / len(labels), sides / len(labels)


def parameter_groups(model: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Matrices decay, vectors and the table of embeddings do not."""
    table = model.get_input_embeddings().weight
    named = [p for p in model.parameters() if p.requires_grad]
    decays = [p for p in named if p.ndim > 1 and p is not table]
    others = [p for p in named if p.ndim <= 1 or p is table]
    return [{"params": decays, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def _follow(mean: Any, model: Any, step: int) -> None:  # noqa: ANN401
    """Exponential moving average of the weights."""
    weight = 1 - min(_EMA_DECAY, (1 + step) / (10 + step))
    for theirs, own in zip(mean.parameters(), model.parameters(), strict=True):
        theirs.lerp_(own, weight)


def _told(losses: list[tuple[str, float, float]]) -> str:
    told = []
    for stage in (*STAGES, *_BESIDE):
        some = [(words, sides) for its, words, sides in losses if its == stage]
        if some:
            words, sides = np.mean(some, axis=0)
            told.append(f"{stage}: words {words:.3f} sides {sides:.3f}")
    return ", ".join(told)


def _save_state(
    path: Path,
    model: Any,  # noqa: ANN401
    mean: Any,  # noqa: ANN401
    optimiser: Any,  # noqa: ANN401
    state: _State,
    averaged: Averaged,
) -> None:
    partial = path.with_suffix(".partial")
    parts = {
        "averaged": averaged.state(),
        "model": model.state_dict(),
        "mean": mean.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": state.step,
        "spent_s": state.spent_s,
    }
    torch.save(parts, partial)
    partial.replace(path)


def _read_state(
    path: Path,
    model: Any,  # noqa: ANN401
    mean: Any,  # noqa: ANN401
    optimiser: Any,  # noqa: ANN401
    averaged: Averaged,
) -> _State:
    parts = torch.load(path, weights_only=True)
    model.load_state_dict(parts["model"])
    mean.load_state_dict(parts["mean"])
    optimiser.load_state_dict(parts["optimiser"])
    if "averaged" in parts:  # not of a run from before 2026-12-01
        averaged.load(parts["averaged"])
    return _State(step=parts["step"], spent_s=parts["spent_s"])


def save_trained(mean: Any, tower: Any, tokenizer: Any, folder: Path, start: Path) -> Path:  # noqa: ANN401
    """Write the model as the hub's are, with its tower, and the card of its prompts; returns the folder."""
    seen = mean.model.visual
    mean.model.visual = tower
    save_nano_reasoner(mean, tokenizer, folder)
    mean.model.visual = seen
    (folder / CARD).write_bytes((start / CARD).read_bytes())
    return folder


def collator_of(data: Path) -> SeenCollator:
    """Makes rows of what `prepare` left."""
    parts, store = vlm_parts(data / "start"), FrameStore(data / "frames.npy")
    merge = parts.geometry.merge
    columns, rows = _grid(store.array.shape[1])
    return SeenCollator(
        store,
        (1, rows * merge, columns * merge),
        parts.tokenizer.pad_token_id,
        parts.geometry.image_token_id,
    )


def _grid(num_tokens: int) -> tuple[int, int]:
    """Columns and rows of a frame's tokens, at four to three or nearly."""
    rows = max(r for r in range(1, num_tokens + 1) if num_tokens % r == 0 and r * r <= num_tokens)
    return num_tokens // rows, rows
