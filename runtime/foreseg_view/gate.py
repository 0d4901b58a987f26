# SPDX-License-Identifier: Apache-2.0
"""Stands before every request and connection: refuses what `access` does not allow, in a sentence.

Adds to every response what keeps a browser from running or leaking anything: a content security
policy without inline code, no sniffing, no framing, no referrer, no cache.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foreseg_view.access import (
    CHANGES,
    MAX_BODY_BYTES,
    MAX_PATH_BYTES,
    READS,
    WRONG_TOKENS,
    Access,
    is_own_origin,
)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
SAFE_METHODS = frozenset({"GET", "HEAD"})
CLOSED_BY_POLICY = 1008
MAX_LENGTH_DIGITS = 18  # h11 lets nothing but digits through


class Gate:
    """An ASGI application around another."""

    def __init__(self, inner: ASGIApp, access: Access) -> None:
        self._inner = inner
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self._inner(scope, receive, send)
            else:  # before it is accepted: the client sees 403
                await send({"type": "websocket.close", "code": CLOSED_BY_POLICY, "reason": ""})
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if refusal is None:
            await self._inner(scope, receive, send_safely)
        else:
            await refusal(scope, receive, send_safely)

    def _refusal(self, scope: Scope) -> Response | None:
        """What to say instead, or None."""
        headers, access = Headers(scope=scope), self._access
        client = scope.get("client")
        peer = client[0] if client else ""
        host, is_http = headers.get("host", ""), scope["type"] == "http"
        if not access.is_own_host(host):
            return _said(403, f"this server is not called {host[:80]!r}; open it by 127.0.0.1")
        if not is_own_origin(headers.get("origin"), host):
            return _said(403, "a page of another site may not ask here")
        if not access.is_known(headers.get("cookie", ""), headers.get("authorization", "")):
            return self._token_asked(scope, peer)
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_PATH_BYTES:
            return _said(414, f"an address here has at most {MAX_PATH_BYTES} bytes")
        if "transfer-encoding" in headers:  # of two lengths a proxy may believe the other one
            return _said(411, "a request wants a Content-Length and no Transfer-Encoding")
        is_change = is_http and scope["method"] not in SAFE_METHODS
        if not access.take(peer, CHANGES if is_change else READS):
            return _said(429, "too many requests from your address; wait a moment")
        if not is_change:
            return None
        length = headers.get("content-length", "")
        if len(length) > MAX_LENGTH_DIGITS or int(length or "0") > MAX_BODY_BYTES:
            return _said(413, f"a request may have {MAX_BODY_BYTES} bytes, got {length[:20]}")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] != "DELETE" and kind != "application/json":
            return _said(415, f"a request wants application/json, got {kind[:80]!r}")
        return None

    def _token_asked(self, scope: Scope, peer: str) -> Response:
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        wants_in = scope["type"] == "http" and scope["path"] == "/" and given
        if wants_in and self._access.take(peer, WRONG_TOKENS) and self._access.is_token(given):
            into = RedirectResponse("/", status_code=303)
            into.headers["Set-Cookie"] = self._access.cookie
            return into
        words = "open the address with ?token=... that foreseg printed when it started"
        return _said(401, words)


def _said(status: int, words: str) -> Response:
    """A refusal. The connection ends with it: what may be left of the request is not read."""
    body = json.dumps({"error": words}) + "\n"
    response = PlainTextResponse(body, status_code=status, media_type="application/json")
    response.headers["Connection"] = "close"
    return response
