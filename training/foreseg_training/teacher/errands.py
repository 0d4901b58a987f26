# SPDX-License-Identifier: Apache-2.0
"""One errand: a teacher is asked, its reply checked, and asked again where it does not do.

The check is the caller's. What goes wrong is a value with its reason, never an exception: a run has
thousands of errands. Does not know what is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from foreseg.language.base import LanguageModelError, LanguageRequest
from foreseg.language.openai_server import OpenAiServer, ServerSettings

MAX_REPLY_CHARS = 20_000  # more is no reply to any errand
MAX_KEPT_CHARS = 2_000  # of a refused reply in the journal


class Status(Enum):
    """What became of an errand."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # by the check, every time
    FAILED = "failed"  # there was no reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check makes of a reply.

    Attributes:
        reason: why it does not do; "" = it does.
        found: what is kept of it, as JSON has it.
    """

    reason: str = ""
    found: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Errand:
    """What to ask, and how to check the reply; picklable where `check` is."""

    id: str
    request: LanguageRequest
    check: Callable[[str], Checked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of an errand.

    Attributes:
        reason: why it was refused, or failed; "" = it was not.
        found: of the check.
        text: the last reply, cut; kept to see what is wrong with it.
        num_asked: times.
        tokens_in, tokens_out: of all the times, as the server tells; 0 where it does not.
    """

    id: str
    status: Status
    reason: str = ""
    found: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    num_asked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


def never() -> bool:
    """Nobody wants the run to end."""
    return False


def do_errand(
    errand: Errand,
    settings: ServerSettings,
    tries: int,
    is_stopping: Callable[[], bool] = never,
) -> Reply:
    """Ask until a reply does, at most `tries` times; each time with another seed."""
    tokens = [0, 0]
    checked, text = Checked(reason="not asked"), ""
    for number in range(tries):
        request = replace(errand.request, seed=errand.request.seed + number)
        try:
            text = _said(request, settings, tokens, is_stopping)
        except LanguageModelError as error:
            return Reply(
                id=errand.id, status=Status.FAILED, reason=str(error), num_asked=number + 1,
                tokens_in=tokens[0], tokens_out=tokens[1],
            )  # fmt: skip
        checked = errand.check(text)
        if not checked.reason:
            break
    status = Status.REFUSED if checked.reason else Status.ACCEPTED
    return Reply(
        id=errand.id, status=status, reason=checked.reason, found=checked.found,
        text=text[:MAX_KEPT_CHARS], num_asked=number + 1,
        tokens_in=tokens[0], tokens_out=tokens[1],
    )  # fmt: skip


def _said(
    request: LanguageRequest,
    settings: ServerSettings,
    tokens: list[int],
    is_stopping: Callable[[], bool],
) -> str:
    """A whole completion without its thoughts; counts its tokens, whole or not.

    Raises:
        LanguageModelError: it cannot be had, or nobody wants it any more.
    """
    text = ""
    with closing(_server(settings).generate(request)) as chunks:
        for chunk in chunks:
            tokens[0] += chunk.num_prompt_tokens
            tokens[1] += chunk.num_tokens
            text += chunk.text
            if is_stopping():
                msg = "the run ended while the teacher spoke"
                raise LanguageModelError(msg)
            if len(text) > MAX_REPLY_CHARS:
                break  # the check will find no end to it
    return text.rpartition("</think>")[2].strip()


@functools.lru_cache(maxsize=4)
def _server(settings: ServerSettings) -> OpenAiServer:
    """One client a process and server: it learns how plainly to ask."""
    return OpenAiServer(settings)
