# SPDX-License-Identifier: Apache-2.0
"""Teach the vision tower to see before the language model is to speak of it, in that model's own words.

Each token of a frame says which two objects it shows most of: the words of their names, and the
sides of their boxes, all as the language model would say them: by its table of embeddings, which
learns with the tower. So a token that is looked at can be spoken of, and a word can be looked for,
before the language model has learnt anything. Trained end to end from nothing, a tower this small
learns nothing in the time that this takes (docs/log.md).

Most frames of a batch are of a few hundred, as they were drawn, again and again; the others are new each time: moved, lit
otherwise, with objects of other frames pasted in. Frames that are never the same teach colours and no forms for
hundreds of steps; the few that come again make the tower begin, and the others keep it from learning them by heart.
After Charton and Kempe, "Emergent properties with repeated examples", 2024. Does not know: prompts, questions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from foreseg.language.images import ImageGeometry
from foreseg_simulation.recording import Shot, image_of

from .frames_at_once import FramesAtOnce
from .labelled import LabelledFrame, labelled, shaken
from .numbers import ids_of_words, near_numbers, number_ids
from .pasting import pasted
from .recordings import Recording

_LOG = logging.getLogger(__name__)
_SLOTS = 2
_LEAST_COVERED = 0.03  # of a token's cell
_WAITING = 4  # batches of a worker
_MEAN_DECAY = 0.998
_HEAD_SHARE = 0.08  # of the minutes of a tower that goes on: its head is new


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig:
    """Numbers of the stage.

    Attributes:
        minutes: budget of the thread's own processor time.
        batch_size: frames.
        peak_rate: of AdamW; warmed up over 100 steps, falling linearly to a twentieth in the second half.
        num_known: frames that come again and again, as they were drawn.
        known_share: of a batch.
        weight_of_words: beside presence and numbers.
        bf16: matrix products in bfloat16; faster only where the processor has it.
        is_compiled: the tower, by `torch.compile`; wants a C++ compiler, takes a minute, and halves the time of a step.
        num_workers: processes that prepare batches; 0: the trainer does it itself.
    """

    minutes: float = 40.0
    batch_size: int = 48
    peak_rate: float = 2e-3
    num_known: int = 520
    known_share: float = 0.6
    weight_of_words: float = 3.0
    bf16: bool = False
    is_compiled: bool = False
    num_workers: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseTruth:
    """What the tokens of some frames show, row by row of frames and cells.

    Slots are by coverage: the object that fills most of a token's cell first.
    """

    there: torch.Tensor  # (N, 2) float32, 0 or 1
    words: torch.Tensor  # (N, 2, W) float32, 0 or 1
    boxes: torch.Tensor  # (N, 2, 4) float32, x0 y0 x1 y1 over the frame's sides


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseSaid:
    """What is said of the same tokens, as logits."""

    there: torch.Tensor  # (N, 2)
    words: torch.Tensor  # (N, 2, W)
    numbers: torch.Tensor  # (N, 2, 4, MAX_NUMBER): which number of pixels each side is

    def float(self) -> DenseSaid:
        """In float32."""
        return DenseSaid(
            there=self.there.float(), words=self.words.float(), numbers=self.numbers.float()
        )


def words_of(recordings: Sequence[Recording]) -> tuple[str, ...]:
    """All words of the names of objects, sorted."""
    return tuple(
        sorted({word for r in recordings for name in r.names.values() for word in name.split()})
    )


class DenseHead(nn.Module):
    """Reads two slots off each token: presence, and five things to say: a name, four numbers."""

    def __init__(self, width: int, num_words: int) -> None:
        super().__init__()
        self.there = nn.Linear(width, _SLOTS)
        self.said = nn.Linear(width, _SLOTS * 5 * width)
        self.common = nn.Parameter(torch.zeros(num_words))
        self.norm = nn.RMSNorm(width, elementwise_affine=False)

    def forward(
        self, tokens: torch.Tensor, words: torch.Tensor, numbers: torch.Tensor
    ) -> DenseSaid:
        """From (N, width), and the rows of the table for words (W, width) and numbers."""
        said = self.norm(self.said(tokens).unflatten(1, (_SLOTS, 5, -1)))
        return DenseSaid(
            there=self.there(tokens),
            words=said[:, :, 0] @ words.T + self.common,
            numbers=said[:, :, 1:] @ numbers.T,
        )


def truth_of(
    frames: Sequence[LabelledFrame], words: Sequence[str], grid: tuple[int, int]
) -> DenseTruth:
    """Targets of some frames.

    Args:
        frames: with their objects.
        words: all that a name may have.
        grid: rows and columns of tokens.
    """
    rows, columns = grid
    index = {word: i for i, word in enumerate(words)}
    num = len(frames) * rows * columns
    there = np.zeros((num, _SLOTS), np.float32)
    said = np.zeros((num, _SLOTS, len(words)), np.float32)
    boxes = np.zeros((num, _SLOTS, 4), np.float32)
    for n, frame in enumerate(frames):
        if not frame.masks:
            continue
        size = np.array(frame.image.shape[1::-1] * 2, np.float32)
        covered = np.stack(
            [
                cv2.resize(
                    mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA
                ).ravel()
                for mask in frame.masks
            ]
        )
        order = np.argsort(-covered, axis=0, kind="stable")[:_SLOTS]
        first = n * rows * columns
        for slot, which in enumerate(order):
            for cell in np.flatnonzero(
                np.take_along_axis(covered, which[None], 0)[0] > _LEAST_COVERED
            ):
                one = which[cell]
                place = first + cell
                there[place, slot] = 1
                said[place, slot, [index[w] for w in frame.names[one].split() if w in index]] = 1
                boxes[place, slot] = np.array(frame.boxes[one], np.float32) / size
    return DenseTruth(
        there=torch.from_numpy(there), words=torch.from_numpy(said), boxes=torch.from_numpy(boxes)
    )


def dense_loss(
    said: DenseSaid,
    truth: DenseTruth,
    shown_wh: tuple[int, int],
    weight_of_words: float = 1.0,
) -> torch.Tensor:
    """Cross entropy of presence, of words (their sum), and of numbers (their mean); a scalar.

    Args:
        said: of `DenseHead`.
        truth: of the same tokens.
        shown_wh: pixels in which boxes are told.
        weight_of_words: beside the others.
    """
    is_there = truth.there > 0
    presence = functional.binary_cross_entropy_with_logits(said.there, truth.there)
    words = functional.binary_cross_entropy_with_logits(
        said.words[is_there], truth.words[is_there], reduction="none"
    )
    near = near_numbers(truth.boxes[is_there] * torch.tensor([*shown_wh, *shown_wh]))
    numbers = -(near * said.numbers[is_there].log_softmax(dim=-1)).sum(dim=-1)
    return presence + weight_of_words * words.sum(dim=1).mean() + numbers.mean()


def train_tower(
    model: Any,  # noqa: ANN401 (of transformers)
    tokenizer: Any,  # noqa: ANN401
    geometry: ImageGeometry,
    frame_pixels: int,
    recordings: Sequence[Recording],
    config: DenseConfig,
    *,
    goes_on: bool = False,
) -> DenseHead:
    """Train a model's vision tower and its table of embeddings in place; returns the head, which nothing else needs.

    A tower that `goes_on` has a language model that reads it: the table stays as it is, and the head learns alone first.
    """
    size_wh = image_of(recordings[0].shots[0]).shape[1::-1]
    tower, words = model.model.visual, words_of(recordings)
    shown_wh = geometry.fitted_wh(size_wh, frame_pixels)
    grid = (1, shown_wh[1] // geometry.patch_px, shown_wh[0] // geometry.patch_px)
    see = FramesAtOnce(tower, grid, bf16=config.bf16, is_compiled=config.is_compiled)
    head = DenseHead(model.config.text_config.hidden_size, len(words))
    table = model.get_input_embeddings().weight
    of_words, of_numbers = torch.tensor(ids_of_words(tokenizer, words)), number_ids(tokenizer)
    matrices, tables = [*tower.parameters(), *head.parameters()], [] if goes_on else [table]
    parameters = [*matrices, *tables]
    optimiser = _optimiser(matrices, tables, config)
    means = [p.detach().clone() for p in parameters]
    shown = ShownFrames(recordings, words, geometry, frame_pixels, config)
    loader = DataLoader(
        shown,
        batch_size=None,
        num_workers=config.num_workers,
        prefetch_factor=_WAITING if config.num_workers else None,
    )
    budget_s, began = config.minutes * 60, time.thread_time()
    for step, (pixels, truth) in enumerate(loader):
        spent = time.thread_time() - began
        if spent >= budget_s:
            break
        fallen = 1 - 0.95 * max(0.0, 2 * spent / budget_s - 1)
        for group in optimiser.param_groups:
            group["lr"] = config.peak_rate * min(1.0, (step + 1) / 100) * fallen
        with torch.set_grad_enabled(not goes_on or spent >= _HEAD_SHARE * budget_s):
            tokens = see(pixels)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            rows = table.detach() if goes_on else table
            said = head(tokens, rows[of_words], rows[of_numbers]).float()
        loss = dense_loss(said, truth, shown_wh, config.weight_of_words)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(means, parameters, 1 - min(_MEAN_DECAY, (1 + step) / (10 + step)))
        if step % 50 == 0:
            told = _told(said, truth, shown_wh)
            _LOG.info("%6.0f s step %5d loss %.3f %s", spent, step, loss.item(), told)
    with torch.no_grad():
        torch._foreach_copy_(parameters, means)
    return head


def _optimiser(
    matrices: Sequence[nn.Parameter], tables: Sequence[nn.Parameter], config: DenseConfig
) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": tables, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.peak_rate, weight_decay=0.02, betas=(0.9, 0.98))


def _told(said: DenseSaid, truth: DenseTruth, shown_wh: tuple[int, int]) -> str:
    """How well the first slots are seen."""
    is_there = truth.there[:, 0] > 0
    right = ((said.words[is_there, 0] > 0) == (truth.words[is_there, 0] > 0)).all(dim=1)
    true = truth.boxes[is_there, 0] * torch.tensor([*shown_wh, *shown_wh])
    error = (said.numbers[is_there, 0].argmax(dim=-1) - true).abs().mean()
    return f"names {float(right.float().mean()):.3f} box sides off by {float(error):.2f} px"


class ShownFrames(IterableDataset[tuple[torch.Tensor, DenseTruth]]):
    """Batches without end: patches (frames x patches, values) float32, and what their tokens show.

    Each worker process draws its own.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        words: Sequence[str],
        geometry: ImageGeometry,
        frame_pixels: int,
        config: DenseConfig,
    ) -> None:
        self._recordings, self._words = recordings, words
        self._geometry, self._frame_pixels = geometry, frame_pixels
        self._config = config
        rng = np.random.default_rng([config.seed, 10])
        self._known = [self._frame(rng) for _ in range(config.num_known)]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, DenseTruth]]:
        """Draw on and on."""
        worker = get_worker_info()
        seed = [self._config.seed, 11, 0 if worker is None else worker.id]
        rng = np.random.default_rng(seed)
        cv2.setNumThreads(1)
        while True:
            yield self._batch(rng)

    def _frame(self, rng: np.random.Generator) -> tuple[Shot, Mapping[int, str]]:
        recording = self._recordings[int(rng.integers(len(self._recordings)))]
        return recording.shots[int(rng.integers(len(recording.shots)))], recording.names

    def _batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, DenseTruth]:
        num_known = round(self._config.known_share * self._config.batch_size)
        known = [self._known[i] for i in rng.integers(len(self._known), size=num_known)]
        drawn = [self._frame(rng) for _ in range(self._config.batch_size - num_known)]
        frames = [labelled(shot, dict(names)) for shot, names in (*known, *drawn)]
        fresh = [shaken(pasted(frame, frames, rng), rng) for frame in frames[num_known:]]
        frames[num_known:] = fresh
        read = [self._geometry.patches(frame.image, self._frame_pixels) for frame in frames]
        _, rows, columns = read[0][1]
        merge = self._geometry.merge
        truth = truth_of(frames, self._words, (rows // merge, columns // merge))
        return torch.from_numpy(np.concatenate([patches for patches, _ in read])), truth


def encoded(
    model: Any,  # noqa: ANN401 (of transformers)
    geometry: ImageGeometry,
    frame_pixels: int,
    shots: Sequence[Shot],
    at_once: int = 8,
    *,
    bf16: bool = False,
) -> Iterator[np.ndarray]:
    """Tokens (rows x columns, width) float16 of each frame, all of one size, by a tower that is trained no more."""
    see: FramesAtOnce | None = None
    for start in range(0, len(shots), at_once):
        some = shots[start : start + at_once]
        read = [geometry.patches(image_of(shot), frame_pixels) for shot in some]
        see = see or FramesAtOnce(model.model.visual, read[0][1], bf16=bf16)
        with torch.no_grad():
            tokens = see(torch.from_numpy(np.concatenate([patches for patches, _ in read])))
        yield from tokens.numpy().astype(np.float16).reshape(len(some), -1, tokens.shape[-1])
