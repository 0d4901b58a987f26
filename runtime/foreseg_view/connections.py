# SPDX-License-Identifier: Apache-2.0
"""Connections that cannot be held by saying nothing: bounds on how many there are, and how long a request may take.

uvicorn waits for ever for a request that has begun, or not even that. Here each must come whole, its
body too, within `REQUEST_S`; what is open beyond the bounds is closed before it is read.
"""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS: Final = 256
MAX_WAITING: Final = 64  # of one address, whose request has not come yet
REQUEST_S: Final = 10.0


class TimedProtocol(H11Protocol):
    """One connection, of HTTP until it becomes a WebSocket's."""

    _end: asyncio.TimerHandle | None = None  # while a request is waited for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Close it at once if there are too many."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MAX_CONNECTIONS or self._num_waiting() > MAX_WAITING:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Wait on while the request is not whole."""
        super().data_received(data)
        cycle = self.cycle  # of the last request whose head has come; before, uvicorn has None
        is_whole = bool(cycle) and not cycle.more_body and not cycle.response_complete
        if is_whole or self.transport.get_protocol() is not self:  # it is a WebSocket's now
            self._wait_no_more()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._wait_no_more()
        super().connection_lost(exc)

    @property
    def awaited_peer(self) -> str | None:
        """Whose request is waited for here, if one is."""
        return self.client[0] if self.client and self._end is not None else None

    def _num_waiting(self) -> int:
        """Of this one's address, itself among them."""
        all_timed = (other for other in self.connections if isinstance(other, TimedProtocol))
        return [other.awaited_peer for other in all_timed].count(self.awaited_peer)

    def _wait(self) -> None:
        if self._end is None:
            self._end = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
