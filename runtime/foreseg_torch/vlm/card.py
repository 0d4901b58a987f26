# SPDX-License-Identifier: Apache-2.0
"""The prompt card of a trained checkpoint: in which form, on what, and in which words it was asked.

A model that is asked otherwise than it was trained answers worse, and nothing else tells so. Does
not know models or trainers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreseg.dialogue import Query, QueryId
from foreseg.errors import ConfigError, InputError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.methods.base import AnswerStep, Method
from foreseg.reasoner.options import Scalar
from foreseg_torch.json_file import read_json_object

CARD = "method.json"
_SHOWN_WH = (56, 56)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCard:
    """What a checkpoint was trained with; the first five are options of the reasoner, too."""

    method: str
    form: str
    num_frames: int
    image_side_px: int
    frame_pixels: int
    words: str  # `words_hash` of the method

    def to_json(self) -> str:
        """As it lies in the folder."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"


def words_hash(method: Method) -> str:
    """A hash of a method's own words: of what it asks about two black frames."""
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
    step = next(method.plan(Query(id=QueryId("card"), text="?"), window))
    if not isinstance(step, AnswerStep):
        msg = f"a prompt card wants a method that asks once, got {method.name}"
        raise ConfigError(msg)
    parts = [part for m in step.request.messages for part in m.content if isinstance(part, str)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def read_card(folder: Path) -> PromptCard | None:
    """The card of a folder; None where it has none, as models that were never trained here.

    Raises:
        InputError: it is damaged.
    """
    if not (folder / CARD).exists():
        return None
    values = read_json_object(folder / CARD)
    fields = {
        field.name: str if field.type == "str" else int for field in dataclasses.fields(PromptCard)
    }
    if set(values) != set(fields) or any(
        type(value) is not fields[name] for name, value in values.items()
    ):
        msg = f"{folder / CARD} wants {', '.join(fields)}, got {', '.join(map(str, values))}"
        raise InputError(msg)
    return PromptCard(**values)


def options_with_card(values: Mapping[str, Scalar], card: PromptCard) -> dict[str, Scalar]:
    """A reasoner's options where the card decides what they leave open.

    Raises:
        ConfigError: an option that differs from the card.
    """
    own = dataclasses.asdict(card)
    del own["words"]
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
