# SPDX-License-Identifier: Apache-2.0
"""A system under evaluation: read from YAML, checked, and built once per process.

```yaml
about: one line
reasoner: kinematic        # a kind of `foreseg run` (as openai:FILE.json), or oracle_mask, oracle_box,
                           # oracle_first_mask, oracle_best_box, oracle_best_points (a box, a point
                           # on the target and one beside it), oracle_random_span, random_box, majority
                           # where objects are given and nothing is asked (DAVIS, SA-V):
                           # oracle_first_mask, oracle_box or random_box is what is given
reasoner_options: {}       # of that kind
tracker: nano              # a bundle's name or folder, or repeat, flow; with the setting
                           # tracker.backend: torch a checkpoint
period_s: 2.0              # streaming: a standing query is asked so often; 0 = once
rationale: true            # wait for the thoughts behind an answer and show them; the question's words are the same
settings: {}               # foreseg's parameters by dotted name, as scheduler.warm_up_s
latencies:                 # streaming, of this system; left out = as measured
  tracker_ms: 16           # one step of the tracker
  reasoner_ms: 400         # from question to answer
```

Does not know: protocols, scores.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from foreseg.config import Config, Scalar, config_from_settings
from foreseg.driving.player import Latencies
from foreseg.engines.load import load_configured
from foreseg.errors import ConfigError
from foreseg.reasoner.base import Reasoner, ReasonerSpec
from foreseg.reasoner.load import build_reasoner
from foreseg.tracker.base import Tracker
from foreseg.tracker.views import tracker_factory

from .baselines import flow_tracker, repeat_tracker
from .episode import Dataset, Episode
from .first_prompts import FirstPrompts, first_prompts
from .prompt_forms import PromptForm
from .reasoners import (
    Keyframe,
    MajorityReasoner,
    OracleReasoner,
    RandomBoxReasoner,
    majority_answer,
    objects_by_answer,
)

_NS_PER_MS = 1_000_000
_BASELINE_TRACKERS: Mapping[str, Callable[[int], Tracker]] = MappingProxyType(
    {"repeat": repeat_tracker, "flow": flow_tracker}
)
_KINDS: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {"str": (str,), "float": (int, float), "bool": (bool,)}
)
_ORACLES: Mapping[str, tuple[Keyframe, PromptForm]] = MappingProxyType(
    {
        "oracle_mask": (Keyframe.BEST, PromptForm.MASK),
        "oracle_best_box": (Keyframe.BEST, PromptForm.BOX),
        "oracle_best_points": (Keyframe.BEST, PromptForm.BOX_POINTS),
        "oracle_random_span": (Keyframe.RANDOM_SPAN, PromptForm.BOX),
        "oracle_box": (Keyframe.FIRST, PromptForm.BOX),
        "oracle_first_mask": (Keyframe.FIRST, PromptForm.MASK),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemConfig:
    """What the YAML says; see the module's text."""

    name: str
    about: str = ""
    reasoner: str = "kinematic"
    reasoner_options: Mapping[str, Scalar] = field(default_factory=dict)
    tracker: str = "nano"
    period_s: float = 2.0
    rationale: bool = True
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    latencies: Mapping[str, float] = field(default_factory=dict)

    def given_latencies(self) -> Latencies:
        """Those of the YAML in nanoseconds; None where they are to be measured."""

        def in_ns(name: str) -> int | None:
            value = self.latencies.get(name)
            return None if value is None else round(value * _NS_PER_MS)

        return Latencies(tracker_ns=in_ns("tracker_ms"), reasoner_ns=in_ns("reasoner_ms"))

    def config(self) -> Config:
        """Foreseg's settings.

        Raises:
            ConfigError: an unknown name or a bad value.
        """
        return config_from_settings(self.settings)


def shipped_systems() -> tuple[str, ...]:
    """The names that `--system` knows, sorted."""
    return tuple(sorted(path.name[: -len(".yaml")] for path in _shipped_folder().iterdir()
                        if path.name.endswith(".yaml")))  # fmt: skip


def read_system(name_or_path: str) -> SystemConfig:
    """Read a shipped system by name, or a YAML file.

    Raises:
        ConfigError: neither of them, or a key or value that cannot be; names it.
    """
    import yaml

    if name_or_path in shipped_systems():
        name, text = name_or_path, (_shipped_folder() / f"{name_or_path}.yaml").read_text("utf-8")
    else:
        path = Path(name_or_path)
        if not path.is_file():
            known = ", ".join(shipped_systems())
            msg = f"--system wants a YAML file or one of {known}; got {name_or_path!r}"
            raise ConfigError(msg)
        name, text = path.stem, path.read_text("utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"system {name_or_path} is no YAML: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    return _checked(name_or_path, name, values)


def _check_is_used(source: str, system: SystemConfig) -> None:
    """Refuse what would stand in `run.json` and change nothing."""
    for setting, key in (("tracker.bundle", "tracker"), ("reasoner.kind", "reasoner")):
        if setting in system.settings:
            msg = f"system {source}: {setting} is the key {key} here, and not among the settings"
            raise ConfigError(msg)
    if system.reasoner not in {*_ORACLES, "random_box", "majority"}:
        return
    calibration = system.settings.get("reasoner.calibration")
    given = [*system.reasoner_options, *(["reasoner.calibration"] if calibration else [])]
    if given:
        msg = f"system {source}: the reasoner {system.reasoner} takes no options, got {given}"
        raise ConfigError(msg)


def _shipped_folder() -> Any:  # noqa: ANN401 (a Traversable has two homes over Python's versions)
    return importlib.resources.files("foreseg_evaluation") / "systems"


def _checked(source: str, name: str, values: object) -> SystemConfig:
    if not isinstance(values, dict):
        msg = f"system {source} wants a mapping of settings, got {type(values).__name__}"
        raise ConfigError(msg)
    known = {item.name: item for item in fields(SystemConfig) if item.name != "name"}
    for key, value in values.items():
        if key not in known:
            msg = f"system {source} has an unknown key {key!r}; known are {', '.join(known)}"
            raise ConfigError(msg)
        kind = str(known[key].type)
        wanted = _KINDS.get(kind, (dict,))
        if not isinstance(value, wanted) or isinstance(value, bool) != (kind == "bool"):
            msg = f"system {source}: {key} wants {known[key].type}, got {value!r}"
            raise ConfigError(msg)
    system = SystemConfig(name=name, **values)
    if not math.isfinite(system.period_s) or system.period_s < 0:
        msg = f"system {source}: period_s wants a finite number >= 0, got {system.period_s}"
        raise ConfigError(msg)
    for key, value in system.latencies.items():
        if key not in {"tracker_ms", "reasoner_ms"} or not _is_duration(value):
            msg = f"system {source}: latencies want tracker_ms and reasoner_ms >= 0, got {key}: {value!r}"
            raise ConfigError(msg)
    system.config()
    _check_is_used(source, system)
    return system


class System:
    """A built system: trackers and reasoners for one episode after the other.

    Args:
        config: what to build.
        dataset: what the majority answer is counted over.
        max_objects: rows of a tracker.

    Raises:
        ConfigError, EngineError, MissingExtraError: for parts that cannot be built.
        ValueError: a majority answer over a dataset without answers.
    """

    def __init__(self, config: SystemConfig, dataset: Dataset, *, max_objects: int = 24) -> None:
        self.config = config
        self._max_objects = max_objects
        self._bundle = None
        self._own: Reasoner | None = None
        self._majority = ""
        self._objects: Mapping[tuple[str, str], tuple[str, ...]] = {}
        if config.tracker not in _BASELINE_TRACKERS:
            settings = replace(config.config().tracker, bundle=config.tracker)
            self._bundle = load_configured(settings)
        if config.reasoner == "majority":
            self._majority = majority_answer(dataset)
            self._objects = objects_by_answer(dataset)
        elif config.reasoner not in {*_ORACLES, "random_box"}:
            spec = ReasonerSpec(
                kind=config.reasoner,
                options=config.reasoner_options,
                calibration=config.config().reasoner.calibration,
            )
            self._own = build_reasoner(spec)

    def tracker(self, max_objects: int | None = None) -> Tracker:
        """Make an empty tracker."""
        rows = self._max_objects if max_objects is None else max_objects
        make = _BASELINE_TRACKERS.get(self.config.tracker)
        if make is not None:
            return make(rows)
        assert self._bundle is not None  # noqa: S101 (opened in __init__)
        return tracker_factory(self._bundle, self.config.config().tracker.view)(rows)

    def reasoner(self, episode: Episode, *, is_live: bool) -> Reasoner:
        """Make the reasoner for an episode; `is_live`: the future is not there yet."""
        kind = self.config.reasoner
        if kind in _ORACLES:
            keyframe, form = _ORACLES[kind]
            return OracleReasoner(episode=episode, keyframe=keyframe, form=form, is_live=is_live)
        if kind == "random_box":
            return RandomBoxReasoner(episode=episode)
        if kind == "majority":
            ids = self._objects.get((episode.video, self._majority), ())
            return MajorityReasoner(episode=episode, answer=self._majority, object_ids=ids)
        assert self._own is not None  # noqa: S101 (built in __init__)
        return self._own

    def first_prompts(self, episode: Episode) -> FirstPrompts:
        """Where nothing is asked: each object's prompt by the first position that shows it.

        Raises:
            ConfigError: the reasoner only answers questions.
            DatasetError: a true mask that cannot be read.
        """
        return first_prompts(episode, self.config.reasoner)

    def close(self) -> None:
        """Close the engines."""
        if self._bundle is not None:
            self._bundle.close()


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return 0 <= value < math.inf
