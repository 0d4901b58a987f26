# SPDX-License-Identifier: Apache-2.0
"""A world without a plot: textured shapes wander, cross, bounce, leave and come back.

Tracker training and held-out tracking clips are made of it. Does not know: questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from foreseg_simulation.textures import U8Array, make_texture

from .figures import ShapeKind, outline
from .sprites import Pose, Sprite, draw_sprite, full_area_px

SpriteMaker = Callable[[np.random.Generator], Sprite]
BackgroundMaker = Callable[[np.random.Generator, tuple[int, int]], U8Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorldFrame:
    """One rendered frame with its truth."""

    index: int
    stamp_ns: int
    image: U8Array  # (H, W, 3) RGB
    instance_ids: U8Array  # (H, W), 0 background, k = visible part of object k
    full_areas_px: tuple[float, ...]  # of object k at k - 1, were nothing hidden or cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class WanderingConfig:
    """What a wandering world draws from; ranges are (low, high), inclusive of both.

    Attributes:
        size_wh: frame width and height, pixels.
        rate_hz: frames per second, for the stamps.
        num_objects: how many objects.
        radius_px: their radii.
        speed_px: their speeds, pixels per frame.
        meeting_frames: a front object is aimed to cover another one within these frames.
        meeting_probability: that an object is aimed at an earlier one.
        covers: whether an aimed object is at least as large as the one it is aimed at.
        twin_probability: that an object copies the looks of an earlier one.
        leave_probability: that an object leaves the view rather than bounces at the border.
        camera_px: largest speed of the camera, pixels per frame.
    """

    size_wh: tuple[int, int] = (320, 240)
    rate_hz: float = 30.0
    num_objects: tuple[int, int] = (3, 6)
    radius_px: tuple[float, float] = (18.0, 48.0)
    speed_px: tuple[float, float] = (0.0, 5.0)
    meeting_frames: tuple[int, int] = (4, 16)
    meeting_probability: float = 0.4
    covers: bool = False
    twin_probability: float = 0.3
    leave_probability: float = 0.35
    camera_px: float = 1.5


@dataclass(slots=True, kw_only=True)
class _Body:
    sprite: Sprite
    pose: Pose
    velocity: np.ndarray  # (2,) pixels per frame
    spin: float
    breath: tuple[float, float]  # amplitude, radians per frame
    leaves: bool
    radius_px: float


def procedural_sprite(rng: np.random.Generator) -> Sprite:
    """Draw a shape of any kind in a procedural texture."""
    kinds = list(ShapeKind)
    kind = kinds[rng.integers(len(kinds))]
    return Sprite(texture=make_texture(rng, (64, 64)), outline=outline(kind, rng))


def procedural_background(rng: np.random.Generator, size_wh: tuple[int, int]) -> U8Array:
    """Paint a background of low to middle contrast."""
    return make_texture(rng, size_wh, contrast=float(rng.uniform(0.05, 0.7)))


def wander(
    seed: int,
    config: WanderingConfig,
    *,
    sprite_maker: SpriteMaker = procedural_sprite,
    background_maker: BackgroundMaker = procedural_background,
) -> Iterator[WorldFrame]:
    """Yield frames for ever; equal seeds and configs yield equal bytes."""
    rng = np.random.default_rng(seed)
    width, height = config.size_wh
    margin = int(min(width, height) * 0.3)
    background = background_maker(rng, (width + 2 * margin, height + 2 * margin))
    camera = _Camera(rng, config, margin)
    bodies = _make_bodies(rng, config, sprite_maker)
    period_ns = round(1e9 / config.rate_hz)
    index = 0
    while True:
        image = camera.view(background, config.size_wh)
        instance_ids = np.zeros((height, width), dtype=np.uint8)
        poses = [_breathing(body, index) for body in bodies]
        for number, (body, pose) in enumerate(zip(bodies, poses, strict=True), start=1):
            draw_sprite(image, instance_ids, body.sprite, pose, number)
        yield WorldFrame(
            index=index,
            stamp_ns=index * period_ns,
            image=image,
            instance_ids=instance_ids,
            full_areas_px=tuple(
                full_area_px(body.sprite, pose) for body, pose in zip(bodies, poses, strict=True)
            ),
        )
        camera.step()
        for body in bodies:
            _step(rng, body, config.size_wh)
        index += 1


class _Camera:
    """Slides over the background, turning back at its margins."""

    def __init__(self, rng: np.random.Generator, config: WanderingConfig, margin: int) -> None:
        self._offset = rng.uniform(0.2, 1.8, 2) * margin
        moves = rng.random() < 0.6
        self._velocity = rng.uniform(-1, 1, 2) * (config.camera_px if moves else 0.0)
        self._limit = 2.0 * margin

    def view(self, background: U8Array, size_wh: tuple[int, int]) -> U8Array:
        width, height = size_wh
        centre = np.add(self._offset, ((width - 1) / 2, (height - 1) / 2))
        return cv2.getRectSubPix(background, (width, height), tuple(centre.tolist()))

    def step(self) -> None:
        self._offset = self._offset + self._velocity
        outside = (self._offset < 0) | (self._offset > self._limit)
        self._velocity[outside] *= -1
        self._offset = np.clip(self._offset, 0, self._limit)


def _make_bodies(
    rng: np.random.Generator, config: WanderingConfig, sprite_maker: SpriteMaker
) -> list[_Body]:
    bodies: list[_Body] = []
    for _ in range(rng.integers(config.num_objects[0], config.num_objects[1] + 1)):
        body = _make_body(rng, config, sprite_maker)
        if bodies and rng.random() < config.twin_probability:
            body.sprite = bodies[rng.integers(len(bodies))].sprite
        if bodies and rng.random() < config.meeting_probability:
            _aim(rng, body, bodies[rng.integers(len(bodies))], config)
        bodies.append(body)
    return bodies


def _make_body(
    rng: np.random.Generator, config: WanderingConfig, sprite_maker: SpriteMaker
) -> _Body:
    width, height = config.size_wh
    low, high = config.radius_px
    radius = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    heading, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*config.speed_px)
    spins = rng.random() < 0.6
    return _Body(
        sprite=sprite_maker(rng),
        pose=Pose(
            x_px=float(rng.uniform(0.05, 0.95) * width),
            y_px=float(rng.uniform(0.05, 0.95) * height),
            radius_px=radius,
            angle_rad=float(rng.uniform(0, 2 * np.pi)),
            stretch=float(rng.uniform(0.6, 1.25)),
        ),
        velocity=speed * np.array([np.cos(heading), np.sin(heading)]),
        spin=float(rng.normal(0, 0.06)) if spins else 0.0,
        breath=(float(rng.uniform(0, 0.15)), float(rng.uniform(0.05, 0.3))),
        leaves=bool(rng.random() < config.leave_probability),
        radius_px=radius,
    )


def _aim(rng: np.random.Generator, body: _Body, target: _Body, config: WanderingConfig) -> None:
    """Place a body so that it meets its target, which is drawn beneath it, at a drawn frame."""
    frames = int(rng.integers(config.meeting_frames[0], config.meeting_frames[1] + 1))
    meeting = target.velocity * frames + (target.pose.x_px, target.pose.y_px)
    start = meeting - body.velocity * frames
    if config.covers:
        body.radius_px = max(body.radius_px, 1.15 * target.radius_px)
    body.pose = replace(body.pose, x_px=float(start[0]), y_px=float(start[1]))


def _breathing(body: _Body, index: int) -> Pose:
    amplitude, rate = body.breath
    return replace(body.pose, radius_px=body.radius_px * (1 + amplitude * np.sin(rate * index)))


def _step(rng: np.random.Generator, body: _Body, size_wh: tuple[int, int]) -> None:
    body.velocity = body.velocity + rng.normal(0, 0.12, 2)
    position = np.add(body.velocity, (body.pose.x_px, body.pose.y_px))
    reach = 1.8 * body.radius_px if body.leaves else -0.5 * body.radius_px
    for axis in (0, 1):
        low, high = -reach, size_wh[axis] + reach
        if position[axis] < low:
            body.velocity[axis] = abs(body.velocity[axis])
        elif position[axis] > high:
            body.velocity[axis] = -abs(body.velocity[axis])
    body.pose = replace(
        body.pose,
        x_px=float(position[0]),
        y_px=float(position[1]),
        angle_rad=body.pose.angle_rad + body.spin,
    )
