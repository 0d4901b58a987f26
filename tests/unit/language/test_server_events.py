# SPDX-License-Identifier: Apache-2.0
"""What a server sends, read as events: however it is cut, and whatever its length."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreseg.language.server_events import MAX_EVENT_BYTES, EventReader

STREAM = (
    b": hm\r\nid: 1\r\nevent: message\r\ndata:{one}\r\n\r\n\n\ndata: two\ndata: lines\n\n"
    b'error: {"message": "no slot"}\n\nretry: 5\n\ndata: [DONE]\n\ndata: late\n\n'
)
EVENTS = [b"{one}", b"two\nlines", b'error: {"message": "no slot"}']


@given(st.lists(st.integers(1, len(STREAM) - 1)))
def test_any_cutting_gives_the_same_events(cuts: list[int]) -> None:
    reader, events = EventReader(), []
    places = [0, *sorted(set(cuts)), len(STREAM)]
    for begin, end in itertools.pairwise(places):
        events += reader.feed(STREAM[begin:end])
    assert events == EVENTS
    assert reader.is_done


@pytest.mark.parametrize(
    "piece", [b"a" * 60_000, b"data: " + b"a" * 60_000 + b"\n", b"data:\n" * 9000]
)
def test_an_event_without_end_is_given_up_before_it_grows(piece: bytes) -> None:
    reader, num_bytes = EventReader(), 0
    while num_bytes < 2 * MAX_EVENT_BYTES * len(b"data:\n"):
        num_bytes += len(piece)
        broken = list(reader.feed(piece))
        if broken:
            break
    assert MAX_EVENT_BYTES - len(piece) <= len(broken[0]) <= MAX_EVENT_BYTES + len(piece)
