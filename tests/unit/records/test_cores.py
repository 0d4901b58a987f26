# SPDX-License-Identifier: Apache-2.0
"""Shares of the processor: how they are written, and what a thread really gets."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from foreseg import cores as module
from foreseg.config import Config, ReasonerConfig, TrackerConfig
from foreseg.cores import Share, cores_from_text, take
from foreseg.driving.executor import Executor
from foreseg.driving.guarded_thread import GuardedThread, check_share
from foreseg.driving.worker import Worker
from foreseg.errors import ConfigError

WAIT_S = 20.0
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of threads: Linux")


@pytest.mark.parametrize(
    ("text", "cores"),
    [("", ()), (" ", ()), ("0", (0,)), ("1-3", (1, 2, 3)), ("0, 2-3,2", (0, 2, 3)), ("7-7", (7,))],
)
def test_cores_are_numbers_and_ranges(text: str, cores: tuple[int, ...]) -> None:
    assert cores_from_text(text, "tracker.cores") == frozenset(cores)


@pytest.mark.parametrize(
    "text",
    ["all", "-1", "3-1", "1-", "0,", "0;1", "1024", "0-9999999999", "²", "1-2-3", "0," * 150],
)
def test_other_words_are_refused_with_the_setting_and_the_value(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^tracker.cores wants cores such as 0, 1-3") as refused:
        cores_from_text(text, "tracker.cores")
    assert text[:8] in str(refused.value)


@on_linux
def test_a_thread_has_its_share_and_the_others_keep_theirs() -> None:
    before, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    core = max(before)
    seen: list[tuple[set[int], int]] = []

    def run() -> None:
        seen.append((os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)))

    share = Share(cores=frozenset({core}), nice=1)
    check_share(share, "the tracker")
    thread = GuardedThread("tracker", run, threading.Event(), share)
    thread.start()
    assert thread.join(WAIT_S)
    assert seen == [({core}, min(nice + 1, 19))]
    assert (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)) == (before, nice)


@on_linux
@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Config(tracker=TrackerConfig(cores="1023")), r"the tracker .*wants the cores \[1023\]"),
        (Config(reasoner=ReasonerConfig(cores="1023")), r"the reasoner .*this process may use \["),
    ],
)
def test_a_worker_refuses_cores_that_are_not_there(config: Config, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Worker(config, (), Executor(config, (), lambda _: None), None)


def test_a_config_refuses_words_that_are_no_cores_before_there_is_a_worker() -> None:
    with pytest.raises(ConfigError, match=r"reasoner.cores wants cores such as"):
        Config(reasoner=ReasonerConfig(cores="x"))


@on_linux
def test_a_refused_niceness_is_a_sentence_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refuse)
    with pytest.raises(ConfigError, match=r"niceness -5, .*Permission denied.*CAP_SYS_NICE"):
        check_share(Share(nice=-5), "the tracker")


@on_linux
def test_refused_cores_are_not_told_as_a_niceness(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    core = max(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    told = rf"^the tracker wants the cores \[{core}\], which this system refuses \(Operation not"
    with pytest.raises(ConfigError, match=told):
        check_share(Share(cores=frozenset({core})), "the tracker")


def test_elsewhere_only_nothing_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    take(Share(), "the tracker")
    with pytest.raises(ConfigError, match="Linux only"):
        take(Share(nice=1), "the tracker")
