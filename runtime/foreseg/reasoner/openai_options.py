# SPDX-License-Identifier: Apache-2.0
"""Builds a reasoner over an OpenAI-compatible server from named options, or from a JSON file.

The key comes from a file or an environment variable that the options name, never from them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from foreseg.errors import ConfigError
from foreseg.methods.base import Method
from foreseg.methods.grounding import Coordinates, View
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings
from foreseg.reasoner.openai_server import OpenAiServer, ServerSettings
from foreseg.reasoner.vlm import VlmReasoner

MAX_FILE_BYTES = 100_000
METHODS = ("veason", "videoseg")

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiOptions:
    """What can be said about a server, its model and the method; docs/reasoners.md explains."""

    url: str = ""
    model: str = ""
    method: str = "veason"
    fast: bool = False  # videoseg
    num_frames: int = 0  # veason; 0 = the method's own
    span_s: float = 0.0  # 0 = all that the history has
    coordinates: str = "pixels"
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
    options = options_from_values(values)
    settings = ServerSettings(
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
    return VlmReasoner(_method(options), OpenAiServer(settings))


def options_from_values(values: Mapping[str, Scalar]) -> OpenAiOptions:
    """Options by name, checked for their types.

    Raises:
        ConfigError: unknown name, or a value of another type.
    """
    known = {item.name: item.default for item in fields(OpenAiOptions)}
    for name, value in values.items():
        if name not in known:
            msg = f"the openai reasoner has the options {', '.join(known)}, got {name!r}"
            raise ConfigError(msg)
        kind = type(known[name])
        is_number = kind is float and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not kind and not is_number:
            shown = "something else" if "key" in name else repr(value)
            msg = f"the openai reasoner's {name} wants {kind.__name__}, got {shown}"
            raise ConfigError(msg)
    return replace(OpenAiOptions(), **values)  # type: ignore[arg-type]  # checked above


def values_from_file(path: str) -> Mapping[str, Scalar]:
    """Options from a JSON object; files that it names are sought beside it.

    Raises:
        ConfigError: no such file, or no JSON object of plain values.
    """
    if not path:
        msg = "the reasoner kind openai:FILE wants a JSON file of options, got none"
        raise ConfigError(msg)
    place = Path(path).expanduser()
    try:
        with place.open("rb") as file:
            value: object = json.loads(file.read(MAX_FILE_BYTES))
    except OSError as error:
        msg = f"the settings of the openai reasoner cannot be read: {error}"
        raise ConfigError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"the settings of the openai reasoner in {path!r} are no JSON: {error}"
        raise ConfigError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path!r} wants a JSON object of options, got a {type(value).__name__}"
        raise ConfigError(msg)
    values: dict[str, Scalar] = {}
    for name, item in value.items():
        if not isinstance(item, (str, int, float, bool)):
            msg = f"{path!r} wants a plain value for {name!r}, got a {type(item).__name__}"
            raise ConfigError(msg)
        is_file = name in ("api_key_file", "ca_file") and isinstance(item, str) and item
        values[name] = str(place.parent / Path(str(item)).expanduser()) if is_file else item
    return values


def _method(options: OpenAiOptions) -> Method:
    if options.method not in METHODS:
        msg = f"method wants one of {', '.join(METHODS)}, got {options.method!r}"
        raise ConfigError(msg)
    kinds = [kind.value for kind in Coordinates]
    if options.coordinates not in kinds:
        msg = f"coordinates wants one of {', '.join(kinds)}, got {options.coordinates!r}"
        raise ConfigError(msg)
    view = View(
        image_side_px=options.image_side_px,
        coordinates=Coordinates(options.coordinates),
        patch_px=options.patch_px,
    )
    span_s = options.span_s or None
    if options.method == "veason":
        if options.fast:
            msg = "fast is for the method videoseg: veason asks only once"
            raise ConfigError(msg)
        num_frames = options.num_frames or VeasonSettings().num_frames
        return VeasonMethod(VeasonSettings(num_frames=num_frames, span_s=span_s, view=view))
    if options.num_frames:
        msg = "num_frames is for the method veason: videoseg's sampler chooses its frames"
        raise ConfigError(msg)
    if options.fast:
        return VideosegMethod(VideosegSettings.fast(span_s=span_s, view=view))
    return VideosegMethod(VideosegSettings(span_s=span_s, view=view))


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
        key = Path(options.api_key_file).expanduser().read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        msg = f"api_key_file {options.api_key_file!r} cannot be read: {why}"
        raise ConfigError(msg) from None
    if not key:
        msg = f"api_key_file {options.api_key_file!r} is empty"
        raise ConfigError(msg)
    return key
