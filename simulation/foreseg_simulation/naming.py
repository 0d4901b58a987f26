# SPDX-License-Identifier: Apache-2.0
"""Colours with names, and objects that a question can name without doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from .shapes.figures import ShapeKind, outline
from .shapes.sprites import Sprite
from .textures import TextureKind, U8Array, make_texture

COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (215, 35, 40),
        "orange": (240, 140, 30),
        "yellow": (235, 215, 45),
        "green": (40, 165, 60),
        "cyan": (40, 195, 215),
        "blue": (45, 80, 215),
        "purple": (140, 60, 200),
        "pink": (240, 110, 190),
        "white": (240, 240, 240),
    }
)
TARGET_KINDS = (
    ShapeKind.SQUARE,
    ShapeKind.TRIANGLE,
    ShapeKind.STAR,
    ShapeKind.CROSS,
    ShapeKind.HEXAGON,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamedSprite:
    """A sprite and the words for it: "red square"; the only ball is just "ball"."""

    name: str
    sprite: Sprite


def paint(rng: np.random.Generator, kind: ShapeKind, colour: str) -> Sprite:
    """Make a shape of a named colour, lightly shaded."""
    base = np.array(COLOURS[colour], dtype=np.float32)
    texture = make_texture(rng, (48, 48), kind=TextureKind.CLOUDS, base=base, contrast=0.1)
    return Sprite(texture=texture, outline=outline(kind, rng))


def named_ball(rng: np.random.Generator) -> NamedSprite:
    """Make the white ball."""
    return NamedSprite(name="ball", sprite=paint(rng, ShapeKind.BALL, "white"))


def named_targets(rng: np.random.Generator, num_targets: int) -> list[NamedSprite]:
    """Make differing targets; with four or more, two share a colour but not a kind."""
    colours = [str(c) for c in rng.permutation([c for c in COLOURS if c != "white"])]
    kinds = [TARGET_KINDS[i] for i in rng.permutation(len(TARGET_KINDS))]
    if num_targets > 3:
        colours[1] = colours[0]
    pairs = [(colours[i % len(colours)], kinds[i % len(kinds)]) for i in range(num_targets)]
    return [
        NamedSprite(name=f"{colour} {kind.value}", sprite=paint(rng, kind, colour))
        for colour, kind in pairs
    ]


def equal_kind_targets(rng: np.random.Generator, num_targets: int) -> list[NamedSprite]:
    """Make targets of one kind, each in a colour of its own."""
    kind = TARGET_KINDS[rng.integers(len(TARGET_KINDS))]
    colours = [str(c) for c in rng.permutation([c for c in COLOURS if c != "white"])]
    return [
        NamedSprite(name=f"{colour} {kind.value}", sprite=paint(rng, kind, colour))
        for colour in colours[:num_targets]
    ]


def twin_targets(
    rng: np.random.Generator, places: Sequence[tuple[float, float]]
) -> list[NamedSprite]:
    """Make a pair alike in kind and colour, told apart by place, and others that differ.

    Args:
        rng: source of every choice.
        places: where the targets will be, (x, y) pixels; at least two.
    """
    targets = named_targets(rng, len(places))
    one, other = (int(i) for i in rng.permutation(len(places))[:2])
    targets[other] = targets[one]
    (x, y), (other_x, other_y) = places[one], places[other]
    if abs(x - other_x) >= abs(y - other_y):
        words = ("left", "right") if x < other_x else ("right", "left")
    else:
        words = ("upper", "lower") if y < other_y else ("lower", "upper")
    for i, word in zip((one, other), words, strict=True):
        targets[i] = replace(targets[i], name=f"{word} {targets[i].name}")
    return targets


def screen_sprite(rng: np.random.Generator) -> Sprite:
    """Make a wide dark screen that things can be behind."""
    base = np.full(3, rng.uniform(30, 48), dtype=np.float32)
    texture: U8Array = make_texture(
        rng, (64, 64), kind=TextureKind.STRIPES, base=base, contrast=0.12
    )
    return Sprite(texture=texture, outline=outline(ShapeKind.SQUARE, rng))
