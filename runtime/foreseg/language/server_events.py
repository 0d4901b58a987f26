# SPDX-License-Identifier: Apache-2.0
"""Reads what an OpenAI-compatible server sends: server-sent events, and the objects in them.

Pure; tolerant of what a server leaves out or adds. Does not know how the bytes come.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 4 * 1024 * 1024
MAX_SAID_CHARS = 20_000  # of a server's own words that are looked at
DONE = b"[DONE]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceText:
    """What one object adds to one completion."""

    index: int
    thoughts: str  # that the server has taken out of the text
    text: str
    pieces: tuple[tuple[str, tuple[float, ...]], ...]  # of the text, with log probabilities
    is_finished: bool
    is_cut: bool  # because its tokens are used up


class EventReader:
    """Bytes in, the data of whole events out; any cutting of the bytes gives the same events."""

    def __init__(self) -> None:
        self._line = b""
        self._data: list[bytes] = []
        self._num_bytes = 0  # of them
        self.is_done = False  # the server has said that nothing follows

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Read some more. An event of unreasonable length is given up as it is."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            yield from self._read(line.rstrip(b"\r"))
        if len(self._line) > MAX_EVENT_BYTES:
            broken, self._line = self._line, b""
            yield broken

    def _read(self, line: bytes) -> Iterator[bytes]:
        if self.is_done:
            return
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._num_bytes += len(value) + 1
                if self._num_bytes > MAX_EVENT_BYTES:
                    yield self._taken()
            elif name not in (b"", b"event", b"id", b"retry"):  # no server-sent event at all
                yield line
            return
        data = self._taken()
        if data == DONE:
            self.is_done = True
        elif data:
            yield data

    def _taken(self) -> bytes:
        data, self._data, self._num_bytes = b"\n".join(self._data), [], 0
        return data


def object_from(data: bytes) -> dict[str, object] | None:
    """The JSON object in some bytes, or None. Halves of surrogate pairs are replaced."""
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else None


def texts_from(value: dict[str, object]) -> Iterator[ChoiceText]:
    """What an object of a stream, or of a whole reply, adds to its completions."""
    choices = value.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if not isinstance(choice, dict):
            continue
        said = choice.get("delta") or choice.get("message")
        said = said if isinstance(said, dict) else {"content": choice.get("text")}
        index = choice.get("index", 0)
        text = _text(said.get("content") or said.get("refusal"))
        reason = choice.get("finish_reason")
        yield ChoiceText(
            index=index if isinstance(index, int) else 0,
            thoughts=_text(said.get("reasoning_content") or said.get("reasoning")),
            text=text,
            pieces=_pieces(text, choice.get("logprobs")),
            is_finished=bool(reason),
            is_cut=reason == "length",
        )


def error_in(value: dict[str, object]) -> bool:
    """True for an object that is an error and no completion, whatever the reply's status."""
    return bool(value.get("error")) or value.get("object") == "error"


def detail_of(data: bytes) -> str:
    """A server's own words about what is wrong, on one line."""
    value = object_from(data)
    said: object = data.decode("utf-8", "replace")
    if value is not None:
        error = value.get("error") or value
        said = error
        if isinstance(error, dict):
            said = error.get("message") or error.get("detail") or error
    return " ".join(str(said)[:MAX_SAID_CHARS].split())


def _text(value: object) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(value, list):
        texts = (part.get("text") for part in value if isinstance(part, dict))
        return "".join(_text(text) for text in texts if isinstance(text, str))
    if not isinstance(value, str):
        return ""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _pieces(text: str, log_probs: object) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """The text with its log probabilities: token by token if that gives the text again."""
    if not text:
        return ()
    listed = log_probs.get("content") if isinstance(log_probs, dict) else None
    tokens: list[tuple[str, tuple[float, ...]]] = []
    for item in listed if isinstance(listed, list) else []:
        number = item.get("logprob") if isinstance(item, dict) else None
        if isinstance(number, (int, float)) and not math.isnan(number):
            tokens.append((_text(item.get("token")), (float(number),)))
    if "".join(token for token, _ in tokens) == text:
        return tuple(tokens)
    return ((text, tuple(number for _, (number,) in tokens)),)
