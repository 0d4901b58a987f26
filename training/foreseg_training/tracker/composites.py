# SPDX-License-Identifier: Apache-2.0
"""Sprites and backgrounds cut from the pictures that two packages carry in their wheels.

scikit-image and scikit-learn ship photographs and textures for their own examples; nothing
is downloaded. Does not know: motion, prompts, models.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from foreseg_simulation.shapes.figures import ShapeKind, outline
from foreseg_simulation.shapes.sprites import Sprite
from foreseg_simulation.shapes.wandering import procedural_background, procedural_sprite
from foreseg_simulation.textures import U8Array, smooth_noise

PICTURES: tuple[tuple[str, str], ...] = (
    *(
        ("skimage", f"data/{name}")
        for name in (
            "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png",
            "clock_motion.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
            "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
            "page.png", "retina.jpg", "rocket.jpg", "text.png",
        )
    ),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeMaker:
    """Sprite and background makers that mix photographs with procedural textures.

    Attributes:
        photo_probability: of each sprite and each background, 0..1.
    """

    photo_probability: float = 0.5

    def sprite(self, rng: np.random.Generator) -> Sprite:
        """Make a sprite; a third wear two textures, as things of several parts do."""
        first = self._sprite(rng)
        if rng.random() >= 0.33:
            return first
        height, width = first.texture.shape[:2]
        other = cv2.resize(self._sprite(rng).texture, (width, height))
        part = smooth_noise(rng, (width, height), int(rng.integers(1, 4)))[..., None] > 0
        return Sprite(texture=np.where(part, other, first.texture), outline=first.outline)

    def _sprite(self, rng: np.random.Generator) -> Sprite:
        """Cut a sprite: from a photograph, mostly as a blob, or procedural."""
        if rng.random() >= self.photo_probability:
            return procedural_sprite(rng)
        kinds = list(ShapeKind)
        kind = ShapeKind.BLOB if rng.random() < 0.6 else kinds[rng.integers(len(kinds))]
        return Sprite(texture=_crop(rng, (72, 72), (40, 240)), outline=outline(kind, rng))

    def background(self, rng: np.random.Generator, size_wh: tuple[int, int]) -> U8Array:
        """Crop a background from a photograph, or paint one."""
        if rng.random() >= self.photo_probability:
            return procedural_background(rng, size_wh)
        return _crop(rng, size_wh, (140, 512))


@lru_cache(maxsize=1)
def load_pictures() -> tuple[U8Array, ...]:
    """Read every picture that is installed, RGB, the shorter side at most 400 pixels."""
    pictures = []
    for package, name in PICTURES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        picture = cv2.imread(str(Path(spec.origin).parent / name), cv2.IMREAD_COLOR)
        if picture is None:
            continue
        scale = min(1.0, 400 / min(picture.shape[:2]))
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        pictures.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    if not pictures:
        msg = "no picture found: install scikit-image or scikit-learn"
        raise FileNotFoundError(msg)
    return tuple(pictures)


def _crop(rng: np.random.Generator, size_wh: tuple[int, int], side_px: tuple[int, int]) -> U8Array:
    """Cut a random window of a random picture, flip it, recolour it, and scale it."""
    pictures = load_pictures()
    picture = pictures[rng.integers(len(pictures))]
    height, width = picture.shape[:2]
    side = min(int(rng.integers(side_px[0], side_px[1] + 1)), height, width)
    y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    window = picture[y : y + side, x : x + side]
    if rng.random() < 0.5:
        window = window[:, ::-1]
    window = cv2.resize(np.ascontiguousarray(window), size_wh, interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.6:
        gain = rng.uniform(0.5, 1.4, 3).astype(np.float32)
        offset = rng.uniform(-40, 40, 3).astype(np.float32)
        window = np.clip(window * gain + offset, 0, 255).astype(np.uint8)
    return window
