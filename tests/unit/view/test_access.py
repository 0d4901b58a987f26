# SPDX-License-Identifier: Apache-2.0
"""Who is let in: hosts, origins, tokens, rates."""

from __future__ import annotations

import pytest

from foreseg.clock import ManualClock
from foreseg_view.access import MAX_PEERS, Access, Rate, is_loopback, is_own_origin

NS = 1_000_000_000


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    access = Access(host)
    assert access.token == ""
    assert access.is_known("", "")
    assert not access.is_token(""), "an empty token is none"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "robot.local"])  # noqa: S104
def test_any_other_address_needs_the_token(host: str) -> None:
    access = Access(host)
    assert len(access.token) >= 32
    assert access.token != Access(host).token
    assert not access.is_known("", "")
    assert not access.is_known("", "Bearer ")
    assert not access.is_known("", f"Basic {access.token}")
    assert access.is_known("", f"Bearer {access.token}")


def test_the_cookie_is_not_the_token_and_no_script_reads_it() -> None:
    access = Access("0.0.0.0")  # noqa: S104
    value = access.cookie.partition("=")[2].partition(";")[0]
    assert access.token not in access.cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(access.cookie.split("; "))
    assert access.is_known(f"a=b; foreseg_view={value}", "")
    assert not access.is_known(f"foreseg_view={access.token}", "")
    assert not access.is_known(f"foreseg_view={value[:-1]}", "")
    assert not access.is_known("foreseg_view=ä", "")


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("127.0.0.1:8600", True),
        ("localhost", True),
        ("LOCALHOST:8600", True),
        ("[::1]:8600", True),
        ("[::1]", True),
        ("evil.example:8600", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_a_name_of_elsewhere_is_not_ours(host: str, *, is_own: bool) -> None:
    assert Access("127.0.0.1").is_own_host(host) is is_own


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        (None, True),
        ("http://127.0.0.1:8600", True),
        ("http://127.0.0.1:8601", False),
        ("http://evil.example", False),
        ("null", False),
        ("file://127.0.0.1:8600", False),
        ("", False),
    ],
)
def test_a_page_of_another_site_is_another_origin(origin: str | None, *, is_own: bool) -> None:
    assert is_own_origin(origin, "127.0.0.1:8600") is is_own


def test_rates_are_counted_for_each_peer_and_recover() -> None:
    clock, rate = ManualClock(), Rate(per_s=2, burst=3)
    access = Access("127.0.0.1", clock=clock)
    assert [access.take("a", rate) for _ in range(4)] == [True, True, True, False]
    assert access.take("b", rate)
    clock.advance(NS // 2)
    assert access.take("a", rate)
    assert not access.take("a", rate)
    clock.advance(100 * NS)
    assert [access.take("a", rate) for _ in range(4)] == [True, True, True, False]


def test_no_number_of_peers_grows_the_memory() -> None:
    access = Access("127.0.0.1", clock=ManualClock())
    for number in range(3 * MAX_PEERS):
        access.take(str(number), Rate(per_s=1, burst=1))
    assert len(access._buckets) == MAX_PEERS
