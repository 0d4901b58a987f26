# SPDX-License-Identifier: Apache-2.0
"""A language model behind a server that speaks the OpenAI chat-completions protocol.

Frames go as data URLs, completions come as server-sent events. Where a server refuses what is
optional in the protocol, it is asked more plainly. The key is in no log and no error. Knows no
methods and no queries.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
import time
import zlib
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from foreseg.clock import Clock, SystemClock
from foreseg.errors import ConfigError
from foreseg.frames import U8Array
from foreseg.language.base import (
    Chunk,
    CompletionStream,
    LanguageModelError,
    LanguageRequest,
    Message,
)
from foreseg.language.dialect import Dialect
from foreseg.language.http_stream import POLL_S, Endpoint, Head, HttpError, post
from foreseg.language.server_events import (
    ChoiceText,
    EventReader,
    detail_of,
    error_in,
    object_from,
    texts_from,
)
from foreseg.language.special_tokens import without_tokens

JPEG_QUALITY = 90
MAX_REPLY_BYTES = 32 * 1024 * 1024  # of a reply, or of its unread rest
MAX_DETAIL_CHARS = 300  # of them in an error
MAX_WAIT_S = 30.0  # between two tries
MAX_SECONDS = 86_400.0  # of any patience
NS_PER_S = 1e9
_RETRIED = {408, 429, 500, 502, 503, 504}
_MISUNDERSTOOD = {400, 422}
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Which server, and how patient to be with it."""

    url: str  # up to what stands before /chat/completions, such as http://host:8000/v1
    model: str
    api_key: str = field(default="", repr=False)
    timeout_s: float = 60.0  # for a whole completion, tries and waits included
    connect_timeout_s: float = 5.0
    num_retries: int = 3  # when it is busy or cannot be reached
    retry_wait_s: float = 0.5  # before the first of them; doubled each time
    ca_file: str = ""  # certificates to trust; "" = the system's
    verify_tls: bool = True

    def __post_init__(self) -> None:
        if not self.url or not self.model:
            missing = "url" if not self.url else "model"
            msg = f"a language-model server wants a url and a model, got no {missing}"
            raise ConfigError(msg)
        for name in ("timeout_s", "connect_timeout_s", "retry_wait_s"):
            value = getattr(self, name)
            if not 0 < value <= MAX_SECONDS:
                msg = f"{name} wants more than 0 and at most {MAX_SECONDS:g} seconds, got {value}"
                raise ConfigError(msg)
        if not 0 <= self.num_retries <= 10:  # noqa: PLR2004 (more is no patience but a fault)
            msg = f"num_retries wants 0 to 10, got {self.num_retries}"
            raise ConfigError(msg)
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            msg = "an API key wants printable ASCII characters on one line"
            raise ConfigError(msg)


class OpenAiServer:
    """Keeps to `LanguageModel`. One connection a request; learns how plainly to ask."""

    def __init__(self, settings: ServerSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        endpoint = Endpoint(
            url=settings.url.rstrip("/") + "/chat/completions",
            connect_timeout_s=settings.connect_timeout_s,
        )
        self._endpoint = replace(endpoint, tls=_tls_context(settings))  # its url is one
        self._dialect = Dialect()
        parts = urlsplit(settings.url)
        if settings.api_key and parts.scheme == "http" and parts.hostname not in _LOCAL_HOSTS:
            _LOG.warning("the API key goes to %s unencrypted: use https", parts.hostname)

    def generate(self, request: LanguageRequest) -> CompletionStream:
        """Complete the messages; a server that gives one completion at a time is asked again."""
        done = 0
        while done < request.num_samples:
            rest = replace(
                request, num_samples=request.num_samples - done, seed=request.seed + done
            )
            given = yield from self._completed(rest, first_sample=done)
            done += given

    def _completed(
        self, request: LanguageRequest, first_sample: int
    ) -> Generator[Chunk, None, int]:
        """One or more completions; returns how many came."""
        deadline_ns = self._clock.monotonic_ns() + round(self._settings.timeout_s * NS_PER_S)
        retries, dialect = 0, self._dialect
        while True:
            reply = _Reply(first_sample, request.num_samples)
            body = _body(request, self._settings.model, dialect)
            try:
                with closing(self._exchanged(body, reply, deadline_ns)) as chunks:
                    for chunk in chunks:
                        if reply.has_text:  # its reader may close it any time now
                            self._remember(dialect)
                        yield chunk
            except _Refused as refused:
                plainer = dialect.plainer(refused.body) if refused.is_misunderstood else None
                if plainer is not None:
                    dialect = plainer
                    continue
                wait_s = self._settings.retry_wait_s * 2**retries
                wait_s = min(MAX_WAIT_S, max(wait_s, refused.retry_after_s))
                may_retry = refused.can_retry and not reply.has_text
                in_time = self._clock.monotonic_ns() + wait_s * NS_PER_S < deadline_ns
                if not may_retry or retries >= self._settings.num_retries or not in_time:
                    raise LanguageModelError(self._scrubbed(str(refused))) from None
                retries += 1
                _LOG.info(
                    "%s; try %d in %.1f s", self._scrubbed(str(refused)), retries + 1, wait_s
                )
                yield from _waited(wait_s)
            else:
                self._remember(dialect)
                return reply.num_samples

    def _remember(self, dialect: Dialect) -> None:
        if dialect != self._dialect:
            _LOG.info("the server is asked %s", dialect)
            self._dialect = dialect

    def _exchanged(
        self, body: bytes, reply: _Reply, deadline_ns: int
    ) -> Generator[Chunk, None, None]:
        """One request and its reply; an empty chunk now and then where nothing is said.

        Raises:
            _Refused: it was not answered as it should.
        """
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._settings.api_key:
            headers["Authorization"] = f"Bearer {self._settings.api_key}"
        head: Head | None = None
        stream = post(self._endpoint, body, headers, deadline_ns=deadline_ns, clock=self._clock)
        told_ns = self._clock.monotonic_ns()
        try:
            for piece in stream:
                if isinstance(piece, Head):
                    head = piece
                elif head is not None:
                    for chunk in reply.feed(piece, head):
                        told_ns = self._clock.monotonic_ns()
                        yield chunk
                now_ns = self._clock.monotonic_ns()
                if piece == b"" or now_ns - told_ns >= POLL_S * NS_PER_S:  # comments say nothing
                    told_ns = now_ns
                    yield Chunk()
                if reply.is_done:
                    break
            yield from reply.end(head)
        except HttpError as error:
            msg = f"the server at {self._settings.url}: {error}"
            raise _Refused(msg, can_retry=error.can_retry) from None
        except _BadReply as error:
            raise self._refusal(error, head) from None
        finally:
            stream.close()

    def _refusal(self, error: _BadReply, head: Head | None) -> _Refused:
        """What a reply without a completion means."""
        where = f"the server at {self._settings.url}"
        said = self._scrubbed(str(error))[:MAX_DETAIL_CHARS]  # cut last: half a key is one, too
        if head is None or head.status == 200:  # noqa: PLR2004 (fine, by its own account)
            return _Refused(f"{where}: {said}", can_retry=False)
        status = head.status
        detail = f": {said}" if said else ""
        if status in (401, 403):
            key = "refuses the API key" if self._settings.api_key else "wants an API key"
            return _Refused(f"{where} {key} ({status}){detail}", can_retry=False)
        if status == 404:  # noqa: PLR2004 (HTTP's own number)
            msg = f"{where} has no model {self._settings.model!r}, or nothing there (404){detail}"
            return _Refused(msg, can_retry=False)
        return _Refused(
            f"{where} answered {status}{detail}",
            can_retry=status in _RETRIED,
            body=error.body,
            is_misunderstood=status in _MISUNDERSTOOD,
            retry_after_s=_seconds(head.headers.get("retry-after", "")),
        )

    def _scrubbed(self, text: str) -> str:
        key = self._settings.api_key
        return text.replace(key, "***") if key else text


class _Refused(Exception):  # noqa: N818 (may be no error: it may be tried again)
    """A request that brought no completion; the message says why."""

    def __init__(
        self,
        message: str,
        *,
        can_retry: bool,
        body: bytes = b"",
        is_misunderstood: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        self.can_retry = can_retry
        self.body = body  # of the reply
        self.is_misunderstood = is_misunderstood
        self.retry_after_s = retry_after_s
        super().__init__(message)


class _BadReply(Exception):  # noqa: N818 (gets its words where the status is known)
    """A reply that holds no completion; the message is what it says instead."""

    def __init__(self, message: str, body: bytes = b"") -> None:
        self.body = body
        super().__init__(message)


class _Reply:
    """One reply as it is read: server-sent events, one JSON object, or an error."""

    def __init__(self, first_sample: int, num_wanted: int) -> None:
        self.has_text = False
        self._first_sample = first_sample
        self._num_wanted = num_wanted
        self._events = EventReader()
        self._whole = b""  # of a reply that is no stream
        self._num_bytes = 0
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._thinking: set[int] = set()
        self._num_tokens = 0
        self._num_prompt_tokens = 0

    @property
    def is_done(self) -> bool:
        """True once the server has said so."""
        return self._events.is_done

    @property
    def num_samples(self) -> int:
        """Completions that came."""
        return len(self._seen)

    def feed(self, data: bytes, head: Head) -> Iterable[Chunk]:
        """Read some more of the body."""
        self._num_bytes += len(data)
        if self._num_bytes > MAX_REPLY_BYTES:
            msg = f"its reply is longer than {MAX_REPLY_BYTES} bytes"
            raise _BadReply(msg)
        is_stream = "event-stream" in head.headers.get("content-type", "").lower()
        if head.status != 200 or not is_stream:  # noqa: PLR2004 (fine)
            self._whole += data
            return
        for event in self._events.feed(data):
            yield from self._read(event)

    def end(self, head: Head | None) -> Iterable[Chunk]:
        """The body is over."""
        if head is None:
            msg = "it gave no reply"
            raise _BadReply(msg)
        if head.status != 200:  # noqa: PLR2004 (fine)
            raise _BadReply(detail_of(self._whole), self._whole)
        if self._whole:
            yield from self._read(self._whole)
        if not self._seen:
            msg = "its reply holds no completion"
            raise _BadReply(msg)
        if not (self._events.is_done or self._seen <= self._finished):
            msg = "its reply ended before the completion did"
            raise _BadReply(msg)

    def _read(self, event: bytes) -> Iterable[Chunk]:
        value = object_from(event)
        if value is None:
            msg = f"it sent something that is no JSON object: {detail_of(event)}"
            raise _BadReply(msg)
        if error_in(value):
            raise _BadReply(detail_of(event))
        for choice in texts_from(value):
            if not 0 <= choice.index < self._num_wanted:
                continue
            self._seen.add(choice.index)
            if choice.is_finished:
                self._finished.add(choice.index)
            yield from self._chunks(choice)
        usage = value.get("usage")
        total = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if isinstance(total, int) and total > self._num_tokens:
            late, self._num_tokens = total - self._num_tokens, total
            yield Chunk(num_tokens=late)
        read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if isinstance(read, int) and read > self._num_prompt_tokens:
            late, self._num_prompt_tokens = read - self._num_prompt_tokens, read
            yield Chunk(num_prompt_tokens=late)

    def _chunks(self, choice: ChoiceText) -> Iterable[Chunk]:
        sample = self._first_sample + choice.index
        if choice.thoughts:
            opening = "" if choice.index in self._thinking else "<think>"
            self._thinking.add(choice.index)
            yield self._counted(Chunk(text=opening + choice.thoughts, sample=sample, num_tokens=1))
        if choice.index in self._thinking and (choice.text or choice.is_finished):
            self._thinking.discard(choice.index)
            yield Chunk(text="</think>", sample=sample)
        for text, log_probs in choice.pieces:
            num_tokens = max(1, len(log_probs))
            yield self._counted(
                Chunk(text=text, sample=sample, num_tokens=num_tokens, log_probs=log_probs)
            )
        if choice.is_cut:
            yield Chunk(sample=sample, is_cut=True)

    def _counted(self, chunk: Chunk) -> Chunk:
        self.has_text = True
        self._num_tokens += chunk.num_tokens
        return chunk


def _body(request: LanguageRequest, model: str, dialect: Dialect) -> bytes:
    """The request in the protocol's form."""
    messages = [_message(message) for message in request.messages]
    return json.dumps({"model": model, "messages": messages, **dialect.members(request)}).encode()


def _message(message: Message) -> dict[str, object]:
    """A message in the protocol's form; its words cannot be special tokens of the model's."""
    if all(isinstance(part, str) for part in message.content):
        text = "\n".join(part for part in message.content if isinstance(part, str))
        return {"role": message.role.value, "content": without_tokens(text)}
    content: list[dict[str, object]] = []
    for part in message.content:
        if isinstance(part, str):
            content.append({"type": "text", "text": without_tokens(part)})
        else:
            content.append({"type": "image_url", "image_url": {"url": data_url(part)}})
    return {"role": message.role.value, "content": content}


def data_url(image: U8Array) -> str:
    """An (h, w, 3) RGB image as a URL: JPEG where OpenCV is at hand, else PNG, some 5 times as long."""
    try:
        import cv2
    except ImportError:
        return "data:image/png;base64," + base64.b64encode(png_from_image(image)).decode()
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), options)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def png_from_image(image: U8Array) -> bytes:
    """A PNG of an (h, w, 3) RGB image; each row as its differences from left to right."""
    height, width = image.shape[:2]
    rows = np.ones((height, 1 + 3 * width), dtype=np.uint8)  # filter 1 before every row
    rows[:, 1:] = np.diff(image, axis=1, prepend=np.uint8(0)).reshape(height, -1)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n"
    for name, data in parts:
        png += len(data).to_bytes(4, "big") + name + data
        png += zlib.crc32(name + data).to_bytes(4, "big")
    return png


def _tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    if urlsplit(settings.url).scheme != "https":
        if settings.ca_file:
            msg = "ca_file is for https, got a url without it"
            raise ConfigError(msg)
        return None
    if settings.ca_file and not Path(settings.ca_file).is_file():
        msg = f"ca_file wants a file of certificates, got {settings.ca_file!r}"
        raise ConfigError(msg)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
    except OSError as error:
        msg = f"ca_file {settings.ca_file!r} cannot be read: {error}"
        raise ConfigError(msg) from error
    if not settings.verify_tls:
        _LOG.warning("verify_tls is off: whoever answers at %s is trusted", settings.url)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() and text.isascii() and len(text) < 6 else 0.0  # noqa: PLR2004


def _waited(seconds: float) -> Generator[Chunk, None, None]:
    """Wait, with signs of life."""
    while seconds > 0:
        yield Chunk()
        time.sleep(min(seconds, POLL_S))
        seconds -= POLL_S
