# SPDX-License-Identifier: Apache-2.0
"""A scripted model that can segment: [SEG] in its script is the token, and its masks are given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from foreseg.frames import Frame
from foreseg.language.base import Chunk, Segmented, SegmentRequest, SegmentStream
from foreseg.masks import Mask
from foreseg.methods.fevos import FevosMethod
from foreseg.methods.sa2va import Sa2vaMethod
from foreseg.methods.seg_answers import TOKEN
from foreseg.methods.visa import VisaMethod, VisaSettings
from foreseg.reasoner.vlm import VlmReasoner
from tests.support.language_models import ScriptedModel, in_turn

Painter = Callable[[Frame, int], tuple[Mask, float]]
"""The mask of a frame for the n-th token, and its quality."""


def box_mask(frame: Frame, x0: int, y0: int, x1: int, y1: int) -> Mask:
    width, height = frame.ref.size_wh
    mask = np.zeros((height, width), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def upper_left(frame: Frame, number: int) -> tuple[Mask, float]:
    """A quarter of the frame, lower for later tokens; newer frames are a little better."""
    width, height = frame.ref.size_wh
    top = min(number, height - 1)
    mask = box_mask(frame, 0, top, max(1, width // 2), max(top + 1, height // 2))
    return mask, 0.5 + min(int(frame.index), 400) / 1000


@dataclass
class ScriptedSegmenter(ScriptedModel):
    """One token a chunk, as its parent; `segment` says the token and what the request adds."""

    paint: Painter = upper_left
    segmented: list[SegmentRequest] = field(default_factory=list)
    cuts: bool = False  # the completion ends because its tokens are used up

    def segment(self, request: SegmentRequest) -> SegmentStream:
        self.segmented.append(request)
        self.requests.append(request.completion)
        text, number = self.script(request.completion), 0
        ending = ""
        if TOKEN not in text and request.ending is not None:
            ending = request.ending(text)
        try:
            for part, is_forced in ((text, False), (ending, True)):
                for piece in re.split(f"({re.escape(TOKEN)})", part):
                    if piece == TOKEN:
                        yield Chunk(num_tokens=1, log_probs=self.log_probs)
                        drawn = [self.paint(frame, number) for frame in request.frames]
                        yield Segmented(
                            masks=tuple(mask for mask, _ in drawn),
                            qualities=tuple(quality for _, quality in drawn),
                            is_forced=is_forced,
                        )
                        number += 1
                        continue
                    for at in range(0, len(piece), self.step):
                        yield Chunk(
                            text=piece[at : at + self.step], num_tokens=1, log_probs=self.log_probs
                        )
            if self.cuts:
                yield Chunk(is_cut=True)
        except GeneratorExit:
            self.num_closed += 1
            raise


def saying(*texts: str, paint: Painter = upper_left) -> ScriptedSegmenter:
    """One text after the other, completions of samplers included."""
    return ScriptedSegmenter(in_turn(texts), paint=paint)


def _cooperative(request: object) -> str:
    if getattr(request, "temperature", 0.0) > 0 or getattr(request, "max_tokens", 0) == 32:
        return "<answer>60%</answer>"
    return f"<think>It leans.</think><answer>It is {TOKEN}.</answer>"


def visa(_options: Mapping[str, str | int | float | bool]) -> VlmReasoner:
    return VlmReasoner(VisaMethod(VisaSettings(num_answers=3)), ScriptedSegmenter(_cooperative))


def sa2va(_options: Mapping[str, str | int | float | bool]) -> VlmReasoner:
    return VlmReasoner(Sa2vaMethod(), ScriptedSegmenter(_cooperative))


def fevos(_options: Mapping[str, str | int | float | bool]) -> VlmReasoner:
    return VlmReasoner(FevosMethod(), ScriptedSegmenter(_cooperative))
