# SPDX-License-Identifier: Apache-2.0
"""A reply over HTTP against real servers that mean no good: nothing grows, nobody waits for ever."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
import threading
import zlib
from collections.abc import Generator
from contextlib import suppress

import pytest

pytest.importorskip("httpx", reason="needs httpx: pip install 'foreseg[server]'")
pytest.importorskip("cv2", reason="the chat server needs OpenCV: pip install 'foreseg[video]'")

from tests.support import chat_server as chat
from tests.support.chat_server import ChatServer

from foreseg.clock import SystemClock
from foreseg.errors import ConfigError, MissingExtraError
from foreseg.language.http_stream import POLL_S, Endpoint, Head, HttpError, post
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.load import build_reasoner

BODY = b'{"messages": []}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FLOOD_BYTES = 16 * 2**20  # far more than the bounds and all buffers of the kernel hold
DEADLINE_S = 0.6
CLOCK = SystemClock()


def replying(
    url: str, timeout_s: float, body: bytes = BODY
) -> Generator[Head | bytes, None, None]:
    deadline_ns = CLOCK.monotonic_ns() + round(timeout_s * 1e9)
    return post(Endpoint(url=url), body, {}, deadline_ns=deadline_ns, clock=CLOCK)


def body_of(url: str, timeout_s: float = 10.0) -> bytes:
    return b"".join(p for p in replying(url, timeout_s) if isinstance(p, bytes))


def failure_of(url: str, timeout_s: float, body: bytes = BODY) -> tuple[HttpError, float]:
    """The error, and after how many seconds it came."""
    began_ns = CLOCK.monotonic_ns()
    with pytest.raises(HttpError) as caught:
        list(replying(url, timeout_s, body))
    return caught.value, (CLOCK.monotonic_ns() - began_ns) / 1e9


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: " + b"a" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Header: ", b"a" * 1000),
        (b"", b"a" * 1000),
        (CHUNKED, b"0" * 1000),
        (CHUNKED + b"5;x=", b"y" * 1000),
        (CHUNKED + b"0\r\n", b"X-Trailer: a\r\n" * 50),
    ],
    ids=["headers", "one header", "no line", "a chunk's size", "its extension", "trailers"],
)
def test_what_has_no_end_is_refused_before_it_grows(beginning: bytes, piece: bytes) -> None:
    with ChatServer([chat.floods(beginning, piece)]) as server:
        error, _ = failure_of(server.url, timeout_s=10.0)
        assert server.hung_up.wait(chat.WAIT_S)
    assert "no proper HTTP" in str(error)
    assert not error.can_retry
    assert server.num_flooded < FLOOD_BYTES


@pytest.mark.parametrize(
    "act",
    [
        chat.stays_silent,
        chat.falls_silent_after(b"HTTP/1.1 200 OK\r\nX-He"),
        chat.falls_silent_after(CHUNKED + b"2\r\nhi\r\n"),
        chat.drips(b"", HEAD * 1000),
        chat.drips(HEAD + b"\r\n", b"data: " + b"a" * 10_000),
        chat.drips(CHUNKED, b"0" * 10_000),
        chat.floods(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        chat.floods(CHUNKED, b"1\r\na\r\n" * 500),
    ],
    ids=[
        *("silent", "silent in a header", "silent in the body"),
        *("drips the head", "drips the body", "drips a chunk's size"),
        *("floods with interim replies", "floods with tiny chunks"),
    ],
)
def test_the_deadline_holds_whatever_the_server_does(act: chat.Act) -> None:
    with ChatServer([act]) as server:
        error, seconds = failure_of(server.url, DEADLINE_S)
        assert server.hung_up.wait(chat.WAIT_S)
    assert "no whole reply in time" in str(error)
    assert not error.can_retry
    assert DEADLINE_S <= seconds < chat.WAIT_S / 2  # a flood keeps this process busy


@pytest.fixture
def mute() -> Generator[tuple[str, threading.Event, threading.Event], None, None]:
    """A server that reads nothing until told to, and then all.

    Yields where it is, the event that tells it, and the one that says that its client hung up.
    """
    may_read, hung_up = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(chat.WAIT_S)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.settimeout(chat.WAIT_S)
            may_read.wait(chat.WAIT_S)
            with suppress(ConnectionResetError):
                while connection.recv(2**20):
                    pass
            hung_up.set()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", may_read, hung_up
    thread.join()
    listener.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_closing_hangs_up_while_a_request_is_sent_or_a_handshake_waits(
    scheme: str, mute: tuple[str, threading.Event, threading.Event]
) -> None:
    place, may_read, hung_up = mute
    tls = ssl.create_default_context() if scheme == "https" else None
    endpoint = Endpoint(url=f"{scheme}://{place}/v1", tls=tls, connect_timeout_s=chat.WAIT_S)
    deadline_ns = CLOCK.monotonic_ns() + round(chat.WAIT_S * 1e9)
    stream = post(endpoint, b"a" * 2**25, {}, deadline_ns=deadline_ns, clock=CLOCK)
    assert next(stream) == b""
    began_ns = CLOCK.monotonic_ns()
    stream.close()
    assert CLOCK.monotonic_ns() - began_ns < chat.WAIT_S / 2 * 1e9
    may_read.set()
    assert hung_up.wait(chat.WAIT_S)


@pytest.mark.parametrize(
    "act",
    [
        chat.stays_silent,
        chat.falls_silent_after(b"HTTP/1.1 200 OK\r\nX-He"),
        chat.falls_silent_after(CHUNKED + b"2\r\nhi\r\n"),
        chat.drips(HEAD + b"\r\n", b"a" * 10_000, pause_s=POLL_S * 2),
    ],
    ids=["silent", "silent in a header", "silent in the body", "drips the body"],
)
def test_closing_hangs_up_at_once_while_the_server_is_silent(act: chat.Act) -> None:
    with ChatServer([act]) as server:
        stream = replying(server.url, chat.WAIT_S)
        while next(stream) != b"":
            pass
        began_ns = CLOCK.monotonic_ns()
        stream.close()
        assert CLOCK.monotonic_ns() - began_ns < chat.WAIT_S / 2 * 1e9
        assert server.hung_up.wait(chat.WAIT_S)


def test_signs_of_life_come_all_the_time() -> None:
    with ChatServer([chat.stays_silent]) as server:
        signs = []
        began_ns = CLOCK.monotonic_ns()
        for piece in replying(server.url, chat.WAIT_S):
            signs.append(piece)
            if len(signs) == 4:
                break
    assert signs == [b""] * 4
    assert CLOCK.monotonic_ns() - began_ns < 20 * POLL_S * 1e9


@pytest.mark.parametrize(
    "reply",
    [
        b"220 smtp.example ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        CHUNKED + b"zz\r\nhello\r\n",
        CHUNKED + b"-5\r\nhello\r\n",
        CHUNKED + b"5\r\nhelloworld\r\n",
    ],
)
def test_what_is_no_http_fails_and_is_not_tried_again(reply: bytes) -> None:
    with ChatServer([chat.sends_raw(reply)]) as server:
        error, _ = failure_of(server.url, timeout_s=10.0)
    assert "no proper HTTP" in str(error)
    assert not error.can_retry


REPLY = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + CHUNKED + b"5;x=y\r\nhello\r\n1\r\n \r\n"
    b"5\r\nworld\r\n0\r\nSome: trailer\r\n\r\n"
)


@pytest.mark.parametrize("step", [1, 2, 7, len(REPLY)])
def test_any_cutting_of_a_reply_gives_the_same_body(step: int) -> None:
    def act(call: chat.Call) -> None:
        call.handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(REPLY), step):
            call.handler.wfile.write(REPLY[at : at + step])

    with ChatServer([act]) as server:
        assert body_of(server.url) == b"hello world"


@pytest.mark.parametrize("end", range(0, len(REPLY) - 1, 9))
def test_a_reply_that_ends_too_early_is_none_and_may_be_tried_again(end: int) -> None:
    with ChatServer([chat.sends_raw(REPLY[:end])]) as server:
        error, _ = failure_of(server.url, timeout_s=10.0)
    assert "closed the connection too early" in str(error)
    assert error.can_retry


def test_what_comes_packed_is_not_unpacked() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(bytes(2**24)) + packer.flush()

    def act(call: chat.Call) -> None:
        assert call.headers["Accept-Encoding"] == "identity"
        call.send_whole(bomb, **{"Content-Encoding": "gzip"})

    with ChatServer([act]) as server:
        assert body_of(server.url) == bomb


def test_no_proxy_and_no_netrc_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with ChatServer([chat.sends(b"here")]) as server:
        assert body_of(server.url) == b"here"


def test_headers_that_echo_a_secret_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ChatServer([chat.fails(200, "x", **{"X-Echo": "sk-secret"})]) as server:
        assert body_of(server.url)
    assert "sk-secret" not in caplog.text


def test_inside_an_event_loop_it_says_what_to_do() -> None:
    async def ask(url: str) -> None:
        list(replying(url, 5.0))

    with ChatServer([chat.sends(b"here")]) as server:
        with pytest.raises(HttpError, match="ask in another thread"):
            asyncio.run(ask(server.url))
        assert asyncio.run(asyncio.to_thread(body_of, server.url)) == b"here"


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    spec = ReasonerSpec(kind="openai", options={"url": "http://host/v1", "model": "m"})
    with pytest.raises(MissingExtraError, match=r"foreseg\[server\]") as caught:
        build_reasoner(spec)
    assert (caught.value.package, caught.value.extra) == ("httpx", "server")


@pytest.mark.parametrize(
    "url",
    [
        *("", "host", "ftp://host", "http://", "http://[::1", "http://host:port", "//h/"),
        *("http://h:99999/", "http://h/?q", "http://h/#f", "http://h/ a", "http://h/é"),
        *("http://xn--/", "http://h\n/", "http://[fe80::1%25eth0]:x/"),
    ],
)
def test_a_url_that_cannot_be_one_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ConfigError, match=r"url wants the form http\(s\)://host"):
        Endpoint(url=url)
