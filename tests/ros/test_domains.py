# SPDX-License-Identifier: Apache-2.0
"""No two processes of this machine get one ROS domain."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from foreseg.errors import InputError
from foreseg_ros.demo.domains import MAX_DOMAIN, reserve_domain

HOLDER = """
import sys
from foreseg_ros.demo.domains import reserve_domain
print(*(reserve_domain() for _ in range(8)), flush=True)
sys.stdin.read()
"""


def test_a_domain_is_had_by_one_process_until_it_ends() -> None:
    words = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = {int(word) for word in other.stdout.readline().split()}
        assert len(theirs) == 8
        assert all(1 <= domain <= MAX_DOMAIN for domain in theirs)
        with socket.socket(socket.AF_UNIX) as taken, pytest.raises(OSError, match="in use"):
            taken.bind(f"\0foreseg-domain-{min(theirs)}")
        assert reserve_domain() not in theirs
        other.communicate()
    # it ended: nothing is left of it, but another test process may have taken some meanwhile
    assert any(is_free(domain) for domain in theirs)


def is_free(domain: int) -> bool:
    with socket.socket(socket.AF_UNIX) as wanted:
        try:
            wanted.bind(f"\0foreseg-domain-{domain}")
        except OSError:
            return False
    return True


def test_where_all_are_taken_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(socket.socket):
        def bind(self, address: object) -> None:
            del address
            raise OSError(98, "Address already in use")

    monkeypatch.setattr("foreseg_ros.demo.domains.socket.socket", Taken)
    with pytest.raises(InputError, match="all of the ROS domains 1 to 101: wait for one to end"):
        reserve_domain()
