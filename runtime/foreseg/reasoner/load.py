# SPDX-License-Identifier: Apache-2.0
"""Builds a reasoner from its spec.

A kind is the name of one of our own ("kinematic", "nano", "openai", "transformers") or of an entry point in
the group `foreseg.reasoners`; "NAME:FILE" with its options in a JSON file; or "module:attribute".
All lead to a factory `(options) -> Reasoner`, which raises `ConfigError` for options that cannot
work. A kind is the operator's; it never comes from a query.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from foreseg.errors import ConfigError, MissingExtraError
from foreseg.files import user_path
from foreseg.reasoner.base import Reasoner, ReasonerSpec
from foreseg.reasoner.calibration import CalibratedReasoner, read_calibration
from foreseg.reasoner.options import values_from_file

ENTRY_POINT_GROUP = "foreseg.reasoners"
# Our own are found without the metadata of an installation; torch is loaded only if asked for.
OWN = {
    "kinematic": "foreseg.kinematic.reasoner:kinematic_reasoner",
    "nano": "foreseg.nano.reasoner:nano_reasoner",
    "openai": "foreseg.reasoner.openai_options:openai_reasoner",
    "transformers": "foreseg_torch.reasoner:transformers_reasoner",
}
OWN_EXTRAS = {"transformers": "vlm"}

Options = Mapping[str, str | int | float | bool]
ReasonerFactory = Callable[[Options], Reasoner]


def build_reasoner(spec: ReasonerSpec) -> Reasoner:
    """Build the reasoner that a spec names.

    Raises:
        ConfigError: for an unknown kind, or options that do not suit it.
    """
    reasoner = _factory(spec.kind)(spec.options)
    if not callable(getattr(reasoner, "ask", None)) or not hasattr(reasoner, "window_policy"):
        msg = (
            f"reasoner kind {spec.kind!r} wants to build something with `ask` and"
            f" `window_policy`, got a {type(reasoner).__name__}"
        )
        raise ConfigError(msg)
    if spec.calibration:
        return CalibratedReasoner(reasoner, read_calibration(user_path(spec.calibration)))
    return reasoner


def known_kinds() -> tuple[str, ...]:
    """The kinds that can be named without a module, sorted."""
    return tuple(sorted({*OWN, *entry_points(group=ENTRY_POINT_GROUP).names}))


def require_kind(kind: str) -> None:
    """Check that a kind can be one, before anything is loaded.

    Raises:
        ConfigError: it cannot.
    """
    name, colon, rest = kind.partition(":")
    if name not in known_kinds() and not (colon and name and rest):
        msg = (
            f"reasoner kind wants one of {', '.join(known_kinds())}, one of them with its options"
            f" as NAME:FILE, or 'module:attribute', got {kind!r}"
        )
        raise ConfigError(msg)


def _factory(kind: str) -> ReasonerFactory:
    require_kind(kind)
    name, colon, rest = kind.partition(":")
    is_named = name in known_kinds()
    try:
        found = _named(name) if is_named else _attribute(kind)
    except (ImportError, AttributeError, ValueError) as error:
        if name in OWN_EXTRAS and isinstance(error, ModuleNotFoundError):
            package = error.name or name
            raise MissingExtraError(package, OWN_EXTRAS[name], f"the {name} reasoner") from error
        msg = f"reasoner kind {kind!r} cannot be loaded: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
    if not callable(found):
        msg = f"reasoner kind {kind!r} wants to name a factory, got a {type(found).__name__}"
        raise ConfigError(msg)
    factory: ReasonerFactory = found
    if is_named and colon:
        return lambda options: factory({**values_from_file(rest, name), **options})
    return factory


def _named(name: str) -> object:
    """What one of our own names leads to, or an entry point."""
    if name in OWN:
        return _attribute(OWN[name])
    return next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name))).load()


def _attribute(place: str) -> object:
    module_name, _, attribute = place.partition(":")
    value: object = getattr(importlib.import_module(module_name), attribute)
    return value
