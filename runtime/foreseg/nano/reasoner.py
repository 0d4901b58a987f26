# SPDX-License-Identifier: Apache-2.0
"""Builds the reasoner `nano` from named options; docs/reasoners.md lists them.

How it is asked stands on the card in its bundle, as it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import foreseg
from foreseg.dialogue import Abstained, AnswerDone, AnswerFailed, Query, RationalePart
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow
from foreseg.language.base import LanguageModelError
from foreseg.methods.base import Method
from foreseg.methods.grounding import Coordinates
from foreseg.nano.bundle import CARD, FAMILIAR, read_nano_bundle, require_agreement
from foreseg.nano.familiar import Familiarity, familiarity_from
from foreseg.nano.language_model import OnnxLanguageModel
from foreseg.reasoner.base import AnswerStream
from foreseg.reasoner.fitted_view import FittedView
from foreseg.reasoner.options import (
    MethodOptions,
    Scalar,
    labels_from_name,
    method_from_options,
    options_from_values,
)
from foreseg.reasoner.prompt_card import PromptCard, card_from_json, check_trained, check_words
from foreseg.reasoner.vlm import VlmReasoner

SHIPPED = Path(foreseg.__file__).parent / "models" / "nano_reasoner"
MAX_THREADS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoOptions:
    """What can be said about it."""

    bundle: str = ""  # a folder; empty: the shipped one
    threads: int = 1  # of ONNX Runtime
    span_s: float = 0.0  # 0 = all that the history has
    vision_cache_mb: float = 64.0  # for frames seen lately
    only_familiar: bool = True  # abstain on pictures unlike the training's, where the bundle knows


class NanoReasoner(VlmReasoner):
    """A method over the graphs, which abstains on pictures unlike those of its training.

    Args:
        method: its plan is carried out.
        model: answers.
        view: how the method shows frames: what is looked at here is kept for its prompt.
        familiarity: None: it answers about all pictures.
        limit: of their distance.
    """

    def __init__(
        self,
        method: Method,
        model: OnnxLanguageModel,
        *,
        view: FittedView,
        familiarity: Familiarity | None = None,
        limit: float = 0.0,
    ) -> None:
        super().__init__(method, model)
        self._eye = model
        self._view = view
        self._familiarity = familiarity
        self._limit = limit

    @property
    def eye(self) -> OnnxLanguageModel:
        """The model."""
        return self._eye

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Answer, or say why these pictures are none to answer about."""
        if self._familiarity is not None and window.frames:
            looking = self._eye.seen([f.image for f in self._view.shown(window).frames])
            try:
                while True:
                    next(looking)
                    yield RationalePart(text="")
            except StopIteration as end:
                distance = self._familiarity.distance(end.value)
            except LanguageModelError as error:
                yield AnswerFailed(reason=str(error))
                return
            if not distance <= self._limit:
                reason = (
                    "these pictures are unlike the worlds that this reasoner was trained in"
                    f" (distance {distance:.2f}, it answers up to {self._limit:.2f})"
                )
                yield Abstained(reason=reason)
                yield AnswerDone()
                return
        yield from super().ask(query, window)


def nano_reasoner(values: Mapping[str, Scalar]) -> NanoReasoner:
    """Open the bundle and build the reasoner.

    Raises:
        ConfigError: for an unknown name, a value that cannot work, or no bundle.
        EngineError: a bundle that is damaged, or was changed since it was made.
        InputError: a card that is damaged.
        MissingExtraError: a package is absent.
    """
    options = options_from_values(values, NanoOptions(), "nano")
    _check(options)
    folder = _folder(options)
    bundle = read_nano_bundle(folder)
    require_agreement(bundle.manifest, folder)
    card = card_from_json(bundle.files[CARD], str(folder / CARD))
    check_trained(card)
    method, view = method_of_card(card, bundle.manifest.images.unit_px, span_s=options.span_s)
    model = OnnxLanguageModel(
        bundle,
        frame_pixels=card.frame_pixels,
        threads=options.threads,
        vision_cache_mb=options.vision_cache_mb,
    )
    limit, familiarity = bundle.manifest.familiar_limit, None
    if limit and options.only_familiar:
        channels = bundle.manifest.decoder.channels
        familiarity = familiarity_from(bundle.files[FAMILIAR], channels, str(folder / FAMILIAR))
    return NanoReasoner(method, model, view=view, familiarity=familiarity, limit=limit)


def method_of_card(
    card: PromptCard, unit_px: int, *, span_s: float = 0.0
) -> tuple[Method, FittedView]:
    """The method as a card has it, and how it is shown frames.

    Args:
        card: of a trained model.
        unit_px: of which the sides of its frames are multiples.
        span_s: of which the frames are taken; 0: of all that the history has.

    Raises:
        ConfigError: it was trained on other words than this version asks in.
    """
    view = FittedView(
        image_side_px=card.image_side_px,
        coordinates=Coordinates.PIXELS,
        patch_px=unit_px,
        labels=labels_from_name(card.labels),
        frame_pixels=card.frame_pixels,
    )
    options = MethodOptions(
        method=card.method,
        num_frames=card.num_frames,
        num_key_frames=card.num_key_frames,
        num_reference_frames=card.num_reference_frames,
        decode_side_px=card.decode_side_px,
        span_s=span_s,
        form=card.form,
        tells_budget=card.tells_budget,
    )
    method = method_from_options(options, view)
    check_words(method, card)
    return method, view


def _folder(options: NanoOptions) -> Path:
    if options.bundle:
        folder = Path(options.bundle).expanduser()
        if not folder.is_dir():
            msg = (
                f"the nano reasoner's bundle wants a folder made by `foreseg-export reasoner`, got"
                f" {options.bundle!r}"
            )
            raise ConfigError(msg)
        return folder
    if not SHIPPED.is_dir():
        msg = (
            "this foreseg ships no nano reasoner: train one (`foreseg-train nano`), export it"
            " (`foreseg-export reasoner`), and name its folder: reasoner nano:FILE with"
            ' {"bundle": "FOLDER"} in the file'
        )
        raise ConfigError(msg)
    return SHIPPED


def _check(options: NanoOptions) -> None:
    if not 1 <= options.threads <= MAX_THREADS:
        msg = f"threads wants 1 to {MAX_THREADS}, got {options.threads}"
        raise ConfigError(msg)
    for name, value in (
        ("span_s", options.span_s),
        ("vision_cache_mb", options.vision_cache_mb),
    ):
        if not 0 <= value < float("inf"):
            msg = f"{name} wants a finite number >= 0, got {value}"
            raise ConfigError(msg)
