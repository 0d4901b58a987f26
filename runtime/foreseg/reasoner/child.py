# SPDX-License-Identifier: Apache-2.0
"""The main loop of the reasoner's own process (`process` starts it).

Answers one asking at a time and looks for messages between parts. An exception inside the reasoner
ends its answer, never the process. Starts no thread; its group ends with its parent, whatever it
is doing (`process_group`).
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
from collections.abc import Sequence

from foreseg.cores import Share, take
from foreseg.dialogue import AnswerFailed, AnswerPart, FramesWanted
from foreseg.errors import ForesegError
from foreseg.frames import FrameWindow
from foreseg.reasoner.base import AnswerStream, Reasoner, ReasonerSpec, caution_in
from foreseg.reasoner.channel import Channel, ChannelClosedError
from foreseg.reasoner.exchange import ENDINGS, checked_ask
from foreseg.reasoner.load import build_reasoner
from foreseg.reasoner.messages import (
    Alive,
    AskMessage,
    CancelMessage,
    MoreFrames,
    NotBuilt,
    PartMessage,
    Ping,
    Ready,
    Stop,
)
from foreseg.texts import reason_from_error, utf8_text

CANCELLED = "cancelled"

_LOG = logging.getLogger(__name__)

MAX_WINDOW_BYTES = 2**32  # of a message with frames; the parent bounds their number and size


def main(descriptor: int, nice: int, cores: Sequence[int]) -> None:
    """Be the reasoner's process: `descriptor` is its end of the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    faulthandler.enable()
    logging.basicConfig(
        level=logging.INFO, format="reasoner[%(process)d] %(levelname)s %(message)s"
    )
    os.set_inheritable(descriptor, False)  # noqa: FBT003 (os takes it by position only)
    take(Share(cores=frozenset(cores)), "the reasoner")
    os.nice(nice)
    channel = Channel(socket.socket(fileno=descriptor), max_bytes=MAX_WINDOW_BYTES)
    try:
        spec = channel.receive()
        if isinstance(spec, ReasonerSpec):
            serve(channel, spec)
    except ChannelClosedError:
        _LOG.info("the parent is gone")


def serve(channel: Channel, spec: ReasonerSpec) -> None:
    """Build the reasoner and answer until told to stop.

    Raises:
        ChannelClosedError: the other end is gone.
    """
    try:
        reasoner = build_reasoner(spec)
    except ForesegError as error:
        channel.send(NotBuilt(reason=utf8_text(str(error))))
        return
    caution = utf8_text(caution_in(reasoner))
    channel.send(Ready(kind=spec.kind, window_policy=reasoner.window_policy, caution=caution))
    server = _Server(channel, reasoner)
    while server.attend():
        pass


class _Cancelled(Exception):  # noqa: N818 (no error)
    """The asking in flight is to end."""


class _Stopped(Exception):  # noqa: N818 (no error)
    """The process is to end."""


class _Server:
    """The process's side of the conversation, once its reasoner is built."""

    def __init__(self, channel: Channel, reasoner: Reasoner) -> None:
        self._channel = channel
        self._reasoner = reasoner

    def attend(self) -> bool:
        """Wait for one message and act on it; False once told to stop."""
        message = self._channel.receive()
        try:
            if isinstance(message, AskMessage):
                self._answer(message)
            else:
                self._act_on(message)
        except _Stopped:
            return False
        return True

    def _answer(self, ask: AskMessage) -> None:
        stream = checked_ask(self._reasoner, ask.query, _read_only(ask.window))
        frames: FrameWindow | None = None
        try:
            while True:
                part = _next_part(stream, frames)
                self._channel.send(PartMessage(ask_id=ask.ask_id, part=part))
                if isinstance(part, ENDINGS):
                    return
                frames = self._between_parts(ask.ask_id, part)
        except _Cancelled:
            _close(stream)
            cancelled = AnswerFailed(reason=CANCELLED)
            self._channel.send(PartMessage(ask_id=ask.ask_id, part=cancelled))

    def _between_parts(self, ask_id: int, part: AnswerPart) -> FrameWindow | None:
        """Read what has come; after `FramesWanted`, wait for the frames and return them."""
        wants_frames = isinstance(part, FramesWanted)
        while wants_frames or self._channel.poll(0):
            message = self._channel.receive()
            if isinstance(message, CancelMessage) and message.ask_id == ask_id:
                raise _Cancelled
            if wants_frames and isinstance(message, MoreFrames) and message.ask_id == ask_id:
                return _read_only(message.window)
            self._act_on(message)
        return None

    def _act_on(self, message: object) -> None:
        """What is the same whether an asking runs or not."""
        if isinstance(message, Stop):
            raise _Stopped
        if isinstance(message, Ping):
            self._channel.send(Alive())
        elif isinstance(message, AskMessage):
            busy = AnswerFailed(reason="the reasoner is busy with another query")
            self._channel.send(PartMessage(ask_id=message.ask_id, part=busy))
        elif not isinstance(message, (CancelMessage, MoreFrames)):  # those two came too late
            _LOG.warning("ignored a message of the unknown type %s", type(message).__name__)


def _read_only(window: FrameWindow) -> FrameWindow:
    """The window with its images as records have them; pickling makes them writable."""
    for frame in window.frames:
        frame.image.flags.writeable = False
    return window


def _next_part(stream: AnswerStream, frames: FrameWindow | None) -> AnswerPart:
    """The next part; an exception inside the reasoner ends its answer, not the process."""
    try:
        return stream.send(frames)
    except Exception as error:  # noqa: BLE001 (the reasoner's outermost frame)
        _LOG.exception("the reasoner failed")
        return AnswerFailed(reason=reason_from_error(error))


def _close(stream: AnswerStream) -> None:
    try:
        stream.close()
    except Exception:  # noqa: BLE001 (the reasoner's outermost frame)
        _LOG.exception("the reasoner failed when it was cancelled")
