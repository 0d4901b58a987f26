# SPDX-License-Identifier: Apache-2.0
"""Two nodes of one name, in a real graph; time is set by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from foreseg.clock import ManualClock
from foreseg_ros.names import LASTS_S, NameWatch
from tests.ros.ros_harness import random_domain

pytestmark = pytest.mark.ros

MakeNode = Callable[[str, str], Node]
LASTS_NS = round(LASTS_S * 1e9)
SEEN_WITHIN_S = 20.0


@pytest.fixture
def make() -> Iterator[MakeNode]:
    context = Context()
    rclpy.init(context=context, domain_id=random_domain())
    nodes: list[Node] = []

    def made(name: str, namespace: str) -> Node:
        node = rclpy.create_node(name, namespace=namespace, context=context)
        nodes.append(node)
        return node

    yield made
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def wait_for_names(node: Node, number: int) -> None:
    end = time.monotonic() + SEEN_WITHIN_S
    executor = SingleThreadedExecutor(context=node.context)
    while len(node.get_node_names_and_namespaces()) != number:
        assert time.monotonic() < end, node.get_node_names_and_namespaces()
        executor.spin_once(timeout_sec=0.02)
    executor.shutdown()


def test_a_second_node_of_the_name_is_told_once_it_lasts(make: MakeNode) -> None:
    clock = ManualClock()
    node = make("foreseg", "/robot")
    watch = NameWatch(node, clock)
    assert watch.problem() is None
    other = make("foreseg", "/robot")
    wait_for_names(node, 2)
    assert watch.problem() is None, "perhaps it was killed, and is only still listed"
    clock.advance(LASTS_NS - 1)
    assert watch.problem() is None
    clock.advance(1)
    told = watch.problem()
    assert told is not None
    assert told.startswith("2 nodes are called /robot/foreseg")
    other.destroy_node()
    wait_for_names(node, 1)
    assert watch.problem() is None


def test_the_predecessor_that_was_killed_is_no_second_node(make: MakeNode) -> None:
    clock = ManualClock()
    old, node = make("foreseg", ""), make("foreseg", "")
    watch = NameWatch(node, clock)
    wait_for_names(node, 2)
    assert watch.problem() is None
    old.destroy_node()
    wait_for_names(node, 1)
    clock.advance(LASTS_NS)
    assert watch.problem() is None


@pytest.mark.parametrize(("name", "namespace"), [("foreseg", "/other"), ("foreseg2", "/robot")])
def test_another_name_or_namespace_is_no_problem(
    make: MakeNode, name: str, namespace: str
) -> None:
    clock = ManualClock()
    node = make("foreseg", "/robot")
    watch = NameWatch(node, clock)
    make(name, namespace)
    wait_for_names(node, 2)
    assert watch.problem() is None
    clock.advance(LASTS_NS)
    assert watch.problem() is None
