# SPDX-License-Identifier: Apache-2.0
"""What moves in a short stack of frames, and how: constant-velocity movers over a background.

All positions are pixels of the stack in its newest frame. A camera that slides is compensated by
its shift, light that changes as a whole by its step; what else a camera does shows all along the rim
(`rim_change`), and then movers mean nothing. numpy only. Knows nothing of queries or source sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from foreseg.kinematic.regions import (
    F32Array,
    Region,
    dilated,
    mean_filtered,
    regions_from_mask,
)
from foreseg.masks import Mask

F64Array = NDArray[np.float64]

MIN_OBSERVATIONS = 3  # of a mover, its newest frame included
MIN_TRAVEL_PX = 2.0  # over the window
MIN_AREA_SHARE = 0.0006  # of the image
MAX_AREA_SHARE = 0.35
MAX_STEP_SHARE = 0.3  # of the longer side, between two frames
MAX_FIT_ERROR_PX = 3.0
MAX_STEP_SIZES = 3.0  # a mover's own sizes, between two sightings
NOISE_FLOOR = 14.0  # grey levels
SURROUNDINGS_DIVISOR = 12  # of the longer side: how far around a place one looks
MIN_CHANGED_SHARE = 0.25  # of the pixels between neighbours: below, the camera is still
MAX_RESIDUAL_SHARE = 0.7  # of the change must a shift leave unexplained at most
LIGHT_STEP = 3.0  # grey levels: less is noise
RIM_BLOCK_PX = 8
RIM_NOISE = 4.0  # grey levels, of a block's mean change
RIM_TEXTURE_SHARE = 0.6  # of a block's mean gradient: what half a pixel of shaking changes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mover:
    """A region that moves, as it is in the newest frame."""

    region: Region
    velocity_xy: tuple[float, float]  # pixels per second
    heading_error_rad: float  # one standard deviation, from the fit
    footprint: Mask  # (h, w) all that it covered in the window
    travel_px: float  # within the window
    num_sightings: int  # that its velocity is fitted to

    @property
    def speed(self) -> float:
        """Pixels per second."""
        return float(np.hypot(*self.velocity_xy))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Motion:
    """What a stack of frames shows."""

    background: F32Array  # (h, w, 3) without the movers
    movers: tuple[Mover, ...]  # largest first
    unsteady: tuple[Region, ...]  # what moves in the newest frame, but with no steady velocity
    camera_shift_px: float  # largest shift of the camera within the window
    rim_change: float  # share of the rim that changes from frame to frame, the shift aside


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sighting:
    time_s: float
    region: Region
    centre_xy: tuple[float, float]  # the region's, taken once


def find_motion(stack: F32Array, times_s: Sequence[float]) -> Motion:
    """Find the movers of a (T, h, w, 3) RGB stack with T ascending times, T >= 3."""
    shifts = camera_shifts(stack)
    camera_shift_px = float(np.abs(shifts).max())
    aligned, known = _aligned(stack, shifts)
    background = _background(aligned, known)
    sightings = [
        [_Sighting(time_s=time_s, region=region, centre_xy=region.centre_xy) for region in regions]
        for time_s, regions in zip(
            times_s, _moving_regions(aligned, known, background), strict=True
        )
    ]
    tracks = _tracks(sightings, max(stack.shape[1:3]))
    movers = (_mover(track, stack.shape[1:3]) for track in tracks)
    found = [mover for mover in movers if mover is not None]
    found.sort(key=lambda mover: -mover.region.area)
    steady = {id(mover.region) for mover in found}
    newest = [sighting.region for sighting in sightings[-1]]
    return Motion(
        background=background,
        movers=tuple(found),
        unsteady=tuple(region for region in newest if id(region) not in steady),
        camera_shift_px=camera_shift_px,
        rim_change=rim_change(aligned, known),
    )


def lit_alike(stack: F32Array) -> F32Array:
    """The (T, h, w, 3) stack with the light of its newest frame, where it changed as a whole.

    A camera that sets its exposure anew lights everything alike: the median of each channel's change.
    """
    steps = np.median(stack - stack[-1], axis=(1, 2), keepdims=True)
    alike: F32Array = (stack - np.where(np.abs(steps) > LIGHT_STEP, steps, 0)).astype(np.float32)
    return alike


def rim_change(aligned: F32Array, known: NDArray[np.bool_]) -> float:
    """Share of the blocks along the picture's rim that change from one frame to the next, 0..1.

    Things move in some places of the rim; a camera that moves changes nearly all of it. The median
    over neighbours counts, and only what is known of both.

    Args:
        aligned: (T, h, w, 3) frames, moved onto the newest one.
        known: (T, h, w) where each has pixels.
    """
    shares = []
    for i in range(len(aligned) - 1):
        seen = known[i] & known[i + 1]
        change = _largest_channel(np.abs(aligned[i + 1] - aligned[i])) * seen
        down, right = np.gradient(_mean_channel(aligned[i + 1]))
        texture = _block_means(np.hypot(down, right))
        is_changed = _block_means(change) > np.maximum(RIM_NOISE, RIM_TEXTURE_SHARE * texture)
        is_rim = np.ones_like(is_changed)
        is_rim[1:-1, 1:-1] = False
        is_rim &= _block_means(seen.astype(np.float64)) > 0.9  # nearly all
        shares.append(float(is_changed[is_rim].mean()) if is_rim.any() else 1.0)
    return float(np.median(shares))


def _block_means(values: F32Array | F64Array) -> F64Array:
    """Means (rows, columns) of the whole blocks of an (h, w) array."""
    side = min(RIM_BLOCK_PX, *values.shape)
    rows, columns = values.shape[0] // side, values.shape[1] // side
    blocks = values[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float64)


def camera_shifts(stack: F32Array) -> F64Array:
    """How far each frame's scene lies from its place in the newest one: (T, 2) x, y in pixels.

    Phase correlation of neighbours. A shift counts only where much of the image changes and the
    shift explains it: otherwise a mover before a plain background would pass for a moving camera.
    """
    grey = _mean_channel(stack)
    height, width = grey.shape[1:]
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    spectra = np.fft.rfft2((grey - grey.mean(axis=(1, 2), keepdims=True)) * window)
    steps = np.zeros((len(stack), 2))
    for i in range(len(stack) - 1):
        cross = spectra[i + 1] * np.conj(spectra[i])
        surface = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6), s=(height, width))
        step = _peak_xy(surface)
        if _is_explained(stack[i], stack[i + 1], step):
            steps[i] = step
    return steps[::-1].cumsum(axis=0)[::-1]


def _is_explained(before: F32Array, after: F32Array, step_xy: tuple[float, float]) -> bool:
    """True if a shift of the whole image explains most of what changed."""
    change = _largest_channel(np.abs(after - before))
    if float((change > NOISE_FLOOR / 2).mean()) < MIN_CHANGED_SHARE:
        return False
    moved, known = _moved(before, step_xy)
    rest = _largest_channel(np.abs(after - moved))
    cap = 2 * NOISE_FLOOR  # so that one mover does not decide
    total = float(np.minimum(change, cap)[known].sum())
    return float(np.minimum(rest, cap)[known].sum()) < MAX_RESIDUAL_SHARE * total


def _peak_xy(surface: F64Array) -> tuple[float, float]:
    height, width = surface.shape
    row, column = np.unravel_index(int(surface.argmax()), surface.shape)
    y = _refined(surface[:, column], int(row))
    x = _refined(surface[row], int(column))
    return (x if x <= width / 2 else x - width), (y if y <= height / 2 else y - height)


def _refined(profile: F64Array, peak: int) -> float:
    """The peak's place from the values beside it."""
    left, middle, right = (float(profile[(peak + d) % profile.size]) for d in (-1, 0, 1))
    side, sign = (right, 1.0) if right >= left else (left, -1.0)
    if middle <= 0 or side <= 0:
        return float(peak)
    return peak + sign * side / (middle + side)


def _aligned(stack: F32Array, shifts: F64Array) -> tuple[F32Array, NDArray[np.bool_]]:
    """The stack with every frame moved onto the newest, and where each is known (T, h, w)."""
    known = np.ones(stack.shape[:3], dtype=np.bool_)
    if not shifts.any():
        return stack, known
    aligned = np.empty_like(stack)
    for i, (dx, dy) in enumerate(shifts.tolist()):
        aligned[i], known[i] = _moved(stack[i], (dx, dy))
    return aligned, known


def _moved(image: F32Array, step_xy: tuple[float, float]) -> tuple[F32Array, NDArray[np.bool_]]:
    """An (h, w, 3) image moved by x, y pixels, and where it is known (h, w)."""
    height, width = image.shape[:2]
    x: F64Array = np.arange(width) - np.float64(step_xy[0])
    y: F64Array = np.arange(height) - np.float64(step_xy[1])
    inside_x, inside_y = (x >= 0) & (x <= width - 1), (y >= 0) & (y <= height - 1)
    moved = _sampled(_sampled(image, y, axis=0), x, axis=1)
    return moved, inside_y[:, None] & inside_x[None, :]


def _sampled(image: F32Array, places: F64Array, axis: int) -> F32Array:
    """Linear interpolation along one axis; edges repeat."""
    last = image.shape[axis] - 1
    places = places.clip(0, last)
    low = np.floor(places).astype(np.intp).clip(0, max(0, last - 1))
    shape = [1, 1, 1]
    shape[axis] = -1
    weight = (places - low).astype(np.float32).reshape(shape)
    high = np.minimum(low + 1, last)
    sampled: F32Array = image.take(low, axis) * (1 - weight) + image.take(high, axis) * weight
    return sampled


def _background(aligned: F32Array, known: NDArray[np.bool_]) -> F32Array:
    """The (h, w, 3) scene without its movers.

    A median alone keeps a slow mover where it stood longest. So where the first and the newest
    frame differ, something stands in one of them: the other one is the background, and that is the
    one more like what surrounds the place.
    """
    if known.all():
        median: F32Array = np.median(aligned, axis=0).astype(np.float32)
    else:  # the newest frame is always known
        holed = np.where(known[..., None], aligned, np.float32(np.nan))
        median = np.nanmedian(holed, axis=0).astype(np.float32)
    first, last = aligned[0], aligned[-1]
    changed = (_largest_channel(np.abs(first - last)) > NOISE_FLOOR) & known[0]
    passed = (_largest_channel(np.abs(first - median)) > NOISE_FLOOR) & known[0] & ~changed
    around = _surroundings(last, ~changed)
    first_fits = np.abs(first - around).sum(axis=2) <= np.abs(last - around).sum(axis=2)
    background = np.where((passed | (changed & first_fits))[..., None], first, median)
    background = np.where((changed & ~first_fits)[..., None], last, background)
    return background.astype(np.float32)


def _surroundings(image: F32Array, used: Mask) -> F32Array:
    """The (h, w, 3) local means over the pixels that are used."""
    radius = max(2, max(used.shape) // SURROUNDINGS_DIVISOR)
    weights = mean_filtered(used.astype(np.float32), radius)
    channels = [mean_filtered(image[..., i] * used, radius) for i in range(3)]
    means = np.stack(channels, axis=2) / np.maximum(weights, 1e-3)[..., None]
    return means.astype(np.float32)


def _moving_regions(
    aligned: F32Array, known: NDArray[np.bool_], background: F32Array
) -> list[list[Region]]:
    """Per frame, the regions that differ from the background."""
    differences = _largest_channel(np.abs(aligned - background))
    threshold = max(NOISE_FLOOR, 6 * float(np.median(differences)))
    pixels = background.shape[0] * background.shape[1]
    min_area = max(6, round(MIN_AREA_SHARE * pixels))
    if not known.all():  # a residual shift shows wherever the background has edges
        down, right = np.gradient(background, axis=(0, 1))
        differences = differences - _largest_channel(np.abs(down) + np.abs(right))
    found = []
    for difference, frame, inside in zip(differences, aligned, known, strict=True):
        mask = (mean_filtered(difference) > threshold) & inside
        found.append(
            regions_from_mask(
                mask, frame, min_area=min_area, max_area=round(MAX_AREA_SHARE * pixels), gap=1
            )
        )
    return found


def _largest_channel(values: F32Array) -> F32Array:
    """The largest of the three channels of (..., 3), plane by plane: numpy's own loop is over three."""
    largest: F32Array = np.maximum(values[..., 0], values[..., 1])
    return np.maximum(largest, values[..., 2], out=largest)


def _mean_channel(values: F32Array) -> F32Array:
    """The mean of the three channels of (..., 3), likewise."""
    mean: F32Array = (values[..., 0] + values[..., 1] + values[..., 2]) / np.float32(3)
    return mean


def _tracks(sightings: list[list[_Sighting]], side_px: int) -> list[list[_Sighting]]:
    """One track, newest sighting first, for each region of the newest frame that has one."""
    tracks = []
    for newest in sightings[-1]:
        candidates = [
            _followed_back([newest, second], sightings[: -1 - skipped], side_px)
            for skipped in (1, 2)
            if skipped < len(sightings)
            for second in sightings[-1 - skipped]
            if _distance(newest, second) <= skipped * MAX_STEP_SHARE * side_px
        ]
        candidates = [track for track in candidates if len(track) >= MIN_OBSERVATIONS]
        if candidates:
            tracks.append(max(candidates, key=_plausibility))
    return tracks


def _followed_back(
    track: list[_Sighting], earlier: list[list[_Sighting]], side_px: int
) -> list[_Sighting]:
    """The track lengthened into the past as long as one constant velocity explains it."""
    most = 0.04 * side_px + 0.3 * _distance(track[0], track[1])
    start, velocity, _ = _fit(track)
    for sightings in reversed(earlier):
        best, best_cost = None, most
        for sighting in sightings:
            place = start + velocity * (sighting.time_s - track[0].time_s)
            cost = float(np.hypot(*(place - sighting.centre_xy)))
            cost += _unlikeness(track[-1].region, sighting.region)
            if cost < best_cost:
                best, best_cost = sighting, cost
        if best is not None:
            track = [*track, best]
            start, velocity, _ = _fit(track)
    return track


def _unlikeness(a: Region, b: Region) -> float:
    """Pixels of cost for a change of size or colour."""
    return (
        2.0 * abs(float(np.log(a.area / b.area))) + float(np.abs(a.colour - b.colour).max()) / 30
    )


def _plausibility(track: list[_Sighting]) -> float:
    unlikeness = np.mean([_unlikeness(a.region, b.region) for a, b in pairwise(track)])
    return len(track) - float(unlikeness) - _fit(track)[2]


def _distance(a: _Sighting, b: _Sighting) -> float:
    (ax, ay), (bx, by) = a.centre_xy, b.centre_xy
    return float(np.hypot(ax - bx, ay - by))


def _fit(track: list[_Sighting]) -> tuple[F64Array, F64Array, float]:
    """Place at the newest time, velocity per second, and root mean square error in pixels."""
    times = np.array([sighting.time_s - track[0].time_s for sighting in track])
    places = np.array([sighting.centre_xy for sighting in track])
    middle = times.mean()
    spread = float(((times - middle) ** 2).sum())
    velocity = ((times - middle)[:, None] * places).sum(axis=0) / max(spread, 1e-12)
    start = places.mean(axis=0) - velocity * middle
    errors = places - start - times[:, None] * velocity
    return start, velocity, float(np.sqrt((errors**2).sum(axis=1).mean()))


def _mover(track: list[_Sighting], shape: tuple[int, ...]) -> Mover | None:
    """The mover of a track, or None if it stays in place or no constant velocity explains it."""
    height, width = shape
    whole = [s for s in track if not s.region.touches_border((width, height))]
    if track[0] in whole and len(whole) >= MIN_OBSERVATIONS:
        track = whole  # parts at the rim have their centre in the wrong place
    _, velocity, error = _fit(track)
    duration_s = track[0].time_s - track[-1].time_s
    travel_px = float(np.hypot(*velocity)) * duration_s
    if travel_px < MIN_TRAVEL_PX or error > max(MAX_FIT_ERROR_PX, 0.15 * travel_px):
        return None
    box = track[0].region.box
    if travel_px / (len(track) - 1) > MAX_STEP_SIZES * max(box.width, box.height):
        return None  # so small and so fast, its sightings may be of different things
    footprint = np.zeros((height, width), dtype=np.bool_)
    for sighting in track:
        footprint[sighting.region.rows, sighting.region.columns] = True
    heading_error = np.arctan2(max(error, 0.3) * 3.5, travel_px * np.sqrt(len(track)))
    return Mover(
        region=track[0].region,
        velocity_xy=(float(velocity[0]), float(velocity[1])),
        heading_error_rad=float(heading_error),
        footprint=dilated(footprint),
        travel_px=travel_px,
        num_sightings=len(track),
    )
