# SPDX-License-Identifier: Apache-2.0
"""From nothing to rows: draw recordings, make the tokenizer, teach the tower, keep what it sees.

Leaves `start/` (a model folder whose tower sees), `frames.npy`, `lessons.jsonl`, `rows.jsonl` and
`held_out.jsonl`.
Does not know: how the language model is trained.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from foreseg.language.base import Message
from foreseg.language.images import ImageGeometry
from foreseg.methods.grammar import Form
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.reasoner.fitted_view import FittedView
from foreseg.reasoner.prompt_card import CARD, PromptCard, words_hash
from foreseg_simulation.worlds import World
from foreseg_torch.vlm.loading import vlm_parts
from foreseg_torch.vlm.vision_inputs import prompt_from_messages

from .architecture import NanoReasonerConfig, build_nano_reasoner, save_nano_reasoner
from .dense import DenseConfig, encoded, train_tower
from .features import FrameStore
from .questions import Asked, asked_about, lessons_about, phrases_prompts
from .recordings import Recorder, Recording
from .tokenizer import END, phrases_of, train_tokenizer

_LOG = logging.getLogger(__name__)
FORM_SHARES: Mapping[Form, int] = {Form.THINK_FIRST: 3, Form.ANSWER_FIRST: 1, Form.ANSWER_ONLY: 1}
"""Of five questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Numbers of the stage.

    Attributes:
        num_recordings: drawn, one of each scene in turn.
        num_held_out: of them, the last ones, which are never learnt from.
        num_lessons: short questions of each recording, to begin with.
        frame_pixels: at which frames are read, at most.
        num_frames: of a prompt, at most.
    """

    worlds: tuple[World, ...] = (World.SHAPES, World.TABLETOP)
    num_recordings: int = 608
    num_held_out: int = 19
    num_clips: int = 30
    num_lessons: int = 40
    size_wh: tuple[int, int] = (224, 168)
    image_side_px: int = 224
    frame_pixels: int = 168 * 140
    num_frames: int = 12
    model: NanoReasonerConfig = field(default_factory=NanoReasonerConfig)
    dense: DenseConfig = field(default_factory=DenseConfig)
    seed: int = 0

    def method(self, form: Form | None) -> VeasonMethod:
        """As it will run on the robot; None: in the form that a query wants."""
        unit = 2 * self.model.patch_px
        view = FittedView(
            image_side_px=self.image_side_px, patch_px=unit, frame_pixels=self.frame_pixels
        )
        settings = VeasonSettings(
            num_frames=self.num_frames, form=form, view=view, tells_budget=False
        )
        return VeasonMethod(settings)


def prepare(preparation: Preparation, out: Path) -> None:
    """Do all of it; what is there already is made anew."""
    recorder = Recorder(
        worlds=preparation.worlds, size_wh=preparation.size_wh, num_clips=preparation.num_clips
    )
    numbers = range(preparation.num_recordings)
    drawn = recorder.record(preparation.seed, numbers)
    recordings = list(tqdm(drawn, total=len(numbers), unit="recording", disable=None))
    methods = _methods(preparation)
    rng = np.random.default_rng([preparation.seed, 5])
    asked = [list(asked_about(recording, methods, rng)) for recording in recordings]
    _LOG.info("%d recordings, %d questions", len(recordings), sum(map(len, asked)))
    tokenizer = _tokenizer(preparation, methods, asked)
    model = build_nano_reasoner(preparation.model, tokenizer, preparation.seed)
    start = out / "start"
    save_nano_reasoner(model, tokenizer, start)
    geometry = vlm_parts(start).geometry
    learnt = recordings[: len(recordings) - preparation.num_held_out]
    train_tower(model, geometry, preparation.frame_pixels, learnt, preparation.dense)
    save_nano_reasoner(model, tokenizer, start)
    _write_card(preparation, start)
    _write_rows(preparation, out, recordings, asked, tokenizer, model, geometry)


def _methods(preparation: Preparation) -> list[VeasonMethod]:
    """Each form as often as its share."""
    return [preparation.method(form) for form, n in FORM_SHARES.items() for _ in range(n)]


def _write_card(preparation: Preparation, folder: Path) -> None:
    card = PromptCard(
        method=VeasonMethod.name,
        form="",  # it knows all of them
        num_frames=preparation.num_frames,
        image_side_px=preparation.image_side_px,
        frame_pixels=preparation.frame_pixels,
        tells_budget=False,
        words=words_hash(preparation.method(None)),
    )
    (folder / CARD).write_text(card.to_json(), "utf-8")


def _tokenizer(
    preparation: Preparation, methods: Sequence[VeasonMethod], asked: Sequence[Sequence[Asked]]
) -> Any:  # noqa: ANN401 (of transformers)
    frames = preparation.num_frames
    fixed = [
        prompt
        for count in range(1, frames + 1)
        for prompt in phrases_prompts(methods, count, preparation.size_wh)
    ]
    texts = [
        text
        for group in asked
        for one in group
        for text in (*_words(one.messages), one.completion)
    ]
    return train_tokenizer(texts, phrases_of(fixed))


def _words(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        yield from (part for part in message.content if isinstance(part, str))


def _write_rows(
    preparation: Preparation,
    out: Path,
    recordings: Sequence[Recording],
    asked: Sequence[Sequence[Asked]],
    tokenizer: Any,  # noqa: ANN401
    model: Any,  # noqa: ANN401
    geometry: ImageGeometry,
) -> None:
    """Rows of all questions, and the tokens of those frames that they show."""
    places = _store_frames(preparation, out, recordings, asked, model, geometry)
    first_held_out = len(recordings) - preparation.num_held_out
    wh = geometry.fitted_wh(preparation.size_wh, preparation.frame_pixels)
    num_tokens = wh[0] * wh[1] // geometry.unit_px**2
    rng = np.random.default_rng([preparation.seed, 9])
    methods = _methods(preparation)
    with (
        (out / "lessons.jsonl").open("w", encoding="utf-8") as lessons,
        (out / "rows.jsonl").open("w", encoding="utf-8") as learnt,
        (out / "held_out.partial").open("w", encoding="utf-8") as held_out,
    ):
        for number, (recording, group) in enumerate(zip(recordings, asked, strict=True)):
            is_learnt = number < first_held_out
            for one in group:
                row = _row(one, places[number], tokenizer, geometry, num_tokens)
                (learnt if is_learnt else held_out).write(json.dumps(row) + "\n")
            shots = sorted(places[number])
            if is_learnt and shots:
                for one in lessons_about(recording, methods, rng, shots, preparation.num_lessons):
                    row = _row(one, places[number], tokenizer, geometry, num_tokens)
                    lessons.write(json.dumps(row) + "\n")
    (out / "held_out.partial").replace(out / "held_out.jsonl")  # last: it says that all is there


def _store_frames(
    preparation: Preparation,
    out: Path,
    recordings: Sequence[Recording],
    asked: Sequence[Sequence[Asked]],
    model: Any,  # noqa: ANN401
    geometry: ImageGeometry,
) -> list[dict[int, int]]:
    """Keep the tokens of all frames that are shown; where in the file each recording's shots are."""
    used = [sorted({shot for one in group for shot in one.shots}) for group in asked]
    places: list[dict[int, int]] = []
    for numbers in used:
        first = sum(map(len, places))
        places.append({shot: first + i for i, shot in enumerate(numbers)})
    shots = [r.shots[i] for r, numbers in zip(recordings, used, strict=True) for i in numbers]
    seen = encoded(model, geometry, preparation.frame_pixels, shots)
    store: FrameStore | None = None
    for number, tokens in enumerate(tqdm(seen, total=len(shots), unit="frame", disable=None)):
        if store is None:
            store = FrameStore(out / "frames.npy", (len(shots), *tokens.shape))
        store.array[number] = tokens
    return places


def _row(
    one: Asked,
    places: Mapping[int, int],
    tokenizer: Any,  # noqa: ANN401
    geometry: ImageGeometry,
    num_tokens: int,
) -> dict[str, Any]:
    text = prompt_from_messages(one.messages, tokenizer, geometry)
    whole = text.replace(geometry.image_token, geometry.image_token * num_tokens)
    prompt = tokenizer(whole, add_special_tokens=False).input_ids
    said = tokenizer(one.completion + END, add_special_tokens=False).input_ids
    return {
        "input_ids": prompt + said,
        "num_prompt": len(prompt),
        "frames": [places[shot] for shot in one.shots],
    }
