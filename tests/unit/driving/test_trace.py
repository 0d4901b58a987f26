# SPDX-License-Identifier: Apache-2.0
"""Every record survives the trace, and a broken trace names its line."""

from __future__ import annotations

import json
import math
import resource
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.bench import Bench, still

from foreseg.config import Config
from foreseg.dialogue import Answer, AnswerPart, AnswerStatus, Query, QueryId
from foreseg.driving.trace import TraceWriter, _hints, _plain, decode, encode, read_steps, replay
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA
from foreseg.pipeline.events import Command, Event, JobStep, Tick
from foreseg.prompts import Point, SpatialPrompt

TEXT = st.text(min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
FLOATS = st.floats(0, 1e9) | st.just(math.nan)


def records(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, made from its annotations."""
    hint = _plain(hint)
    if hint is SpatialPrompt:
        points = st.lists(records(Point), min_size=1, max_size=2).map(tuple)
        return points.map(lambda p: SpatialPrompt(points=p))
    if hint is Query:
        return TEXT.map(lambda text: Query(id=QueryId(text), text=text, period_s=1.5))
    if get_origin(hint) in (Union, types.UnionType):
        return st.one_of(*(records(option) for option in get_args(hint)))
    if get_origin(hint) is tuple:
        items = get_args(hint)
        if items[-1] is Ellipsis:
            return st.lists(records(items[0]), max_size=2).map(tuple)
        return st.tuples(*(records(item) for item in items))
    if hint is type(None):
        return st.none()
    if issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    if issubclass(hint, tuple):
        hints = _hints(hint)
        return st.builds(hint, *(records(hints[name]) for name in hint._fields))  # type: ignore[attr-defined]
    if is_dataclass(hint):
        hints = _hints(hint)
        return st.builds(hint, **{f.name: records(hints[f.name]) for f in fields(hint)})
    plain = {bool: st.booleans(), int: st.integers(0, 2**63), float: FLOATS, str: TEXT}
    return plain[hint]


ALL = [*get_args(Event), *get_args(Command), *get_args(JobStep), *get_args(AnswerPart), Answer]


@pytest.mark.parametrize("record", ALL, ids=lambda record: record.__name__)
def test_every_record_comes_back_as_it_was(record: type) -> None:
    @settings(deadline=None, derandomize=True, max_examples=15)
    @given(records(record))
    def comes_back(value: object) -> None:
        line = json.dumps(encode(value))
        again = decode(record, json.loads(line))
        assert type(again) is record
        assert repr(again) == repr(value)  # NaN is not equal to itself
        assert json.dumps(encode(again)) == line

    comes_back()


def test_an_unknown_confidence_is_the_string_nan() -> None:
    answer = Answer(
        query_id=QueryId("q"),
        query_text="?",
        camera=DEFAULT_CAMERA,
        status=AnswerStatus.OK,
    )
    record = encode(answer)
    assert isinstance(record, dict)
    assert record["confidence"] == "nan"
    assert "NaN" not in json.dumps(record)
    known = decode(Answer, encode(replace(answer, confidence=0.5)))
    assert isinstance(known, Answer)
    assert known.confidence == 0.5


def test_what_is_no_plain_record_is_refused() -> None:
    with pytest.raises(TypeError, match="plain records, got set"):
        encode({1, 2})


def written(path: Path, *, seconds: float = 3.0, max_bytes: int = 10**8) -> TraceWriter:
    config = Config()
    bench = Bench({"cup": still(10, 10)}, config=config, reasoner_s=0.3)
    bench.run(1.1)
    bench.ask()
    bench.run(seconds)
    writer = TraceWriter(path, config, (DEFAULT_CAMERA,), max_bytes=max_bytes)
    for event, commands in bench.log:
        writer.write_step(event, commands)
    writer.close()
    return writer


def test_a_replay_finds_no_difference(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trace.jsonl"
    written(path)
    report = replay(path)
    assert report.first_difference == ""
    assert report.num_events > 100
    assert report.num_commands > 50
    assert report.state.counters["answers"] == 1


def test_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    written(path)
    lines = path.read_text().splitlines()[1:]
    steps = list(read_steps(path))
    assert len(steps) == len(lines)
    assert any(commands for _, commands in steps)
    for line, (event, commands) in zip(lines, steps, strict=True):
        again = {"event": encode(event), "commands": [encode(c) for c in commands]}
        assert json.dumps(again) == line


def test_reading_the_steps_of_a_broken_trace_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    written(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], lines[3][:-9], lines[4]]))
    with pytest.raises(InputError, match="line 4"):
        list(read_steps(path))
    path.write_text("")
    with pytest.raises(InputError, match="no whole line"):
        list(read_steps(path))


@given(st.floats(0.0, 1.0))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_trace_that_a_crash_cut_replays_up_to_the_cut(tmp_path: Path, share: float) -> None:
    path = tmp_path / "trace.jsonl"
    if not path.exists():
        written(path, seconds=0.5)
    data = path.read_bytes()
    size = round(share * len(data))
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(data[:size])
    num_whole = data[:size].count(b"\n")
    if num_whole == 0:
        with pytest.raises(InputError, match="no whole line"):
            replay(cut)
        return
    report = replay(cut)
    is_cut = not data[:size].endswith(b"\n") and data[size : size + 1] != b"\n"
    assert report.first_difference == ""
    assert report.cut_line == (num_whole + 1 if is_cut else 0)
    assert report.num_events == len(list(read_steps(cut))) >= num_whole - 1
    cut.write_bytes(data[:size] + bytes(500))  # some file systems pad what was not written
    assert replay(cut).num_events == num_whole - 1


HOSTILE = (10**400, -(10**18), 2**63, 1e308, "inf", "nan", -1, 0, "", "\x00", [], {}, None, True)


@pytest.mark.slow
@given(st.data())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_value_that_nobody_wrote_is_a_difference_or_one_sentence(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "trace.jsonl"
    if not path.exists():
        written(path, seconds=0.5)
    lines = path.read_text().splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    record = json.loads(lines[number])
    place: Any = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key]:
            break
        place = place[key]
    place[key] = data.draw(st.sampled_from(HOSTILE))
    lines[number] = json.dumps(record)
    hostile = tmp_path / "hostile.jsonl"
    hostile.write_text("\n".join(lines) + "\n")
    with suppress(InputError):
        assert replay(hostile).num_events > 0
    with suppress(InputError):
        assert list(read_steps(hostile))


def test_nesting_without_end_and_numbers_without_end_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    TraceWriter(path, Config(), (DEFAULT_CAMERA,)).close()
    head = path.read_text()
    for line in ("[" * 200_000, '{"event": ' * 100_000, '{"event": 1' + "0" * 10_000 + "}"):
        path.write_text(head + line + "\n")
        with pytest.raises(InputError, match="line 2: "):
            replay(path)


def test_a_replay_names_the_first_line_that_came_out_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    written(path)
    lines = path.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if "PublishMasks" in line)
    lines[number] = lines[number].replace('"index": 0', '"index": 1', 1)
    record = json.loads(lines[number])
    record["commands"] = []
    lines[number] = json.dumps(record)
    path.write_text("\n".join(lines))
    assert replay(path).first_difference.startswith(f"line {number + 1}: recorded []")


def test_a_full_trace_is_a_whole_prefix_and_counts_the_rest(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    written(whole)
    writer = written(cut, max_bytes=50_000)
    assert 40_000 < cut.stat().st_size <= 50_000
    *steps, mark = cut.read_bytes().splitlines(keepends=True)
    assert whole.read_bytes().startswith(b"".join(steps))
    assert json.loads(mark) == {"gap": "it has reached 50000 bytes"}
    assert writer.num_skipped == len(whole.read_text().splitlines()) - len(steps)
    report = replay(cut)
    assert (report.first_difference, report.num_events) == ("", len(steps) - 1)
    assert report.gap == "it has reached 50000 bytes"
    assert len(list(read_steps(cut))) == len(steps) - 1
    assert replay(whole).gap == ""


@contextmanager
def full_disk(room_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room_bytes", [0, 30, 200])
@pytest.mark.parametrize("num_after", [0, 3])
def test_a_full_disk_ends_the_trace_with_a_marked_gap_and_raises_nothing(
    tmp_path: Path, room_bytes: int, num_after: int
) -> None:
    path = tmp_path / "trace.jsonl"
    writer = TraceWriter(path, Config(), (DEFAULT_CAMERA,))
    writer.write_step(Tick(at_ns=1), ())
    with full_disk(path.stat().st_size + room_bytes):
        for number in range(5):
            writer.write_step(Tick(at_ns=2 + number), ())
        assert writer.num_skipped > 0
        assert "File too large" in writer.gap
    for number in range(num_after):  # there is room again
        writer.write_step(Tick(at_ns=10 + number), ())
    writer.close()
    lines = path.read_text().splitlines()
    assert json.loads(lines[-1]) == {"gap": writer.gap}
    report = replay(path)
    assert report.gap == writer.gap
    assert report.num_events == len(lines) - 2
    assert report.num_events + writer.num_skipped == 6 + num_after


def test_a_disk_that_stays_full_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    writer = TraceWriter(path, Config(), (DEFAULT_CAMERA,))
    with full_disk(path.stat().st_size + 10):
        writer.write_step(Tick(at_ns=1), ())
        writer.close()
    assert (replay(path).num_events, writer.num_skipped) == (0, 1)


def test_what_no_trace_holds_ends_it_with_its_type(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    writer = TraceWriter(path, Config(), (DEFAULT_CAMERA,))
    writer.write_step(Tick(at_ns=np.int64(3)), ())  # type: ignore[arg-type]
    writer.write_step(Tick(at_ns=4), ())
    writer.close()
    writer.write_step(Tick(at_ns=5), ())
    assert replay(path).gap == "TypeError: a trace holds plain records, got int64"
    assert writer.num_skipped == 3


def test_writing_after_the_end_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    writer = TraceWriter(path, Config(), (DEFAULT_CAMERA,))
    writer.close()
    writer.write_step(Tick(at_ns=5), ())
    assert (writer.num_skipped, replay(path).gap) == (1, "")


def test_a_line_is_on_disk_before_the_trace_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    writer = TraceWriter(path, Config(), (DEFAULT_CAMERA,))
    writer.write_step(Tick(at_ns=5), ())
    assert replay(path).num_events == 1
    writer.close()


GOOD = '{"event": {"type": "Tick", "at_ns": 1}, "commands": []}'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ("{}", "KeyError: 'event'"),
        ('{"event": {"type": "Tick", "at_ns": 1}}', "KeyError: 'commands'"),
        ('{"event": {"type": "Tock"}, "commands": []}', "unknown record 'Tock'"),
        ('{"event": {"type": "Tick"}, "commands": []}', "KeyError: 'at_ns'"),
        ('{"event": {"type": "Tick", "at_ns": "1"}, "commands": []}', "expected int, got '1'"),
        ('{"event": {"type": "Tick", "at_ns": true}, "commands": []}', "expected int, got True"),
        ('{"event": "Tick", "commands": []}', "'Tick'"),
        ('{"event": {"type": "FrameArrived", "frame": 3}, "commands": []}', "FrameRef"),
        (
            (
                '{"event": {"type": "FrameDropped", "camera": "c", "cause": "sun", "at_ns": 1},'
                ' "commands": []}'
            ),
            "'sun' is not a valid DropCause",
        ),
        (
            (
                '{"event": {"type": "WindowTaken", "ask_id": 1, "frames": "no", "at_ns": 1},'
                ' "commands": []}'
            ),
            "expected a list",
        ),
    ],
)
def test_a_broken_trace_names_the_line(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "trace.jsonl"
    TraceWriter(path, Config(), (DEFAULT_CAMERA,)).close()
    path.write_text(path.read_text() + GOOD + "\n" + line + "\n")
    with pytest.raises(InputError) as caught:
        replay(path)
    assert f"{path}, line 3: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        "{}",
        '{"format": "foreseg-trace", "version": 3}',
        '{"format": "foreseg-trace", "version": 1, "cameras": [], "config": {}}',
        '{"format": "foreseg-trace", "version": 2}',
        '{"format": "foreseg-trace", "version": 2, "cameras": 3, "config": {}}',
        '{"format": "foreseg-trace", "version": 2, "cameras": [], "config": {"no": 1}}',
        '{"format": "foreseg-trace", "version": 2, "cameras": [], "config": 7}',
    ],
)
def test_a_wrong_head_names_the_first_line(tmp_path: Path, head: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(head + "\n")
    with pytest.raises(InputError, match="line 1: not a trace's head"):
        replay(path)


def test_no_trace_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the trace"):
        replay(tmp_path / "absent.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(InputError, match="no whole line"):
        replay(empty)
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00\n\x00")
    with pytest.raises(InputError, match="line 1: not JSON"):
        replay(binary)
    with pytest.raises(InputError, match="line 1: longer than"):
        replay(Path("/dev/zero"))
