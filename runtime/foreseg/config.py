# SPDX-License-Identifier: Apache-2.0
"""One frozen tree of settings, built once and validated; field paths are the parameter names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, get_type_hints

from foreseg.cores import cores_from_text
from foreseg.errors import ConfigError

Scalar = str | int | float | bool


def setting(
    default: Scalar, about: str, low: float | None = None, high: float | None = None
) -> Any:  # noqa: ANN401 (a dataclass field stands where a value is typed)
    """A dataclass field with its description and inclusive range."""
    return field(default=default, metadata={"about": about, "low": low, "high": high})


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    """How much of the past is kept, per camera."""

    max_bytes: int = setting(268_435_456, "bytes of frames kept per camera", 1_000_000, 1e11)
    max_frames: int = setting(300, "frames of the dense ring at most", 2, 100_000)
    max_held_frames: int = setting(64, "frames that running queries may hold", 1, 10_000)
    sparse_hz: float = setting(1.0, "rate of the sparse tier", 0.01, 60.0)
    sparse_frames: int = setting(120, "frames of the sparse tier", 1, 100_000)
    sparse_max_side_px: int = setting(448, "longer side of a sparse frame", 16, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerConfig:
    """The tracker and what its numbers mean."""

    bundle: str = setting("nano", "engine bundle: a folder, or the name of a shipped one")
    backend: str = setting(
        "cpu",
        "what executes the bundle: `cpu`, `cuda`, `onnx-tensorrt`, `tensorrt`, `openvino`, `auto`"
        " (what `foreseg-export build` made, else `cpu`), or `torch` (then it is a checkpoint)",
    )
    allow_fallback: bool = setting(
        default=False,
        about="take a slower back-end where that one does not start; /diagnostics warns then",
    )
    threads: int = setting(1, "CPU threads of an engine", 1, 256)
    cores: str = setting(
        "", "cores that the tracker's thread may use, such as `0` or `1-3`; empty = all"
    )
    nice: int = setting(
        0, "is added to the niceness of the tracker's thread; below 0 wants a privilege", -20, 19
    )
    max_tracks: int = setting(8, "objects tracked at once; above 255 masks are 16UC1", 1, 1000)
    view: str = setting(
        "auto",
        "what the model sees of a frame: `whole`; `zoom`, a new box in a window around it;"
        " `window`, every object in a window that follows it; or `auto`, which is `zoom` for models of"
        " 256 px and less, and else `whole`",
    )
    uncertain_below: float = setting(
        0.5, "predicted mask IoU under which a track is UNCERTAIN", 0, 1
    )
    lost_after_s: float = setting(3.0, "unseen for so long, a track is LOST", 0.0, 3600)
    forget_after_s: float = setting(
        60.0, "LOST for so long, a track that no standing query wants is dropped", 0.0, 86_400
    )
    index_reuse_s: float = setting(
        2.0, "a freed label is not reused before this, unless no other is left", 0.0, 3600
    )

    @property
    def max_rows(self) -> int:
        """Rows of memory: a track, a branch of it, a target that may be the same object; and one.

        The one is for segmenting the window of an answer, a target after the other.
        """
        return 3 * self.max_tracks + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CatchUpConfig:
    """How late answers come to live."""

    budget_s: float = setting(
        5.0, "a catch-up that cannot arrive within this is not begun", 0, 600
    )
    max_stride: int = setting(8, "largest step in frames", 1, 1000)
    live_share: float = setting(0.8, "share of their rate that live tracks keep", 0.0, 1.0)
    agree_iou: float = setting(0.5, "mask IoU from which hop and catch-up agree", 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonerConfig:
    """The reasoner and its process."""

    kind: str = setting(
        "kinematic",
        "`kinematic`, `nano`, `transformers:FILE.json`, `openai:FILE.json`, an entry point, or"
        " `module:attribute`",
    )
    start_timeout_s: float = setting(
        120.0, "it must be ready within this; loading a large model takes long", 1.0, 7200
    )
    calibration: str = setting(
        "", "file of `foreseg-eval --fit-calibration` that maps confidences; empty = none"
    )
    max_side_px: int = setting(448, "longer side of the frames that are sent", 16, 4096)
    timeout_s: float = setting(60.0, "an answer not complete by then has failed", 0.1, 3600)
    nice: int = setting(5, "niceness of its process", 0, 19)
    threads: int = setting(1, "CPU threads of its process", 1, 256)
    cores: str = setting("", "cores that its process may use, such as `0` or `1-3`; empty = all")
    max_memory_mb: int = setting(
        0, "MB of host memory above which its process is ended; 0 = no ceiling", 0, 10_000_000
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """When which query is asked."""

    max_queries: int = setting(16, "queries at once", 1, 1000)
    warm_up_s: float = setting(1.0, "seconds of stream before the first question", 0.0, 60.0)
    scene_change: float = setting(
        0.3, "share of the picture whose change asks a standing query again; 1 = never", 0, 1
    )
    reask_pause_s: float = setting(
        2.0, "an early asking (target lost, scene changed) comes so long after the last", 0, 3600
    )
    match_iou: float = setting(0.5, "mask IoU from which an answer names a running track", 0, 1)
    answers_to_let_go: int = setting(
        2, "answers in a row that must name nothing before a query lets its objects go", 1, 100
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationConfig:
    """What is given up when the machine runs short of memory or gets hot; see docs/reliability.md."""

    max_rung: int = setting(
        4,
        "how far it may go: 0 nothing, 1 fewer tokens, 2 longer periods, 3 slower tracker,"
        " 4 held masks",
        0,
        4,
    )
    min_memory_share: float = setting(0.05, "share of memory that should stay free", 0.0, 0.9)
    max_temperature_c: float = setting(95.0, "degrees C that no zone should exceed", 30.0, 150.0)
    climb_s: float = setting(5.0, "seconds of strain before each step", 0.1, 3600)
    recover_s: float = setting(30.0, "seconds of ease before each step back", 0.1, 3600)
    reasoning_tokens: int = setting(96, "tokens a question may think then", 1, 100_000)
    period_factor: float = setting(4.0, "by so much periods grow then", 1.0, 1000)
    tracker_hz: float = setting(5.0, "rate of the tracker then", 0.1, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything. `Config()` is a sensible start."""

    history: HistoryConfig = field(default_factory=HistoryConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    catch_up: CatchUpConfig = field(default_factory=CatchUpConfig)
    reasoner: ReasonerConfig = field(default_factory=ReasonerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    degradation: DegradationConfig = field(default_factory=DegradationConfig)

    def __post_init__(self) -> None:
        for name, value, meta in settings_of(self):
            _check(name, value, meta)
        cores_from_text(self.tracker.cores, "tracker.cores")
        cores_from_text(self.reasoner.cores, "reasoner.cores")


def settings_of(config: Config) -> Iterator[tuple[str, Scalar, Field[Any]]]:
    """(dotted name, value, field) of every setting; the field's metadata has about, low, high."""
    for group in fields(config):
        part = getattr(config, group.name)
        for item in fields(part):
            yield f"{group.name}.{item.name}", getattr(part, item.name), item


def config_from_settings(values: Mapping[str, Scalar]) -> Config:
    """Build a config from dotted names; names left out keep their defaults.

    Raises:
        ConfigError: unknown name, wrong type, or out of range; the message has the value.
    """
    hints = get_type_hints(Config)
    known = {name: item for name, _, item in settings_of(Config())}
    groups: dict[str, dict[str, Scalar]] = {}
    for name, value in values.items():
        if name not in known:
            msg = f"unknown parameter {name!r}; known are {', '.join(sorted(known))}"
            raise ConfigError(msg)
        _check(name, value, known[name])
        group, _, leaf = name.partition(".")
        groups.setdefault(group, {})[leaf] = value
    return Config(**{group: hints[group](**leaves) for group, leaves in groups.items()})


def _check(name: str, value: Scalar, item: Field[Any]) -> None:
    expected = type(item.default)
    if not isinstance(value, (expected, int if expected is float else expected)):
        msg = f"parameter {name} wants {expected.__name__}, got {value!r}"
        raise ConfigError(msg)
    if isinstance(value, bool) and expected is not bool:
        msg = f"parameter {name} wants {expected.__name__}, got {value!r}"
        raise ConfigError(msg)
    low, high = item.metadata["low"], item.metadata["high"]
    if isinstance(value, (int, float)) and low is not None and not low <= value <= high:
        msg = f"parameter {name} wants {low:g} to {high:g}, got {value!r}"
        raise ConfigError(msg)
