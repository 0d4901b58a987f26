# SPDX-License-Identifier: Apache-2.0
"""Whether another node has this node's name: then services and topics of both mix, silently."""

from __future__ import annotations

from typing import Final

from rclpy.node import Node

from foreseg.clock import Clock

# A process that was killed stays in the graph for 20 s, Fast DDS's lease: its successor must not
# complain of it.
LASTS_S: Final = 30.0


class NameWatch:
    """Looks at the graph from time to time."""

    def __init__(self, node: Node, clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self._since_ns: int | None = None
        self._is_told = False

    def problem(self) -> str | None:
        """What is wrong with the name, or None; logged when it is first seen."""
        name, namespace = self._node.get_name(), self._node.get_namespace()
        now_ns = self._clock.monotonic_ns()
        num_nodes = self._node.get_node_names_and_namespaces().count((name, namespace))
        if num_nodes <= 1:
            self._since_ns = None
            return None
        if self._since_ns is None:
            self._since_ns = now_ns
        if now_ns - self._since_ns < LASTS_S * 1e9:
            return None
        problem = (
            f"{num_nodes} nodes are called {self._node.get_fully_qualified_name()}: their services"
            " and topics mix; give one another name, -r __node:=NAME or name:=NAME in the launch"
        )
        if not self._is_told:
            self._is_told = True
            self._node.get_logger().warning(problem)
        return problem
