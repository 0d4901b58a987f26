# SPDX-License-Identifier: Apache-2.0
"""What all tests need, set before anything is imported: one thread of arithmetic, ^C, a folder."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator

import pytest

from tests.support import once


def pytest_configure(config: pytest.Config) -> None:
    """Two threads on two busy cores wait for each other, in torch most of all.

    A job in the background of a script inherits an ignored SIGINT, and hands it on.
    The first process of a run makes the folder that its workers share.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup, likewise
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if once.VARIABLE not in os.environ:
        folder = os.environ[once.VARIABLE] = tempfile.mkdtemp(prefix="foreseg-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports leave no garbage: to look for it again and again took them a third of their time.

    Examples have no deadline: beside other processes, any of them may be late.
    """
    from hypothesis import settings

    settings.register_profile("unhurried", settings(deadline=None))
    settings.load_profile("unhurried")
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, the files that take longest begin: nobody waits for one of them at the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path not in slow, not item.get_closest_marker("ros")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests of faults have measured, a line each."""
    outcomes = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "outcome" and report.when == "call"
    ]
    if outcomes:
        terminalreporter.section("outcomes of faults")
        terminalreporter.write_line("\n".join(map(str, outcomes)))
