# SPDX-License-Identifier: Apache-2.0
"""Finds what a node reads and publishes, and hands each message, as it came, to a bag's writer."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from foreseg.errors import InputError
from foreseg_ros.clocks import stamp_now_ns, steady_timer
from foreseg_ros.record.definitions import Definitions
from foreseg_ros.record.writer import BagWriter

if TYPE_CHECKING:
    from rosbags.interfaces import Qos
    from rosbags.typesys.store import Typestore

LOOK_PERIOD_S = 0.5  # between two looks at the graph
QUEUE_DEPTH = 30  # messages of a topic that wait for the disk; then the oldest leaves
MSG_PARTS = 3  # of a type's name: package/msg/Name
NEVER = ("/parameter_events", "/rosout")


class Recorder(Node):
    """Subscribes to each topic of a node once it has a publisher; new ones are found later, too."""

    def __init__(
        self,
        target: str,
        writer: BagWriter,
        *,
        has_overlay: bool = False,
        also: Sequence[str] = (),
        context: Context | None = None,
    ) -> None:
        """Begin to look; `also` names topics beside those of the node."""
        super().__init__("foreseg_record", context=context, enable_rosout=False)
        self._target = target if target.startswith("/") else f"/{target}"
        self._writer = writer
        self._has_overlay = has_overlay
        self._also = frozenset(also)
        self._definitions = Definitions(share_of)
        self._known: set[str] = set()
        self.skipped: dict[str, str] = {}  # topic -> why it is not recorded
        steady_timer(self, LOOK_PERIOD_S, self.look, self.default_callback_group)

    @property
    def topics(self) -> list[str]:
        """What is recorded, as far as messages come."""
        return sorted(self._known - set(self.skipped))

    def look(self) -> None:
        """Subscribe to what is new."""
        for topic, msgtype in sorted(self._wanted().items()):
            if topic in self._known or not self.count_publishers(topic):
                continue
            self._known.add(topic)
            try:
                self._subscribe(topic, msgtype)
            except (InputError, ImportError, AttributeError) as error:
                self.skipped[topic] = str(error)
                self.get_logger().warning(f"{topic} is not recorded: {error}")

    def _wanted(self) -> dict[str, str]:
        """Topic -> type."""
        found: dict[str, str] = {}
        every = dict(self.get_topic_names_and_types())
        namespace, _, name = self._target.rpartition("/")
        if name in {
            n for n, space in self.get_node_names_and_namespaces() if space == (namespace or "/")
        }:
            for of_node in (
                self.get_publisher_names_and_types_by_node,
                self.get_subscriber_names_and_types_by_node,
            ):
                for topic, types in of_node(name, namespace or "/"):
                    if self._is_wanted(topic):
                        found[topic] = types[0]
        found.update({topic: every[topic][0] for topic in self._also if topic in every})
        return {t: kind for t, kind in found.items() if len(kind.split("/")) == MSG_PARTS}

    def _is_wanted(self, topic: str) -> bool:
        if topic in NEVER or "/_" in topic:  # hidden: of actions
            return False
        return self._has_overlay or "/overlay" not in topic

    def _subscribe(self, topic: str, msgtype: str) -> None:
        """Raises what a type raises that is not installed."""
        store = self._definitions.store_with(msgtype)
        package, folder, name = msgtype.split("/")
        kind = getattr(importlib.import_module(f"{package}.{folder}"), name)
        infos = self.get_publishers_info_by_topic(topic)
        is_reliable = all(
            info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in infos
        )
        is_latched = all(
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for info in infos
        )
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE
            if is_reliable
            else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL
            if is_latched
            else DurabilityPolicy.VOLATILE,
        )
        offered = offered_qos(is_reliable=is_reliable, is_latched=is_latched)

        def take(data: bytes) -> None:
            self._take(topic, msgtype, store, offered, data)

        self.create_subscription(kind, topic, take, qos, raw=True)
        self.get_logger().info(f"recording {topic} ({msgtype})")

    def _take(self, topic: str, msgtype: str, store: Typestore, offered: Qos, data: bytes) -> None:
        stamp_ns = stamp_now_ns(self)
        self._writer.write(topic, msgtype, store, offered, data, stamp_ns=stamp_ns)


def share_of(package: str) -> Path:
    """The share folder of an installed message package: of apt's ROS, a workspace, or the wheels.

    Raises:
        LookupError: its Python module lies beside none.
    """
    place = importlib.import_module(package).__file__
    for parent in Path(place or "").parents:
        if (parent / "share" / package / "msg").is_dir():
            return parent / "share" / package
    msg = f"no folder share/{package}/msg above {place}"
    raise LookupError(msg)


def offered_qos(*, is_reliable: bool, is_latched: bool) -> Qos:
    """How a topic is published, as a bag has it: `ros2 bag play` publishes it likewise."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(sec=9_223_372_036, nsec=854_775_807)  # as rmw has it
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE if is_reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if is_latched else QosDurability.VOLATILE,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
