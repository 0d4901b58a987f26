# SPDX-License-Identifier: Apache-2.0
"""The reasoner that needs no weights: moving regions, constant velocity, what lies on the path.

A classical baseline and a fallback: it answers a small set of questions about motion in English and
says what it measured. "No target" is a measurement, too; from everything else it abstains, with why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from foreseg.dialogue import (
    Abstained,
    AnswerDone,
    AnswerFailed,
    NoTarget,
    Query,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameWindow
from foreseg.geometry import Side
from foreseg.history.reduction import reduce_image
from foreseg.history.windows import RecentWindow, WindowPolicy
from foreseg.kinematic.appearance import colour_name, fit_of
from foreseg.kinematic.completion import completed
from foreseg.kinematic.forecast import Candidate, arrival_at, exit_from_view, first_contact
from foreseg.kinematic.motion import Motion, Mover, find_motion, lit_alike
from foreseg.kinematic.phrases import Description, Extreme, Kind, Request, request_from_text
from foreseg.kinematic.regions import F32Array, Region
from foreseg.kinematic.salience import salient_regions
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import AnswerStream

MIN_FRAMES = 3
MAX_FRAMES = 32
MAX_NAMED = 8  # of several things that move, the largest
NS_PER_S = 1e9
MAX_RIM_CHANGE = 0.3  # real clips: up to 0.2 with a still camera, from 0.37 with a moving one
SURE_TRAVEL_PX = 4.0  # of a mover in its window, reduced pixels: half sure of its velocity
SURE_SIGHTINGS = 2  # of so many, half sure, too
MIN_STEADY_SHARE = 0.5  # of what moves: with less, nothing is said of the rest
DECAY_S = 10.0  # a forecast so far ahead is worth half
ABILITIES = (
    "what something will hit, what will leave the view, what reaches a side first, what moves,"
    " what moves towards something, or which region has a named colour"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KinematicSettings:
    """Numbers of the kinematic reasoner."""

    num_frames: int = 9
    stride_s: float = 0.15
    max_side_px: int = 160  # frames are reduced to this before anything is measured

    def __post_init__(self) -> None:
        if not MIN_FRAMES <= self.num_frames <= MAX_FRAMES:
            msg = f"num_frames wants {MIN_FRAMES} to {MAX_FRAMES}, got {self.num_frames}"
            raise ConfigError(msg)
        if not 32 <= self.max_side_px <= 640:  # noqa: PLR2004 (what its speed allows)
            msg = f"max_side_px wants 32 to 640, got {self.max_side_px}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """An answer before it is in source pixels."""

    regions: tuple[Region, ...]
    text: str
    confidence: float
    measured: str


class _NothingFits(Exception):  # noqa: N818 (an answer, not an error)
    """No target: that was measured; the message is the reason."""


class _CannotTell(Exception):  # noqa: N818 (an answer, not an error)
    """The query or the frames are none that it can answer; the message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scene:
    """Everything measured, in reduced pixels of the newest frame."""

    motion: Motion
    still: list[Region]
    newest: F32Array  # (h, w, 3)
    px_scale: float  # source pixels per reduced pixel

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.newest.shape[1], self.newest.shape[0]

    @property
    def steady_share(self) -> float:
        """Of all that moves, by area, the share whose velocity is known; 1 where nothing moves."""
        steady = sum(mover.region.area for mover in self.motion.movers)
        unsteady = sum(region.area for region in self.motion.unsteady)
        return steady / (steady + unsteady) if steady + unsteady else 1.0

    def name(self, region: Region) -> str:
        """A region by its colour."""
        return f"the {colour_name(region, self.newest)} region"


class KinematicReasoner:
    """Answers from motion alone; keeps nothing between askings."""

    def __init__(self, settings: KinematicSettings | None = None) -> None:
        self._settings = settings or KinematicSettings()

    @property
    def window_policy(self) -> WindowPolicy:
        """The last second or so, evenly."""
        return RecentWindow(num_frames=self._settings.num_frames, stride_s=self._settings.stride_s)

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Answer about the newest frame."""
        if query.method not in ("", "kinematic"):
            reason = f"this reasoner's method is kinematic, not {query.method[:60]!r}"
            yield AnswerFailed(reason=reason)
            return
        try:
            request = _read(query.text)
            frames = _usable_frames(window)
            scene = _scene(frames, self._settings.max_side_px)
            if request.kind is not Kind.NAMED:
                _check_camera(scene)
            finding = _ANSWERS[request.kind](scene, request)
        except (_NothingFits, _CannotTell) as why:
            kind = NoTarget if isinstance(why, _NothingFits) else Abstained
            yield kind(reason=str(why))
            yield AnswerDone()
            return
        newest = frames[-1]
        yield RationalePart(text=finding.measured)
        yield TargetsFound(
            keyframe_index=newest.index,
            prompts=tuple(_prompt(region, newest, scene.size_wh) for region in finding.regions),
            text=finding.text,
            confidence=min(1.0, max(0.0, finding.confidence)),
        )
        yield AnswerDone()


def kinematic_reasoner(
    options: Mapping[str, str | int | float | bool],
) -> KinematicReasoner:
    """Build the reasoner from options named like the fields of `KinematicSettings`.

    Raises:
        ConfigError: for an unknown name, or a value of the wrong type or size.
    """
    for name in options:
        if name not in KinematicSettings.__dataclass_fields__:
            known = ", ".join(KinematicSettings.__dataclass_fields__)
            msg = f"the kinematic reasoner has the options {known}, got {name!r}"
            raise ConfigError(msg)
    defaults = KinematicSettings()
    settings = KinematicSettings(
        num_frames=_whole("num_frames", options.get("num_frames", defaults.num_frames)),
        stride_s=_number("stride_s", options.get("stride_s", defaults.stride_s)),
        max_side_px=_whole("max_side_px", options.get("max_side_px", defaults.max_side_px)),
    )
    reasoner = KinematicReasoner(settings)
    _ = reasoner.window_policy  # checks the stride
    return reasoner


def _number(name: str, value: str | float) -> float:
    if isinstance(value, (str, bool)):
        msg = f"{name} wants a number, got {value!r}"
        raise ConfigError(msg)
    return value


def _whole(name: str, value: str | float) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{name} wants a whole number, got {value!r}"
        raise ConfigError(msg)
    return value


def _read(text: str) -> Request:
    request = request_from_text(text)
    if request is None:
        msg = f"it cannot answer this query; the kinematic reasoner answers {ABILITIES}"
        raise _CannotTell(msg)
    return request


def _usable_frames(window: FrameWindow) -> list[Frame]:
    """The newest frames of one size; raises if they are too few."""
    if not window.frames:
        msg = "no frames yet"
        raise _CannotTell(msg)
    newest = window.newest
    frames = [frame for frame in window.frames if frame.ref.epoch == newest.ref.epoch]
    frames = [frame for frame in frames if frame.ref.size_wh == newest.ref.size_wh][-MAX_FRAMES:]
    if len(frames) < MIN_FRAMES:
        msg = f"motion needs at least {MIN_FRAMES} frames of one size, got {len(frames)}"
        raise _CannotTell(msg)
    return frames


def _scene(frames: Sequence[Frame], max_side_px: int) -> _Scene:
    smallest = min(max(frame.image.shape[:2]) for frame in frames)
    images = [reduce_image(frame.image, min(smallest, max_side_px)) for frame in frames]
    if len({image.shape for image in images}) > 1 or min(images[-1].shape[:2]) < 16:  # noqa: PLR2004
        msg = "the frames are too small, or not of one shape"
        raise _CannotTell(msg)
    stack = lit_alike(np.stack(images).astype(np.float32))
    times_s = _times_s(frames)
    motion = find_motion(stack, times_s)
    covered = np.zeros(stack.shape[1:3], dtype=np.bool_)
    if motion.movers and not motion.camera_shift_px:
        size_wh = stack.shape[2], stack.shape[1]
        oldest, newest = salient_regions(stack[0], covered), salient_regions(stack[-1], covered)
        seconds = times_s[-1] - times_s[0]
        movers = (completed(m, oldest, newest, seconds, size_wh) for m in motion.movers)
        motion = replace(motion, movers=tuple(movers))
    for mover in motion.movers:
        covered |= mover.footprint
    is_followed = motion.rim_change <= MAX_RIM_CHANGE
    return _Scene(
        motion=motion if is_followed else replace(motion, movers=()),
        still=(
            salient_regions(motion.background, covered)
            if is_followed
            else salient_regions(stack[-1], np.zeros_like(covered))
        ),
        newest=stack[-1],
        px_scale=frames[-1].ref.size_wh[0] / stack.shape[2],
    )


def _check_camera(scene: _Scene) -> None:
    if scene.motion.rim_change > MAX_RIM_CHANGE:
        msg = (
            f"the camera moves: {scene.motion.rim_change:.0%} of the picture's rim changes from frame"
            " to frame, more than a shift explains, so that nothing can be said of what moves"
        )
        raise _CannotTell(msg)


def _times_s(frames: Sequence[Frame]) -> list[float]:
    """Seconds since the first frame; even steps where the stamps do not ascend."""
    stamps = [frame.ref.stamp_ns for frame in frames]
    if any(b <= a for a, b in pairwise(stamps)):
        stamps = [frame.ref.received_ns for frame in frames]
    if any(b <= a for a, b in pairwise(stamps)):
        return [int(frame.index) / 30.0 for frame in frames]
    return [(stamp - stamps[0]) / NS_PER_S for stamp in stamps]


def _prompt(region: Region, frame: Frame, size_wh: tuple[int, int]) -> SpatialPrompt:
    scale = frame.ref.size_wh[0] / size_wh[0], frame.ref.size_wh[1] / size_wh[1]
    return SpatialPrompt(box=region.box.scaled(scale)).checked(frame.ref.size_wh)


def _contact(scene: _Scene, request: Request) -> _Finding:
    mover, trust = _chosen_mover(scene, request.subject)
    others = [other for other in scene.motion.movers if other is not mover]
    candidates = [Candidate(region=region) for region in scene.still]
    candidates += [Candidate(region=o.region, velocity_xy=o.velocity_xy) for o in others]
    contact = first_contact(mover, candidates, scene.size_wh)
    if contact is None:
        msg = (
            f"{_measured(scene, mover)}; nothing stands out on its path before it leaves the view"
        )
        raise _NothingFits(msg)
    region = candidates[contact.candidate].region
    return _Finding(
        regions=(region,),
        text=f"{scene.name(region)} will be hit",
        confidence=trust * contact.support * _trust(scene, mover, contact.time_s),
        measured=f"{_measured(scene, mover)}; it meets {scene.name(region)} in"
        f" {contact.time_s:.1f} s.",
    )


def _exit(scene: _Scene, _request: Request) -> _Finding:
    exits = [
        (found[0], found[1], mover)
        for mover in _movers(scene)
        if (found := exit_from_view(mover, scene.size_wh)) is not None
    ]
    if not exits:
        raise _nothing(scene, "nothing that moves is about to leave the view")
    exits.sort(key=lambda item: item[0])
    time_s, side, mover = exits[0]
    return _Finding(
        regions=(mover.region,),
        text=f"{scene.name(mover.region)} will leave first, over the {side.value}",
        confidence=_clearness([item[0] for item in exits]) * _trust(scene, mover, time_s),
        measured=f"{_measured(scene, mover)}; it is out of view in {time_s:.1f} s.",
    )


def _arrival(scene: _Scene, request: Request) -> _Finding:
    side = request.side or Side.LEFT
    arrivals = [
        (time_s, mover)
        for mover in _movers(scene)
        if (time_s := arrival_at(mover, side, scene.size_wh)) is not None
    ]
    if not arrivals:
        raise _nothing(scene, f"nothing moves towards the {side.value}")
    arrivals.sort(key=lambda item: item[0])
    time_s, mover = arrivals[0]
    return _Finding(
        regions=(mover.region,),
        text=f"{scene.name(mover.region)} reaches the {side.value} first",
        confidence=_clearness([item[0] for item in arrivals]) * _trust(scene, mover, time_s),
        measured=f"{_measured(scene, mover)}; it reaches the {side.value} in {time_s:.1f} s.",
    )


def _moving(scene: _Scene, request: Request) -> _Finding:
    movers = _movers(scene)[:MAX_NAMED]
    trust = min(_trust(scene, mover, 0.0) for mover in movers)
    if request.extreme is not None:
        ranked = sorted(movers, key=lambda m: m.speed)
        if request.extreme is Extreme.FASTEST:
            ranked.reverse()
        trust *= _clearness(sorted(m.speed for m in ranked[:2]))
        movers = tuple(ranked[:1])
    names = [scene.name(mover.region) for mover in movers]
    return _Finding(
        regions=tuple(mover.region for mover in movers),
        text=" and ".join([", ".join(names[:-1]), names[-1]] if names[:-1] else names),
        confidence=trust,
        measured="; ".join(_measured(scene, mover) for mover in movers)
        + f"; regions that move: {len(scene.motion.movers)}.",
    )


def _approach(scene: _Scene, request: Request) -> _Finding:
    goal, _ = _chosen_region(scene, request.subject)
    goal_x, goal_y = goal.centre_xy
    best: tuple[float, Mover] | None = None
    for mover in _movers(scene):
        x, y = mover.region.centre_xy
        vx, vy = mover.velocity_xy
        away = float(np.hypot(goal_x - x, goal_y - y))
        cosine = ((goal_x - x) * vx + (goal_y - y) * vy) / max(away * mover.speed, 1e-6)
        if mover.region is not goal and cosine > 0 and (best is None or cosine > best[0]):
            best = cosine, mover
    if best is None:
        raise _nothing(scene, f"nothing moves towards {scene.name(goal)}")
    cosine, mover = best
    return _Finding(
        regions=(mover.region,),
        text=f"{scene.name(mover.region)} moves towards it",
        confidence=cosine**4 * _trust(scene, mover, 0.0),
        measured=f"{_measured(scene, mover)}; {np.degrees(np.arccos(min(1.0, cosine))):.0f} degrees"
        f" off {scene.name(goal)}.",
    )


def _named(scene: _Scene, request: Request) -> _Finding:
    region, trust = _chosen_region(scene, request.subject)
    return _Finding(
        regions=(region,),
        text=scene.name(region),
        confidence=trust,
        measured=f"A region of {region.area * scene.px_scale**2:.0f} px fits best.",
    )


_ANSWERS = {
    Kind.CONTACT: _contact,
    Kind.EXIT: _exit,
    Kind.ARRIVAL: _arrival,
    Kind.MOVING: _moving,
    Kind.APPROACH: _approach,
    Kind.NAMED: _named,
}


def _movers(scene: _Scene) -> tuple[Mover, ...]:
    if scene.motion.movers:
        return scene.motion.movers
    if scene.motion.unsteady:
        msg = "something moves, but not with a steady velocity"
        raise _CannotTell(msg)
    msg = "nothing moves"
    raise _NothingFits(msg)


def _nothing(scene: _Scene, reason: str) -> _NothingFits | _CannotTell:
    """That none of the movers fits; no claim where most of what moves has no steady velocity."""
    if scene.steady_share >= MIN_STEADY_SHARE:
        return _NothingFits(reason)
    return _CannotTell(f"{reason}, as far as it has a steady velocity, and most has none")


def _chosen_mover(scene: _Scene, subject: Description) -> tuple[Mover, float]:
    """The mover that a description means, and how sure that is."""
    movers = _movers(scene)
    if subject.unknown and len(movers) > 1:
        msg = f"{len(movers)} regions move, and which one is the {subject.unknown!r} is not known"
        raise _CannotTell(msg)
    fits = [fit_of(subject, mover.region, scene.newest) for mover in movers]
    best = int(np.argmax(fits))
    if fits[best] <= 0:
        msg = f"nothing {subject.colour} moves"
        raise _NothingFits(msg)
    trust = 0.5 if subject.unknown else fits[best] / max(sum(fits), 1e-6)
    return movers[best], trust if len(movers) > 1 or subject.unknown else 1.0


def _chosen_region(scene: _Scene, subject: Description) -> tuple[Region, float]:
    """The region, still or moving, that a description means, and how sure that is."""
    regions = [*scene.still, *(mover.region for mover in scene.motion.movers)]
    if subject.unknown:
        msg = f"what a {subject.unknown!r} looks like is not known"
        raise _CannotTell(msg)
    fits = [fit_of(subject, region, scene.newest) for region in regions]
    if not regions or max(fits) <= 0:
        msg = "no region that stands out fits the description"
        raise _NothingFits(msg)
    best = int(np.argmax(fits))
    return regions[best], fits[best] * fits[best] / sum(fits)


def _clearness(ordered: Sequence[float]) -> float:
    """How clear the first of an ascending order is: 1 alone, 0.5 in a tie."""
    if len(ordered) < 2:  # noqa: PLR2004 (nothing to compare)
        return 1.0
    return 1.0 - 0.5 * ordered[0] / max(ordered[1], 1e-6)


def _trust(scene: _Scene, mover: Mover, ahead_s: float) -> float:
    """How far a mover's velocity carries: less for a short way, a far future, and unsteady others."""
    is_measured = mover.travel_px / (mover.travel_px + SURE_TRAVEL_PX)
    is_measured *= mover.num_sightings / (mover.num_sightings + SURE_SIGHTINGS)
    return scene.steady_share * is_measured / (1 + ahead_s / DECAY_S)


def _measured(scene: _Scene, mover: Mover) -> str:
    vx, vy = (v * scene.px_scale for v in mover.velocity_xy)
    text = (
        f"The {colour_name(mover.region, scene.newest)} mover goes at ({vx:+.0f}, {vy:+.0f}) px/s"
    )
    if scene.motion.camera_shift_px:
        text += " against a moving camera"
    return text
