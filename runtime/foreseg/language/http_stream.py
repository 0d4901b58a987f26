# SPDX-License-Identifier: Apache-2.0
"""One HTTP POST whose reply is read as it comes, with signs of life while nothing comes.

httpx speaks HTTP: its asynchronous client, on a loop that the reader of the reply runs a little at
a time. So a deadline holds whatever the server does, and closing the generator hangs up, while a
name is looked up, a request sent, or nothing said; its plain client can do neither (docs/log.md).
No thread, no JSON; follows no redirect, unpacks nothing, reads no proxy variable.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from foreseg.clock import Clock
from foreseg.errors import ConfigError, ForesegError, MissingExtraError

POLL_S = 0.25  # of silence between two signs of life
CLOSE_S = 1.0  # for a connection to be closed
NS_PER_S = 1e9
_CUT_OFF = ("disconnected", "closed connection")  # what h11 says of an end that comes too early

_LOG = logging.getLogger(__name__)
for _name in ("httpx", "httpcore"):  # they tell every request, and a reply's headers word for word
    logging.getLogger(_name).setLevel(logging.WARNING)


class HttpError(ForesegError):
    """No whole reply.

    Attributes:
        can_retry: another try may end otherwise.
    """

    def __init__(self, message: str, *, can_retry: bool) -> None:
        self.can_retry = can_retry
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Status and headers of a reply; header names in lower case."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to, and how it is reached.

    Raises:
        ConfigError: for a url that cannot be one, or holds a password.
        MissingExtraError: httpx is absent.
    """

    url: str
    connect_timeout_s: float = 5.0
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            package, extra = error.name or "httpx", "server"
            raise MissingExtraError(package, extra, "a language model behind a server") from error
        try:
            parts = urlsplit(self.url)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port, httpx.URL(self.url).host  # asked for, they are read
        except (ValueError, httpx.InvalidURL):
            is_usable = False
        if not is_usable or re.search(r"[^!-~]|[?#]", self.url):
            msg = f"url wants the form http(s)://host[:port]/path, got {self.url[:80]!r}"
            raise ConfigError(msg)
        if parts.username is not None or parts.password is not None:
            msg = "url wants no user or password in it: use api_key_file or api_key_env"
            raise ConfigError(msg)


@runtime_checkable
class _Opened(Protocol):
    """A connection as httpcore shows it."""

    async def aclose(self) -> None: ...


Reply = AsyncGenerator[Head | bytes, None]


def post(
    endpoint: Endpoint,
    body: bytes,
    headers: Mapping[str, str],
    *,
    deadline_ns: int,
    clock: Clock,
) -> Generator[Head | bytes, None, None]:
    """Yield the reply's head once, then its body in pieces; b"" every so often in between.

    Raises:
        HttpError: no connection, no whole reply until `deadline_ns` (monotonic), or no HTTP.
    """
    import httpx

    try:
        with closing(_Driven(_reply(endpoint, body, headers))) as reply:
            while True:
                left_s = (deadline_ns - clock.monotonic_ns()) / NS_PER_S
                if left_s <= 0:
                    msg = "it gave no whole reply in time"
                    raise HttpError(msg, can_retry=False)
                piece = reply.next(min(POLL_S, left_s))
                if piece is None:
                    return
                yield piece
    except httpx.RemoteProtocolError as error:
        is_cut_off = any(word in str(error) for word in _CUT_OFF)
        how = "closed the connection too early" if is_cut_off else "speaks no proper HTTP"
        msg = f"it {how}: {error}"
        raise HttpError(msg, can_retry=is_cut_off) from error
    except httpx.TransportError as error:
        reason = _reason_of(error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            msg = f"its certificate is not trusted: {reason.verify_message}; name its ca_file"
            raise HttpError(msg, can_retry=False) from error
        msg = f"the connection failed: {_words_of(reason)}"
        raise HttpError(msg, can_retry=True) from error


async def _reply(endpoint: Endpoint, body: bytes, headers: Mapping[str, str]) -> Reply:
    """The reply as httpx reads it: heads, lines and trailers of at most 100 kB, raw bytes."""
    import httpx

    opened: list[_Opened] = []

    async def note(event: str, about: Mapping[str, object]) -> None:
        stream = about.get("return_value")
        if event == "connection.connect_tcp.complete" and isinstance(stream, _Opened):
            opened.append(stream)

    client = httpx.AsyncClient(
        verify=False if endpoint.tls is None else endpoint.tls,  # no TLS, or by this context
        trust_env=False,
        timeout=httpx.Timeout(None, connect=endpoint.connect_timeout_s),  # `post` has a deadline
    )
    plain = {**headers, "Accept-Encoding": "identity", "Connection": "close"}
    try:
        async with (
            client,
            client.stream(
                "POST", endpoint.url, content=body, headers=plain, extensions={"trace": note}
            ) as response,
        ):
            yield Head(status=response.status_code, headers=dict(response.headers))
            async for piece in response.aiter_raw():
                yield piece
    finally:
        for stream in opened:  # httpcore forgets one whose TLS handshake is cancelled
            await stream.aclose()


class _Driven:
    """An asynchronous reply, run in the caller's thread for as long as the caller waits."""

    def __init__(self, reply: Reply) -> None:
        if _is_in_a_loop():
            msg = "it cannot be asked from inside a running event loop: ask in another thread"
            raise HttpError(msg, can_retry=False)
        self._reply = reply
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_note)
        self._next: asyncio.Task[Head | bytes | None] | None = None

    def next(self, timeout_s: float) -> Head | bytes | None:
        """What comes next: b"" if nothing has come yet, None at the end."""
        if self._next is None:
            self._next = self._loop.create_task(_next_of(self._reply))
        self._run({self._next}, timeout_s)
        if not self._next.done():
            return b""
        done, self._next = self._next, None
        return done.result()

    def close(self) -> None:
        """Hang up."""
        if self._next is not None:
            self._next.cancel()
            self._run({self._next}, CLOSE_S)
        self._run({self._loop.create_task(_closed(self._reply))}, CLOSE_S)
        if others := asyncio.all_tasks(self._loop):  # httpx's own generators, left half read
            self._run(others, CLOSE_S)
        self._loop.close()

    def _run(self, tasks: set[asyncio.Task[Head | bytes | None]], timeout_s: float) -> None:
        self._loop.run_until_complete(asyncio.wait(tasks, timeout=timeout_s))


def _note(_: asyncio.AbstractEventLoop, about: Mapping[str, object]) -> None:
    """What goes wrong where nobody waits for it: while a connection is closed."""
    error = about.get("exception")
    _LOG.debug("%s %s", about.get("message"), "" if error is None else type(error).__name__)


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _next_of(reply: Reply) -> Head | bytes | None:
    return await anext(reply, None)


async def _closed(reply: Reply) -> None:
    await reply.aclose()
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.sleep(0)


def _reason_of(error: BaseException) -> BaseException:
    """What the system said, under what httpx says about it; of several tries, of the last."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    while found is not None:
        error = found
        tries = getattr(found, "exceptions", None)
        found = tries[-1] if tries else found.__cause__
    return error


def _words_of(reason: BaseException) -> str:
    """Asyncio says where it could not connect to, and not why."""
    tells_why = isinstance(reason, (socket.gaierror, ssl.SSLError))
    if isinstance(reason, OSError) and reason.errno and not tells_why:
        return os.strerror(reason.errno)
    return str(reason) or type(reason).__name__
