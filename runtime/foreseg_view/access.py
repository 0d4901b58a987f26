# SPDX-License-Identifier: Apache-2.0
"""Who may look and ask: loopback as it is, any other address with a token; hosts, origins, rates.

Pure decisions over headers and times; `gate` puts them around the application.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from foreseg.clock import Clock, SystemClock

COOKIE = "foreseg_view"
MAX_BODY_BYTES = 64 * 1024
MAX_PATH_BYTES = 2048  # with what follows the question mark
MAX_PEERS = 256  # whose rates are remembered; the one that was quiet for longest is forgotten
NS = 1_000_000_000
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A token bucket: so many a second on average, so many at once."""

    per_s: float
    burst: float


CHANGES = Rate(per_s=5, burst=20)  # what changes something
READS = Rate(per_s=40, burst=120)  # what costs drawing, or a connection
WRONG_TOKENS = Rate(per_s=0.2, burst=5)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Decides for one server.

    Args:
        host: the address that it binds; one that is not loopback gets a token.
        clock: for rates.
    """

    def __init__(self, host: str, *, clock: Clock | None = None) -> None:
        self.token = "" if is_loopback(host) else secrets.token_urlsafe(24)
        self._session = secrets.token_urlsafe(32)  # the cookie's value, not the token
        self._clock = clock or SystemClock()
        self._buckets: OrderedDict[tuple[str, Rate], tuple[float, int]] = OrderedDict()

    @property
    def cookie(self) -> str:
        """What a browser is given in exchange for the token."""
        return f"{COOKIE}={self._session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={30 * 24 * 3600}"

    def is_token(self, text: str) -> bool:
        """Compared in constant time."""
        return bool(self.token) and hmac.compare_digest(text.encode(), self.token.encode())

    def is_known(self, cookies: str, authorization: str) -> bool:
        """True without a token to ask for, or with the cookie, or with the token as a bearer's."""
        if not self.token:
            return True
        for part in cookies.split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE and hmac.compare_digest(value.encode(), self._session.encode()):
                return True
        kind, _, token = authorization.partition(" ")
        return kind.lower() == "bearer" and self.is_token(token.strip())

    def is_own_host(self, host: str) -> bool:
        """Whether a request names this server; a page of elsewhere may point its name at 127.0.0.1.

        Behind a token any name will do: the cookie goes to none but the one it came from.
        """
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        return bool(self.token) or name.lower() in LOOPBACK_NAMES

    def take(self, peer: str, rate: Rate) -> bool:
        """Count one of a peer's acts; False if there are too many."""
        now = self._clock.monotonic_ns()
        key = peer, rate
        left, then = self._buckets.pop(key, (rate.burst, now))
        left = min(rate.burst, left + (now - then) / NS * rate.per_s)
        is_allowed = left >= 1
        self._buckets[key] = (left - 1 if is_allowed else left, now)
        if len(self._buckets) > MAX_PEERS:
            self._buckets.popitem(last=False)
        return is_allowed


def is_own_origin(origin: str | None, host: str) -> bool:
    """Whether a browser's page may ask: it is of this server, or it is no page that asks."""
    if origin is None:
        return True
    scheme, _, rest = origin.partition("://")
    return scheme in {"http", "https"} and rest.lower() == host.lower()
