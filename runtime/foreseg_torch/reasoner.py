# SPDX-License-Identifier: Apache-2.0
"""Builds a reasoner over a model in this process from named options; docs/reasoners.md lists them.

Frames are shown at the size at which the model reads them, so that pixels in the words and in the
answers are the model's own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from foreseg.errors import ConfigError
from foreseg.language.base import LanguageModel
from foreseg.methods.grounding import Coordinates, Shape, View
from foreseg.methods.labels import LabelForm
from foreseg.reasoner.fitted_view import FittedView
from foreseg.reasoner.options import (
    AUTO,
    SAMPLING,
    MethodOptions,
    Scalar,
    coordinates_from_name,
    labels_from_name,
    method_from_options,
    options_from_values,
)
from foreseg.reasoner.prompt_card import check_trained, check_words, options_with_card, read_card
from foreseg.reasoner.recipe import MAX_SHOWN, Recipe, chosen_recipe, options_with_recipe
from foreseg.reasoner.scene_check import caution_of
from foreseg.reasoner.vlm import VlmReasoner
from foreseg_torch.seg.language_model import SegLanguageModel
from foreseg_torch.seg.store import SEG_METHODS, LoadedSegVlm, load_seg_vlm, seg_method_of
from foreseg_torch.vlm.adapter import WithoutAdapter, load_adapter
from foreseg_torch.vlm.language_model import (
    FRAME_PIXELS,
    VISION_CACHE_MB,
    TransformersLanguageModel,
)
from foreseg_torch.vlm.loading import LoadedVlm, Precision, load_vlm
from foreseg_torch.vlm.manifest import MANIFEST_NAME, read_vlm_manifest

MAX_THREADS = 256
_LOG = logging.getLogger(__name__)
COUNTS_IN_PIXELS = ("qwen2_5_vl",)  # other families of Qwen count to 1000 over each side


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersOptions:
    """What can be said about a model, how much it may take, and the method."""

    model: str = ""  # a folder, or owner/name on the hub; visa and fevos: a folder made for them
    precision: str = AUTO  # a quantised folder's own, else the recipe's or seg.json's, else nf4
    device: str = AUTO
    method: str = "veason"
    fast: bool = False  # videoseg, visa
    num_frames: int = 0  # veason, fevos; 0 = the method's own
    num_key_frames: int = 0  # videoseg; 0 = the method's own
    num_reference_frames: int = -1  # videoseg; -1 = the method's own
    decode_side_px: int = 0  # visa, fevos: of the frames to decode; 0 = the method's own
    form: str = ""  # the only one that the model knows; "" = the method's own
    tells_budget: bool = True  # all but visa: the words say how long the thoughts may be
    keeps_to_grammar: bool = False  # veason: nothing but whole answers about frames that are shown
    labels: str = LabelForm.ABSOLUTE.value  # veason: what frame labels count
    recipe: str = AUTO  # by which a published model is asked; "auto" = as its folder or name tells
    adapter: str = ""  # a folder of PEFT's for the model; videoseg's sampler works without it
    sampler: str = ""  # videoseg, visa: a folder that samples; "" = the model, without its adapter
    span_s: float = 0.0  # 0 = all that the history has
    pins_frames: bool = False  # veason: what is shown is shown again when it is next asked
    coordinates: str = AUTO  # as the model's family counts
    image_side_px: int = 448
    frame_pixels: int = FRAME_PIXELS
    query_pixels: int = MAX_SHOWN * FRAME_PIXELS
    vision_cache_mb: float = VISION_CACHE_MB
    max_memory_mb: float = 0.0  # 0 = no limit
    threads: int = 0  # of torch; 0 = as it chooses


def transformers_reasoner(values: Mapping[str, Scalar]) -> VlmReasoner:
    """Load the model and build the reasoner.

    Raises:
        ConfigError: for an unknown name, or a value that cannot work.
        InputError: no usable model.
        EngineError: a quantised model that was changed since it was made.
        MissingExtraError: a package is absent.
    """
    options = options_from_values(values, TransformersOptions(), "transformers")
    card = read_card(Path(options.adapter or options.model))
    recipe = None
    if card is not None:
        check_trained(card)
        values = options_with_card(values, card)
        options = options_from_values(values, TransformersOptions(), "transformers")
    elif seg_method_of(Path(options.model)) is None:
        recipe = chosen_recipe(values, _names_of(options.model), default_method=options.method)
    if recipe is not None:
        names = [field.name for field in fields(TransformersOptions)]
        values = options_with_recipe(values, recipe, names)
        options = options_from_values(values, TransformersOptions(), "transformers")
    _check(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    made = _loaded(options, recipe)
    loaded = made.loaded if isinstance(made, LoadedSegVlm) else made
    view = view_of(loaded, options)
    wording = None
    if recipe is not None:
        view, wording = _view_by(recipe, view), recipe.wording
    forces = not isinstance(made, LoadedSegVlm) or made.model.head.decode.forces_token
    asked = replace(_method_options(options), forces_token=forces)
    method = method_from_options(asked, view, wording)
    if card is not None:
        check_words(method, card)
    pixels, cache_mb = view.frame_pixels, options.vision_cache_mb
    model: SegLanguageModel | TransformersLanguageModel
    if isinstance(made, LoadedSegVlm):
        model = SegLanguageModel(made, frame_pixels=pixels, vision_cache_mb=cache_mb)
    else:
        model = TransformersLanguageModel(made, frame_pixels=pixels, vision_cache_mb=cache_mb)
    caution = caution_of(Path(options.model))
    if caution:
        _LOG.warning("%s is %s", options.model, caution)
    return VlmReasoner(method, model, _sampler(options, loaded, model, pixels), caution=caution)


def _names_of(model: str) -> list[str]:
    """What a model is known as: as the options name it, and what a quantised folder was made of."""
    folder = Path(model)
    if not model or not (folder / MANIFEST_NAME).is_file():
        return [model]
    return [model, read_vlm_manifest(folder).source_name]


def _view_by(recipe: Recipe, view: FittedView) -> FittedView:
    """How frames are shown by a recipe.

    Raises:
        ConfigError: the budget of pixels would shrink what the model has only seen in one size.
    """
    view = replace(view, shape=Shape(recipe.shape))
    side = view.image_side_px
    if view.shape is Shape.SQUARE and view.frame_pixels < side**2:
        msg = (
            f"the recipe {recipe.name} shows squares of {side} px, that is {side**2} pixels, and the"
            f" options frame_pixels and query_pixels leave a frame {view.frame_pixels}: leave them"
            " away, show fewer frames, or set recipe: none"
        )
        raise ConfigError(msg)
    return view


def _sampler(
    options: TransformersOptions, loaded: LoadedVlm, model: LanguageModel, frame_pixels: int
) -> LanguageModel | None:
    """What samples: another folder's model, or this one without its adapter; None: this one."""
    base = None
    if options.adapter:
        base = WithoutAdapter(model, load_adapter(loaded, Path(options.adapter)))
    if not options.sampler:
        return base
    precision = None if options.precision == AUTO else Precision(options.precision)
    other = load_vlm(
        options.sampler,
        precision=precision,
        device=options.device,
        max_memory_mb=options.max_memory_mb,
    )
    if other.geometry.unit_px != loaded.geometry.unit_px:
        msg = (
            f"the sampler reads frames in steps of {other.geometry.unit_px} px, the model of"
            f" {loaded.geometry.unit_px}: take one of the same family"
        )
        raise ConfigError(msg)
    return TransformersLanguageModel(
        other, frame_pixels=frame_pixels, vision_cache_mb=options.vision_cache_mb
    )


def _method_options(options: TransformersOptions) -> MethodOptions:
    known = {field.name for field in fields(options)}  # the others are the folder's to say
    names = [field.name for field in fields(MethodOptions) if field.name in known]
    return MethodOptions(**{name: getattr(options, name) for name in names})


def _loaded(options: TransformersOptions, recipe: Recipe | None) -> LoadedVlm | LoadedSegVlm:
    """The model; for a [SEG] method one that was made for it."""
    _check_made_for(options)
    precision = None if options.precision == AUTO else Precision(options.precision)
    limit_mb = options.max_memory_mb
    if options.method not in SEG_METHODS:
        return load_vlm(
            options.model,
            precision=precision,
            otherwise=Precision.NF4 if recipe is None else Precision(recipe.precision),
            device=options.device,
            max_memory_mb=limit_mb,
        )
    return load_seg_vlm(
        Path(options.model), precision=precision, device=options.device, max_memory_mb=limit_mb
    )


def _check_made_for(options: TransformersOptions) -> None:
    """A folder and a method that do not fit, before anything large is loaded.

    Raises:
        ConfigError: they do not fit.
    """
    method = seg_method_of(Path(options.model))
    if method is None and options.method in SEG_METHODS:
        msg = (
            f"the method {options.method} wants a folder made for it by `foreseg-export seg`,"
            f" {options.model!r} is none: what Sa2VA's code exported is converted by"
            " `foreseg-export seg --from`"
        )
        raise ConfigError(msg)
    if method not in (None, options.method):
        msg = f"{options.model} was made for the method {method}, got {options.method!r}"
        raise ConfigError(msg)


def view_of(loaded: LoadedVlm, options: TransformersOptions) -> FittedView:
    """How a loaded model is shown frames; see `fitted_view`."""
    return fitted_view(loaded.model.config.model_type, loaded.geometry.unit_px, options)


def fitted_view(model_type: str, unit_px: int, options: TransformersOptions) -> FittedView:
    """How frames are shown, so that no request goes beyond its budget of pixels.

    Args:
        model_type: as the model's configuration names its family, which decides how it counts.
        unit_px: sides of an image are multiples of this.
        options: sizes and budgets.

    Raises:
        ConfigError: the budget is less than one token a frame.
    """
    shown = options.num_frames or MAX_SHOWN
    frame_pixels = min(options.frame_pixels, options.query_pixels // shown)
    if frame_pixels < unit_px**2:
        msg = (
            f"frame_pixels {options.frame_pixels} and query_pixels {options.query_pixels} leave"
            f" each of {shown} frames {frame_pixels} pixels, wanted are at least {unit_px**2}"
        )
        raise ConfigError(msg)
    in_pixels = model_type in COUNTS_IN_PIXELS
    own = Coordinates.PIXELS if in_pixels else Coordinates.MILLI
    return FittedView(
        image_side_px=options.image_side_px,
        coordinates=own if options.coordinates == AUTO else Coordinates(options.coordinates),
        patch_px=unit_px,
        labels=labels_from_name(options.labels),
        frame_pixels=frame_pixels,
    )


def _check(options: TransformersOptions) -> None:
    """What can be told before a large model is loaded."""
    if not options.model:
        msg = "the transformers reasoner wants a model: a folder, or owner/name on the model hub"
        raise ConfigError(msg)
    precisions = [AUTO, *(precision.value for precision in Precision)]
    if options.precision not in precisions:
        msg = f"precision wants one of {', '.join(precisions)}, got {options.precision!r}"
        raise ConfigError(msg)
    if options.coordinates != AUTO:
        coordinates_from_name(options.coordinates)
    if not 0 <= options.threads <= MAX_THREADS:
        msg = f"threads wants 0 to {MAX_THREADS}, got {options.threads}"
        raise ConfigError(msg)
    for name in ("max_memory_mb", "vision_cache_mb", "span_s"):
        value = getattr(options, name)
        if not 0 <= value < float("inf"):
            msg = f"{name} wants a finite number >= 0, got {value}"
            raise ConfigError(msg)
    view = View(
        image_side_px=options.image_side_px,
        labels=labels_from_name(options.labels),
    )
    method_from_options(_method_options(options), view)
    if options.sampler and options.method not in SAMPLING:
        msg = f"a sampler is for the methods {' and '.join(SAMPLING)}, got {options.method}"
        raise ConfigError(msg)
    if options.adapter and options.method in SEG_METHODS:
        msg = f"an adapter is for a method that answers in text, got {options.method}"
        raise ConfigError(msg)
