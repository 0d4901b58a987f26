# SPDX-License-Identifier: Apache-2.0
"""The server's threads: one that paints, one with uvicorn's loop; both yield to the pipeline's.

The address is bound before anything starts, so that a port that is taken is said at once.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from foreseg.driving.guarded_thread import GuardedThread
from foreseg.errors import InputError, MissingExtraError
from foreseg_view.access import Access
from foreseg_view.board import Board
from foreseg_view.host import Host

NICENESS = 10  # of painting and serving, beside tracking
STOP_S = 5.0
GRACE_S = 2
MAX_MESSAGE_BYTES = 4096  # that a viewer sends
BACKLOG = 64
MAX_PORT = 65535


class ViewServer:
    """Binds when it is made; `start`, then `stop`.

    Args:
        board: what there is to see; it tells the painter of every change from now on.
        host: what is looked at.
        address: to bind; any but a loopback one asks viewers for a token.
        port: 0 = a free one.

    Raises:
        InputError: the address cannot be bound.
        MissingExtraError: the server's packages are not installed.
    """

    def __init__(self, board: Board, host: Host, *, address: str, port: int) -> None:
        try:
            import uvicorn

            from foreseg_view.app import build_app
            from foreseg_view.connections import MAX_CONNECTIONS, TimedProtocol
            from foreseg_view.hub import Hub
            from foreseg_view.painter import Painter
        except ImportError as error:
            package, extra = error.name or "starlette", "view"
            raise MissingExtraError(package, extra, "serving the page") from error
        self.access = Access(address)
        self._address = address
        self._socket = bound_socket(address, port)
        self.port = int(self._socket.getsockname()[1])
        self._stopping = threading.Event()
        painter = Painter(board, lambda: None, self._stopping)
        self.hub = hub = Hub(board, host, painter)
        painter.on_picture = hub.poke
        board.on_change = painter.wake
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                build_app(hub, self.access),
                log_config=None,
                log_level="error",  # not each nonsense that somebody sends
                access_log=False,
                lifespan="on",
                http=TimedProtocol,
                ws="websockets-sansio",
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_max_queue=8,
                ws_per_message_deflate=False,  # pictures are compressed already
                limit_concurrency=MAX_CONNECTIONS,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        painting = GuardedThread("painter", lambda: _nicely(painter.run), self._stopping)
        serving = GuardedThread("view", lambda: _nicely(self._serve), self._stopping)
        self._threads = (painting, serving)

    @property
    def url(self) -> str:
        """Where the page is, with the token if one is needed."""
        shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(  # noqa: S104
            self._address, self._address
        )
        shown = f"[{shown}]" if ":" in shown else shown
        query = f"?token={self.access.token}" if self.access.token else ""
        return f"http://{shown}:{self.port}/{query}"

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send the viewers away, and wait for the threads."""
        self._stopping.set()
        self._uvicorn.should_exit = True
        for thread in self._threads:
            thread.join(STOP_S)
        self._socket.close()

    def _serve(self) -> None:
        if self._socket.fileno() < 0:  # it was closed as serving failed
            self._socket = bound_socket(self._address, self.port)
        self._uvicorn.run(sockets=[self._socket])


def bound_socket(address: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InputError: it cannot be bound, and why.
    """
    if not 0 <= port <= MAX_PORT:  # the system would take the rest of it
        msg = f"port wants 0 to {MAX_PORT}, got {port}"
        raise InputError(msg)
    try:
        family, kind, number, _, place = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, number)
    except (OSError, OverflowError) as error:
        msg = f"cannot serve at {address!r}: {error}; give another --host"
        raise InputError(msg) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        msg = f"cannot serve at {address} port {port}: {error.strerror}; give another --port or --host"
        raise InputError(msg) from error
    return made


def _nicely(run: Callable[[], None]) -> None:
    """Run with less of the processor than tracking has; on Linux that holds for one thread."""
    with suppress(OSError, AttributeError):  # no such call, or not allowed: as it is, then
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
    run()
