# SPDX-License-Identifier: Apache-2.0
"""A real HTTP server on localhost that speaks the chat-completions protocol, and its faults.

Each request is answered by the next of its acts, the last one again and again.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

WAIT_S = 10.0
Act = Callable[["Call"], None]


@dataclass
class Call:
    """One request, and the way to answer it."""

    handler: BaseHTTPRequestHandler
    server: ChatServer
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def words(self) -> str:
        return "\n".join(
            part["text"] if isinstance(part, dict) else part
            for message in self.body["messages"]
            for part in _parts(message["content"])
            if not isinstance(part, dict) or part["type"] == "text"
        )

    @property
    def images(self) -> list[np.ndarray]:
        """The images as the server decodes them, (h, w, 3) RGB."""
        images = []
        for message in self.body["messages"]:
            for part in _parts(message["content"]):
                if isinstance(part, dict) and part["type"] == "image_url":
                    kind, _, data = part["image_url"]["url"].partition(";base64,")
                    assert kind in ("data:image/jpeg", "data:image/png")
                    data = np.frombuffer(base64.b64decode(data), np.uint8)
                    images.append(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])
        return images

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def send_whole(self, value: object, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        self.send_head(status, {**kind, **headers})
        self.handler.wfile.write(data)

    def send_chunk(self, data: bytes) -> None:
        self.handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.handler.wfile.flush()

    def begin_stream(self) -> None:
        self.send_head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})

    def send_event(self, value: object) -> None:
        self.send_chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


def _parts(content: Any) -> list[Any]:
    return [content] if isinstance(content, str) else content


def _choice(index: int, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def says(
    text: str | Callable[[Call], str],
    *,
    step: int = 5,
    log_prob: float | None = None,
    thoughts: str = "",
    cut_after: int | None = None,
    obeys_n: bool = True,
    is_done_said: bool = True,
) -> Act:
    """Streams a text; optionally with log probabilities, or cut off after some events."""

    def act(call: Call) -> None:
        call.begin_stream()
        call.send_chunk(b": welcome\n\n")
        num_events = 0
        for index in range(call.body.get("n", 1) if obeys_n else 1):
            whole = text(call) if callable(text) else text
            call.send_event(_choice(index, {"role": "assistant", "content": ""}))
            for name, said in (("reasoning_content", thoughts), ("content", whole)):
                for at in range(0, len(said), step):
                    token = said[at : at + step]
                    event = _choice(index, {name: token})
                    if log_prob is not None and call.body.get("logprobs"):
                        listed = {"content": [{"token": token, "logprob": log_prob}]}
                        event["choices"][0]["logprobs"] = listed
                    if num_events == cut_after:
                        call.handler.connection.close()
                        raise ConnectionAbortedError
                    call.send_event(event)
                    num_events += 1
            call.send_event(_choice(index, {}, "stop"))
        if call.body.get("stream_options"):
            call.send_event({"choices": [], "usage": {"completion_tokens": 4 * num_events}})
        if is_done_said:
            call.send_chunk(b"data: [DONE]\n\n")
        call.handler.wfile.write(b"0\r\n\r\n")

    return act


def says_whole(text: str) -> Act:
    """Knows no streams."""

    def act(call: Call) -> None:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        call.send_whole({"choices": [choice], "usage": {"completion_tokens": 11}})

    return act


def fails(status: int, message: str = "", **headers: str) -> Act:
    return lambda call: call.send_whole({"error": {"message": message}}, status, **headers)


def refuses_more_than(*names: str) -> Callable[[Act], Act]:
    """Answers 400 to any request with members other than these, as a strict server does."""

    def wrap(then: Act) -> Act:
        def act(call: Call) -> None:
            unknown = sorted(set(call.body) - {"model", "messages", *names})
            if unknown:
                call.send_whole({"detail": f"extra fields: {unknown}"}, 400)
            else:
                then(call)

        return act

    return wrap


def sends(data: bytes, kind: str = "text/event-stream") -> Act:
    """Any bytes as a body."""
    return lambda call: call.send_whole(data, **{"Content-Type": kind})


def sends_raw(data: bytes) -> Act:
    """Any bytes instead of a reply, then closes."""

    def act(call: Call) -> None:
        call.handler.wfile.write(data)

    return act


def floods(beginning: bytes, piece: bytes) -> Act:
    """Instead of a reply, bytes without end, until its client hangs up."""

    def act(call: Call) -> None:
        call.handler.connection.settimeout(WAIT_S)
        with suppress(BrokenPipeError, ConnectionResetError):
            call.handler.wfile.write(beginning)
            while not call.server.is_closing.is_set():
                call.handler.wfile.write(piece)
                call.server.num_flooded += len(piece)
            return
        call.server.hung_up.set()

    return act


def drips(beginning: bytes, rest: bytes, pause_s: float = 0.02) -> Act:
    """Instead of a reply, bytes one by one, with pauses that no timeout between bytes notices."""

    def act(call: Call) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            call.handler.wfile.write(beginning)
            for at in range(len(rest)):
                if call.server.is_closing.wait(pause_s):
                    return
                call.handler.wfile.write(rest[at : at + 1])
            return
        call.server.hung_up.set()

    return act


def never_ends(call: Call) -> None:
    """Talks until its client hangs up."""
    call.begin_stream()
    with suppress(OSError):
        while not call.server.is_closing.is_set():
            call.send_event(_choice(0, {"content": "and so on "}))
        return
    call.server.hung_up.set()


def stays_silent(call: Call) -> None:
    """Says nothing until its client hangs up."""
    call.handler.connection.settimeout(WAIT_S)
    with suppress(OSError):
        if not call.handler.connection.recv(1):
            call.server.hung_up.set()


def falls_silent_after(beginning: bytes) -> Act:
    """The beginning of a reply, and nothing more until its client hangs up."""

    def act(call: Call) -> None:
        call.handler.wfile.write(beginning)
        stays_silent(call)

    return act


@dataclass
class ChatServer:
    """A context: serves while it is open."""

    acts: list[Act]
    tls: ssl.SSLContext | None = None
    calls: list[Call] = field(default_factory=list)
    num_flooded: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)
    is_closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> ChatServer:  # noqa: PYI034 (Self is Python 3.11)
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                call = Call(self, chat, self.path, dict(self.headers), body)
                chat.calls.append(call)
                self.close_connection = True
                with suppress(OSError):
                    chat.acts[min(len(chat.calls), len(chat.acts)) - 1](call)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass  # clients that hang up

        self._http = Server(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        if self.tls is not None:
            self._http.socket = self.tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        scheme, host = ("http", "127.0.0.1") if self.tls is None else ("https", "localhost")
        return f"{scheme}://{host}:{self._http.server_address[1]}/v1"


def newest_label(call: Call) -> str:
    """The last frame label that stands alone in the request, as digits."""
    return re.findall(r"(?m)^<(\d+)>$", call.words)[-1]
