# SPDX-License-Identifier: Apache-2.0
"""A bond with a lifecycle manager: a heartbeat on `bond` while active, so that it sees us die.

Of the bond protocol this is what a managed node needs: heartbeats, and a last word. It listens to
nobody: a manager that falls silent changes nothing here, and the topic carries every node's beats.
The messages are in the package `bond`, a soft dependency.
"""

from __future__ import annotations

import threading
import uuid
from typing import Final

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from foreseg_ros import qos
from foreseg_ros.clocks import stamp_now_ns, steady_timer
from foreseg_ros.conversions import header_from_stamp
from foreseg_ros.topics import plain_publisher

PERIOD_S: Final = 0.1  # as Nav2's own nodes have it, here and below
TIMEOUT_S: Final = 4.0


class Bond:
    """Begins when it is made; `bond` must be installed."""

    def __init__(self, node: Node) -> None:
        """Begin to send heartbeats.

        Raises:
            ConfigError: a QoS override that cannot be.
        """
        from bond.msg import Status

        self._node = node
        self._status = Status
        self._instance = str(uuid.uuid4())
        self._lock = threading.Lock()
        self._is_over = False
        self._publisher = plain_publisher(node, Status, "bond", qos.bond())
        self._timer = steady_timer(node, PERIOD_S, self._beat, MutuallyExclusiveCallbackGroup())

    def end(self) -> None:
        """Say that we go, and stop."""
        with self._lock:
            self._is_over = True
            self._send(is_active=False)
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)

    def _beat(self) -> None:
        with self._lock:
            if not self._is_over:
                self._send(is_active=True)

    def _send(self, *, is_active: bool) -> None:
        self._publisher.publish(
            self._status(
                header=header_from_stamp(stamp_now_ns(self._node), ""),
                id=self._node.get_name(),
                instance_id=self._instance,
                active=is_active,
                heartbeat_timeout=TIMEOUT_S,
                heartbeat_period=PERIOD_S,
            )
        )
