# SPDX-License-Identifier: Apache-2.0
"""A story: two kinds of act in two bands of the view, visitors over both, and what can be asked.

Equal seeds give equal stories. The cut is the last observed frame; what comes after it is known,
and can be drawn, too. Does not know: files, clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from foreseg.errors import InputError
from foreseg_simulation.shapes.sprites import Pose, draw_sprite
from foreseg_simulation.shapes.stage import make_floor
from foreseg_simulation.textures import U8Array

from .asking import Ask, Band, Crossing, Part, Times
from .cast import Cast, Thing
from .exits import pass_or_turn
from .screens import hide
from .shelves import gather
from .visits import crossing_asks, visit

STORY_VERSION = 1
RATE_HZ = 6.0
NUM_FRAMES = (120, 450)  # inclusive
FINALE = 0.82  # of a story: what comes after it is seen in less than a fifth

_SLOT_S = (3.0, 3.6)
_GAP_S = 0.25
_ACTS = MappingProxyType({"screens": hide, "shelves": gather, "exits": pass_or_turn})
_WANTED = MappingProxyType({"screens": (2, 6), "shelves": (0, 2), "exits": (1, 4)})  # slots
_MOST_VISITS = 9
_BANDS = ((0.03, 0.49), (0.51, 0.97))
_LEAST_RADIUS_PX = 0.4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Story:
    """What happens, and what can be asked when the clip ends.

    Attributes:
        seed: of everything.
        split: whose kinds of shape play.
        aspect: width over height.
        num_frames: observed ones, at `RATE_HZ`.
        acts: names of its two kinds of act, upper and lower.
        things: all, by id from 1.
        asks: at the cut.
        crossings: who came and went over the edges, by time.
    """

    seed: int
    split: str
    aspect: float
    num_frames: int
    acts: tuple[str, str]
    things: tuple[Thing, ...]
    asks: tuple[Ask, ...]
    crossings: tuple[Crossing, ...]

    @property
    def names(self) -> Mapping[int, str]:
        """Words by instance id."""
        return MappingProxyType({thing.id: thing.name for thing in self.things})

    @property
    def cut_s(self) -> float:
        """Time of the last observed frame."""
        return (self.num_frames - 1) / RATE_HZ

    def draw(
        self, times_s: Sequence[float] | np.ndarray, size_wh: tuple[int, int]
    ) -> Iterator[tuple[U8Array, U8Array]]:
        """Draw frames at any times: image (H, W, 3) RGB and instance ids (H, W), 0 background."""
        floor = make_floor(np.random.default_rng([self.seed, 2]), size_wh)
        scale = size_wh[1]
        ordered = sorted(self.things, key=lambda thing: (thing.layer, thing.id))
        tables = [thing.way.poses(np.asarray(times_s, dtype=np.float64)) for thing in ordered]
        for row in range(len(times_s)):
            image, ids = floor.copy(), np.zeros(floor.shape[:2], dtype=np.uint8)
            for thing, table in zip(ordered, tables, strict=True):
                x, y, radius, angle = table[row].tolist()
                reach = 1.5 * radius * max(1.0, thing.stretch)
                is_out = not (-reach < x < self.aspect + reach and -reach < y < 1 + reach)
                if is_out or radius * scale < _LEAST_RADIUS_PX:
                    continue
                pose = Pose(
                    x_px=x * scale,
                    y_px=y * scale,
                    radius_px=radius * scale,
                    angle_rad=angle,
                    stretch=thing.stretch,
                )
                draw_sprite(image, ids, thing.sprite, pose, thing.id)
            yield image, ids


def make_story(
    seed: int,
    split: str,
    *,
    aspect: float = 4 / 3,
    num_frames: int | None = None,
) -> Story:
    """Make up a story.

    Args:
        seed: of everything.
        split: "train", "dev" or "val": whose kinds of shape play.
        aspect: width over height of the frames, 1.2 to 2.
        num_frames: observed ones; drawn from `NUM_FRAMES` when None.

    Raises:
        InputError: for an aspect or a length that no story has.
    """
    if not 1.2 <= aspect <= 2:
        msg = f"frames are {aspect:.2f} times as wide as high, expected 1.2 to 2"
        raise InputError(msg)
    rng = np.random.default_rng([seed, 1])
    drawn = NUM_FRAMES[0] * (NUM_FRAMES[1] / NUM_FRAMES[0]) ** float(rng.random() ** 1.5)
    num_frames = round(drawn) if num_frames is None else num_frames
    if not NUM_FRAMES[0] <= num_frames <= NUM_FRAMES[1]:
        msg = f"a story has {NUM_FRAMES[0]} to {NUM_FRAMES[1]} frames, got {num_frames}"
        raise InputError(msg)
    cut_s = (num_frames - 1) / RATE_HZ
    cast = Cast(rng, split)
    upper, lower = (str(name) for name in rng.permutation(list(_ACTS))[:2])
    slots = _slots(rng, cut_s)
    shares = _shared(rng, slots, (upper, lower))
    parts: list[Part] = []
    for name, edges in zip((upper, lower), _BANDS, strict=True):
        times = Times(slots=shares[name], finale_s=FINALE * cut_s, cut_s=cut_s)
        band = Band(top=edges[0], bottom=edges[1], aspect=aspect)
        parts.append(_ACTS[name](rng, cast, band, times))
    times = Times(slots=shares["visits"], finale_s=FINALE * cut_s, cut_s=cut_s)
    parts.append(visit(rng, cast, times, aspect))
    crossings = sorted(
        (c for part in parts for c in part.crossings), key=lambda c: (c.time_s, c.thing_id)
    )
    asks = [ask for part in parts for ask in part.asks]
    asks += crossing_asks(rng, crossings, cast.names, times.finale_s)
    return Story(
        seed=seed,
        split=split,
        aspect=aspect,
        num_frames=num_frames,
        acts=(upper, lower),
        things=tuple(cast.things),
        asks=tuple(asks),
        crossings=tuple(crossings),
    )


def _slots(rng: np.random.Generator, cut_s: float) -> list[tuple[float, float]]:
    """Times for one act each, before the finale."""
    begin_s = 0.03 * cut_s
    slots: list[tuple[float, float]] = []
    while True:
        end_s = begin_s + float(rng.uniform(*_SLOT_S))
        if end_s > FINALE * cut_s - _GAP_S:
            return slots
        slots.append((begin_s, end_s))
        begin_s = end_s + _GAP_S


def _shared(
    rng: np.random.Generator, slots: Sequence[tuple[float, float]], acts: tuple[str, str]
) -> dict[str, list[tuple[float, float]]]:
    """Give each kind of act its slots, at least one to visitors; some may stay idle."""
    owners: list[str] = ["visits"]
    for name in acts:
        least, most = _WANTED[name]
        room = max(least, min(most, len(slots) // 3))
        owners += [name] * int(rng.integers(least, room + 1))
    owners = owners[: len(slots)]
    free = len(slots) - len(owners)
    owners += ["visits"] * min(free, _MOST_VISITS)
    owners += [""] * (len(slots) - len(owners))
    order = rng.permutation(len(owners))
    shares: dict[str, list[tuple[float, float]]] = {name: [] for name in (*_ACTS, "visits")}
    for slot, number in zip(slots, order, strict=True):
        shares.setdefault(owners[number], []).append(slot)
    return shares
