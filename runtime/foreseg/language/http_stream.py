# SPDX-License-Identifier: Apache-2.0
"""One HTTP POST whose reply is read as it comes, with signs of life while nothing comes.

`http.client` sends; the reply is parsed here, because a read of its own cannot be resumed after a
timeout, and a generation must be closable while the server is silent. Knows no JSON, follows no
redirect, reads no proxy variable.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from foreseg.clock import Clock
from foreseg.errors import ConfigError, ForesegError

POLL_S = 0.25  # of silence between two signs of life
MAX_HEAD_BYTES = 64 * 1024
MAX_LINE_BYTES = 1024  # of a chunk's size
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?")


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
    """Where to, and how it is reached."""

    url: str
    connect_timeout_s: float = 5.0
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            is_usable = False
        if not is_usable or re.search(r"[^!-~]|[?#]", self.url):
            msg = f"url wants the form http(s)://host[:port]/path, got {self.url[:80]!r}"
            raise ConfigError(msg)
        if parts.username is not None or parts.password is not None:
            msg = "url wants no user or password in it: use api_key_file or api_key_env"
            raise ConfigError(msg)

    def connect(self) -> http.client.HTTPConnection:
        """A connected connection.

        Raises:
            OSError: it cannot be had.
        """
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=self.connect_timeout_s, context=self.tls
            )
        else:
            connection = http.client.HTTPConnection(
                host, parts.port, timeout=self.connect_timeout_s
            )
        connection.connect()
        return connection


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
    connection: http.client.HTTPConnection | None = None
    try:
        connection = endpoint.connect()
        sock: socket.socket = connection.sock
        sock.settimeout(max(POLL_S, (deadline_ns - clock.monotonic_ns()) / 1e9))
        path = urlsplit(endpoint.url).path or "/"
        connection.request("POST", path, body, {**headers, "Connection": "close"})
        sock.settimeout(POLL_S)
        parser = ReplyParser()
        while not parser.is_done:
            data = _received(sock)
            if data is None:
                yield b""
            elif data:
                yield from parser.feed(data)
            else:
                parser.end()
            if clock.monotonic_ns() > deadline_ns and not parser.is_done:
                msg = "it gave no whole reply in time"
                raise HttpError(msg, can_retry=False)
    except ssl.SSLCertVerificationError as error:
        msg = f"its certificate is not trusted: {error.verify_message}; name its ca_file"
        raise HttpError(msg, can_retry=False) from error
    except (OSError, http.client.HTTPException) as error:
        msg = f"the connection failed: {str(error) or type(error).__name__}"
        raise HttpError(msg, can_retry=True) from error
    finally:
        if connection is not None:
            connection.close()


def _received(sock: socket.socket) -> bytes | None:
    """Some bytes, b"" at the end, None if nothing came for a while."""
    try:
        return sock.recv(64 * 1024)
    except TimeoutError:
        return None


class _State(Enum):
    HEAD = "head"
    LENGTH = "length"  # a body of known length
    REST = "rest"  # all that comes until the connection closes
    SIZE = "size"  # the line before a chunk
    CHUNK = "chunk"
    CHUNK_END = "chunk end"  # the empty line after a chunk
    TRAILER = "trailer"
    DONE = "done"


class ReplyParser:
    """Bytes in, a head and pieces of a body out; any cutting of the bytes gives the same body."""

    def __init__(self) -> None:
        self._state = _State.HEAD
        self._buffer = b""
        self._left = 0  # bytes of the body, or of the chunk

    @property
    def is_done(self) -> bool:
        """True once the reply is whole."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> list[Head | bytes]:
        """Read some more.

        Raises:
            HttpError: it is no HTTP reply.
        """
        self._buffer += data
        found: list[Head | bytes] = []
        while not self.is_done:
            before = (self._state, len(self._buffer))
            item = self._step()
            if item:
                found.append(item)
            if (self._state, len(self._buffer)) == before:
                break
        return found

    def end(self) -> None:
        """The connection was closed.

        Raises:
            HttpError: in the middle of the reply.
        """
        if self._state is not _State.REST:
            is_silent = self._state is _State.HEAD and not self._buffer
            msg = "it closed the connection " + ("without a reply" if is_silent else "too early")
            raise HttpError(msg, can_retry=True)
        self._state = _State.DONE

    def _step(self) -> Head | bytes | None:
        if self._state is _State.HEAD:
            return self._head()
        if self._state in (_State.LENGTH, _State.CHUNK, _State.REST):
            return self._body()
        line = self._line()
        if line is None:
            return None
        if self._state is _State.SIZE:
            self._left = _chunk_size(line)
            self._state = _State.CHUNK if self._left else _State.TRAILER
        elif self._state is _State.CHUNK_END:
            self._state = _State.SIZE
        elif not line:
            self._state = _State.DONE
        return None

    def _head(self) -> Head | None:
        text, end, rest = self._buffer.partition(b"\r\n\r\n")
        match = _STATUS_LINE.match(self._buffer)
        if match is None and (len(self._buffer) >= len("HTTP/1.1 200 ") or end):
            msg = f"it is no HTTP server: it said {self._buffer[:40]!r}"
            raise HttpError(msg, can_retry=False)
        if len(text) > MAX_HEAD_BYTES:
            msg = f"its headers are longer than {MAX_HEAD_BYTES} bytes"
            raise HttpError(msg, can_retry=False)
        if not end or match is None:
            return None
        self._buffer = rest
        status = int(match[1])
        if status < 200:  # noqa: PLR2004 (only news on the way)
            return None
        headers: dict[str, str] = {}
        for line in text.split(b"\r\n")[1:]:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        self._expect_body(headers)
        return Head(status=status, headers=headers)

    def _expect_body(self, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self._state = _State.SIZE
        elif length is None:
            self._state = _State.REST
        elif length.isdecimal() and length.isascii() and len(length) < 16:  # noqa: PLR2004
            self._left = int(length)
            self._state = _State.LENGTH if self._left else _State.DONE
        else:
            msg = f"its Content-Length wants a number, got {length[:40]!r}"
            raise HttpError(msg, can_retry=False)

    def _body(self) -> bytes | None:
        if self._state is _State.REST:
            piece, self._buffer = self._buffer, b""
            return piece
        piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(piece)
        if not self._left:
            self._state = _State.DONE if self._state is _State.LENGTH else _State.CHUNK_END
        return piece

    def _line(self) -> bytes | None:
        line, end, rest = self._buffer.partition(b"\n")
        if len(line) > MAX_LINE_BYTES:
            msg = "a chunk of its reply has no size"
            raise HttpError(msg, can_retry=False)
        if not end:
            return None
        self._buffer = rest
        return line.rstrip(b"\r")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits) is None:
        msg = f"a chunk of its reply wants a size, got {line[:40]!r}"
        raise HttpError(msg, can_retry=False)
    return int(digits, 16)
