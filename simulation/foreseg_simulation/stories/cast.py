# SPDX-License-Identifier: Apache-2.0
"""Things with names, and where they are over time.

Lengths are in heights of the frame, x from the left and y from the top. Does not know: acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from foreseg_simulation.naming import COLOURS
from foreseg_simulation.shapes.sprites import Sprite
from foreseg_simulation.textures import F32Array, TextureKind, make_texture

from .figures import BAR, HOLED, KINDS, PANEL

Place = tuple[float, float]
_COLOURS = tuple(c for c in COLOURS if c != "white")


@dataclass(slots=True, kw_only=True)
class Way:
    """Knots of a thing's way: time in seconds, place, radius, angle; straight in between."""

    knots: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    @classmethod
    def at(cls, place: Place, radius: float, angle: float = 0.0) -> Way:
        """Be somewhere from the beginning."""
        return cls(knots=[(0.0, *place, radius, angle)])

    def wait(self, until_s: float) -> Way:
        """Stay as it is."""
        self.knots.append((until_s, *self.knots[-1][1:]))
        return self

    def go(
        self, until_s: float, place: Place, radius: float | None = None, angle: float | None = None
    ) -> Way:
        """Be elsewhere by a time; size and turn change on the way where they are given."""
        _, _, _, old_radius, old_angle = self.knots[-1]
        new_radius = old_radius if radius is None else radius
        new_angle = old_angle if angle is None else angle
        self.knots.append((until_s, *place, new_radius, new_angle))
        return self

    def put(self, time_s: float, place: Place) -> Way:
        """Be elsewhere at once; for what nobody sees."""
        return self.wait(time_s).go(time_s + 1e-3, place)

    def poses(self, times_s: np.ndarray) -> np.ndarray:
        """Place, radius and angle (T, 4) at times (T,)."""
        table = np.array(self.knots)
        return np.stack(
            [np.interp(times_s, table[:, 0], table[:, k]) for k in range(1, 5)], axis=1
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thing:
    """Something in the view.

    Attributes:
        id: 1..255, in the label maps.
        name: the words for it.
        sprite: its looks.
        way: where it is.
        layer: higher ones hide lower ones.
        stretch: width over height.
    """

    id: int
    name: str
    sprite: Sprite
    way: Way
    layer: int
    stretch: float = 1.0


class Cast:
    """Hands out things: no two of one colour and kind, but for twins.

    Args:
        rng: source of every choice.
        split: whose kinds of shape are drawn.
    """

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        self._rng = rng
        self._kinds = KINDS[split]
        self._holed = HOLED[split]
        free = [(c, k) for c in _COLOURS for k in self._kinds]
        self._free = [free[i] for i in rng.permutation(len(free))]
        self._stages = [str(c) for c in rng.permutation(_COLOURS)]
        self.things: list[Thing] = []

    @property
    def names(self) -> dict[int, str]:
        """Words by id."""
        return {thing.id: thing.name for thing in self.things}

    @property
    def has_holed(self) -> bool:
        """Whether a ring or frame is left."""
        return any(kind == self._holed for _, kind in self._free)

    def colours(self, count: int) -> list[str]:
        """Colours that differ from each other."""
        return [str(c) for c in self._rng.permutation(_COLOURS)[:count]]

    def shape(
        self,
        way: Way,
        *,
        layer: int = 2,
        colour: str | None = None,
        not_colour: str | None = None,
        is_holed: bool | None = None,
        word: str = "",
        like: Thing | None = None,
    ) -> Thing:
        """A shape that was not handed out before; `like` makes a twin.

        Args:
            way: where it is.
            layer: see `Thing`.
            colour: the wanted one.
            not_colour: one that it must not have.
            is_holed: whether it must, or must not, be a ring or frame.
            word: before its name, as "left".
            like: what it is to look like; its name without the first word.
        """
        if like is not None:
            name = like.name.partition(" ")[2]
            return self._add(f"{word} {name}".strip(), like.sprite, way, layer, 1.0)
        for pair in self._free:
            fits = colour in (None, pair[0]) and pair[0] != not_colour
            if fits and is_holed in (None, pair[1] == self._holed):
                self._free.remove(pair)
                sprite = Sprite(texture=self._texture(pair[0]), outline=self._kinds[pair[1]]())
                return self._add(f"{word} {pair[0]} {pair[1]}".strip(), sprite, way, layer, 1.0)
        msg = f"no shape is left with colour {colour!r}"
        raise LookupError(msg)

    def panel(self, way: Way, noun: str, *, layer: int, stretch: float, colour: str = "") -> Thing:
        """A rectangle: a screen that hides."""
        return self._flat(way, noun, PANEL, layer, stretch, colour)

    def bar(self, way: Way, noun: str, *, layer: int, colour: str = "") -> Thing:
        """A thin bar, two radii long."""
        return self._flat(way, noun, BAR, layer, 1.0, colour)

    def _flat(
        self, way: Way, noun: str, outline: F32Array, layer: int, stretch: float, colour: str
    ) -> Thing:
        colour = colour or self._stages.pop()
        sprite = Sprite(texture=self._texture(colour, 0.62), outline=outline)
        return self._add(f"{colour} {noun}", sprite, way, layer, stretch)

    def _texture(self, colour: str, light: float = 1.0) -> np.ndarray:
        base = np.array(COLOURS[colour], dtype=np.float32) * np.float32(light)
        return make_texture(self._rng, (32, 32), kind=TextureKind.CLOUDS, base=base, contrast=0.1)

    def _add(self, name: str, sprite: Sprite, way: Way, layer: int, stretch: float) -> Thing:
        thing = Thing(
            id=len(self.things) + 1,
            name=name,
            sprite=sprite,
            way=way,
            layer=layer,
            stretch=stretch,
        )
        self.things.append(thing)
        return thing
