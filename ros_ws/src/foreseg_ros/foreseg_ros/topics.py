# SPDX-License-Identifier: Apache-2.0
"""Publishers and subscriptions as the node makes them: with QoS overrides, destroyed together.

An override is rclpy's: parameter `qos_overrides.TOPIC.publisher.depth`, TOPIC as it is after remapping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import (
    InvalidQosOverridesError,
    QosCallbackResult,
    QoSOverridingOptions,
)
from rclpy.subscription import Subscription

from foreseg.errors import ConfigError
from foreseg_ros.parameters import given_parameters, with_nearest

MessageT = TypeVar("MessageT")
PREFIX: Final = "qos_overrides."
MAX_DEPTH: Final = 10_000  # of a queue; every one is bounded
POLICIES: Final = (QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


class Topics:
    """Makes a node's publishers and subscriptions, and destroys those that it has made."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: list[LifecyclePublisher] = []
        self._subscriptions: list[Subscription] = []

    def publisher(self, kind: type, name: str, profile: QoSProfile) -> LifecyclePublisher:
        """A publisher that drops what is sent while the node is inactive.

        Raises:
            ConfigError: an override that cannot be.
        """
        try:
            made: LifecyclePublisher = self._node.create_lifecycle_publisher(
                kind, name, profile, qos_overriding_options=overridable()
            )
        except (InvalidQosOverridesError, ParameterException, RuntimeError) as error:
            raise _refused(name, error) from error
        self._publishers.append(made)
        return made

    def subscription(
        self,
        kind: type[MessageT],
        name: str,
        callback: Callable[[MessageT], None],
        profile: QoSProfile,
        group: CallbackGroup,
    ) -> Subscription:
        """A subscription.

        Raises:
            ConfigError: an override that cannot be.
        """
        try:
            made = self._node.create_subscription(
                *(kind, name, callback, profile),
                callback_group=group,
                qos_overriding_options=overridable(),
            )
        except (InvalidQosOverridesError, ParameterException, RuntimeError) as error:
            raise _refused(name, error) from error
        self._subscriptions.append(made)
        return made

    def destroy(self) -> None:
        """Destroy all; nobody may use them any more."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._publishers, self._subscriptions = [], []


def plain_publisher(node: Node, kind: type, name: str, profile: QoSProfile) -> Publisher:
    """A publisher that the lifecycle does not silence.

    Raises:
        ConfigError: an override that cannot be.
    """
    try:
        return Node.create_publisher(
            node, kind, name, profile, qos_overriding_options=overridable()
        )
    except (InvalidQosOverridesError, ParameterException, RuntimeError) as error:
        raise _refused(name, error) from error


def overridable() -> QoSOverridingOptions:
    """What of a topic may be overridden: depth, reliability, durability."""
    return QoSOverridingOptions(POLICIES, callback=_check)


def unused_overrides(node: Node) -> str | None:
    """What to say of overrides for topics that the node has not; None if there is nothing.

    They are no error: a file's section `/**` may serve other nodes, too.
    """
    given = [name for name in given_parameters(node) if name.startswith(PREFIX)]
    known = [name for name in node._parameters if name.startswith(PREFIX)]  # noqa: SLF001 (rclpy lists none)
    told = with_nearest([name for name in given if name not in known], known)
    return f"without effect, no such topic or policy here: {told}" if told else None


def _check(profile: QoSProfile) -> QosCallbackResult:
    is_bounded = 1 <= profile.depth <= MAX_DEPTH
    reason = "" if is_bounded else f"depth wants 1 to {MAX_DEPTH}, got {profile.depth}"
    return QosCallbackResult(successful=is_bounded, reason=reason)


def _refused(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"topic {name}: {error}")
