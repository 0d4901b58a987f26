# SPDX-License-Identifier: Apache-2.0
"""Whole pickled messages between two processes, over a pair of sockets.

Neither end is ever stuck in the middle of a message: what has come is kept until the rest is there,
and what cannot be sent within its time is given up. One thread reads and one writes at each end.
Does not know what the messages mean.
"""

from __future__ import annotations

import pickle
import select
import socket
import struct
import time

MAX_MESSAGE_BYTES = 16 * 1024 * 1024  # unless the reader says otherwise
CHUNK_BYTES = 1024 * 1024

_HEAD = struct.Struct(">Q")  # bytes of the message that follows


class ChannelClosedError(Exception):
    """The other end is gone."""


class OversizedError(Exception):
    """A message is longer than the reader takes."""


class Channel:
    """One end.

    Args:
        end: connected; closed with the channel.
        max_bytes: of a message that is read.
    """

    def __init__(self, end: socket.socket, *, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._end = end
        self._max_bytes = max_bytes
        self._come = bytearray()  # of the message that is read
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(end, select.POLLIN)
        self._writable.register(end, select.POLLOUT)

    def send(self, message: object, timeout_s: float | None = None) -> None:
        """Send a message whole; wait for a reader that is slow.

        Args:
            message: can be pickled.
            timeout_s: for all of it; None = for as long as it takes.

        Raises:
            ChannelClosedError: there is no reader any more.
            TimeoutError: some of it may be on its way: the channel is of no more use.
        """
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        left = memoryview(_HEAD.pack(len(data)) + data)
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while left:
            try:
                left = left[self._end.send(left, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                if not self._writable.poll(_left_ms(end_s)):
                    msg = f"{len(left)} bytes were not taken within {timeout_s:g} s"
                    raise TimeoutError(msg) from None
            except OSError as error:
                raise ChannelClosedError from error

    def poll(self, timeout_s: float | None = None) -> bool:
        """Read until a whole message is at hand; False if there is none within the time.

        Raises:
            ChannelClosedError: there is no writer any more, and no whole message left.
            OversizedError: the message is too long.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_whole():
            if not self._readable.poll(_left_ms(end_s)):
                return False
            try:
                data = self._end.recv(CHUNK_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ChannelClosedError from error
            if not data:
                raise ChannelClosedError
            self._come += data
        return True

    def receive(self) -> object:
        """The next message; waits for it.

        Raises:
            ChannelClosedError, OversizedError: see `poll`.
            Exception: whatever unpickling raises; the message is gone then.
        """
        self.poll()
        end = _HEAD.size + self._length()
        data = bytes(self._come[_HEAD.size : end])
        del self._come[:end]
        return pickle.loads(data)  # noqa: S301 (of the process that we started, or that started us)

    def close(self) -> None:
        """Let the other end know that nothing follows."""
        self._end.close()

    def _is_whole(self) -> bool:
        if len(self._come) < _HEAD.size:
            return False
        length = self._length()
        if length > self._max_bytes:
            msg = f"a message of {length} bytes, at most {self._max_bytes} are taken"
            raise OversizedError(msg)
        return len(self._come) >= _HEAD.size + length

    def _length(self) -> int:
        length: int = _HEAD.unpack_from(self._come)[0]
        return length


def _left_ms(end_s: float | None) -> float | None:
    return None if end_s is None else max(0.0, (end_s - time.monotonic()) * 1000)
