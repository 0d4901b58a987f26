# SPDX-License-Identifier: Apache-2.0
"""Where a camera's labels count from: one place for all its queries, and bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreseg.dialogue import QueryId
from foreseg.driving.label_origins import MAX_OFFSET, LabelOrigins
from foreseg.frames import DEFAULT_CAMERA, CameraId, FrameIndex

Q = QueryId("q")


def origin(
    pins: LabelOrigins,
    oldest: int,
    newest: int,
    query: QueryId = Q,
    camera: CameraId = DEFAULT_CAMERA,
) -> int:
    return int(pins.origin(camera, query, FrameIndex(oldest), FrameIndex(newest)))


def test_a_pin_holds_while_the_history_moves_on_and_then_is_set_anew() -> None:
    pins = LabelOrigins()
    first = origin(pins, 0, 100)
    assert -MAX_OFFSET <= first <= 0
    assert origin(pins, 50, 150) == origin(pins, first + MAX_OFFSET + 100, 10_000) == first
    later = origin(pins, 5_000, 5_100)
    assert 5_000 - MAX_OFFSET <= later <= 5_000


def test_streams_begin_at_different_labels_the_same_on_every_robot() -> None:
    begins = [origin(LabelOrigins(), 0, 10, QueryId(f"query-{i}")) for i in range(60)]
    assert len(set(begins)) > 40
    assert begins == [origin(LabelOrigins(), 0, 10, QueryId(f"query-{i}")) for i in range(60)]
    assert min(begins) < -MAX_OFFSET * 3 // 4
    assert max(begins) > -MAX_OFFSET // 4


def test_cameras_count_for_themselves() -> None:
    pins = LabelOrigins()
    origin(pins, 0, 10)
    other = origin(pins, 7_000, 7_010, camera=CameraId("wrist"))
    assert other > 6_000
    assert origin(pins, 1, 11) <= 0


def test_queries_of_a_camera_share_their_labels() -> None:
    pins = LabelOrigins()
    first = origin(pins, 0, 100)
    assert origin(pins, 10, 110, QueryId("another")) == first
    assert origin(LabelOrigins(), 0, 100, QueryId("another")) != first


@given(
    steps=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 300)), min_size=1, max_size=30)
)
def test_labels_are_never_negative_and_bounded_by_the_history(
    steps: list[tuple[int, int]],
) -> None:
    pins = LabelOrigins()
    oldest = 0
    for moved, span in steps:
        oldest += moved
        label = oldest - origin(pins, oldest, oldest + span)
        assert 0 <= label <= MAX_OFFSET + span
