# SPDX-License-Identifier: Apache-2.0
"""The node's two clocks: duties run on the steady one, stamps come from ROS's.

With `use_sim_time`, ROS's clock stands at 0 until something comes on /clock, and stops with it. A
timer on it would take diagnostics, overlay and cancelling down with a simulator that pauses.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer

from foreseg.clock import SystemClock


def steady_timer(
    node: Node, period_s: float, callback: Callable[[], None], group: CallbackGroup
) -> Timer:
    """A timer that no /clock stops."""
    clock = Clock(clock_type=ClockType.STEADY_TIME)
    return node.create_timer(period_s, callback, callback_group=group, clock=clock)


def stamp_now_ns(node: Node) -> int:
    """Now, by ROS's clock; by the machine's, in nanoseconds since 1970, while that stands at 0."""
    return int(node.get_clock().now().nanoseconds) or SystemClock().stamp_ns()


class SimTimeWatch:
    """Tells whether simulated time goes on, from one look to the next."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen_ns = -1

    def problem(self) -> str | None:
        """What is wrong with it, or None: also where ROS's time is not simulated."""
        if not self._node.get_parameter("use_sim_time").value:
            return None
        before_ns, self._seen_ns = self._seen_ns, int(self._node.get_clock().now().nanoseconds)
        if self._seen_ns == 0:
            return "use_sim_time is set, and nothing has come on /clock"
        if self._seen_ns == before_ns:
            return f"use_sim_time is set, and /clock stands at {self._seen_ns / 1e9:.3f} s"
        return None
