# SPDX-License-Identifier: Apache-2.0
"""A connection as a phone at the edge of its network has it: bytes of a local server, so many a second."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

CHUNK_BYTES = 512
BUFFER_BYTES = 4096  # small, so that the server feels that nobody takes more
TICK_S = 0.05


class SlowLink:
    """Forwards connections to a port of this machine; `bytes_per_s` of what the server sends, 0 = nothing.

    Args:
        port: of the server.
        bytes_per_s: of each connection, from the server to the client; may change meanwhile.
    """

    def __init__(self, port: int, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._to = port
        self._stopping = threading.Event()
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut all connections."""
        self._stopping.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for one in (self._listening, *self._open):
            one.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            server.connect(("127.0.0.1", self._to))
            self._open += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        is_slow = source.getpeername()[1] == self._to
        with suppress(OSError):  # one of the two has gone
            while data := source.recv(CHUNK_BYTES):
                while is_slow and not self.bytes_per_s and not self._stopping.wait(TICK_S):
                    pass
                target.sendall(data)
                if is_slow and self.bytes_per_s:
                    self._stopping.wait(len(data) / self.bytes_per_s)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
