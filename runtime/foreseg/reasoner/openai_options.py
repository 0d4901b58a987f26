# SPDX-License-Identifier: Apache-2.0
"""Builds a reasoner over an OpenAI-compatible server from named options.

The key comes from a file or an environment variable that the options name, never from them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from foreseg.errors import ConfigError
from foreseg.files import read_file
from foreseg.language.openai_server import OpenAiServer, ServerSettings
from foreseg.methods.base import Method
from foreseg.methods.grounding import Coordinates, Shape, View
from foreseg.methods.labels import LabelForm
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
from foreseg.reasoner.recipe import Recipe, chosen_recipe, options_with_recipe
from foreseg.reasoner.vlm import VlmReasoner

MAX_KEY_BYTES = 10_000
# Qwen2-VL and Qwen3-VL count to 1000 over each side, the one between them does not.
_COUNTS_TO_1000 = re.compile(r"qwen|qvq|internvl|glm-?\d[\w.]*v", re.IGNORECASE)
_COUNTS_IN_PIXELS = re.compile(r"qwen[ _-]?2[._-]?5", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiOptions:
    """What can be said about a server, its model and the method; docs/reasoners.md explains."""

    url: str = ""
    model: str = ""
    method: str = "veason"
    fast: bool = False  # videoseg
    num_frames: int = 0  # veason; 0 = the method's own
    num_key_frames: int = 0  # videoseg; 0 = the method's own
    num_reference_frames: int = -1  # videoseg; -1 = the method's own
    span_s: float = 0.0  # 0 = all that the history has
    pins_frames: bool = False  # veason: what is shown is shown again when it is next asked
    form: str = ""  # the only one that the model knows; "" = the method's own
    tells_budget: bool = True  # the words say how long the thoughts may be
    labels: str = LabelForm.ABSOLUTE.value  # veason: what frame labels count
    recipe: str = AUTO  # by which a published model is asked; "auto" = as its name tells
    sampler: str = ""  # videoseg: the server's name of a model that samples; "" = `model`
    coordinates: str = AUTO  # as the model's name tells
    image_side_px: int = 448
    patch_px: int = 28
    api_key_file: str = ""
    api_key_env: str = ""
    timeout_s: float = 60.0
    connect_timeout_s: float = 5.0
    num_retries: int = 3
    retry_wait_s: float = 0.5
    ca_file: str = ""
    verify_tls: bool = True


def openai_reasoner(values: Mapping[str, Scalar]) -> VlmReasoner:
    """Build the reasoner; the server is not asked for anything yet.

    Raises:
        ConfigError: for an unknown name, a value that cannot work, or a key that is not there.
    """
    options = options_from_values(values, OpenAiOptions(), "openai")
    recipe = chosen_recipe(values, [options.model], default_method=options.method)
    if recipe is not None:
        names = [field.name for field in fields(OpenAiOptions)]
        values = options_with_recipe(values, recipe, names)
        options = options_from_values(values, OpenAiOptions(), "openai")
    settings = server_settings(options)
    sampler = None
    if options.sampler:
        if options.method not in SAMPLING:
            msg = f"a sampler is for the method videoseg, got {options.method}"
            raise ConfigError(msg)
        sampler = OpenAiServer(replace(settings, model=options.sampler))
    return VlmReasoner(_method(options, recipe), OpenAiServer(settings), sampler)


def server_settings(options: OpenAiOptions) -> ServerSettings:
    """Which server the options name, with its key.

    Raises:
        ConfigError: a value that cannot work, or a key that is not there.
    """
    return ServerSettings(
        url=options.url,
        model=options.model,
        api_key=_api_key(options),
        timeout_s=options.timeout_s,
        connect_timeout_s=options.connect_timeout_s,
        num_retries=options.num_retries,
        retry_wait_s=options.retry_wait_s,
        ca_file=options.ca_file,
        verify_tls=options.verify_tls,
    )


def _method(options: OpenAiOptions, recipe: Recipe | None) -> Method:
    view = View(
        image_side_px=options.image_side_px,
        coordinates=coordinates_of(options.coordinates, options.model),
        patch_px=options.patch_px,
        labels=labels_from_name(options.labels),
        shape=Shape.ASPECT if recipe is None else Shape(recipe.shape),
    )
    own = {field.name for field in fields(OpenAiOptions)}  # a server decodes no masks
    names = [field.name for field in fields(MethodOptions) if field.name in own]
    values = {name: getattr(options, name) for name in names}
    wording = None if recipe is None else recipe.wording
    return method_from_options(MethodOptions(**values), view, wording)


def coordinates_of(name: str, model: str) -> Coordinates:
    """How a model counts places; "auto": as its family does, by the model's name.

    Raises:
        ConfigError: in no known way.
    """
    if name != AUTO:
        return coordinates_from_name(name)
    is_milli = _COUNTS_TO_1000.search(model) and not _COUNTS_IN_PIXELS.search(model)
    return Coordinates.MILLI if is_milli else Coordinates.PIXELS


def _api_key(options: OpenAiOptions) -> str:
    """The key, from where the options say; no message ever shows it."""
    if options.api_key_file and options.api_key_env:
        msg = "give api_key_file or api_key_env, not both"
        raise ConfigError(msg)
    if options.api_key_env:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            msg = f"api_key_env: the environment variable {options.api_key_env!r} is not set"
            raise ConfigError(msg)
        return key
    if not options.api_key_file:
        return ""
    try:
        place = Path(options.api_key_file).expanduser()
        key = read_file(place, MAX_KEY_BYTES).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        msg = f"api_key_file {options.api_key_file!r} cannot be read: {why}"
        raise ConfigError(msg) from None
    if not key:
        msg = f"api_key_file {options.api_key_file!r} is empty"
        raise ConfigError(msg)
    return key
