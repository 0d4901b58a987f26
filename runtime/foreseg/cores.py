# SPDX-License-Identifier: Apache-2.0
"""Which of the processor's cores a thread or process may use, and how readily it gets them.

Linux alone knows both for a single thread. Knows nothing of who asks.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import NoReturn

from foreseg.errors import ConfigError

MAX_CORE = 1023  # the system's own bound
MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Of the processor."""

    cores: frozenset[int] = frozenset()  # none: those that it has
    nice: int = 0  # is added to its niceness; below 0 wants a privilege


def cores_from_text(text: str, name: str) -> frozenset[int]:
    """Cores as a setting has them: `0`, `1-3`, `0,2-3`; empty for all.

    Args:
        text: of the setting.
        name: of the setting, for the error.

    Raises:
        ConfigError: anything else.
    """
    cores: set[int] = set()
    if len(text) > MAX_CHARACTERS:
        _refuse(text, name)
    for part in text.split(",") if text.strip() else ():
        first, dash, last = (word.strip() for word in part.partition("-"))
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdecimal() and int(end) <= MAX_CORE for end in ends):
            _refuse(text, name)
        if int(ends[0]) > int(ends[1]):
            _refuse(text, name)
        cores.update(range(int(ends[0]), int(ends[1]) + 1))
    return frozenset(cores)


def take(share: Share, name: str) -> None:
    """Give the calling thread its share; what it starts later inherits it.

    Args:
        share: of the processor.
        name: of whom it is for, for the error.

    Raises:
        ConfigError: this system does not let it have that.
    """
    if share == Share():
        return
    if not sys.platform.startswith("linux"):
        msg = f"{name}: cores and niceness of a thread can be chosen on Linux only; leave them out"
        raise ConfigError(msg)
    has = os.sched_getaffinity(0)
    if not share.cores <= has:
        msg = (
            f"{name} wants the cores {sorted(share.cores)}, this process may use {sorted(has)} of"
            f" {os.cpu_count()}"
        )
        raise ConfigError(msg)
    try:
        if share.cores:
            os.sched_setaffinity(0, share.cores)
    except OSError as error:
        msg = (
            f"{name} wants the cores {sorted(share.cores)}, which this system refuses"
            f" ({error.strerror or error})"
        )
        raise ConfigError(msg) from error
    try:
        if share.nice:
            os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + share.nice)
    except OSError as error:
        msg = (
            f"{name} wants the niceness {share.nice:+d}, which this system refuses"
            f" ({error.strerror or error}): below 0 it wants CAP_SYS_NICE, or LimitNICE= of systemd"
        )
        raise ConfigError(msg) from error


def _refuse(text: str, name: str) -> NoReturn:
    msg = f"{name} wants cores such as 0, 1-3 or 0,2-3, got {text[:MAX_CHARACTERS]!r}"
    raise ConfigError(msg)
