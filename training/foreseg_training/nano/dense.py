# SPDX-License-Identifier: Apache-2.0
"""Teach the vision tower to see before the language model is to speak of it, in that model's own words.

Each token of a frame says which two objects it shows most of: the words of their names, and the
sides of their boxes, all as the language model would say them: by its table of embeddings, which
learns with the tower. So a token that is looked at can be spoken of, and a word can be looked for,
before the language model has learnt anything. Trained end to end from nothing, a tower this small
learns nothing in the time that this takes (docs/log.md). Does not know: prompts, questions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from foreseg.language.images import ImageGeometry
from foreseg.masks import mask_from_rle
from foreseg_simulation.recording import Shot, image_of

from .numbers import ids_of_words, near_numbers, number_ids
from .recordings import Recording

_LOG = logging.getLogger(__name__)
_SLOTS = 2
_LEAST_COVERED = 0.03  # of a token's cell


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseConfig:
    """Numbers of the stage.

    Attributes:
        minutes: budget of the thread's own processor time.
        batch_size: frames.
        peak_rate: of AdamW; warmed up over 100 steps, then falling linearly to a twentieth.
    """

    minutes: float = 8.0
    batch_size: int = 48
    peak_rate: float = 2e-3
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
    shots: Sequence[Shot],
    names: Sequence[dict[int, str]],
    words: Sequence[str],
    grid: tuple[int, int],
) -> DenseTruth:
    """Targets of some frames.

    Args:
        shots: the frames.
        names: of the objects of each.
        words: all that a name may have.
        grid: rows and columns of tokens.
    """
    rows, columns = grid
    index = {word: i for i, word in enumerate(words)}
    num = len(shots) * rows * columns
    there = np.zeros((num, _SLOTS), np.float32)
    said = np.zeros((num, _SLOTS, len(words)), np.float32)
    boxes = np.zeros((num, _SLOTS, 4), np.float32)
    for n, (shot, named) in enumerate(zip(shots, names, strict=True)):
        ids = list(shot.objects)
        if not ids:
            continue
        seen = [shot.objects[i] for i in ids]
        size = np.array([seen[0].mask.width, seen[0].mask.height] * 2, np.float32)
        covered = np.stack(
            [
                cv2.resize(
                    mask_from_rle(one.mask).astype(np.float32),
                    (columns, rows),
                    interpolation=cv2.INTER_AREA,
                ).ravel()
                for one in seen
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
                said[place, slot, [index[w] for w in named[ids[one]].split() if w in index]] = 1
                boxes[place, slot] = np.array(seen[one].box_xyxy, np.float32) / size
    return DenseTruth(
        there=torch.from_numpy(there), words=torch.from_numpy(said), boxes=torch.from_numpy(boxes)
    )


def dense_loss(said: DenseSaid, truth: DenseTruth, shown_wh: tuple[int, int]) -> torch.Tensor:
    """Cross entropy of presence, of words (their sum), and of numbers (their mean); a scalar.

    Args:
        said: of `DenseHead`.
        truth: of the same tokens.
        shown_wh: pixels in which boxes are told.
    """
    is_there = truth.there > 0
    presence = functional.binary_cross_entropy_with_logits(said.there, truth.there)
    words = functional.binary_cross_entropy_with_logits(
        said.words[is_there], truth.words[is_there], reduction="none"
    )
    near = near_numbers(truth.boxes[is_there] * torch.tensor([*shown_wh, *shown_wh]))
    numbers = -(near * said.numbers[is_there].log_softmax(dim=-1)).sum(dim=-1)
    return presence + words.sum(dim=1).mean() + numbers.mean()


def train_tower(
    model: Any,  # noqa: ANN401 (of transformers)
    tokenizer: Any,  # noqa: ANN401
    geometry: ImageGeometry,
    frame_pixels: int,
    recordings: Sequence[Recording],
    config: DenseConfig,
) -> DenseHead:
    """Train a model's vision tower and its table of embeddings in place; returns the head, which nothing else needs."""
    size_wh = next(clip.size_wh for recording in recordings for clip in recording.clips)
    tower, words = model.model.visual, words_of(recordings)
    shown_wh = geometry.fitted_wh(size_wh, frame_pixels)
    head = DenseHead(model.config.text_config.hidden_size, len(words))
    table = model.get_input_embeddings().weight
    of_words, of_numbers = torch.tensor(ids_of_words(tokenizer, words)), number_ids(tokenizer)
    matrices = [*model.model.visual.parameters(), *head.parameters()]
    parameters = [*matrices, table]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": [table], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.peak_rate, weight_decay=0.01)
    rng = np.random.default_rng([config.seed, 11])
    budget_s, began = config.minutes * 60, time.thread_time()
    step = 0
    while (spent := time.thread_time() - began) < budget_s:
        fallen = 1 - 0.95 * spent / budget_s
        for group in optimiser.param_groups:
            group["lr"] = config.peak_rate * min(1.0, (step + 1) / 100) * fallen
        pixels, grids, truth = _batch(
            rng, recordings, words, geometry, frame_pixels, config.batch_size
        )
        tokens = tower(pixels, grid_thw=grids).pooler_output
        said = head(tokens, table[of_words], table[of_numbers])
        loss = dense_loss(said, truth, shown_wh)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 50 == 0:
            _LOG.info(
                "%6.0f s step %5d loss %.3f %s",
                spent,
                step,
                loss.item(),
                _told(said, truth, shown_wh),
            )
        step += 1
    return head


def _told(said: DenseSaid, truth: DenseTruth, shown_wh: tuple[int, int]) -> str:
    """How well the first slots are seen."""
    is_there = truth.there[:, 0] > 0
    right = ((said.words[is_there, 0] > 0) == (truth.words[is_there, 0] > 0)).all(dim=1)
    true = truth.boxes[is_there, 0] * torch.tensor([*shown_wh, *shown_wh])
    error = (said.numbers[is_there, 0].argmax(dim=-1) - true).abs().mean()
    return f"names {float(right.float().mean()):.3f} box sides off by {float(error):.2f} px"


def _batch(
    rng: np.random.Generator,
    recordings: Sequence[Recording],
    words: Sequence[str],
    geometry: ImageGeometry,
    frame_pixels: int,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor, DenseTruth]:
    chosen = [recordings[i] for i in rng.integers(len(recordings), size=size)]
    shots = [r.shots[rng.integers(len(r.shots))] for r in chosen]
    read = [geometry.patches(image_of(shot), frame_pixels) for shot in shots]
    pixels = torch.from_numpy(np.concatenate([patches for patches, _ in read]))
    grids = torch.tensor([grid for _, grid in read])
    _, rows, columns = read[0][1]
    tokens = (rows // geometry.merge, columns // geometry.merge)
    return pixels, grids, truth_of(shots, [dict(r.names) for r in chosen], words, tokens)


def encoded(
    model: Any,  # noqa: ANN401 (of transformers)
    geometry: ImageGeometry,
    frame_pixels: int,
    shots: Sequence[Shot],
    at_once: int = 64,
) -> Iterator[np.ndarray]:
    """Tokens (rows x columns, width) float16 of each frame, by a tower that is trained no more."""
    for start in range(0, len(shots), at_once):
        some = shots[start : start + at_once]
        read = [geometry.patches(image_of(shot), frame_pixels) for shot in some]
        pixels = torch.from_numpy(np.concatenate([patches for patches, _ in read]))
        grids = torch.tensor([grid for _, grid in read])
        with torch.no_grad():
            tokens = model.model.visual(pixels, grid_thw=grids).pooler_output
        yield from tokens.numpy().astype(np.float16).reshape(len(some), -1, tokens.shape[-1])
