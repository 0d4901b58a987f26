# SPDX-License-Identifier: Apache-2.0
"""Builds the reasoner `nano` from named options; docs/reasoners.md lists them.

How it is asked stands on the card in its bundle, as it was trained.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import foreseg
from foreseg.dialogue import (
    Abstained,
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    Query,
    RationalePart,
)
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow
from foreseg.language.base import LanguageModelError
from foreseg.methods.base import Method
from foreseg.methods.grounding import Coordinates
from foreseg.nano.bundle import (
    CALIBRATION,
    CARD,
    FAMILIAR,
    read_nano_bundle,
    require_agreement,
)
from foreseg.nano.familiar import Familiarity, FamiliarLimits, familiarity_from
from foreseg.nano.language_model import OnnxLanguageModel
from foreseg.reasoner.base import AnswerStream, Reasoner, ReasonerSpec
from foreseg.reasoner.calibration import Calibration, calibrated_stream, read_calibration
from foreseg.reasoner.fitted_view import FittedView
from foreseg.reasoner.handover import handed_over
from foreseg.reasoner.load import build_reasoner
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
    form: str = ""  # the only one that is asked for; empty: think-first, or as a query wants
    num_frames: int = 0  # shown at most; 0 = as in its training, and no more than there
    span_s: float = 0.0  # 0 = all that the history has
    pins_frames: bool = False  # what is shown is shown again when it is next asked
    vision_cache_mb: float = 64.0  # for frames seen lately
    only_familiar: bool = (
        True  # on pictures unlike the training's, where the bundle knows: hand over
    )
    otherwise: str = "kinematic"  # the kind that then answers; empty: nobody, it abstains


class NanoReasoner(VlmReasoner):
    """A method over the graphs, which leaves what is unlike its training to another reasoner.

    Args:
        method: its plan is carried out.
        model: answers.
        view: how the method shows frames: what is looked at here is kept for its prompt.
        familiar: what it knows of its pictures, and up to where it answers; None: about all.
        otherwise: answers about those beyond it; None: nobody does, and it abstains.
        calibration: of the confidence of its own answers.
    """

    def __init__(
        self,
        method: Method,
        model: OnnxLanguageModel,
        *,
        view: FittedView,
        familiar: tuple[Familiarity, FamiliarLimits] | None = None,
        otherwise: Reasoner | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        super().__init__(method, model)
        self._eye = model
        self._view = view
        self._familiar = familiar
        self._otherwise = otherwise
        self._calibration = calibration

    @property
    def eye(self) -> OnnxLanguageModel:
        """The model."""
        return self._eye

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Answer, or say why question or pictures are none to answer about, and hand over."""
        if self._familiar is not None and window.frames:
            try:
                strange = yield from self._strange(*self._familiar, query, window)
            except LanguageModelError as error:
                yield AnswerFailed(reason=str(error))
                return
            if strange and self._otherwise is not None:
                yield from handed_over(self._otherwise, query, window, strange)
                return
            if strange:
                yield Abstained(reason=strange)
                yield AnswerDone()
                return
        own = super().ask(query, window)
        yield from own if self._calibration is None else calibrated_stream(own, self._calibration)

    def _strange(
        self,
        familiarity: Familiarity,
        limits: FamiliarLimits,
        query: Query,
        window: FrameWindow,
    ) -> Generator[AnswerPart, None, str]:
        """Why this is nothing that it was trained for; "" if it is."""
        words = self._eye.unread_words(query.text)
        if words:
            shown = ", ".join(repr(word[:20]) for word in words[:3])
            return f"this reasoner never read the word{'s' * (len(words) > 1)} {shown}"
        looking = self._eye.seen([f.image for f in self._view.shown(window).frames])
        try:
            while True:
                next(looking)
                yield RationalePart(text="")
        except StopIteration as end:
            why = limits.broken_by(familiarity.strangeness(end.value))
        if not why:
            return ""
        return f"these pictures are unlike the worlds that this reasoner was trained in ({why})"


def nano_reasoner(values: Mapping[str, Scalar]) -> NanoReasoner:
    """Open the bundle and build the reasoner.

    Raises:
        ConfigError: for an unknown name, a value that cannot work, no bundle, or a calibration that is none.
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
    method, view = method_of_card(
        card,
        bundle.manifest.images.unit_px,
        span_s=options.span_s,
        form=options.form,
        num_frames=options.num_frames,
        pins_frames=options.pins_frames,
    )
    model = OnnxLanguageModel(
        bundle,
        frame_pixels=card.frame_pixels,
        threads=options.threads,
        vision_cache_mb=options.vision_cache_mb,
    )
    limits, familiar = bundle.manifest.familiar, None
    if limits is not None and options.only_familiar:
        channels = bundle.manifest.decoder.channels
        known = familiarity_from(bundle.files[FAMILIAR], channels, str(folder / FAMILIAR))
        familiar = known, limits
    other = build_reasoner(ReasonerSpec(kind=options.otherwise)) if options.otherwise else None
    calibration = read_calibration(folder / CALIBRATION) if CALIBRATION in bundle.files else None
    return NanoReasoner(
        method,
        model,
        view=view,
        familiar=familiar,
        otherwise=other,
        calibration=calibration,
    )


def method_of_card(
    card: PromptCard,
    unit_px: int,
    *,
    span_s: float = 0.0,
    pins_frames: bool = False,
    form: str = "",
    num_frames: int = 0,
) -> tuple[Method, FittedView]:
    """The method as a card has it, and how it is shown frames.

    Args:
        card: of a trained model.
        unit_px: of which the sides of its frames are multiples.
        span_s: of which the frames are taken; 0: of all that the history has.
        form: the only one to ask for, where the model knows several; empty: any.
        num_frames: shown at most; 0: as in training.
        pins_frames: whether they stay at their places from asking to asking.

    Raises:
        ConfigError: it was trained on other words than this version asks in, in one other form, or
            with fewer frames.
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
        pins_frames=pins_frames,
        form=card.form,
        tells_budget=card.tells_budget,
        keeps_to_grammar=True,
    )
    method = method_from_options(options, view)
    check_words(method, card)
    if card.form and form not in ("", card.form):
        msg = (
            f"form wants {card.form}, the only one that this reasoner was trained in, got {form!r}"
        )
        raise ConfigError(msg)
    if not 0 <= num_frames <= card.num_frames:
        msg = f"num_frames wants 0 to {card.num_frames}, as in its training, got {num_frames}"
        raise ConfigError(msg)
    if form or num_frames:
        chosen = replace(options, form=form or card.form, num_frames=num_frames or card.num_frames)
        method = method_from_options(chosen, view)
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
