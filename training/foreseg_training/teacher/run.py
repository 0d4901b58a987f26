# SPDX-License-Identifier: Apache-2.0
"""Many errands: bounded in parallel, each reply in the journal at once, tokens and cost shown.

Running again goes on with what is not in the journal, or failed. Does not know what is asked for.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

from foreseg.errors import ConfigError, InputError
from foreseg.language.openai_server import ServerSettings
from foreseg.work.base import Executor
from foreseg.work.threads import ThreadExecutor
from foreseg_training.samples import Filtered

from .errands import Errand, Reply, Status, do_errand
from .journal import Journal, Line

MAX_TRIES = 20
_SILENT = 8  # errands that failed in a row, with none before that did not: nobody is there
_DIED = "its worker died"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Of a million tokens, in the money of whoever asks; None = not known."""

    tokens_in: float | None = None
    tokens_out: float | None = None

    def __post_init__(self) -> None:
        for price in (self.tokens_in, self.tokens_out):
            if price is not None and not 0 <= price < 1e9:
                msg = f"a price of a million tokens wants a number of at least 0, got {price}"
                raise ConfigError(msg)

    def words(self, tokens_in: int, tokens_out: int) -> str:
        """What so many tokens cost."""
        if self.tokens_in is None or self.tokens_out is None:
            return "cost unknown: give --price-in and --price-out"
        return f"cost {(tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6:.4f}"


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was asked so far, this time and before, counted."""

    statuses: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    failed: Counter[str] = field(default_factory=Counter)
    num_asked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, line: Line) -> None:
        """Count a line of the journal."""
        status = str(line.get("status", ""))
        self.statuses[status] += 1
        if status == Status.REFUSED.value:
            self.refused[str(line.get("reason", ""))] += 1
        elif status == Status.FAILED.value:
            self.failed[str(line.get("reason", ""))] += 1
        self.num_asked += _count(line, "num_asked")
        self.tokens_in += _count(line, "tokens_in")
        self.tokens_out += _count(line, "tokens_out")

    def require(self, what: str, filtered: Filtered) -> None:
        """See that something came of it.

        Raises:
            InputError: nothing was accepted; says why.
        """
        if not self.statuses:
            msg = f"no episode gives a sample: {str(filtered) or 'there is none'}"
            raise InputError(msg)
        if not self.statuses[Status.ACCEPTED.value]:
            (reason, count), *_ = (self.refused + self.failed).most_common(1)
            total = self.statuses.total()
            msg = f"not one of {total} {what} was accepted; {count} times: {reason}"
            raise InputError(msg)

    def lines(self, prices: Prices) -> Iterator[str]:
        """For whoever started it."""
        counts = (f"{self.statuses[status.value]} {status.value}" for status in Status)
        yield f"{', '.join(counts)}; {self.num_asked} requests"
        for what, reasons in (("refused", self.refused), ("failed", self.failed)):
            for reason, count in reasons.most_common(12):
                yield f"  {what}: {count} {reason}"
        told = "" if self.tokens_in else " (the server does not tell how many it read)"
        yield (
            f"tokens: {self.tokens_in} in{told}, {self.tokens_out} out;"
            f" {prices.words(self.tokens_in, self.tokens_out)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """Who is asked, and how.

    Attributes:
        settings: of its server.
        executor: threads of this machine, or a cluster.
        tries: of each errand.
        begin: called with the number of errands that are left.
        progress: called with each reply.
    """

    settings: ServerSettings
    executor: Executor
    tries: int = 3
    begin: Callable[[int], object] = lambda _total: None
    progress: Callable[[Reply], object] = lambda _reply: None

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= MAX_TRIES:
            msg = f"tries want 1 to {MAX_TRIES}, got {self.tries}"
            raise ConfigError(msg)


def run_errands(errands: Iterator[Errand], journal: Journal, teacher: Teacher) -> Tally:
    """Do errands.

    Args:
        errands: made when there is room for them; none that is done already.
        journal: open; gets every reply as it comes.
        teacher: who is asked.

    Raises:
        InputError: nobody answers at all; says what the server said.
    """
    executor = teacher.executor
    task = functools.partial(do_errand, settings=teacher.settings, tries=teacher.tries)
    if isinstance(executor, ThreadExecutor):
        task = functools.partial(task, is_stopping=executor.stopping.is_set)
    given: list[str] = []  # ids, by index

    def noted() -> Iterator[Errand]:
        for errand in errands:
            given.append(errand.id)
            yield errand

    silent = 0  # since the last that was answered; -1: somebody is there
    with closing(executor.run(task, noted())) as outcomes:
        for outcome in outcomes:
            dead = Reply(id=given[outcome.index], status=Status.FAILED, reason=_DIED)
            reply = outcome.values[0] if outcome.values else dead
            journal.append(line_of(reply))
            teacher.progress(reply)
            if reply.status is not Status.FAILED:
                silent = -1
            elif silent >= 0:
                silent += 1
                if silent >= _SILENT:
                    msg = f"the first {silent} requests all failed: {reply.reason}"
                    raise InputError(msg)
    tally = Tally()
    for line in journal.lines.values():
        tally.add(line)
    return tally


def _count(line: Line, name: str) -> int:
    value = line.get(name, 0)
    return value if isinstance(value, int) else 0


def is_done(journal: Journal, errand_id: str) -> bool:
    """Whether an errand need not be done: what failed is done again, what was refused is not."""
    line = journal.lines.get(errand_id)
    return line is not None and line.get("status") != Status.FAILED.value


def line_of(reply: Reply) -> dict[str, Any]:
    """A reply as a line of a journal."""
    return {**asdict(reply), "status": reply.status.value, "found": dict(reply.found)}


def accepted(journal: Journal, ids: Sequence[str]) -> Iterator[tuple[str, Line]]:
    """What was accepted, in the order of `ids`."""
    for errand_id in ids:
        line = journal.lines.get(errand_id)
        if line is not None and line.get("status") == Status.ACCEPTED.value:
            yield errand_id, dict(line.get("found") or {})
