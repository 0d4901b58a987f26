# SPDX-License-Identifier: Apache-2.0
"""Bags as a recorder of ROS 2 leaves them: a red square that moves, and what foreseg answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

SIZE_WH = (160, 120)
RATE_HZ = 30
FIRST_NS = 1_700_000_000_123_456_789  # the first image's stamp
DELAY_NS = 5_000_000  # from stamp to recording
MESSAGES = Path(__file__).resolve().parents[2] / "ros_ws/src/foreseg_msgs/msg"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
ANSWER = "foreseg_msgs/msg/Answer"
TOPIC = "/camera/image_raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An answer in a bag; seconds count from the first image."""

    query_id: str
    text: str
    asked_s: float
    horizon_s: float = 0.0
    rationale: str = ""
    status: int = 0


def stamp_of(index: int) -> int:
    """Of an image of the bag."""
    return FIRST_NS + index * 10**9 // RATE_HZ


def image_at(index: int) -> np.ndarray:
    """The square on plain grey, (H, W, 3) RGB."""
    image = np.full((*SIZE_WH[::-1], 3), 90, np.uint8)
    image[50:74, 10 + index : 34 + index] = (220, 40, 40)
    return image


def types_of_foreseg() -> Any:
    """A store with ROS's types and foreseg_msgs."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for path in sorted(MESSAGES.glob("*.msg")):
        types.update(get_types_from_msg(path.read_text(), f"foreseg_msgs/msg/{path.stem}"))
    store.register(types)
    return store


def write_bag(
    path: Path,
    num_images: int,
    *,
    plugin: StoragePlugin = StoragePlugin.MCAP,
    topics: Sequence[str] = (TOPIC,),
    answers: Sequence[Given] = (),
    has_stamps: bool = True,
    cut: int | None = None,
) -> Path:
    """Write a bag; the image `cut` lacks its lower half."""
    store = types_of_foreseg()
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = [writer.add_connection(topic, IMAGE, typestore=store) for topic in topics]
        for index in range(num_images):
            stamp_ns, data = stamp_of(index), image_at(index).reshape(-1)
            msg = store.types[IMAGE](
                header=_header(store, stamp_ns if has_stamps else 0),
                height=SIZE_WH[1],
                width=SIZE_WH[0],
                encoding="rgb8",
                is_bigendian=0,
                step=SIZE_WH[0] * 3,
                data=data[: data.size // 2] if index == cut else data,
            )
            raw = store.serialize_cdr(msg, IMAGE)
            for connection in connections:
                writer.write(connection, stamp_ns + DELAY_NS, raw)
        if answers:
            connection = writer.add_connection("/foreseg/answers", ANSWER, typestore=store)
            for given in answers:
                asked_ns = FIRST_NS + round(given.asked_s * 1e9)
                raw = store.serialize_cdr(_answer(store, given, asked_ns), ANSWER)
                writer.write(connection, asked_ns + 10**9, raw)
    return path


def _answer(store: Any, given: Given, asked_ns: int) -> Any:
    ends_ns = asked_ns + round(given.horizon_s * 1e9) if given.horizon_s else 0
    return store.types[ANSWER](
        header=_header(store, asked_ns),
        query_id=given.query_id,
        query_text=given.text,
        status=given.status,
        text="the red region",
        rationale=given.rationale,
        reason="why not",
        confidence=0.5,
        keyframe_index=7,
        prompts=[],
        object_ids=[],
        asked=_time(store, asked_ns),
        answered=_time(store, asked_ns + 10**9),
        valid_until=_time(store, ends_ns),
        latency_s=1.0,
        tokens=0,
        outcome=0,
    )


def _time(store: Any, ns: int) -> Any:
    return store.types["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)


def _header(store: Any, ns: int) -> Any:
    return store.types["std_msgs/msg/Header"](stamp=_time(store, ns), frame_id="optical")
