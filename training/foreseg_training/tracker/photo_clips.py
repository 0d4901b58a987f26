# SPDX-License-Identifier: Apache-2.0
"""Training clips from photographs: their own objects moved, other objects pasted and moved.

As STCN and XMem pretrain on still pictures. A clip is a photograph under a moving camera, with
one of its objects lifted and moved by itself, and cut-outs of other photographs that move,
bend, cross, cover, leave and come back. Does not know: prompts, tensors, models.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from foreseg_simulation.textures import U8Array

from .clips import Clip, jitter
from .layers import Layer, draw_bend, draw_ripple, matrices_of
from .photos import Cutout, PhotoSet, cut_out, load

_MAX_OWN_OBJECTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoClipMaker:
    """Draws clips from a set of photographs; equal seeds give equal bytes.

    Attributes:
        exit_probability: of a clip in which a pasted object leaves, is covered, or the scene cuts.
    """

    photos: PhotoSet
    exit_probability: float = 0.5

    def make(self, seed: int, num_frames: int, image_size: int) -> Clip:
        """Draw `num_frames` frames of `image_size` model pixels a side."""
        rng = np.random.default_rng([seed, 77])
        scene = _Scene(rng, self.photos, num_frames, image_size)
        base, lifted = scene.base()
        pasted = [*lifted, *scene.pasted()]
        if num_frames > 1 and rng.random() < self.exit_probability:
            base_of, pasted = scene.with_exit(base, pasted)
        else:
            base_of = [base] * num_frames
        return _drawn(rng, base_of, pasted, image_size)


def _drawn(rng: np.random.Generator, base_of: list[Layer], pasted: list[Layer], side: int) -> Clip:
    """Draw the base of each frame, then the pasted layers, the first at the bottom."""
    num_frames = len(base_of)
    num_own = 0 if base_of[0].ids is None else int(base_of[0].ids.max())
    images = np.empty((num_frames, side, side, 3), np.uint8)
    ids = np.empty((num_frames, side, side), np.uint8)
    full_areas: list[float] = []
    for t, base in enumerate(base_of):
        picture, _, own = base.draw(t, side)
        if base is not base_of[0]:
            own = np.zeros_like(own)  # another scene: its objects were never prompted
        if t == 0:
            full_areas += [float(np.count_nonzero(own == k)) for k in range(1, num_own + 1)]
        for number, layer in enumerate(pasted, start=num_own + 1):
            over, alpha, mask = layer.draw(t, side)
            if alpha is None:
                msg = "a pasted layer wants an alpha"
                raise ValueError(msg)
            picture = _blended(picture, over, alpha)
            own = np.where(mask > 0, np.uint8(number), own)
            if t == 0:
                full_areas.append(float(np.count_nonzero(mask)))
        images[t], ids[t] = picture, own
    images = _recorded(rng, _lit(rng, images))
    return Clip(images=images, instance_ids=ids, full_areas_px=tuple(full_areas))


class _Scene:
    """Draws the layers of one clip."""

    def __init__(
        self, rng: np.random.Generator, photos: PhotoSet, num_frames: int, side: int
    ) -> None:
        self.rng, self.photos, self.side = rng, photos, side
        self.num_frames = num_frames

    def base(self) -> tuple[Layer, list[Layer]]:
        """Draw the photograph below everything, and at times one of its objects, lifted off."""
        rng, photos = self.rng, self.photos
        if photos.backgrounds and rng.random() < 0.15:
            photo = photos.backgrounds[rng.integers(len(photos.backgrounds))]
        else:
            photo = photos.draw_photo(rng)
        picture, ids = load(photo)
        ids = _largest(ids)
        height, width = ids.shape
        scale = self.side / np.sqrt(height * width) * float(np.exp(rng.uniform(-0.1, 0.7)))
        picture, ids = _shrunk(picture, ids, scale)
        scale *= width / ids.shape[1]
        height, width = ids.shape
        speed = float(rng.choice([0.0, 0.7, 2.0, 6.0], p=[0.2, 0.3, 0.3, 0.2]))
        room = np.maximum(0, (np.array([width, height]) * scale - self.side) / 2)
        centre = self.side / 2 + rng.uniform(-1, 1, 2) * room
        places, matrices = self._path(centre, scale, speed, turn=0.08, flip=rng.random() < 0.5)
        lifted: list[Layer] = []
        if ids.any() and self.num_frames > 1 and rng.random() < 0.4:
            number = int(rng.integers(1, int(ids.max()) + 1))
            mask = ids == number
            cutout = cut_out(picture, mask)
            if cutout is not None and 0.003 < mask.mean() < 0.25:
                picture = _filled(picture, mask)
                ys, xs = np.nonzero(mask)
                offset = np.array(
                    [xs.min() + xs.max() + 1 - width, ys.min() + ys.max() + 1 - height]
                )
                lifted.append(self._lift(cutout, offset / 2, places, matrices))
                ids = np.where(mask, 0, ids).astype(np.uint8)
                ids = _largest(ids)
        ripple = draw_ripple(rng, self.num_frames) if rng.random() < 0.25 else None
        layer = Layer(
            picture=picture, alpha=None, ids=ids, places=places, matrices=matrices, ripple=ripple
        )
        return layer, lifted

    def _lift(
        self, cutout: Cutout, offset: np.ndarray, places: np.ndarray, matrices: np.ndarray
    ) -> Layer:
        """Move an object of the photograph with the camera and by itself."""
        rng, times = self.rng, np.arange(self.num_frames)
        speed = float(rng.choice([1.0, 3.0, 7.0]))
        own = self._walk(np.zeros(2), speed)
        turn = rng.normal(0, 0.04) * times
        grow = np.exp(rng.normal(0, 0.02) * times)
        start = places + np.einsum("tij,j->ti", matrices, offset)
        moving = matrices_of(grow, turn, np.zeros_like(grow), flip=False) @ matrices
        return self._deformed(cutout, start + own, moving.astype(np.float32))

    def pasted(self) -> list[Layer]:
        """Draw cut-outs of other photographs; at times one of them twice."""
        rng = self.rng
        count = int(rng.choice([0, 1, 2, 3, 4], p=[0.2, 0.32, 0.25, 0.15, 0.08]))
        layers: list[Layer] = []
        for _ in range(count):
            cutout = self.photos.draw_cutout(rng)
            if cutout is None:
                continue
            layers.append(self._paste(cutout))
            if rng.random() < 0.12:
                layers.append(self._paste(cutout))  # a twin
        return layers

    def _paste(self, cutout: Cutout, place: np.ndarray | None = None, size: float = 0) -> Layer:
        """Paste with a size of 18 to 150 model pixels (square root of the area)."""
        rng = self.rng
        own_size = float(np.sqrt(cutout.alpha.sum()))
        wanted = size or float(np.exp(rng.uniform(np.log(18), np.log(150))))
        scale = wanted / own_size
        cutout, scale = _shrunk_cutout(cutout, scale)
        speed = float(rng.choice([0.0, 1.0, 3.0, 8.0], p=[0.2, 0.3, 0.3, 0.2]))
        start = rng.uniform(0.1, 0.9, 2) * self.side if place is None else place
        places, matrices = self._path(start, scale, speed, turn=0.3, flip=rng.random() < 0.5)
        return self._deformed(_recoloured(rng, cutout), places, matrices)

    def with_exit(self, base: Layer, pasted: list[Layer]) -> tuple[list[Layer], list[Layer]]:
        """Let an object leave (and mostly return), be covered, or the scene cut to another."""
        rng, num_frames = self.rng, self.num_frames
        first = int(rng.integers(1, num_frames))
        last = num_frames if rng.random() < 0.5 else int(rng.integers(first + 1, num_frames + 1))
        away = np.zeros(num_frames, bool)
        away[first:last] = True
        kind = rng.random()
        if kind < 0.3 or not pasted:  # the scene cuts
            other, _ = self.base()
            pasted = [self._moved_out(layer, away, fast=True) for layer in pasted]
            return [other if a else base for a in away], pasted
        chosen = int(rng.integers(len(pasted)))
        if kind < 0.65:
            pasted[chosen] = self._moved_out(pasted[chosen], away, fast=rng.random() < 0.5)
        else:
            pasted.append(self._cover(pasted[chosen], away))
        return [base] * num_frames, pasted

    def _moved_out(self, layer: Layer, away: np.ndarray, *, fast: bool) -> Layer:
        """Push a layer out of the view on the frames where it is away, at once or over two frames."""
        rng, side = self.rng, self.side
        angle = rng.uniform(0, 2 * np.pi)
        height, width = layer.alpha.shape if layer.alpha is not None else (side, side)
        reach = 0.5 * np.hypot(height, width) * np.abs(np.linalg.det(layer.matrices[0])) ** 0.5
        outside = side / 2 + np.array([np.cos(angle), np.sin(angle)]) * (0.75 * side + 1.3 * reach)
        share = away.astype(np.float64)
        if not fast:  # half way on the frame before, seen in part
            share = np.maximum(share, 0.5 * np.append(away[1:], away[-1]))
            share[0] = float(away[0])
        places = layer.places * (1 - share[:, None]) + outside * share[:, None]
        return _replaced(layer, places.astype(np.float32))

    def _cover(self, hidden: Layer, away: np.ndarray) -> Layer:
        """Lay a larger cut-out over a layer on the frames where that is away."""
        height, width = hidden.alpha.shape if hidden.alpha is not None else (self.side, self.side)
        extent = max(height, width) * float(np.abs(np.linalg.det(hidden.matrices[0])) ** 0.5)
        cutout = self.photos.draw_cutout(self.rng)
        if cutout is None:
            return self._moved_out(hidden, away, fast=True)
        # A blunt shape: its bounding box is filled, so that it hides what lies under its middle.
        solid = Cutout(picture=cutout.picture, alpha=np.ones_like(cutout.alpha))
        aspect = min(solid.alpha.shape) / max(solid.alpha.shape)
        cover = self._paste(solid, size=1.3 * extent / max(0.4, aspect**0.5))
        outside = _replaced(cover, hidden.places)
        return self._moved_out(outside, ~away, fast=bool(self.rng.random() < 0.5))

    def _path(
        self, start: np.ndarray, scale: float, speed: float, *, turn: float, flip: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw places (T, 2) and matrices (T, 2, 2) about a start."""
        rng, times = self.rng, np.arange(self.num_frames)
        grow = np.exp(rng.normal(0, 0.012 * min(2.0, 0.5 + speed)) * times)
        angle = rng.normal(0, turn) + rng.normal(0, 0.008 * min(4.0, speed)) * times
        shear = rng.normal(0, 0.08) + rng.normal(0, 0.01 * min(2.0, speed)) * times
        matrices = matrices_of(
            scale * grow, angle, shear, flip=flip, stretch=float(np.exp(rng.uniform(-0.12, 0.12)))
        )
        return self._walk(start, speed), matrices

    def _walk(self, start: np.ndarray, speed: float) -> np.ndarray:
        """Walk (T, 2) with a velocity that drifts."""
        rng = self.rng
        velocity = rng.normal(0, speed, 2) + np.cumsum(
            rng.normal(0, 0.3 * speed, (self.num_frames, 2)), axis=0
        )
        velocity[0] = 0
        return (start + np.cumsum(velocity, axis=0)).astype(np.float32)

    def _deformed(self, cutout: Cutout, places: np.ndarray, matrices: np.ndarray) -> Layer:
        rng = self.rng
        bend = draw_bend(rng, self.num_frames) if rng.random() < 0.35 else None
        ripple = draw_ripple(rng, self.num_frames) if rng.random() < 0.35 else None
        return Layer(
            picture=cutout.picture,
            alpha=cutout.alpha,
            ids=None,
            places=places.astype(np.float32),
            matrices=matrices,
            bend=bend,
            ripple=ripple,
        )


def _replaced(layer: Layer, places: np.ndarray) -> Layer:
    return Layer(
        picture=layer.picture, alpha=layer.alpha, ids=layer.ids, places=places,
        matrices=layer.matrices, bend=layer.bend, ripple=layer.ripple,
    )  # fmt: skip


def _largest(ids: U8Array) -> U8Array:
    """Keep the largest objects, numbered anew from 1."""
    areas = np.bincount(ids.ravel(), minlength=2)
    areas[0] = 0
    kept = [int(k) for k in np.argsort(-areas, kind="stable")[:_MAX_OWN_OBJECTS] if areas[k]]
    table = np.zeros(256, np.uint8)
    for number, k in enumerate(kept, start=1):
        table[k] = np.uint8(number)
    return table[ids]


def _shrunk(picture: U8Array, ids: U8Array, scale: float) -> tuple[U8Array, U8Array]:
    """Shrink by area before a remap would skip pixels; both stay as they are if they grow."""
    if scale >= 1:
        return picture, ids
    size_wh = (max(8, round(ids.shape[1] * scale)), max(8, round(ids.shape[0] * scale)))
    return (
        cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA),
        cv2.resize(ids, size_wh, interpolation=cv2.INTER_NEAREST),
    )


def _shrunk_cutout(cutout: Cutout, scale: float) -> tuple[Cutout, float]:
    if scale >= 1:
        return cutout, scale
    height, width = cutout.alpha.shape
    size_wh = (max(6, round(width * scale)), max(6, round(height * scale)))
    smaller = Cutout(
        picture=cv2.resize(cutout.picture, size_wh, interpolation=cv2.INTER_AREA),
        alpha=cv2.resize(cutout.alpha, size_wh, interpolation=cv2.INTER_AREA),
    )
    return smaller, scale * width / size_wh[0]


def _filled(picture: U8Array, mask: np.ndarray) -> U8Array:
    """Fill the place of a lifted object from around it, coarse to fine."""
    hole = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8))
    small_wh = (max(8, picture.shape[1] // 4), max(8, picture.shape[0] // 4))
    small = cv2.resize(picture, small_wh, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(hole, small_wh, interpolation=cv2.INTER_NEAREST)
    small_hole = cv2.dilate(small_hole, np.ones((3, 3), np.uint8))
    small = cv2.inpaint(small, small_hole, 3, cv2.INPAINT_TELEA)
    fill = cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.where(hole[..., None] > 0, fill, picture)


def _blended(below: U8Array, over: U8Array, alpha: np.ndarray) -> U8Array:
    weight = alpha[..., None]
    return (below * (1 - weight) + over * weight + 0.5).astype(np.uint8)


def _recoloured(rng: np.random.Generator, cutout: Cutout) -> Cutout:
    """Light a pasted object a little differently from its new surroundings."""
    if rng.random() < 0.5:
        return cutout
    gain = rng.uniform(0.6, 1.3) * rng.uniform(0.85, 1.15, 3)
    table = np.clip(np.arange(256)[:, None] * gain + rng.uniform(-20, 20), 0, 255)
    return Cutout(
        picture=cv2.LUT(cutout.picture, table.astype(np.uint8)[None]), alpha=cutout.alpha
    )


def _lit(rng: np.random.Generator, images: U8Array) -> U8Array:
    """Lay a slope of light over the view in a third of the clips; it wanders."""
    if rng.random() < 0.67:
        return images
    side = images.shape[1]
    grid = np.linspace(-1, 1, side, dtype=np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.45)
    drift = rng.normal(0, 0.15)
    out = np.empty_like(images)
    for t, image in enumerate(images):
        turned = angle + drift * t
        slope = np.cos(turned) * grid[None] + np.sin(turned) * grid[:, None]
        light = (1 + strength * slope)[..., None].astype(np.float32)
        out[t] = np.clip(image * light, 0, 255).astype(np.uint8)
    return out


def _recorded(rng: np.random.Generator, images: U8Array) -> U8Array:
    """Jitter as every clip, and compress as cameras do in half of them."""
    images = jitter(rng, images)
    if rng.random() < 0.5:
        return images
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
    out = np.empty_like(images)
    for t, image in enumerate(images):
        _, data = cv2.imencode(".jpg", image, quality)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if decoded is None:
            msg = "OpenCV cannot read the JPEG that it wrote"
            raise ValueError(msg)
        out[t] = decoded
    return out
