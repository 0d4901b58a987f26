# SPDX-License-Identifier: Apache-2.0
"""Quality of service of every topic, by name; each says why.

A reliable publisher serves reliable and best-effort subscribers alike, a best-effort one only the
latter; so what others read is published reliably, and what is only wanted fresh is read without.
"""

from __future__ import annotations

from typing import Final

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from foreseg.driving.inbox import MAX_MESSAGES

MASK_DEPTH: Final = 5  # at depth 1 a reliable writer still overwrites frames under load
ANSWER_DEPTH: Final = 10
EVENT_DEPTH: Final = 10
# Of rclpy's 10 the oldest is overwritten when more come at once, and its caller waits for ever.
# As many may wait for the worker's loop; from there on they are refused with the reason.
REQUEST_DEPTH: Final = MAX_MESSAGES


def image_in() -> QoSProfile:
    """Camera frames: the newest or none; a frame sent again would come too late."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)


def camera_info_in() -> QoSProfile:
    """`camera_info`: the newest counts; whoever sends it, reliably or not, is heard."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)


def depth_in() -> QoSProfile:
    """`depth`: as camera frames, but each may be the one that masks are waiting for."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, MASK_DEPTH)


def masks() -> QoSProfile:
    """`~/masks` and what comes with them: frame by frame, for viewers and planners alike."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, MASK_DEPTH)


def overlay() -> QoSProfile:
    """`~/overlay`: for the eye; reliable because viewers ask for it, one because old is useless."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)


def answers() -> QoSProfile:
    """`~/answers`: rare and needed; who comes late still gets the last ones."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, ANSWER_DEPTH)


def label_info() -> QoSProfile:
    """`~/label_info`: rare; who comes late gets the one that holds."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1)


def queries() -> QoSProfile:
    """`~/query`: every word counts."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, REQUEST_DEPTH)


def requests() -> QoSProfile:
    """Services and the action: who asks is answered, however many ask at once."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, REQUEST_DEPTH)


def bond() -> QoSProfile:
    """`bond`: heartbeats; the last word must come."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, EVENT_DEPTH)


def diagnostics() -> QoSProfile:
    """`/diagnostics`: as aggregators expect it."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, EVENT_DEPTH)


def _profile(
    reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
    )
