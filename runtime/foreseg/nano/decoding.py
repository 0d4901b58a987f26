# SPDX-License-Identifier: Apache-2.0
"""One prompt in the decoder graph and the tokens after it, step by step, without a thread.

A past grows in place, and is handed on: a prompt that begins as the last one did is read from
where they part. Does not choose tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.base import Engine, on_host
from foreseg.language.images import F32Array
from foreseg.nano.bundle import DecoderGeometry
from foreseg.nano.drafts import MOST, Drafts
from foreseg.nano.positions import I64Array, prompt_positions
from foreseg.nano.seeing import SeenFrame

PREFILL_TOKENS = 128  # at a time: a sign of life may follow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """A prompt as the graph reads it."""

    ids: I64Array  # (L,)
    is_image: NDArray[np.bool_]  # (L,)
    frames: tuple[SeenFrame, ...]
    merge: int  # patches a side of a token

    def marks(self) -> I64Array:
        """(L,): equal where two prompts read the same, frames' tokens by their pixels."""
        marks: I64Array = self.ids.copy()
        if self.frames:
            seeds = [int.from_bytes(f.key[:7], "big") for f in self.frames]
            numbers = [
                -1 - (seed + np.arange(len(f.tokens)))
                for seed, f in zip(seeds, self.frames, strict=True)
            ]
            marks[self.is_image] = np.concatenate(numbers)
        return marks


class Past:
    """Keys and values of the tokens so far: (1 + room, layers, rows, heads, channels) each.

    The first place is empty: the graph wants a past, and does not look there.
    """

    def __init__(self, geometry: DecoderGeometry, room: int, rows: int = 1) -> None:
        shape = (1 + room, geometry.layers, rows, geometry.heads, geometry.head_channels)
        self.keys: F32Array = np.empty(shape, np.float32)
        self.values: F32Array = np.empty(shape, np.float32)
        self.keys[0], self.values[0] = 0, 0
        self.marks: I64Array = np.empty(room, np.int64)  # of a single row
        self.length = 0

    def common(self, marks: I64Array) -> int:
        """How many tokens a prompt has in common with this past, from the first."""
        length = min(self.length, len(marks))
        differs = np.flatnonzero(self.marks[:length] != marks[:length])
        return int(differs[0]) if len(differs) else length

    def with_room(self, geometry: DecoderGeometry, room: int, length: int) -> Past:
        """The first `length` tokens, with room for so many in all."""
        self.length = length
        if len(self.marks) >= room:
            return self
        larger = Past(geometry, room)
        for name in ("keys", "values"):
            getattr(larger, name)[: 1 + length] = getattr(self, name)[: 1 + length]
        larger.marks[:length] = self.marks[:length]
        larger.length = length
        return larger

    def rows(self, rows: Sequence[int], room: int) -> Past:
        """These rows, in this order, in memory of their own."""
        chosen = Past.__new__(Past)
        for name in ("keys", "values"):
            source = getattr(self, name)
            made = np.empty((1 + room, source.shape[1], len(rows), *source.shape[3:]), np.float32)
            made[: 1 + self.length] = source[: 1 + self.length, :, list(rows)]
            setattr(chosen, name, made)
        chosen.marks = np.full(room, -1, np.int64)
        chosen.length = self.length
        return chosen


class Decoding:
    """The keys and values so far, and what the model says comes next.

    `prefill` reads the prompt; `branch` makes several rows of it; `advance` adds a token to each. Of a single row
    some tokens more are run with it where `drafts` guesses them: if they come, they are there already.
    """

    def __init__(
        self,
        engine: Engine,
        geometry: DecoderGeometry,
        prompt: Prompt,
        *,
        room: int,
        past: Past | None = None,
        drafts: Drafts | None = None,
    ) -> None:
        """Begin; `past` is of another prompt, and from now on this one's.

        Args:
            engine: runs the graph.
            geometry: of the language model.
            prompt: is read first.
            room: tokens in all, at most.
            past: kept from before.
            drafts: guesses, and learns what is said; None: nothing is guessed, as where the graph gives logits of the
                last token alone.
        """
        self._engine = engine
        self._geometry = geometry
        self._prompt = prompt
        self._room = room
        self._marks = prompt.marks()
        self._reused = 0
        if past is not None:
            self._reused = min(past.common(self._marks), len(self._marks) - 1)
            past = past.with_room(geometry, room, self._reused)
        self._past = past or Past(geometry, room)
        grids = [frame.grid for frame in prompt.frames]
        self._positions = prompt_positions(prompt.is_image, grids, prompt.merge)
        self._next = int(self._positions.max()) + 1  # of text
        self._logits: F32Array = np.empty((1, 1, 0), np.float32)  # rows, tokens, vocabulary
        self._drafts = drafts
        self._said: list[int] = []
        self._ahead: list[int] = []  # run, but not said yet

    @property
    def logits(self) -> F32Array:
        """(rows, vocabulary): of the token after the last one."""
        return self._logits[:, -1 - len(self._ahead)]

    @property
    def past(self) -> Past | None:
        """To be handed on to the next prompt; None while it has several rows."""
        self._forget_ahead()
        return self._past if self._past.keys.shape[2] == 1 else None

    @property
    def num_reused(self) -> int:
        """Tokens of the prompt that were not read again."""
        return self._reused

    def prefill(self) -> Iterator[None]:
        """Read the prompt in pieces; yields after each."""
        prompt = self._prompt
        tokens = [frame.tokens for frame in prompt.frames]
        seen = np.concatenate(tokens) if tokens else None
        num_before = np.cumsum(prompt.is_image)
        for start in range(self._reused, len(prompt.ids), PREFILL_TOKENS):
            end = min(start + PREFILL_TOKENS, len(prompt.ids))
            is_image = prompt.is_image[start:end]
            shown = np.zeros((1, end - start, self._geometry.channels), np.float32)
            if seen is not None and is_image.any():
                last = int(num_before[end - 1])
                shown[0, is_image] = seen[last - int(is_image.sum()) : last]
            place = self._positions[:, None, start:end]
            self._run(prompt.ids[None, start:end], shown, is_image[None], place)
            yield

    def branch(self, num_rows: int) -> None:
        """Go on from here in several rows."""
        if num_rows > 1:
            self._drafts = None
            self._past = self._past.rows([0] * num_rows, self._room)
            self._logits = np.repeat(self._logits, num_rows, axis=0)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        self._past = self._past.rows(rows, self._room)
        self._logits = self._logits[list(rows)]

    def advance(self, tokens: Sequence[int]) -> None:
        """Add a token to each row."""
        is_there = bool(self._ahead) and self._ahead[0] == tokens[0]
        if is_there:
            del self._ahead[0]
        else:
            self._forget_ahead()
        if self._drafts is not None:
            self._drafts.learn(self._said, tokens[0])
            self._said.append(tokens[0])
        if is_there:
            self._next += 1
            return
        ahead = self._guessed()
        ids = np.array([[token, *ahead] for token in tokens], np.int64)
        shown = np.zeros((*ids.shape, self._geometry.channels), np.float32)
        place = np.broadcast_to(self._next + np.arange(ids.shape[1]), (3, *ids.shape))
        self._run(ids, shown, np.zeros(ids.shape, np.bool_), place)
        self._ahead = ahead  # not before: a run that fails has added nothing
        self._next += 1

    def _guessed(self) -> list[int]:
        """Tokens to be run with the one that was said."""
        room = len(self._past.marks) - self._past.length - 1
        return [] if self._drafts is None else self._drafts.guess(self._said, min(MOST, room))

    def _forget_ahead(self) -> None:
        """Let go what was run and did not come."""
        if self._ahead:
            self._past.length -= len(self._ahead)
            self._logits = self._logits[:, : -len(self._ahead)]
            self._ahead = []

    def _run(
        self, ids: I64Array, shown: F32Array, is_image: NDArray[np.bool_], place: I64Array
    ) -> None:
        past, length = self._past, self._past.length
        outputs = self._engine.run(
            {
                "ids": ids,
                "seen": shown,
                "is_seen": is_image,
                "positions": np.ascontiguousarray(place),
                "keys": past.keys[: 1 + length],
                "values": past.values[: 1 + length],
            }
        )
        end = length + ids.shape[1]
        past.keys[1 + length : 1 + end] = on_host(outputs["new_keys"])
        past.values[1 + length : 1 + end] = on_host(outputs["new_values"])
        is_prompt = end <= len(self._marks)
        past.marks[length:end] = self._marks[length:end] if is_prompt else ids[0]
        past.length = end
        logits = np.asarray(on_host(outputs["logits"]), np.float32)
        if (
            logits.ndim < self._logits.ndim
        ):  # a bundle from before 2026-12-01: of the last token alone
            logits, self._drafts = logits[:, None], None
        self._logits = logits
