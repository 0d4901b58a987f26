# SPDX-License-Identifier: Apache-2.0
"""Builds a reasoner from its spec.

A kind is "kinematic", "openai" (or "openai:FILE" with its options in a JSON file), the name of an
entry point in the group `foreseg.reasoners`, or "module:attribute". The latter two lead to a factory `(options) -> Reasoner`, which raises
`ConfigError` for options that cannot work. A kind is the operator's; it never comes from a query.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from foreseg.errors import ConfigError
from foreseg.reasoner.base import Reasoner, ReasonerSpec
from foreseg.reasoner.calibration import CalibratedReasoner, read_calibration

ENTRY_POINT_GROUP = "foreseg.reasoners"

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
        return CalibratedReasoner(reasoner, read_calibration(Path(spec.calibration)))
    return reasoner


def known_kinds() -> tuple[str, ...]:
    """The kinds that can be named without a module, sorted."""
    return tuple(sorted({"kinematic", "openai", *entry_points(group=ENTRY_POINT_GROUP).names}))


def _factory(kind: str) -> ReasonerFactory:
    if kind == "kinematic":
        from foreseg.reasoner.kinematic import kinematic_reasoner

        return kinematic_reasoner
    name, colon, path = kind.partition(":")
    if name == "openai":
        from foreseg.reasoner.openai_options import openai_reasoner, values_from_file

        if not colon:
            return openai_reasoner
        return lambda options: openai_reasoner({**values_from_file(path), **options})
    try:
        found = _found(kind)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"reasoner kind {kind!r} cannot be loaded: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
    if found is None:
        msg = (
            f"reasoner kind wants one of {', '.join(known_kinds())}, openai:FILE or"
            f" 'module:attribute', got {kind!r}"
        )
        raise ConfigError(msg)
    if not callable(found):
        msg = f"reasoner kind {kind!r} wants to name a factory, got a {type(found).__name__}"
        raise ConfigError(msg)
    factory: ReasonerFactory = found
    return factory


def _found(kind: str) -> object | None:
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=kind):
        loaded: object = entry_point.load()
        return loaded
    module_name, colon, attribute = kind.partition(":")
    if not (colon and module_name and attribute):
        return None
    attribute_value: object = getattr(importlib.import_module(module_name), attribute)
    return attribute_value
