# SPDX-License-Identifier: Apache-2.0
"""The viewers that are connected, and what each of them is still to be told. On the server's loop.

Each viewer has a task of its own. Nothing is queued for it: it is told the newest state, the
answers that have changed, the samples it lacks, and, when it says that it is ready, the newest
picture. A slow connection so gets fewer of all, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.websockets import WebSocket, WebSocketDisconnect

from foreseg.errors import InputError
from foreseg_view.access import Rate
from foreseg_view.board import Board
from foreseg_view.health import PERIOD_S, Health
from foreseg_view.host import Host, Status
from foreseg_view.painter import Painter, Picture
from foreseg_view.pixels import fitting_side
from foreseg_view.reading import fields_from_json, number_of, text_of
from foreseg_view.records import Viewers, answer_record, state_record

STATE_PERIOD_S = 0.2
MAX_VIEWERS = 32
MESSAGES = Rate(per_s=60, burst=120)  # of one viewer
TRY_LATER, NOT_UNDERSTOOD, TOO_MANY = 1013, 1003, 1008
GOING_AWAY = 1012
NS = 1_000_000_000


@dataclass(eq=False, slots=True)
class _Viewer:
    """One connection."""

    socket: WebSocket
    news: asyncio.Event = field(default_factory=asyncio.Event)
    side_px: int = 0  # of the picture it waits for; 0 = none
    sent_state: int = -1
    sent_answers: int = 0
    sent_health: int = 0
    sent_picture: int = 0


class Hub:
    """Tells viewers."""

    def __init__(self, board: Board, host: Host, painter: Painter) -> None:
        self.board = board
        self.host = host
        self.painter = painter
        self.health = Health(board)
        self.status = Status()
        self._viewers: set[_Viewer] = set()
        self._num_refused = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state_text = "{}"
        self._state_number = 0
        self._answers: dict[int, tuple[int, str]] = {}  # number -> version, text

    async def run(self) -> None:
        """Look at everything again and again, and wake the viewers; until cancelled."""
        self._loop = loop = asyncio.get_running_loop()
        next_sample = loop.time()
        while True:
            self.look()
            if loop.time() >= next_sample:
                self.health.take(self.status)
                next_sample = max(next_sample + PERIOD_S, loop.time())
            self._wake()
            await asyncio.sleep(STATE_PERIOD_S)

    def look(self) -> None:
        """Read the state anew, once for all viewers."""
        self.status = self.host.status()
        viewers = Viewers(num_viewers=len(self._viewers), num_refused=self._num_refused)
        record = state_record(self.board, self.status, self.host.source, viewers)
        text = json.dumps(record, allow_nan=False)
        if text != self._state_text:
            self._state_text = text
            self._state_number += 1

    @property
    def state_text(self) -> str:
        """The newest state as JSON."""
        return self._state_text

    def poke(self) -> None:
        """There is a new picture; from any thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the server has ended meanwhile: nobody waits
                loop.call_soon_threadsafe(self._wake)

    async def serve(self, socket: WebSocket) -> None:
        """One viewer, until it goes."""
        await socket.accept()
        if len(self._viewers) >= MAX_VIEWERS:
            self._num_refused += 1
            reason = f"{MAX_VIEWERS} viewers look already; close one, or try again later"
            await socket.close(TRY_LATER, reason)
            return
        viewer = _Viewer(socket)
        self._viewers.add(viewer)
        telling = asyncio.create_task(self._tell(viewer))
        try:
            await self._hear(viewer)
        except InputError as error:
            await socket.close(NOT_UNDERSTOOD, str(error)[:120])
        except WebSocketDisconnect:
            pass  # it has gone
        finally:
            self._viewers.discard(viewer)
            telling.cancel()
            with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await telling  # RuntimeError: Starlette's, for a send after the end

    async def close(self) -> None:
        """Send everybody away, so that pages connect again later."""
        for viewer in list(self._viewers):
            with suppress(RuntimeError, WebSocketDisconnect):  # it has gone by itself
                await viewer.socket.close(GOING_AWAY, "foreseg stops")

    async def _hear(self, viewer: _Viewer) -> None:
        """What a viewer says: that it is ready for a picture, and how large."""
        loop = asyncio.get_running_loop()
        left, then = MESSAGES.burst, loop.time()
        while True:
            text = await viewer.socket.receive_text()
            now = loop.time()
            left, then = min(MESSAGES.burst, left + (now - then) * MESSAGES.per_s) - 1, now
            if left < 0:
                await viewer.socket.close(TOO_MANY, "too many messages")
                return
            fields = fields_from_json(text, frozenset({"type", "side"}))
            if text_of(fields, "type") != "ready":
                msg = "a viewer says nothing but that it is ready"
                raise InputError(msg)
            viewer.side_px = fitting_side(round(number_of(fields, "side", 640)))
            viewer.news.set()

    async def _tell(self, viewer: _Viewer) -> None:
        """Send what is new, whenever there may be something."""
        while True:
            await viewer.news.wait()
            viewer.news.clear()
            await self._tell_once(viewer)

    async def _tell_once(self, viewer: _Viewer) -> None:
        send = viewer.socket.send_text
        if viewer.sent_health < self.health.num_taken:
            samples = self.health.samples(viewer.sent_health)
            viewer.sent_health = self.health.num_taken
            await send(json.dumps({"type": "health", "samples": samples}))
        if viewer.sent_answers < self.board.version:
            after, viewer.sent_answers = viewer.sent_answers, self.board.version
            for text in self._answer_texts(after):
                await send(text)
        if viewer.sent_state != self._state_number:
            viewer.sent_state = self._state_number
            await send(self._state_text)
        if viewer.side_px:
            picture = self.painter.picture(viewer.side_px)
            is_new = picture is not None and picture.number > viewer.sent_picture
            if picture is not None and is_new:
                viewer.side_px, viewer.sent_picture = 0, picture.number
                await viewer.socket.send_bytes(packed(picture, self.board))
            else:
                self.painter.want(viewer.side_px)

    def _answer_texts(self, after: int) -> list[str]:
        """Those that changed after a version, made once for all viewers."""
        texts = []
        changed = self.board.answers(after)
        for shown in changed:
            known = self._answers.get(shown.number)
            if known is None or known[0] != shown.version:
                text = json.dumps(answer_record(shown, self.board), allow_nan=False)
                known = self._answers[shown.number] = shown.version, text
            texts.append(known[1])
        oldest = min((shown.number for shown in self.board.answers()), default=0)
        for number in [number for number in self._answers if number < oldest]:
            del self._answers[number]
        return texts

    def _wake(self) -> None:
        for viewer in self._viewers:
            viewer.news.set()


def packed(picture: Picture, board: Board) -> bytes:
    """A picture as a message: the length of a JSON head in 4 bytes (big end first), it, the JPEG."""
    frame = picture.frame
    head = {
        "index": int(frame.index),
        "stamp_ns": str(frame.stamp_ns),
        "time_s": round((frame.stamp_ns - board.origin_ns) / NS, 3),
        "size_wh": list(frame.size_wh),
    }
    text = json.dumps(head).encode("ascii")
    return struct.pack(">I", len(text)) + text + picture.jpeg
