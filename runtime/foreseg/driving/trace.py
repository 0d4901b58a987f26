# SPDX-License-Identifier: Apache-2.0
"""The trace: every event and command as one JSON line, and its replay without any engine.

A record is an object whose "type" is its class; tuples are lists, NaN is the string "nan". A trace
that ended before its run did has a last line {"gap": why}. A crash leaves a last line that is cut:
what comes before it is a trace.
"""

from __future__ import annotations

import json
import logging
import math
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import TypeVar, Union, cast, get_args, get_origin, get_type_hints

from foreseg import dialogue
from foreseg.config import Config, config_from_settings, settings_of
from foreseg.errors import ForesegError, InputError
from foreseg.frames import CameraId
from foreseg.pipeline import events, tracks
from foreseg.pipeline.events import Command, Event
from foreseg.pipeline.state import State
from foreseg.pipeline.step import step
from foreseg.texts import reason_from_error

FORMAT = "foreseg-trace"
VERSION = 2
DEFAULT_MAX_BYTES = 1_000_000_000
MAX_GAP_CHARS = 500  # of the reason in the last line
MARK_BYTES = 120  # kept free for that line at `max_bytes`
MAX_LINE_BYTES = 1 << 26
MAX_REASON_CHARS = 300
_NO_RECORD = (  # what reading a record, or taking it, raises for values that nobody wrote
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    ForesegError,
)

_log = logging.getLogger(__name__)


class TraceWriter:
    """Appends to a JSONL file. Who writes is never held up: writing raises nothing.

    A line that cannot be written (the disk is full, a record is none) ends the trace, and so does
    `max_bytes`: what follows a gap could not be replayed. A last line marks it, as soon as there
    is room for one; what comes after is counted.

    Raises:
        OSError: from the constructor, if the file cannot be begun.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        cameras: tuple[CameraId, ...],
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self.num_skipped = 0
        self.gap = ""  # why the trace has ended, "" while it goes on
        self._is_marked = False
        self._path = path
        self._max_bytes = max_bytes
        self._size = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        # nothing is buffered, so that what came before a crash can be replayed
        self._file = path.open("wb", buffering=0)
        head = {
            "format": FORMAT,
            "version": VERSION,
            "cameras": list(cameras),
            "config": {name: value for name, value, _ in settings_of(config)},
        }
        try:
            self._put(_line(head))
        except OSError:
            self._file.close()
            raise

    def write_step(self, event: Event, commands: tuple[Command, ...]) -> None:
        """One event with the commands it led to."""
        if not self.gap:
            try:
                line = _line({"event": encode(event), "commands": [encode(c) for c in commands]})
                if self._size + len(line) + MARK_BYTES <= self._max_bytes:
                    self._put(line)
                    return
                self._end(f"it has reached {self._max_bytes} bytes")
            except Exception as error:  # noqa: BLE001 (the disk's, or any record's)
                self._end(reason_from_error(error))
        self.num_skipped += 1
        self._mark()

    def close(self) -> None:
        """Close the file; what is written after it is skipped."""
        if self.gap:
            self._mark()
        try:
            self._file.close()
        except OSError as error:
            self._end(reason_from_error(error))

    def _end(self, reason: str) -> None:
        self.gap = reason
        _log.warning("the trace %s ends: %s", self._path, reason)

    def _mark(self) -> None:
        """Write the last line, unless it stands already or there is still no room for it."""
        if not self._is_marked:
            with suppress(OSError, ValueError):
                self._put(_line({"gap": self.gap[:MAX_GAP_CHARS]}))
                self._is_marked = True

    def _put(self, line: bytes) -> None:
        """Write a whole line, or leave the file as it was.

        Raises:
            OSError: it is as it was, as far as the system lets it.
        """
        done = 0
        try:
            while done < len(line):
                done += self._file.write(line[done:])
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise
        self._size += len(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What a replay found."""

    num_events: int
    num_commands: int
    first_difference: str  # "" = every command came out the same
    gap: str  # why the trace ends before its run did, "" if it does not
    state: State
    cut_line: int  # number of a last line that is cut, and left out; 0 = none


def replay(path: Path, take: Callable[[Command], None] | None = None) -> ReplayReport:
    """Feed a trace's events to the pipeline, and compare the commands with those recorded.

    Args:
        path: of the trace; read once, from its beginning to its end.
        take: is given every command as it comes out.

    Raises:
        InputError: if the file is no trace, or a line is broken; names the line.
    """
    state: State | None = None
    num_events = num_commands = 0
    difference = gap = ""
    lines = _Lines(path)
    for number, record in lines:
        if _is_gap(record):
            gap = str(record["gap"])
            continue
        if state is None:
            state = _decoded(path, number, record, _start, "a trace's head")
            continue
        state, commands, replayed, recorded = _decoded(
            path, number, record, partial(_stepped, state), "an event with its commands"
        )
        num_events += 1
        num_commands += len(commands)
        if not difference and replayed != recorded:
            difference = f"line {number}: recorded {recorded[:300]}, replayed {replayed[:300]}"
        if take is not None:
            for command in commands:
                take(command)
    if state is None:
        raise _no_trace(path)
    return ReplayReport(
        num_events=num_events,
        num_commands=num_commands,
        first_difference=difference,
        gap=gap,
        state=state,
        cut_line=lines.cut_line,
    )


def read_steps(path: Path) -> Iterator[tuple[Event, tuple[Command, ...]]]:
    """Yield every recorded event with the commands that it led to, without running anything.

    Raises:
        InputError: if the file is no trace, or a line is broken; names the line.
    """
    number = 0
    lines = _Lines(path)
    for number, record in lines:
        if number == 1:
            _decoded(path, number, record, _start, "a trace's head")
        elif not _is_gap(record):
            yield _decoded(path, number, record, _step, "an event with its commands")
    if not number:
        raise _no_trace(path)
    if lines.cut_line:
        _log.warning("%s: line %d, the last, is cut and left out", path, lines.cut_line)


def _no_trace(path: Path) -> InputError:
    return InputError(f"{path} has no whole line, expected a trace written by foreseg")


_T = TypeVar("_T")


def _decoded(
    path: Path,
    number: int,
    record: dict[str, object],
    read: Callable[[Mapping[str, object]], _T],
    expected: str,
) -> _T:
    try:
        return read(record)
    except _NO_RECORD as error:
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS]
        msg = f"{path}, line {number}: not {expected} ({reason})"
        raise InputError(msg) from error


def _is_gap(record: Mapping[str, object]) -> bool:
    return record.keys() == {"gap"}


def _line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record).encode("ascii") + b"\n"


def _event(record: Mapping[str, object]) -> tuple[Event, object]:
    return cast("Event", decode(Event, record["event"])), record["commands"]


def _stepped(
    state: State, record: Mapping[str, object]
) -> tuple[State, tuple[Command, ...], str, str]:
    """The state behind a record's event, the commands, and these in JSON beside the recorded."""
    event, recorded = _event(record)
    state, commands = step(state, event)
    return state, commands, json.dumps([encode(c) for c in commands]), json.dumps(recorded)


def _step(record: Mapping[str, object]) -> tuple[Event, tuple[Command, ...]]:
    event, recorded = _event(record)
    commands = decode(tuple[Command, ...], recorded)
    return event, cast("tuple[Command, ...]", commands)


class _Lines:
    """The records of a trace with their line numbers, from 1."""

    def __init__(self, path: Path) -> None:
        self.cut_line = 0  # the last line, if it is cut
        self._path = path

    def __iter__(self) -> Iterator[tuple[int, dict[str, object]]]:
        try:
            with self._path.open("rb") as file:
                number = 0
                while line := file.readline(MAX_LINE_BYTES):
                    number += 1
                    record = self._record(number, line)
                    if record is None:
                        self.cut_line = number
                        return
                    yield number, record
        except OSError as error:
            msg = f"cannot read the trace {self._path}: {error}"
            raise InputError(msg) from error

    def _record(self, number: int, line: bytes) -> dict[str, object] | None:
        """A line's record; None for a last line that is cut."""
        where = f"{self._path}, line {number}"
        is_whole = line.endswith(b"\n")
        if len(line) == MAX_LINE_BYTES and not is_whole:
            msg = f"{where}: longer than {MAX_LINE_BYTES} bytes, expected a trace"
            raise InputError(msg)
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            if not is_whole:
                return None
            msg = f"{where}: not JSON ({str(error)[:MAX_REASON_CHARS]})"
            raise InputError(msg) from error
        if not isinstance(record, dict):
            msg = f"{where}: expected an object, got {line[:40]!r}"
            raise InputError(msg)
        return record


def _start(head: Mapping[str, object]) -> State:
    if head.get("format") != FORMAT or head.get("version") != VERSION:
        msg = (
            f"expected format {FORMAT} version {VERSION},"
            f" got {head.get('format')!r} version {head.get('version')!r}"
        )
        raise InputError(msg)
    cameras = cast("tuple[CameraId, ...]", decode(tuple[CameraId, ...], head["cameras"]))
    settings = head["config"]
    if not isinstance(settings, dict):
        msg = f"expected settings, got {settings!r}"
        raise TypeError(msg)
    return State.start(config_from_settings(settings), cameras)


def encode(value: object) -> object:
    """A record as JSON-able values."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Enum):
        plain: object = value.value
        return plain
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value
    if is_dataclass(value):
        record = {f.name: encode(getattr(value, f.name)) for f in fields(value)}
        return {"type": type(value).__name__, **record}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    msg = f"a trace holds plain records, got {type(value).__name__}"
    raise TypeError(msg)


def decode(hint: object, value: object) -> object:
    """The record that `encode` made, given the type that is expected.

    Raises:
        TypeError, ValueError, KeyError, ForesegError: for anything else.
    """
    hint = _plain(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return _decode_union(get_args(hint), value)
    if get_origin(hint) is tuple:
        return _decode_tuple(get_args(hint), value)
    if not isinstance(hint, type):
        msg = f"a trace cannot hold {hint}"
        raise TypeError(msg)
    if issubclass(hint, Enum):
        return hint(value)
    if issubclass(hint, tuple):
        return _decode_named_tuple(hint, value)
    if is_dataclass(hint):
        return _decode_record(hint, value)
    return _decode_plain(hint, value)


def _decode_record(record: type, value: object) -> object:
    if not isinstance(value, dict) or value.get("type") != record.__name__:
        msg = f"expected {record.__name__}, got {str(value)[:40]!r}"
        raise ValueError(msg)
    hints = _hints(record)
    made: object = record(**{name: decode(hints[name], value[name]) for name in hints})
    return made


def _decode_named_tuple(record: type, value: object) -> object:
    made: object = record(*_decode_tuple(tuple(_hints(record).values()), value))
    return made


def _decode_plain(kind: type, value: object) -> object:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and is_number:
        return value  # an int that stood for a float stays one: the replay is byte for byte
    if kind is float and value == "nan":
        return math.nan
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        msg = f"expected {kind.__name__}, got {value!r}"
        raise TypeError(msg)
    return value


def _decode_tuple(hints: tuple[object, ...], value: object) -> tuple[object, ...]:
    if not isinstance(value, list):
        msg = f"expected a list, got {value!r}"
        raise TypeError(msg)
    if len(hints) == 2 and hints[1] is Ellipsis:  # noqa: PLR2004 (tuple[item, ...])
        return tuple(decode(hints[0], item) for item in value)
    return tuple(decode(hint, item) for hint, item in zip(hints, value, strict=True))


def _decode_union(options: tuple[object, ...], value: object) -> object:
    if value is None and type(None) in options:
        return None
    left = [_plain(option) for option in options if option is not type(None)]
    if isinstance(value, dict) and "type" in value:
        for option in left:
            if getattr(option, "__name__", "") == value["type"]:
                return decode(option, value)
        msg = f"unknown record {value['type']!r}"
        raise ValueError(msg)
    return decode(left[0], value)


def _plain(hint: object) -> object:
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    return hint


@cache
def _hints(record: type) -> dict[str, object]:
    spaces = {**vars(dialogue), **vars(tracks), **vars(events)}
    return get_type_hints(record, localns=spaces)
