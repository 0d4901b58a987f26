# SPDX-License-Identifier: Apache-2.0
"""A tiny nano reasoner of random weights, as a folder with its card, and as the bundle made of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from foreseg.dialogue import QueryId
from foreseg.methods.grounding import Coordinates
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.reasoner.fitted_view import FittedView
from foreseg.reasoner.prompt_card import CARD, PromptCard, words_hash
from foreseg_export.reasoner import ReasonerExportOptions, export_reasoner
from foreseg_export.vlm_quality import drawn_set
from foreseg_training.nano.architecture import (
    NanoReasonerConfig,
    build_nano_reasoner,
    save_nano_reasoner,
)
from foreseg_training.nano.tokenizer import ANSWER_PHRASES, train_tokenizer
from tests.support.once import made_once

TINY = NanoReasonerConfig(width=64, vision_width=64, vision_layers=2, text_layers=2)
FRAME_PIXELS = 168 * 140
QUERY = QueryId("a")


def save_tiny_nano(folder: Path, *, seed: int = 0, vocab_size: int = 700) -> Path:
    """A folder as `foreseg-train nano` leaves it; what it says depends on what it sees."""
    words = ["what will fall next?", "which one leaves the picture first?", "it is the red one"]
    tokenizer = train_tokenizer(words * 4, [*ANSWER_PHRASES], vocab_size=vocab_size)
    model = build_nano_reasoner(TINY, tokenizer, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    save_nano_reasoner(model.eval(), tokenizer, folder)
    (folder / CARD).write_text(card().to_json(), "utf-8")
    return folder


def card(**changes: Any) -> PromptCard:
    view = FittedView(
        image_side_px=224, coordinates=Coordinates.PIXELS, patch_px=28, frame_pixels=FRAME_PIXELS
    )
    method = VeasonMethod(VeasonSettings(num_frames=4, view=view, tells_budget=False))
    made = PromptCard(
        method="veason",
        form="",
        num_frames=4,
        image_side_px=224,
        frame_pixels=FRAME_PIXELS,
        tells_budget=False,
        words=words_hash(method),
    )
    return dataclasses.replace(made, **changes)


def tiny_nano() -> Path:
    """The folder, made once a test run; for reading only."""
    return made_once("tiny_nano", save_tiny_nano)


def tiny_nano_bundle() -> Path:
    """Its bundle in float32, made once a test run; for reading only."""
    return made_once("tiny_nano_bundle", lambda folder: _export(tiny_nano(), folder))


def reading_nano_bundle() -> Path:
    """Likewise, of one to which the words of its texts are one token each."""

    def make(folder: Path) -> None:
        model = save_tiny_nano(folder.with_name(f"{folder.name}_model"), vocab_size=1100)
        _export(model, folder)

    return made_once("reading_nano_bundle", make)


def _export(model: Path, folder: Path) -> None:
    options = ReasonerExportOptions(name="tiny", precision="fp32", max_tokens=8)
    asked = dataclasses.replace(drawn_set(), queries=("what will fall next?",))
    export_reasoner(model, folder, options, asked)
