# SPDX-License-Identifier: Apache-2.0
"""`~/queries/ID/mask`: for each query one mask, the union of its objects, where they are wanted.

Topics come and go with the queries: once a second, on an executor thread. Masks come on the worker's
loop thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image

from foreseg.dialogue import Query, QueryId
from foreseg.driving.executor import PublishedMasks
from foreseg.errors import ConfigError
from foreseg.frames import CameraId
from foreseg.tracker.base import LabelMap
from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp, image_msg_from_labels
from foreseg_ros.topics import plain_publisher

MAX_TOPICS: Final = 64  # the queries that are wanted longest have them
MAX_PART_CHARS: Final = 64  # of a topic's name


class QueryMasks:
    """A topic for each query that stands or owns a track."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._publishers: dict[QueryId, Publisher] = {}
        self._parts: dict[QueryId, str] = {}  # of the topics' names
        self._cameras: dict[QueryId, CameraId] = {}  # of those that stand
        self._owners: dict[CameraId, frozenset[QueryId]] = {}  # of the tracks shown last
        self._refused: set[QueryId] = set()  # of those that are wanted now
        self._is_closed = False

    def publish(self, masks: PublishedMasks) -> None:
        """The mask of each query that is asked of this camera, where somebody subscribes."""
        frame, tracks = masks.frame, masks.tracks
        owners = frozenset(query_id for track in tracks for query_id in track.query_ids)
        with self._lock:
            self._owners[frame.camera] = owners
            for query_id, publisher in self._publishers.items():
                if not publisher.get_subscription_count() or not self._is_of(
                    query_id, frame.camera
                ):
                    continue
                labels = [track.index for track in tracks if query_id in track.query_ids]
                header = header_from_stamp(frame.stamp_ns, frame.frame_id)
                mask = mask_of_labels(masks.label_map, labels)
                publisher.publish(image_msg_from_labels(mask, header))

    def keep_up(self, standing: Sequence[Query]) -> None:
        """Make the topics of queries that are new, and take away those of queries that have gone."""
        with self._lock:
            self._cameras = {query.id: query.camera for query in standing}
            owners = {query_id for each in self._owners.values() for query_id in each}
            wanted = dict.fromkeys([*self._cameras, *sorted(owners)])
            gone = [query_id for query_id in self._publishers if query_id not in wanted]
            old = [self._publishers.pop(query_id) for query_id in gone]
            self._parts = {i: part for i, part in self._parts.items() if i not in gone}
            self._refused &= set(wanted)
        for publisher in old:
            self._node.destroy_publisher(publisher)
        for query_id in wanted:
            if query_id not in self._publishers and query_id not in self._refused:
                self._make(query_id)

    def destroy(self) -> None:
        """No topic any more; the worker must have stopped."""
        with self._lock:
            self._is_closed = True
            old, self._publishers = list(self._publishers.values()), {}
        for publisher in old:
            self._node.destroy_publisher(publisher)

    def _is_of(self, query_id: QueryId, camera: CameraId) -> bool:
        asked_of = self._cameras.get(query_id)
        return asked_of == camera or (asked_of is None and query_id in self._owners[camera])

    def _make(self, query_id: QueryId) -> None:
        if len(self._publishers) >= MAX_TOPICS:
            self._refuse(query_id, f"{MAX_TOPICS} others have one")
            return
        part = free_part(query_id, self._parts.values())
        try:
            publisher = plain_publisher(self._node, Image, f"~/queries/{part}/mask", qos.masks())
        except ConfigError as error:
            self._refuse(query_id, str(error))
            return
        with self._lock:
            if not self._is_closed:
                self._publishers[query_id], self._parts[query_id] = publisher, part
                return
        self._node.destroy_publisher(publisher)

    def _refuse(self, query_id: QueryId, reason: str) -> None:
        self._refused.add(query_id)
        self._node.get_logger().warning(f"query {query_id!r} has no topic: {reason}")


def mask_of_labels(label_map: LabelMap, labels: Iterable[int]) -> LabelMap:
    """255 where the map has one of these labels, 0 elsewhere; (H, W) uint8."""
    table = np.zeros(np.iinfo(label_map.dtype).max + 1, np.uint8)
    table[list(labels)] = np.iinfo(np.uint8).max
    return np.take(table, label_map)


def free_part(query_id: QueryId, taken: Iterable[str]) -> str:
    """A query's id as a part of a topic's name that no other query has.

    What such a name cannot have becomes `_`; a number follows where that makes two the same.
    """
    words = re.sub(r"[^A-Za-z0-9]+", "_", query_id)[:MAX_PART_CHARS].strip("_")
    if not words or words[0].isdigit():
        words = f"q{words}"
    part, number, others = words, 1, set(taken)
    while part in others:
        number += 1
        part = f"{words}_{number}"
    return part
