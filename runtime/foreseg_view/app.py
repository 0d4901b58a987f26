# SPDX-License-Identifier: Apache-2.0
"""The HTTP and WebSocket interface, over Starlette: docs/view.md and `static/openapi.json` tell it."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from foreseg.dialogue import QueryId
from foreseg.errors import InputError
from foreseg.frames import Frame, FrameIndex
from foreseg.media.filmstrip import Filmstrip, draw_filmstrip, draw_keyframe
from foreseg.pipeline.events import Reply
from foreseg.prompts import ObjectId
from foreseg_view.access import Access
from foreseg_view.gate import Gate
from foreseg_view.host import Done
from foreseg_view.hub import Hub
from foreseg_view.pixels import drawn_jpeg, encoded_jpeg, fitting_side, label_map_of
from foreseg_view.reading import (
    PROMPT_FIELDS,
    QUERY_FIELDS,
    Fields,
    fields_from_json,
    prompt_from_fields,
    query_from_fields,
    text_of,
)
from foreseg_view.recording import Recording, chunks_of
from foreseg_view.records import answer_record

STATIC: Final = Path(__file__).resolve().parent / "static"
NS: Final = 1_000_000_000
REPLY_TIMEOUT_S: Final = 30.0
KEYFRAME_TEXT_PX: Final = 14
MAX_DIGITS: Final = 8  # of pixels, seconds

T = TypeVar("T")


def build_app(hub: Hub, access: Access) -> ASGIApp:
    """The whole application, with its gate."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            looking = asyncio.create_task(hub.run())
            stack.callback(looking.cancel)
            yield
            await hub.close()

    api = Api(hub)
    routes = [
        Route("/", api.page),
        Route("/api/openapi.json", api.described),
        Route("/api/state", api.state),
        Route("/api/answers", api.answers),
        Route("/api/answers/{number:int}/keyframe", api.keyframe),
        Route("/api/answers/{number:int}/filmstrip", api.filmstrip),
        Route("/api/health", api.health),
        Route("/api/recording", api.recording),
        Route("/api/frames/{index:int}", api.frame),
        Route("/api/queries", api.ask, methods=["POST"]),
        Route("/api/queries/{query_id}", api.remove_query, methods=["DELETE"]),
        Route("/api/objects", api.point, methods=["POST"]),
        Route("/api/objects/{object_id}", api.rename, methods=["PATCH"]),
        Route("/api/objects/{object_id}", api.remove_object, methods=["DELETE"]),
        WebSocketRoute("/api/live", hub.serve),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    handlers = {InputError: _refused, HTTPException: _failed, Exception: _broken}
    inner = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    return Gate(inner, access)


class Api:
    """The handlers; each is documented in `static/openapi.json`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._board, self._host = hub.board, hub.host
        self._session = secrets.token_hex(3)  # beside those of an earlier server
        self._numbers = itertools.count(1)
        self._is_recording = False
        self._drawing = CapacityLimiter(1)  # pictures of the past, one at a time

    async def page(self, _: Request) -> Response:
        """The page."""
        text = (STATIC / "index.html").read_text("utf-8")
        return Response(text, media_type="text/html")

    async def described(self, _: Request) -> Response:
        """This interface, as OpenAPI has it."""
        text = (STATIC / "openapi.json").read_text("utf-8")
        return Response(text, media_type="application/json")

    async def state(self, _: Request) -> Response:
        """How everything is now."""
        self._hub.look()
        return Response(self._hub.state_text, media_type="application/json")

    async def answers(self, _: Request) -> Response:
        """The last answers, the oldest first."""
        shown = self._board.answers()
        return JSONResponse([answer_record(one, self._board) for one in shown])

    async def health(self, _: Request) -> Response:
        """The samples of the last minutes."""
        return JSONResponse(self._hub.health.samples())

    async def keyframe(self, request: Request) -> Response:
        """An answer's keyframe with what it points at."""
        shown = self._board.answer(int(request.path_params["number"]))
        if shown is None or shown.keyframe is None:
            raise HTTPException(404, "the keyframe of this answer is not kept")
        frame = shown.keyframe

        def draw() -> bytes:
            size_wh = (frame.image.shape[1], frame.image.shape[0])
            drawn = draw_keyframe(
                frame, shown.answer, shown.indices, size_wh, text_px=KEYFRAME_TEXT_PX
            )
            return encoded_jpeg(drawn)

        return _jpeg(await to_thread.run_sync(draw, limiter=self._drawing))

    async def filmstrip(self, request: Request) -> Response:
        """An answer as one picture: what was seen, where it points, the masks that followed."""
        shown = self._board.answer(int(request.path_params["number"]))
        if shown is None or shown.frames is None:
            raise HTTPException(404, "the frames of this answer are not kept")
        strip = Filmstrip(
            answer=shown.answer,
            window=shown.frames.window,
            num_window_frames=shown.frames.num_frames,
            moments=shown.moments.all(),
            origin_ns=self._board.origin_ns,
        )
        data = await to_thread.run_sync(
            lambda: encoded_jpeg(draw_filmstrip(strip)), limiter=self._drawing
        )
        return _download(_jpeg(data), f"foreseg-answer-{shown.number}.jpg")

    async def recording(self, request: Request) -> Response:
        """The last seconds as a ZIP."""
        seconds = _number(request.query_params.get("seconds", "10"), "seconds")
        if self._is_recording:
            raise HTTPException(409, "another recording is being saved; try again when it is done")
        self._is_recording = True
        try:
            recording = Recording(self._board, self._host)
            for index in recording.indices(seconds):
                frame = await self._copied(index)
                if frame is not None:
                    await to_thread.run_sync(recording.add, frame, limiter=self._drawing)
            file = await to_thread.run_sync(recording.finished, limiter=self._drawing)
        finally:
            self._is_recording = False
        if not recording.num_frames:
            file.close()
            raise HTTPException(404, "there is no frame to save yet")
        return _download(
            StreamingResponse(chunks_of(file), media_type="application/zip"),
            f"foreseg-{recording.name}.zip",
        )

    async def frame(self, request: Request) -> Response:
        """A frame of the last seconds, with the masks that it had."""
        index = FrameIndex(int(request.path_params["index"]))
        side = fitting_side(_number(request.query_params.get("side", "1280"), "side"))
        frame = await self._copied(index)
        if frame is None:
            raise HTTPException(404, f"frame {index} has left the history")
        tracks = self._board.past_tracks(int(index))
        if request.query_params.get("masks", "1") == "0":
            tracks = ()

        def draw() -> bytes:
            label_map = label_map_of(tracks, frame.ref.size_wh)
            return drawn_jpeg(frame.image, label_map, tracks, side, self._board.name_of)

        response = _jpeg(await to_thread.run_sync(draw, limiter=self._drawing))
        response.headers["X-Frame-Index"] = str(int(frame.index))
        response.headers["X-Frame-Stamp-Ns"] = str(frame.ref.stamp_ns)
        time_s = (frame.ref.stamp_ns - self._board.origin_ns) / NS
        response.headers["X-Frame-Time-S"] = f"{time_s:.3f}"
        response.headers["X-Frame-Size"] = "{}x{}".format(*frame.ref.size_wh)
        return response

    async def ask(self, request: Request) -> Response:
        """Ask."""
        fields = await _fields(request, QUERY_FIELDS)
        query_id = QueryId(f"view-{self._session}-{next(self._numbers)}")
        query = query_from_fields(fields, query_id)
        reply = await self._replied(lambda done: self._host.ask(query, done))
        return _told(reply, {"query_id": reply.query_id or query_id})

    async def remove_query(self, request: Request) -> Response:
        """Take a query back."""
        query_id = QueryId(request.path_params["query_id"])
        return _told(await self._replied(lambda done: self._host.remove_query(query_id, done)), {})

    async def point(self, request: Request) -> Response:
        """Point at an object."""
        fields = await _fields(request, PROMPT_FIELDS)
        object_id, prompt, stamp_ns = prompt_from_fields(fields)
        reply = await self._replied(
            lambda done: self._host.point(object_id, prompt, stamp_ns, done)
        )
        return _told(reply, {"object_ids": list(reply.object_ids)})

    async def rename(self, request: Request) -> Response:
        """Give an object another name."""
        fields = await _fields(request, frozenset({"name"}))
        self._board.rename(ObjectId(request.path_params["object_id"]), text_of(fields, "name"))
        return JSONResponse({})

    async def remove_object(self, request: Request) -> Response:
        """Let an object go."""
        object_id = ObjectId(request.path_params["object_id"])
        return _told(
            await self._replied(lambda done: self._host.remove_object(object_id, done)), {}
        )

    async def _replied(self, request: Callable[[Done], None]) -> Reply:
        """What is replied to a request of the host, whose callback comes from another thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        request(lambda reply: _hand_over(loop, future, reply))
        return await _within(future)

    async def _copied(self, index: FrameIndex) -> Frame | None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Frame | None] = loop.create_future()
        self._host.copy_frame(index, lambda frame: _hand_over(loop, future, frame))
        return await _within(future)


def _hand_over(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], value: T) -> None:
    """From another thread; who no longer waits is told nothing."""

    def give() -> None:
        if not future.done():
            future.set_result(value)

    with suppress(RuntimeError):  # the server has ended meanwhile
        loop.call_soon_threadsafe(give)


async def _within(future: asyncio.Future[T]) -> T:
    try:
        return await asyncio.wait_for(future, REPLY_TIMEOUT_S)
    except asyncio.TimeoutError:
        raise HTTPException(504, f"no reply within {REPLY_TIMEOUT_S:g} s") from None


def _told(reply: Reply, record: dict[str, object]) -> Response:
    """A reply as a response: refused requests conflict with how things are."""
    if reply.success:
        return JSONResponse(record)
    return JSONResponse({"error": reply.message or "it is refused"}, status_code=409)


async def _fields(request: Request, known: frozenset[str]) -> Fields:
    try:
        body = await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "the request ended before it was whole") from None
    return fields_from_json(body, known)


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        msg = f"{name} wants a whole number of at most {MAX_DIGITS} digits, got {text[:80]!r}"
        raise InputError(msg)
    return int(text)


def _download(response: Response, name: str) -> Response:
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg")


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (as it is registered)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def _broken(_: Request, __: Exception) -> Response:
    """A fault of ours; Starlette hands it on to the log."""
    words = "foreseg failed at this request; where it was started it tells more"
    return JSONResponse({"error": words}, status_code=500)
