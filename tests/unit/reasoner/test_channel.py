# SPDX-License-Identifier: Apache-2.0
"""Whole messages over a real pair of sockets, whatever the other end does."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foreseg.reasoner.channel import Channel, ChannelClosedError, OversizedError

Ends = tuple[Channel, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A channel, and the raw other end."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours, max_bytes=10_000_000)
    yield channel, theirs
    channel.close()
    theirs.close()


def framed(message: object) -> bytes:
    data = pickle.dumps(message)
    return struct.pack(">Q", len(data)) + data


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_messages_come_whole_however_their_bytes_arrive(ends: Ends, cuts: list[int]) -> None:
    channel, theirs = ends
    messages = ["a", {"b": 1}, None, list(range(50))]
    data = b"".join(framed(message) for message in messages)
    came: list[object] = []
    while data:
        size = cuts[len(data) % len(cuts)]
        theirs.send(data[:size])
        data = data[size:]
        while channel.poll(0):
            came.append(channel.receive())
    assert came == messages


def test_half_a_message_is_kept_and_never_waited_for_beyond_the_time(ends: Ends) -> None:
    channel, theirs = ends
    data = framed("whole")
    theirs.send(data[:-1])
    began = time.monotonic()
    assert not channel.poll(0.05)
    assert time.monotonic() - began < 1.0
    theirs.send(data[-1:])
    assert channel.poll(0)
    assert channel.receive() == "whole"


def test_a_reader_that_does_not_read_ends_the_sending_in_time(ends: Ends) -> None:
    channel, _ = ends
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"bytes were not taken within 0.1 s"):
        channel.send(bytes(5_000_000), 0.1)
    assert time.monotonic() - began < 2.0


def test_a_reader_that_takes_a_byte_at_a_time_does_not_stretch_it(ends: Ends) -> None:
    channel, theirs = ends
    stopping = threading.Event()

    def trickle() -> None:
        while not stopping.is_set() and theirs.recv(1):
            pass

    reader = threading.Thread(target=trickle)
    reader.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.send(bytes(50_000_000), 0.1)
    stopping.set()
    channel.close()
    reader.join()
    assert time.monotonic() - began < 2.0


def test_large_arrays_travel(ends: Ends) -> None:
    channel, theirs = ends
    image = np.arange(3_000_000, dtype=np.uint8).reshape(1000, 1000, 3)
    other = Channel(theirs)
    sender = threading.Thread(target=channel.send, args=(image, 30.0))
    sender.start()
    got = other.receive()
    sender.join()
    assert isinstance(got, np.ndarray)
    assert np.array_equal(got, image)


def test_a_closed_end_is_told_after_its_last_message(ends: Ends) -> None:
    channel, theirs = ends
    theirs.send(framed("last") + b"\x00\x00")
    theirs.close()
    assert channel.receive() == "last"
    with pytest.raises(ChannelClosedError):
        channel.poll(0)
    with pytest.raises(ChannelClosedError):
        channel.send("anything")


def test_a_message_that_is_too_long_is_refused_by_its_head(ends: Ends) -> None:
    channel, theirs = ends
    theirs.send(struct.pack(">Q", 10_000_001))
    with pytest.raises(OversizedError, match="10000001 bytes, at most 10000000"):
        channel.poll(0)


def test_what_cannot_be_unpickled_is_gone_and_the_next_one_comes(ends: Ends) -> None:
    channel, theirs = ends
    theirs.send(struct.pack(">Q", 0) + framed("next"))
    with pytest.raises(EOFError):
        channel.receive()
    assert channel.receive() == "next"
