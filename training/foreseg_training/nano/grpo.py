# SPDX-License-Identifier: Apache-2.0
"""GRPO of the nano reasoner on frames that the tower has seen: it speaks, is rewarded, and is moved.

Its own loop and not TRL's, for the reason of `nano.training`: questions share stored frames, which are
run once for all that is asked and said about them; TRL would run the tower, and the frames, for each
completion. Rewards are those of `vlm.rewards_veason`; R_u is not among them, for frames are kept as
tokens, which no tracker reads. As the papers have it: advantages within a group, a small KL to the
start (k3), each completion's tokens averaged, one update of what was said (so there is no ratio to
clip). Ours: the rate, 8 questions a step instead of 16, advantages that are not divided by the group's
deviation, and groups whose rewards are equal are not run again, so their KL does not count.
Does not know: recordings.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foreseg.errors import InputError
from foreseg.methods.grammar import Form
from foreseg.methods.veason import VeasonMethod
from foreseg_training.rewards import F64, group_advantages
from foreseg_training.runs.metrics_file import MetricsFile
from foreseg_training.vlm.rewards_veason import VeasonRewards

from .architecture import read_nano_reasoner
from .batches import Batch, Batcher, Row
from .features import FrameStore, SeenFrames
from .held_out import MAX_TOKENS, HeldOutExam, prompt_of, true_completion
from .preparing import FORMS
from .rollouts import SHARED_ATTENTION, Said, say, texts_of
from .shared_frames import run_questions
from .tokenizer import END
from .training import collator_of, parameter_groups, save_trained
from .windows import Window, read_windows

_LOG = logging.getLogger(__name__)
_LOG_STEPS = 10
_WARMUP_STEPS = 10
REWARDS = {"format": 1.0, "keyframe": 1.0, "spatial": 1.0, "no_target": 1.0}
"""Weights: 1 each, as the paper has them; `no_target` is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoGrpo:
    """Numbers of the stage.

    Attributes:
        minutes: of the thread's own processor time; answering held-out questions is not counted.
        num_questions: a step, each about a window of its own.
        num_generations: completions of a question.
        max_tokens: of a completion: fewer than a true thought takes, and what is cut is called wrong.
        is_scaled: advantages are divided by their group's deviation, as the papers do. A group whose
            rewards nearly agree then pulls as hard as one that is torn, by differences of a pixel: the
            mean of twelve steps agreed less with that of twelve others (docs/log.md).
        learning_rate: of AdamW; it warms up and stays.
        kl_beta: weight of the divergence from the start; 0: none is run.
        num_held_out: questions that are answered before and after, and at each save.
        save_every_s: seconds of processor time.
        bf16: matrix products in bfloat16; faster only where the processor has it.
    """

    minutes: float = 20.0
    num_questions: int = 8
    num_generations: int = 8
    max_tokens: int = MAX_TOKENS
    is_scaled: bool = False
    learning_rate: float = 1e-4
    kl_beta: float = 0.005
    num_held_out: int = 100
    save_every_s: float = 600.0
    bf16: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is needed to judge an answer.

    Attributes:
        form: that is asked for.
        truth: `Truth`, as text.
    """

    form: Form
    truth: str


class GroupRewards:
    """Veason-R1's rewards of completions of one question."""

    def __init__(self, weights: Mapping[str, float] = REWARDS) -> None:
        self._weights = weights
        self._by_form = {form: VeasonRewards(VeasonMethod(), form) for form in FORMS}

    def __call__(self, question: Question, texts: Sequence[str]) -> dict[str, list[float | None]]:
        """Each reward of each completion, without its weight; None where it does not apply."""
        functions, _ = self._by_form[question.form].functions(self._weights)
        truths = [question.truth] * len(texts)
        return {each.__name__: each(completions=texts, truth=truths) for each in functions}

    def total(self, parts: Mapping[str, Sequence[float | None]]) -> F64:
        """Weighed sums, one for each completion; what does not apply counts 0."""
        columns = [
            [self._weights[name] * (score or 0.0) for score in scores]
            for name, scores in parts.items()
        ]
        return np.sum(np.array(columns, np.float64), axis=0)


@dataclass(slots=True, kw_only=True)
class GrpoRun:
    """A model on its way, and all that a step needs.

    Attributes:
        model: moves; its tower is `SeenFrames`.
        start: what it began as; None: without KL.
        optimiser: of its weights.
        batcher: of windows with truths.
        tokenizer: of their ids.
        grid_thw: of a frame.
        numbers: of the stage.
        step: how many were done.
        spent_s: processor time they took.
    """

    model: Any
    start: Any
    optimiser: torch.optim.Optimizer
    batcher: Batcher
    tokenizer: Any
    grid_thw: tuple[int, int, int]
    numbers: NanoGrpo
    rewards: GroupRewards = field(default_factory=GroupRewards)
    step: int = 0
    spent_s: float = 0.0

    def move(self) -> dict[str, float]:
        """One step; returns its figures. Depends on the seed, the step and the weights alone."""
        began, numbers = time.thread_time(), self.numbers
        rng = np.random.default_rng([numbers.seed, self.step])
        windows, picked = self.batcher.drawn(rng)
        asked = [(windows[n], i) for n, i in picked]
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        said, texts = self._said(asked, numbers.num_generations, generator)
        spoke = time.thread_time() - began
        questions = [
            question_of(true_completion(self.tokenizer, w, i), w.truths[i]) for w, i in asked
        ]
        parts = [self.rewards(q, t) for q, t in zip(questions, texts, strict=True)]
        totals = [self.rewards.total(its) for its in parts]
        scaled = group_advantages if numbers.is_scaled else _centred
        moved = self._learn(asked, said, [scaled(total) for total in totals])
        self.step += 1
        seconds = time.thread_time() - began
        self.spent_s += seconds
        figures = _figures(parts, totals, said, self._end_id)
        return {**figures, **moved, "speaking_s": spoke, "seconds": seconds}

    def _said(
        self,
        asked: Sequence[tuple[Window, int]],
        num_each: int,
        generator: torch.Generator | None,
    ) -> tuple[list[list[Said]], list[list[str]]]:
        """Completions of each question, and their texts."""
        rows = [prompt_of(window, n, i) for n, (window, i) in enumerate(asked)]
        batch = self.batcher.batch([window for window, _ in asked], rows)
        with self._autocast():
            said = say(
                self.model, batch, self.grid_thw,
                num_each=num_each, max_tokens=self.numbers.max_tokens, end_id=self._end_id,
                generator=generator,
            )  # fmt: skip
        return said, [texts_of(self.tokenizer, group) for group in said]

    @property
    def _end_id(self) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(END))

    def _learn(
        self,
        asked: Sequence[tuple[Window, int]],
        said: Sequence[Sequence[Said]],
        advantages: Sequence[F64],
    ) -> dict[str, float]:
        """Move the weights; groups without spread teach nothing and are left out."""
        numbers, num_said = self.numbers, sum(map(len, said))
        figures: list[dict[str, float]] = []
        self.optimiser.zero_grad(set_to_none=True)
        for (window, number), group, advantage in zip(asked, said, advantages, strict=True):
            if not advantage.any():
                continue
            batch = spoken(self.batcher, window, number, group)
            theirs = None
            with self._autocast():
                if self.start is not None:
                    with torch.no_grad():
                        theirs = log_probs_of(self.start, batch, self.grid_thw)
                own = log_probs_of(self.model, batch, self.grid_thw)
            loss, its = grpo_loss(
                own, theirs, advantage, batch, kl_beta=numbers.kl_beta, num_said=num_said
            )
            loss.backward()
            figures.append(its)
        if not figures:
            return {}
        for group_of in self.optimiser.param_groups:
            warm = min(1.0, (self.step + 1) / _WARMUP_STEPS)
            group_of["lr"] = numbers.learning_rate * warm
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        means = {name: float(np.mean([its[name] for its in figures])) for name in figures[0]}
        return {**means, "grad_norm": float(norm)}

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.numbers.bf16)

    def save(self, path: Path) -> None:
        """Write what `load` goes on from."""
        partial = path.with_suffix(".partial")
        parts = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent_s": self.spent_s,
        }
        torch.save(parts, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from there."""
        parts = torch.load(path, weights_only=True)
        self.model.load_state_dict(parts["model"])
        self.optimiser.load_state_dict(parts["optimiser"])
        self.step, self.spent_s = parts["step"], parts["spent_s"]


def train_grpo(
    numbers: NanoGrpo, start: Path, data: Path, out: Path, *, resume: bool = False
) -> Path:
    """Go on from a trained nano reasoner; returns the folder of what comes of it, `out/model`.

    Args:
        numbers: of the stage.
        start: a folder as `train_language` leaves it.
        data: what `prepare` left, with the same words and the same tower.
        out: for all that comes of it.
        resume: from the last save in `out`.

    Raises:
        InputError: the data are another model's, or do not say what is true.
    """
    run, tower = begin(numbers, start, data)
    state, metrics = out / "state.pt", MetricsFile(out / "metrics.csv")
    out.mkdir(parents=True, exist_ok=True)
    if resume and state.is_file():
        run.load(state)
    metrics.begin(run.step)
    exam = HeldOutExam(
        data, run.tokenizer, run.grid_thw,
        count=numbers.num_held_out, bf16=numbers.bf16, max_tokens=numbers.max_tokens,
    )  # fmt: skip

    def saved() -> Path:
        if numbers.num_held_out:
            _LOG.info("%s", exam.score(run.model))
        run.save(state)
        return save_trained(run.model, tower, run.tokenizer, out / "model", start)

    if run.step == 0 and numbers.num_held_out:
        _LOG.info("before: %s", exam.score(run.model))
    saved_s, some = run.spent_s, list[dict[str, float]]()
    while run.spent_s < numbers.minutes * 60:
        figures = run.move()
        metrics.put(run.step, figures)
        some.append(figures)
        if run.step % _LOG_STEPS == 0:
            _LOG.info("%6.0f s step %4d %s", run.spent_s, run.step, _told(some))
            some = []
        if run.spent_s - saved_s >= numbers.save_every_s:
            saved()
            saved_s = run.spent_s
    return saved()


def begin(numbers: NanoGrpo, start: Path, data: Path) -> tuple[GrpoRun, Any]:
    """A run at its first step, and the model's tower.

    Raises:
        InputError: the data are another model's, or do not say what is true.
    """
    tokenizer, model = read_nano_reasoner(start)
    tower = model.model.visual
    _check_same(tokenizer, tower, start, data)
    model.set_attn_implementation(SHARED_ATTENTION)
    model.model.visual = SeenFrames(tower)
    windows = read_windows(data / "windows.jsonl")
    if any(len(window.truths) != len(window.asked) for window in windows):
        msg = f"{data}/windows.jsonl does not say what is true of its questions: prepare it anew"
        raise InputError(msg)
    batcher = Batcher(
        windows, FrameStore(data / "frames.npy"), tokenizer,
        num_windows=numbers.num_questions, num_asked=1,
    )  # fmt: skip
    run = GrpoRun(
        model=model.eval(),
        start=copy.deepcopy(model).requires_grad_(requires_grad=False)
        if numbers.kl_beta
        else None,
        optimiser=torch.optim.AdamW(parameter_groups(model), lr=0.0, betas=(0.9, 0.98)),
        batcher=batcher,
        tokenizer=tokenizer,
        grid_thw=collator_of(data).grid_thw,
        numbers=numbers,
    )
    return run, tower


def question_of(completion: str, truth: str) -> Question:
    """A question by its true completion, whose form is the one asked for.

    Raises:
        InputError: it has none.
    """
    form = next((form for form in FORMS if form.matches(completion)), None)
    if form is None:
        msg = f"a true completion keeps to no form: {completion[:200]!r}"
        raise InputError(msg)
    return Question(form=form, truth=truth)


def spoken(batcher: Batcher, window: Window, number: int, group: Sequence[Said]) -> Batch:
    """A question with its completions; it is run with the frames, once for all of them."""
    ids = prompt_of(window, 0, number).ids
    whole = replace(window, beginning=(*window.beginning, *ids[:-1]))
    return batcher.batch([whole], [Row(0, [ids[-1], *one.ids], 1) for one in group])


def log_probs_of(
    model: Any,  # noqa: ANN401
    batch: Batch,
    grid_thw: tuple[int, int, int],
) -> torch.Tensor:
    """Of what is said in a batch, token by token, row after row."""
    is_said = batch.labels >= 0
    hidden = run_questions(model, batch, grid_thw).hidden
    logits = model.lm_head(hidden[is_said]).float()
    chosen = logits.gather(1, batch.labels[is_said][:, None])[:, 0]
    return chosen - logits.logsumexp(dim=-1)


def grpo_loss(
    own: torch.Tensor,
    start: torch.Tensor | None,
    advantage: F64,
    batch: Batch,
    *,
    kl_beta: float,
    num_said: int,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of some completions, and its figures.

    Args:
        own: log-probabilities of all tokens said, row after row.
        start: likewise, by the model at the start; None: without KL.
        advantage: of each row.
        batch: whose labels are the tokens.
        kl_beta: weight of the divergence.
        num_said: completions of the whole step.
    """
    counts = (batch.labels >= 0).sum(dim=1)
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
    share = 1.0 / (counts[owner] * num_said)  # a completion's tokens are averaged
    gain = torch.from_numpy(advantage).float()[owner]
    loss = -(own * gain * share).sum()
    if start is None:
        return loss, {}
    apart = start - own
    divergence = apart.exp() - apart - 1  # k3
    return loss + kl_beta * (divergence * share).sum(), {"kl": float(divergence.detach().mean())}


def _centred(rewards: F64) -> F64:
    return rewards - rewards.mean()


def _check_same(tokenizer: Any, tower: Any, start: Path, data: Path) -> None:  # noqa: ANN401
    words, model = read_nano_reasoner(data / "start")
    theirs, own = model.model.visual.state_dict(), tower.state_dict()
    is_same = theirs.keys() == own.keys() and all(torch.equal(theirs[k], own[k]) for k in own)
    if not is_same or words.get_vocab() != tokenizer.get_vocab():
        msg = f"the frames of {data} were seen by another tower than that of {start}, or asked about in other words"
        raise InputError(msg)


def _figures(
    parts: Sequence[Mapping[str, Sequence[float | None]]],
    totals: Sequence[F64],
    said: Sequence[Sequence[Said]],
    end_id: int,
) -> dict[str, float]:
    """Of a step; a reward's mean is over the completions to which it applies."""
    figures = {"reward": float(np.mean(totals))}
    for name in parts[0]:
        scores = [s for its in parts for s in its[name] if s is not None]
        if scores:
            figures[name] = float(np.mean(scores))
    everything = [one for group in said for one in group]
    worth = [p for one in everything for p in one.log_probs]
    figures["entropy"] = -float(np.mean(worth))  # an estimate of it
    figures["no_spread"] = float(np.mean([np.ptp(total) == 0 for total in totals]))
    figures["tokens"] = float(np.mean([len(one.ids) for one in everything]))
    figures["cut"] = float(np.mean([one.ids[-1] != end_id for one in everything]))
    return figures


def _told(some: Sequence[Mapping[str, float]]) -> str:
    names = dict.fromkeys(name for figures in some for name in figures)
    means = {name: np.mean([f[name] for f in some if name in f]) for name in names}
    return ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
