# SPDX-License-Identifier: Apache-2.0
"""What `foreseg run` is told, read from words: prompts, settings, queries. Says what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foreseg.commands.pointing import BOX_FORM, TimedPrompt, prompts_from_words
from foreseg.config import Config, Scalar, config_from_settings, settings_of
from foreseg.dialogue import Query, QueryId
from foreseg.driving.player import Latencies
from foreseg.errors import ConfigError, InputError

MAX_LABELS = 255  # of a palette PNG
_TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything `foreseg run` was told."""

    source: str
    queries: tuple[Query, ...]
    prompts: tuple[TimedPrompt, ...]
    config: Config
    out: Path
    has_video: bool
    max_frames: int | None
    is_live: bool
    has_rationale: bool = False
    filmstrips: Path | None = None
    observed: Path | None = None
    latencies: Latencies | None = None  # of a replay, on the simulated clock
    asked_ns: Mapping[QueryId, int] = field(default_factory=dict)  # when, if not at the beginning

    def prompts_at(self, frame: int) -> tuple[TimedPrompt, ...]:
        """Those for this frame."""
        return tuple(prompt for prompt in self.prompts if prompt.frame == frame)


def options_from_arguments(arguments: argparse.Namespace) -> RunOptions:
    """Check all that can be checked before a file is opened.

    Raises:
        InputError: a malformed box, point, mask or query, nothing to do, a number out of range.
        ConfigError: an unknown parameter, or a bad value for one.
    """
    queries = tuple(
        Query(
            id=QueryId(f"query-{i}"),
            text=text,
            period_s=arguments.period,
            horizon_s=arguments.horizon,
            want_rationale=arguments.rationale,
            want_observed_masks=bool(arguments.observed_masks),
        )
        for i, text in enumerate(arguments.query, start=1)
    )
    prompts = prompts_from_words(
        arguments.box, arguments.point, arguments.not_point, arguments.mask
    )
    if not queries and not prompts:
        msg = "nothing to look for: give --query TEXT, --point, --mask, or --box " + BOX_FORM
        raise InputError(msg)
    for name, value in (
        ("--observed-masks", arguments.observed_masks),
        ("--horizon", arguments.horizon),
        ("--period", arguments.period),
    ):
        if value and not queries:
            msg = f"{name} is about the answers of a query: give --query TEXT, too"
            raise InputError(msg)
    if arguments.max_frames is not None and arguments.max_frames < 1:
        msg = f"--max-frames wants at least 1, got {arguments.max_frames}"
        raise InputError(msg)
    words = [
        f"tracker.bundle={arguments.bundle}",
        f"reasoner.kind={arguments.reasoner}",
        *arguments.set,
    ]
    config = config_from_words(words)
    if config.tracker.max_tracks > MAX_LABELS:
        msg = f"palette PNGs hold {MAX_LABELS} objects, got tracker.max_tracks {config.tracker.max_tracks}"
        raise ConfigError(msg)
    return RunOptions(
        source=arguments.source,
        queries=queries,
        prompts=prompts,
        config=config,
        out=Path(arguments.out).expanduser(),
        has_video=not arguments.no_video,
        max_frames=arguments.max_frames,
        is_live=arguments.live,
        has_rationale=arguments.rationale,
        filmstrips=_folder(arguments.filmstrips),
        observed=_folder(arguments.observed_masks),
    )


def _folder(words: str | None) -> Path | None:
    return Path(words).expanduser() if words else None


def config_from_words(words: Sequence[str]) -> Config:
    """A config from `name=value` words; the later one wins.

    Raises:
        ConfigError: no `=`, an unknown name, a value of another type or out of range.
    """
    known = {name: type(value) for name, value, _ in settings_of(Config())}
    values: dict[str, Scalar] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not equals:
            msg = f"a setting wants name=value such as tracker.threads=2, got {word[:80]!r}"
            raise ConfigError(msg)
        values[name] = _value(name, text.strip(), known.get(name, str))
    return config_from_settings(values)


def _value(name: str, text: str, kind: type[Scalar]) -> Scalar:
    try:
        if kind is bool:
            return _TRUTHS[text.lower()]
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
    except (KeyError, ValueError):
        msg = f"parameter {name} wants {kind.__name__}, got {text[:80]!r}"
        raise ConfigError(msg) from None
    return text
