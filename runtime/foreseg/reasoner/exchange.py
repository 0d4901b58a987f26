# SPDX-License-Identifier: Apache-2.0
"""One asking held to the reasoner's contract: ordered, bounded, and about frames it was given.

Whatever a reasoner yields, a caller of `checked_ask` sees a stream as `reasoner.base` defines it.
Does not know processes; an exception inside the reasoner passes through.
"""

from __future__ import annotations

import math
import operator
from dataclasses import replace

from foreseg.dialogue import (
    Abstained,
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    NoTarget,
    ObservedMask,
    Query,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import InputError
from foreseg.frames import FrameIndex, FrameWindow
from foreseg.masks import mask_from_rle
from foreseg.reasoner.base import AnswerStream, Reasoner
from foreseg.texts import reason_from_error, utf8_text

MAX_REPLY_CHARS = 100_000  # of one answer, all parts together; what is beyond is cut
MAX_PARTS = 100_000
MAX_TARGETS = 64
MAX_ROUNDS = 64  # of frames wanted
MAX_FRAMES_WANTED = 256  # in one round
MAX_SIDE_PX = 4096  # of wanted frames, larger than the first ones
MAX_WANTED_PX = 128 * 1024**2  # of these in one round: 400 MB
MAX_TOKENS = 2**31 - 1  # that an answer may say it took

ENDINGS = (AnswerDone, AnswerFailed)


def checked_ask(reasoner: Reasoner, query: Query, window: FrameWindow) -> AnswerStream:
    """Yield the parts of `reasoner.ask`, or an `AnswerFailed` in place of the first bad one."""
    stream = reasoner.ask(query, window)
    audit = _Audit(window)
    frames: FrameWindow | None = None
    try:
        for _ in range(MAX_PARTS):
            try:
                given: object = stream.send(frames)
            except StopIteration:
                given = AnswerFailed(reason="the reasoner stopped in the middle of its answer")
            part = audit.passed(given)
            frames = yield part
            if isinstance(part, ENDINGS):
                return
            if isinstance(part, FramesWanted) and frames is not None:
                audit.add(frames)
        yield AnswerFailed(reason=f"the reasoner's answer has more than {MAX_PARTS} parts")
    finally:
        stream.close()


class _Audit:
    """What has been said and shown in one asking."""

    def __init__(self, window: FrameWindow) -> None:
        self._sizes: dict[FrameIndex, tuple[int, int]] = {}
        self._chars_left = MAX_REPLY_CHARS
        self._rounds = 0
        self._has_verdict = False
        self.add(window)

    def add(self, window: FrameWindow) -> None:
        """Note the frames that a keyframe may be chosen from."""
        self._sizes.update({frame.index: frame.ref.size_wh for frame in window.frames})

    def passed(self, part: object) -> AnswerPart:
        """The part in plain numbers and text, cut where it is too long; or the failure that it is.

        Reasoners hand on what their libraries gave them: numpy's numbers, half a character.
        """
        try:
            return self._passed(part)
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            kind = type(part).__name__
            return _broken(f"gave a {kind} that cannot be read: {reason_from_error(error)}")

    def _passed(self, part: object) -> AnswerPart:
        if isinstance(part, RationalePart):
            return replace(part, text=self._cut(part.text))
        if isinstance(part, FramesWanted):
            return self._passed_wanted(part)
        if isinstance(part, TargetsFound):
            return self._passed_targets(part)
        if isinstance(part, NoTarget):
            fault = self._verdict_fault(part.confidence)
            return fault or replace(
                part,
                reason=self._cut(part.reason),
                text=self._cut(part.text),
                confidence=float(part.confidence),
            )
        if isinstance(part, Abstained):
            return self._verdict_fault(math.nan) or replace(part, reason=self._cut(part.reason))
        if isinstance(part, AnswerFailed):
            return replace(part, reason=utf8_text(part.reason)[:MAX_REPLY_CHARS])
        if isinstance(part, AnswerDone):
            return self._passed_end(part)
        return _broken(f"yielded a {type(part).__name__}, which is no part of an answer")

    def _passed_end(self, part: AnswerDone) -> AnswerPart:
        tokens = operator.index(part.tokens)
        if not 0 <= tokens <= MAX_TOKENS:
            return _broken(f"counted {tokens} tokens, expected 0 to {MAX_TOKENS}")
        if not self._has_verdict:
            return _broken("ended without a verdict")
        return replace(part, tokens=tokens)

    def _passed_wanted(self, part: FramesWanted) -> AnswerPart:
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            return _broken(f"wanted frames more than {MAX_ROUNDS} times")
        if len(part.indices) > MAX_FRAMES_WANTED:
            return _broken(f"wanted {len(part.indices)} frames, at most {MAX_FRAMES_WANTED}")
        side_px = operator.index(part.side_px)
        if not 0 <= side_px <= MAX_SIDE_PX:
            return _broken(f"wanted frames of {side_px} pixels a side, at most {MAX_SIDE_PX}")
        if len(part.indices) * side_px**2 > MAX_WANTED_PX:
            return _broken(
                f"wanted {len(part.indices)} frames of {side_px} pixels a side, at most"
                f" {MAX_WANTED_PX} pixels in all"
            )
        indices = tuple(FrameIndex(operator.index(i)) for i in part.indices)
        return replace(part, indices=indices, side_px=side_px)

    def _passed_targets(self, part: TargetsFound) -> AnswerPart:
        fault = self._verdict_fault(part.confidence)
        if fault is not None:
            return fault
        keyframe = FrameIndex(operator.index(part.keyframe_index))
        size_wh = self._sizes.get(keyframe)
        if size_wh is None:
            return _broken(f"answered about frame {keyframe}, which it was not given")
        if not 0 < len(part.prompts) <= MAX_TARGETS:
            return _broken(f"found {len(part.prompts)} targets, expected 1 to {MAX_TARGETS}")
        try:
            prompts = tuple(prompt.checked(size_wh) for prompt in part.prompts)
            drawn = self._passed_masks(part.masks_by_frame)
        except InputError as error:
            return _broken(f"gave an unusable prompt: {error}")
        return TargetsFound(
            keyframe_index=keyframe,
            prompts=prompts,
            text=self._cut(part.text),
            confidence=float(part.confidence),
            masks_by_frame=drawn,
            num_drawn=max(1, operator.index(part.num_drawn)),
        )

    def _passed_masks(self, drawn: tuple[ObservedMask, ...]) -> tuple[ObservedMask, ...]:
        """Masks on frames that were given, each once, by frame index.

        Raises:
            InputError: a mask of another size, or of a frame that was not given.
        """
        found: dict[FrameIndex, ObservedMask] = {}
        for each in drawn:
            index = FrameIndex(operator.index(each.frame_index))
            size_wh = self._sizes.get(index)
            if size_wh is None:
                msg = f"a mask on frame {index}, which it was not given"
                raise InputError(msg)
            if (each.mask.width, each.mask.height) != size_wh:
                msg = f"a mask of {each.mask.width} x {each.mask.height} on a frame of {size_wh}"
                raise InputError(msg)
            mask_from_rle(each.mask)
            found[index] = ObservedMask(frame_index=index, mask=each.mask)
        return tuple(found[index] for index in sorted(found))

    def _verdict_fault(self, confidence: float) -> AnswerFailed | None:
        if self._has_verdict:
            return _broken("gave a second verdict")
        self._has_verdict = True
        if not math.isnan(confidence) and not 0 <= confidence <= 1:
            return _broken(f"gave the confidence {confidence}, expected 0 to 1 or NaN")
        return None

    def _cut(self, text: str) -> str:
        kept = utf8_text(text)[: self._chars_left]
        self._chars_left -= len(kept)
        return kept


def _broken(what: str) -> AnswerFailed:
    return AnswerFailed(reason=f"the reasoner broke its contract: it {what}")
