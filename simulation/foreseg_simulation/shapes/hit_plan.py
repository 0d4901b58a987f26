# SPDX-License-Identifier: Apache-2.0
"""Legs: how the ball goes from one event to the next, and where it may go.

Does not know: names, drawing, or how the future is told.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from foreseg_simulation.textures import F32Array

from .sprites import Pose

_MARCH_PX = 0.1
_STILL_PX_S = 1e-6


class Route(enum.Enum):
    """How the ball gets to its next target."""

    STRAIGHT = "straight"
    CUSHION = "cushion"  # over a border of the view
    HABIT = "habit"  # one order of targets, with a rest after each
    LAMP = "lamp"  # through the middle, to what has the colour of the lamp
    SHORT = "short"  # straight, but at times it slows down and stops on the way


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """That the ball touched a target."""

    target: int  # place among the targets
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leg:
    """From one hit, or stop, to the next; the ball may rest first."""

    start_s: float
    roll_s: float  # when the ball starts to roll
    hit_s: float  # when it hits, or lies still and the next leg begins
    corners: np.ndarray  # (K, 2) the way of the ball's centre, pixels
    target: int | None  # place among the targets; None where the ball stops short
    aim: int  # the target that it rolls towards
    previous: int | None  # the target that was hit when this leg began
    past: tuple[Hit, ...]  # the hits before this leg, oldest first; a bounded number

    @property
    def is_slowing(self) -> bool:
        """Whether the ball slows down until it lies still."""
        return self.target is None

    def share_at(self, time_s: float) -> float:
        """Share of the rolling time that has passed, 0..1."""
        return float(np.clip((time_s - self.roll_s) / (self.hit_s - self.roll_s), 0, 1))

    def ball_at(self, time_s: float) -> np.ndarray:
        """Centre (2,) of the ball."""
        share = np.clip((time_s - self.roll_s) / (self.hit_s - self.roll_s), 0, 1)
        if self.is_slowing:
            share = 1 - (1 - share) ** 2
        along = self._along()
        distance = share * along[-1]
        return np.array([np.interp(distance, along, self.corners[:, i]) for i in (0, 1)])

    def velocity_at(self, time_s: float) -> np.ndarray:
        """Velocity (2,) of the ball, pixels per second; after a corner's turn, at the corner."""
        if not self.roll_s <= time_s < self.hit_s:
            return np.zeros(2)
        share, along = self.share_at(time_s), self._along()
        speed = along[-1] / (self.hit_s - self.roll_s)
        if self.is_slowing:
            speed, share = speed * 2 * (1 - share), 1 - (1 - share) ** 2
        piece = int(np.searchsorted(along[1:-1], share * along[-1], side="right"))
        step = self.corners[piece + 1] - self.corners[piece]
        length = float(np.linalg.norm(step))
        return step * (speed / length) if length > _STILL_PX_S else np.zeros(2)

    def turn_s(self) -> float:
        """When the ball takes its last turn; `roll_s` where the way is straight."""
        along = self._along()
        return self.roll_s + (self.hit_s - self.roll_s) * float(along[-2] / along[-1])

    def _along(self) -> np.ndarray:
        steps = np.linalg.norm(np.diff(self.corners, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])


def over_cushion(
    rng: np.random.Generator,
    place: np.ndarray,
    goal: np.ndarray,
    target: int,
    *,
    poses: Sequence[Pose],
    ball_radius_px: float,
    size_wh: tuple[int, int],
) -> np.ndarray | None:
    """Find a way with one rebound at a border that touches nothing on its way, or None."""
    size = np.array(size_wh, dtype=np.float64)
    low, high = ball_radius_px, size - ball_radius_px
    walls = [(axis, float(wall)) for axis in (0, 1) for wall in (low, high[axis])]
    for number in rng.permutation(len(walls)):
        axis, wall = walls[number]
        mirrored = goal.copy()
        mirrored[axis] = 2 * wall - goal[axis]
        step = mirrored - place
        if abs(step[axis]) < 1.0:
            continue
        bounce = place + step * ((wall - place[axis]) / step[axis])
        is_inside = bool(np.all((bounce >= low - 1e-6) & (bounce <= high + 1e-6)))
        if (
            is_inside
            and is_clear(place, bounce, None, poses, ball_radius_px)
            and is_clear(bounce, goal, target, poses, ball_radius_px)
        ):
            return np.array([place, bounce, goal])
    return None


def is_clear(
    start: np.ndarray,
    end: np.ndarray,
    target: int | None,
    poses: Sequence[Pose],
    ball_radius_px: float,
) -> bool:
    """Whether the ball passes every object but `target` on its way, leaving its start aside."""
    for i, pose in enumerate(poses):
        centre = np.array([pose.x_px, pose.y_px])
        reach = pose.radius_px + 1.3 * ball_radius_px
        if i == target or np.linalg.norm(centre - start) < reach:
            continue
        along = end - start
        share = np.clip((centre - start) @ along / max(along @ along, 1e-9), 0, 1)
        if np.linalg.norm(start + share * along - centre) < reach:
            return False
    return True


def first_contact(
    start: np.ndarray, goal: np.ndarray, corners: F32Array, radius_px: float
) -> np.ndarray:
    """Centre of a disc where it first touches an outline on a straight way; else the goal."""
    distance = float(np.linalg.norm(goal - start))
    for share in np.arange(0.0, 1.0, _MARCH_PX / distance):
        centre = start + share * (goal - start)
        point = (float(centre[0]), float(centre[1]))
        if cv2.pointPolygonTest(corners, point, measureDist=True) >= -radius_px:
            return centre
    return goal
