# SPDX-License-Identifier: Apache-2.0
"""Language models that say what a script says, chunk by chunk; and one behind a whole reasoner."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from foreseg.language.base import Chunk, CompletionStream, LanguageModelError, LanguageRequest
from foreseg.methods.veason import VeasonMethod
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings
from foreseg.reasoner.vlm import VlmReasoner

Script = Callable[[LanguageRequest], str]


def words_of(request: LanguageRequest) -> str:
    """The text of a request's messages."""
    return "\n".join(p for m in request.messages for p in m.content if isinstance(p, str))


def labels_in(request: LanguageRequest) -> list[int]:
    """The frame labels that stand before images."""
    content = request.messages[0].content
    return [
        int(label[1:-1])
        for label, image in pairwise(content)
        if isinstance(label, str) and not isinstance(image, str)
    ]


@dataclass
class ScriptedModel:
    """Streams the script's words `step` characters at a time; one token a chunk."""

    script: Script
    step: int = 7
    log_probs: tuple[float, ...] = ()
    breaks_after: int | None = None  # chunks of a completion, then it fails
    requests: list[LanguageRequest] = field(default_factory=list)
    num_closed: int = 0  # streams that were closed before their end

    def generate(self, request: LanguageRequest) -> CompletionStream:
        self.requests.append(request)
        try:
            for sample in range(request.num_samples):
                text = self.script(request)
                for number, at in enumerate(range(0, len(text), self.step)):
                    if number == self.breaks_after:
                        msg = "the line went dead"
                        raise LanguageModelError(msg)
                    yield Chunk(
                        text=text[at : at + self.step],
                        sample=sample,
                        num_tokens=1,
                        log_probs=self.log_probs,
                    )
        except GeneratorExit:
            self.num_closed += 1
            raise


def in_turn(texts: Sequence[str]) -> Script:
    """One text after the other."""
    left = iter(texts)
    return lambda _request: next(left)


def cooperative(request: LanguageRequest) -> str:
    """Does what each template asks for, about the newest frame."""
    labels, words = labels_in(request), words_of(request)
    if "percentage" in words:
        return "<answer>60</answer>"
    if "[first, last]" in words:
        return f"<answer>[{labels[len(labels) // 2]}, {labels[-1]}]</answer>"
    target = re.search(r"The frame <(\d+)> is the target frame", words)
    if target:
        return '<think>There.</think><answer>[{"bbox_2d": [0, 0, 40, 30]}]</answer>'
    answer = f'{{"keyframe_timestamp": {labels[-1]}, "bbox_2d_list": [[0, 0, 40, 30]]}}'
    return f"<think>I see.</think><answer>{answer}</answer>"


def veason(_options: Mapping[str, str | int | float | bool]) -> VlmReasoner:
    return VlmReasoner(VeasonMethod(), ScriptedModel(cooperative))


def videoseg(_options: Mapping[str, str | int | float | bool]) -> VlmReasoner:
    return VlmReasoner(VideosegMethod(VideosegSettings.fast()), ScriptedModel(cooperative))
