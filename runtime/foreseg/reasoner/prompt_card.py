# SPDX-License-Identifier: Apache-2.0
"""The prompt card of a trained checkpoint: in which form, on what, and in which words it was asked.

A model that is asked otherwise than it was trained answers worse, and nothing else tells so. Does
not know models or trainers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreseg.dialogue import Query, QueryId
from foreseg.errors import ConfigError, InputError
from foreseg.files import read_file
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.language.base import Message
from foreseg.methods.base import AnswerStep, Method, SampleStep, SegmentStep
from foreseg.reasoner.options import Scalar

CARD = "method.json"
ANSWER = "answer"
MAX_STEPS = 64  # of a plan
MAX_CARD_BYTES = 100_000
_SHOWN_WH = (56, 56)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCard:
    """What a checkpoint was trained with; all but the last two are options of the reasoner, too.

    Those with a default came later: older cards lack them.
    """

    method: str
    form: str
    num_frames: int  # 0: as the method has it
    image_side_px: int
    frame_pixels: int
    num_key_frames: int = 0  # videoseg; 0: as the method has it
    num_reference_frames: int = -1  # videoseg; -1: likewise
    decode_side_px: int = 0  # visa, fevos; 0: as the method has it
    labels: str = "absolute"
    tells_budget: bool = True
    trains: str = ANSWER  # or "sampler": only what is asked before the answer; or "both"
    words: str  # `words_hash` of the method

    def to_json(self) -> str:
        """As it lies in the folder."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def words_hash(method: Method) -> str:
    """A hash of a method's own words: of all that it asks about two black frames."""
    width, height = _SHOWN_WH
    frames = []
    for i in range(2):
        ref = FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(i),
            epoch=0,
            stamp_ns=i,
            received_ns=i,
            size_wh=_SHOWN_WH,
        )
        frames.append(Frame(ref=ref, image=np.zeros((height, width, 3), np.uint8)))
    window = FrameWindow(frames=tuple(frames), origin_index=FrameIndex(0))
    parts: list[str] = []
    plan = method.plan(Query(id=QueryId("card"), text="?"), window)
    sent: list[str] | None = None
    for _ in range(MAX_STEPS):
        try:
            step = plan.send(sent)
        except StopIteration:
            break
        sent = None
        if isinstance(step, SampleStep):
            sent = [""] * step.request.num_samples  # nothing useful: the plan goes on as it is
        if isinstance(step, (SampleStep, AnswerStep)):
            parts += _words(step.request.messages)
        elif isinstance(step, SegmentStep):
            parts += _words(step.request.completion.messages)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _words(messages: Sequence[Message]) -> list[str]:
    return [part for message in messages for part in message.content if isinstance(part, str)]


def read_card(folder: Path) -> PromptCard | None:
    """The card of a folder; None where it has none, as models that were never trained here.

    Raises:
        InputError: it is damaged.
    """
    path = folder / CARD
    if not path.exists():
        return None
    try:
        content = read_file(path, MAX_CARD_BYTES)
    except OSError as error:
        msg = f"{path} cannot be read: {error}"
        raise InputError(msg) from error
    return card_from_json(content, str(path))


def card_from_json(content: bytes, where: str) -> PromptCard:
    """A card as it lies in its file, whose name `where` errors tell.

    Raises:
        InputError: it is damaged.
    """
    try:
        values: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = f"{where} cannot be read: {error}"
        raise InputError(msg) from error
    if not isinstance(values, dict):
        msg = f"{where} wants a JSON object, got {type(values).__name__}"
        raise InputError(msg)
    kinds = {"str": str, "int": int, "bool": bool}
    fields = {field.name: field for field in dataclasses.fields(PromptCard)}
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if not needed <= set(values) <= set(fields) or any(
        type(value) is not kinds[str(fields[name].type)] for name, value in values.items()
    ):
        msg = f"{where} wants {', '.join(fields)}, got {', '.join(map(str, values))}"
        raise InputError(msg)
    return PromptCard(**values)


def check_trained(card: PromptCard) -> None:
    """Refuse a checkpoint that was only trained to sample, where one is to answer.

    Raises:
        ConfigError: with the way out.
    """
    if card.trains not in (ANSWER, "both"):
        msg = (
            f"this checkpoint was trained for {card.method}'s {card.trains}, and does not know how to"
            " answer: name it as the option sampler, beside a model that does"
        )
        raise ConfigError(msg)


def options_with_card(values: Mapping[str, Scalar], card: PromptCard) -> dict[str, Scalar]:
    """A reasoner's options where the card decides what they leave open.

    Raises:
        ConfigError: an option that differs from the card.
    """
    own = dataclasses.asdict(card)
    del own["words"], own["trains"]
    for name, trained in own.items():
        if name in values and values[name] != trained:
            msg = (
                f"this checkpoint was trained with {name} {trained!r}, the options say"
                f" {values[name]!r}: leave {name} away, or take another checkpoint"
            )
            raise ConfigError(msg)
    return {**values, **own}


def check_words(method: Method, card: PromptCard) -> None:
    """Refuse a checkpoint whose words are no longer this version's.

    Raises:
        ConfigError: with the way out.
    """
    if words_hash(method) != card.words:
        msg = (
            "this checkpoint was trained on other words than this version of foreseg asks in: train"
            " it again, or run it with the version it was trained with"
        )
        raise ConfigError(msg)
