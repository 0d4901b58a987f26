# SPDX-License-Identifier: Apache-2.0
"""The reasoner's real process: killed, hung, cancelled, orphaned, and started again."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.reasoners import ROOT, Disc, discs_window, query

from foreseg.dialogue import (
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    NoTarget,
    RationalePart,
)
from foreseg.errors import ConfigError
from foreseg.frames import FrameIndex, FrameWindow
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.child import CANCELLED
from foreseg.reasoner.memory_ceiling import resident_bytes
from foreseg.reasoner.messages import (
    AskMessage,
    CancelMessage,
    Died,
    MoreFrames,
    PartMessage,
    Ready,
)
from foreseg.reasoner.process import ProcessSettings, ReasonerProcess

pytestmark = pytest.mark.fault

OBEDIENT = ReasonerSpec(kind="tests.support.reasoners:by_text")
QUICK = ProcessSettings(hang_timeout_s=0.4, ping_period_s=0.2, send_timeout_s=0.3, nice=0)
EMPTY = FrameWindow(frames=(), origin_index=FrameIndex(0))
WINDOW = discs_window(
    Disc(x=20, y=20, radius=9, colour=(255, 0, 0)), size_wh=(64, 48), num_frames=3
)
Message = Ready | PartMessage | Died


@pytest.fixture(autouse=True)
def _tests_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def process() -> Iterator[ReasonerProcess]:
    handle = ReasonerProcess(OBEDIENT, QUICK)
    handle.start()
    assert isinstance(heard(handle), Ready)
    yield handle
    handle.kill()
    handle.stop()


def heard(process: ReasonerProcess) -> Message:
    for _ in range(600):
        message = process.receive(0.05)
        if message is not None:
            return message
    pytest.fail("the process said nothing for half a minute")


def part(process: ReasonerProcess) -> AnswerPart:
    message = heard(process)
    assert isinstance(message, PartMessage), message
    return message.part


def asked(process: ReasonerProcess, text: str, ask_id: int = 1) -> None:
    """Ask, and wait until the reasoner is at it."""
    assert process.send(AskMessage(ask_id=ask_id, query=query(text), window=WINDOW))
    assert part(process) == RationalePart(text="I have 3 read-only frames")


def rest(process: ReasonerProcess) -> list[AnswerPart]:
    parts = [part(process)]
    while not isinstance(parts[-1], (AnswerDone, AnswerFailed)):
        parts.append(part(process))
    return parts


def test_answers_stream_back_and_the_process_can_be_asked_again(process: ReasonerProcess) -> None:
    for ask_id in (1, 2):
        asked(process, "anything", ask_id)
        assert rest(process)[-1] == AnswerDone()


def test_what_its_user_should_know_comes_with_its_start() -> None:
    handle = ReasonerProcess(ReasonerSpec(kind="tests.support.reasoners:cautious"), QUICK)
    handle.start()
    try:
        ready = heard(handle)
        assert isinstance(ready, Ready)
        assert ready.caution == "UNCHECKED: it sees nothing"
    finally:
        handle.kill()
        handle.stop()


def test_killed_in_the_middle_of_an_answer_is_told_once_with_its_reason(
    process: ReasonerProcess,
) -> None:
    asked(process, "hang", ask_id=7)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert heard(process) == Died(reason="killed by signal 9 (SIGKILL)", ask_id=7)
    assert process.receive(0.0) is None
    assert not process.is_alive
    assert not process.send(AskMessage(ask_id=8, query=query("x"), window=EMPTY))


def test_a_dead_process_can_be_started_again(process: ReasonerProcess) -> None:
    first = process.pid
    process.kill()
    assert isinstance(heard(process), Died)
    process.start()
    assert isinstance(heard(process), Ready)
    assert process.pid != first
    asked(process, "anything")


def test_one_that_holds_too_much_memory_is_killed_and_told_while_it_talks() -> None:
    settings = dataclasses.replace(QUICK, max_memory_mb=300, hang_timeout_s=30.0)
    handle = ReasonerProcess(OBEDIENT, settings)
    handle.start()
    assert isinstance(heard(handle), Ready)
    asked(handle, "hoard", ask_id=5)
    while isinstance(message := heard(handle), PartMessage):
        pass
    assert isinstance(message, Died)
    assert message.ask_id == 5
    told = re.fullmatch(r"holds (\d+) MB of memory, its ceiling is 300 MB; killed", message.reason)
    assert told, message.reason
    assert int(told[1]) > 300
    assert message.can_restart
    assert not handle.is_alive


def test_without_a_ceiling_memory_is_the_systems_business(process: ReasonerProcess) -> None:
    asked(process, "hoard", ask_id=5)
    for _ in range(20):
        part(process)
    assert process.is_alive


def test_resident_memory_counts_what_is_touched_and_ends_with_the_process(
    process: ReasonerProcess,
) -> None:
    pid = process.pid
    assert pid is not None
    before = resident_bytes(pid)
    assert before is not None
    asked(process, "hoard")
    for _ in range(10):
        part(process)
    after = resident_bytes(pid)
    assert after is not None
    assert after - before > 150_000_000
    process.kill()
    assert isinstance(heard_death(process), Died)
    assert resident_bytes(pid) is None


def heard_death(process: ReasonerProcess) -> Message:
    while isinstance(message := heard(process), PartMessage):
        pass
    return message


def test_a_hung_answer_is_killed_and_told(process: ReasonerProcess) -> None:
    asked(process, "hang", ask_id=3)
    died = heard(process)
    assert isinstance(died, Died)
    assert "no sign of life" in died.reason
    assert died.ask_id == 3
    assert not process.is_alive


def test_a_stopped_idle_process_is_found_by_its_missing_reply(process: ReasonerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    died = heard(process)
    assert isinstance(died, Died)
    assert "no sign of life" in died.reason


def test_an_idle_process_that_replies_to_pings_lives_on(process: ReasonerProcess) -> None:
    for _ in range(16):  # 0.8 s: twice the time after which a silent one is killed
        assert process.receive(0.05) is None
    asked(process, "anything")


def test_a_process_that_does_not_read_cannot_block_its_parent(process: ReasonerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    large = discs_window(size_wh=(640, 480), num_frames=6)
    assert not process.send(AskMessage(ask_id=1, query=query("x"), window=large))
    died = heard(process)
    assert isinstance(died, Died)
    assert "did not read" in died.reason


def test_an_exception_ends_the_answer_and_not_the_process(process: ReasonerProcess) -> None:
    asked(process, "raise")
    assert rest(process) == [AnswerFailed(reason="KeyError: 'no such thing'")]
    asked(process, "anything", ask_id=2)


def test_cancelling_ends_an_answer_and_is_confirmed(process: ReasonerProcess) -> None:
    asked(process, "talk", ask_id=1)
    assert not process.send(CancelMessage(ask_id=99))
    assert process.send(CancelMessage(ask_id=1))
    assert rest(process)[-1] == AnswerFailed(reason=CANCELLED)
    assert not process.send(CancelMessage(ask_id=1))
    asked(process, "anything", ask_id=2)


def test_one_asking_at_a_time(process: ReasonerProcess) -> None:
    asked(process, "talk", ask_id=1)
    assert not process.send(AskMessage(ask_id=2, query=query("x"), window=EMPTY))
    assert process.send(CancelMessage(ask_id=1))
    rest(process)
    asked(process, "anything", ask_id=2)


def test_more_frames_arrive_and_waiting_for_them_is_no_hang(process: ReasonerProcess) -> None:
    asked(process, "more frames", ask_id=5)
    assert part(process) == FramesWanted(indices=(FrameIndex(7),))
    for _ in range(12):  # the parent takes its time
        assert process.receive(0.05) is None
    assert process.send(MoreFrames(ask_id=5, window=WINDOW))
    assert rest(process)[0] == RationalePart(text="I got 3 read-only frames")


def test_an_answer_that_waits_for_frames_can_be_cancelled(process: ReasonerProcess) -> None:
    asked(process, "more frames", ask_id=5)
    assert isinstance(part(process), FramesWanted)
    assert process.send(CancelMessage(ask_id=5))
    assert rest(process) == [AnswerFailed(reason=CANCELLED)]


def test_stopping_leaves_no_process_and_tells_no_death(process: ReasonerProcess) -> None:
    pid = process.pid
    process.stop()
    assert process.pid is None
    assert process.receive(0.0) is None
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_stopping_a_hung_process_kills_it(process: ReasonerProcess) -> None:
    asked(process, "hang")
    process.stop(timeout_s=0.05)
    assert process.pid is None


def test_ctrl_c_is_left_to_the_parent(process: ReasonerProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    asked(process, "anything")


def test_nothing_is_started_twice(process: ReasonerProcess) -> None:
    with pytest.raises(ConfigError, match="only after the last one has died"):
        process.start()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("clairvoyant", "wants one of kinematic.*got 'clairvoyant'"),
        ("no.such.module:thing", "cannot be loaded: ModuleNotFoundError"),
        ("foreseg.reasoner.load:nothing", "cannot be loaded: AttributeError"),
        ("foreseg.reasoner.load:ENTRY_POINT_GROUP", "wants to name a factory, got a str"),
        ("builtins:dict", "wants to build something with `ask`"),
    ],
)
def test_a_spec_that_cannot_work_is_told_as_such(kind: str, reason: str) -> None:
    handle = ReasonerProcess(ReasonerSpec(kind=kind), QUICK)
    handle.start()
    died = heard(handle)
    assert isinstance(died, Died)
    assert not died.can_restart
    assert re.search(reason, died.reason)


def test_a_crash_while_building_may_be_tried_again(capfd: pytest.CaptureFixture[str]) -> None:
    handle = ReasonerProcess(ReasonerSpec(kind="tests.support.reasoners:broken"), QUICK)
    handle.start()
    assert heard(handle) == Died(reason="left with exit code 1")
    assert "weights not found" in capfd.readouterr().err


def test_a_process_that_is_not_ready_in_time_is_killed() -> None:
    handle = ReasonerProcess(OBEDIENT, ProcessSettings(start_timeout_s=0.001))
    handle.start()
    died = heard(handle)
    assert isinstance(died, (Died, Ready))  # a very fast machine may make it
    if isinstance(died, Died):
        assert "was not ready" in died.reason
    handle.stop()


def test_when_the_parent_dies_a_busy_reasoner_leaves_too() -> None:
    """Its standard output, which it holds open, closes only when it has gone."""
    script = f"""
import os, sys
sys.path[:] = {sys.path!r}
from tests.integration.test_reasoner_process import *
handle = ReasonerProcess(OBEDIENT)
handle.start()
assert isinstance(heard(handle), Ready)
asked(handle, "hang")
print("busy", flush=True)
os._exit(0)  # as if killed
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == b"busy\n"
        assert parent.wait(30) == 0
        assert select.select([parent.stdout], [], [], 30)[0]
        assert parent.stdout.read() == b""


def is_running(pid: int) -> bool:
    """False for what is gone, or waits only for its exit code to be fetched."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def check_gone(pid: int) -> None:
    tick = threading.Event()
    for _ in range(3000):
        if not is_running(pid):
            return
        tick.wait(0.01)
    pytest.fail(f"process {pid} still runs after half a minute")


def child_of(process: ReasonerProcess) -> int:
    """The process that the reasoner has just told of."""
    told = part(process)
    assert isinstance(told, RationalePart)
    word, _, number = told.text.partition(" ")
    assert word == "child"
    assert is_running(int(number))
    return int(number)


def test_a_death_is_noticed_while_a_descendant_holds_the_pipe_and_takes_it_along(
    process: ReasonerProcess,
) -> None:
    asked(process, "child, then exit", ask_id=4)
    child = child_of(process)
    assert heard(process) == Died(reason="left with exit code 3", ask_id=4)
    check_gone(child)


@pytest.mark.parametrize("ending", ["stop", "kill", "hang"])
def test_descendants_end_with_the_reasoner(process: ReasonerProcess, ending: str) -> None:
    asked(process, "child, then hang")
    child = child_of(process)
    if ending == "stop":
        process.stop(timeout_s=0.05)
    else:
        if ending == "kill":
            process.kill()
        assert isinstance(heard(process), Died)
    check_gone(child)


def test_half_a_message_neither_blocks_its_reader_nor_counts_as_a_sign_of_life(
    process: ReasonerProcess,
) -> None:
    asked(process, "half a message", ask_id=3)
    began = time.monotonic()
    assert process.receive(0.05) is None
    assert time.monotonic() - began < 0.3
    died = heard(process)
    assert isinstance(died, Died)
    assert "no sign of life" in died.reason
    assert died.ask_id == 3


def test_memory_is_watched_in_the_middle_of_a_message() -> None:
    settings = ProcessSettings(max_memory_mb=300, nice=0)
    handle = ReasonerProcess(OBEDIENT, settings)
    handle.start()
    assert isinstance(heard(handle), Ready)
    asked(handle, "half a message, then hoard", ask_id=9)
    died = heard(handle)
    assert isinstance(died, Died)
    assert "its ceiling is 300 MB" in died.reason
    assert died.ask_id == 9


def test_stopping_in_the_middle_of_a_message_takes_no_longer() -> None:
    handle = ReasonerProcess(OBEDIENT)
    handle.start()
    assert isinstance(heard(handle), Ready)
    asked(handle, "half a message")
    began = time.monotonic()
    handle.stop(timeout_s=0.1)
    assert time.monotonic() - began < 3.0
    assert not handle.is_alive


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a huge message", "sent a message of 1099511627776 bytes, at most 16777216"),
        ("an empty message", "sent something unreadable: EOFError"),
        ("no pickle", "sent something unreadable: UnpicklingError"),
    ],
)
def test_bytes_that_are_no_message_end_the_process_with_what_they_were(
    process: ReasonerProcess, text: str, reason: str
) -> None:
    asked(process, text, ask_id=6)
    died = heard(process)
    assert isinstance(died, Died)
    assert died.reason.startswith(reason)
    assert died.ask_id == 6


@pytest.mark.parametrize("text", ["child, then hang", "child, then hold"])
@pytest.mark.parametrize("is_stopped", [False, True])
def test_nothing_outlives_a_parent_that_is_killed(text: str, is_stopped: bool) -> None:  # noqa: FBT001 (pytest's)
    """Not a reasoner that is stopped or lets no thread run, nor what it has started."""
    script = f"""
import sys
sys.path[:] = {sys.path!r}
from tests.integration.test_reasoner_process import *
handle = ReasonerProcess(OBEDIENT)
handle.start()
assert isinstance(heard(handle), Ready)
asked(handle, {text!r})
print(handle.pid, child_of(handle), flush=True)
threading.Event().wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(number) for number in parent.stdout.readline().split()]
    assert len(pids) == 2
    if is_stopped:
        os.killpg(pids[0], signal.SIGSTOP)
    parent.kill()
    parent.wait(30)
    for pid in pids:
        check_gone(pid)


def test_what_cannot_be_sent_raises_and_leaves_the_process_as_it_was(
    process: ReasonerProcess,
) -> None:
    class Unpicklable(str):
        __slots__ = ()

    odd = dataclasses.replace(query("x"), text=Unpicklable("x"))
    with pytest.raises((AttributeError, pickle.PicklingError)):
        process.send(AskMessage(ask_id=1, query=odd, window=WINDOW))
    asked(process, "anything", ask_id=2)
    assert rest(process)[-1] == AnswerDone()


def test_thread_counts_stand_before_numpy_loads_and_cores_are_kept_to() -> None:
    kind = "tests.support.reasoners:thread_counts"
    has = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    cores = frozenset({max(has)}) if has else frozenset()
    settings = ProcessSettings(num_threads=3, nice=7, cores=cores)
    handle = ReasonerProcess(ReasonerSpec(kind=kind), settings)
    handle.start()
    assert isinstance(heard(handle), Ready)
    assert handle.send(AskMessage(ask_id=1, query=query("?"), window=EMPTY))
    answer = rest(handle)[0]
    handle.stop()
    assert isinstance(answer, NoTarget)
    nice = os.nice(0) + 7
    assert answer.reason == f"OMP_NUM_THREADS=3 nice={nice} cores={sorted(cores)}"


@pytest.mark.parametrize(
    "wrong",
    [{"nice": 20}, {"num_threads": -1}, {"hang_timeout_s": 0.0}, {"send_timeout_s": np.inf}],
)
def test_settings_out_of_range_are_refused_with_the_value(wrong: dict[str, float]) -> None:
    (value,) = wrong.values()
    with pytest.raises(ConfigError, match=str(value)):
        ProcessSettings(**wrong)  # type: ignore[arg-type]
