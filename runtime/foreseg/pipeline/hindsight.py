# SPDX-License-Identifier: Apache-2.0
"""Whether a foresight came true, as far as masks can tell: from a query's words and its tracks.

Only what a box or a mask shows can be judged: leaving the picture, reaching a side of it, starting
to move, coming into touch with another tracked object. Everything else is UNKNOWN, with the reason. Pure:
knows nothing of when it is asked. The camera is taken to stand still.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from foreseg.dialogue import Outcome
from foreseg.geometry import BoxXyxy, Side
from foreseg.masks import MaskRle, mask_from_rle
from foreseg.prompts import ObjectId

SIDE_PX = 2.0  # a box so near a side of the picture touches it
EXIT_SHARE = 0.25  # of its own size: what vanishes so near a side has left through it
MOVED = 0.5  # sizes (root of the box's area) from where it was: it has moved
STAYED = 0.15  # sizes: less is the jitter of masks; between the two nothing is said
TOUCH_PX = 2  # masks with at most so many pixels between them touch
MAX_OTHERS = 16  # tracked objects that a target's contacts are watched with
SEEN_SHARE = 0.5  # of the horizon: only what was watched from then on can be denied


class ClaimKind(Enum):
    """What masks can judge."""

    LEAVES = "leave the picture"
    REACHES = "reach a side of the picture"
    MOVES = "move"
    TOUCHED = "be touched by something"
    MEET = "touch each other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a query foretells of its targets."""

    kind: ClaimKind
    side: Side | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One track on one frame; without a box it is not visible."""

    box: BoxXyxy | None
    mask: MaskRle | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The bounded summary of a target's track within the horizon."""

    object_id: ObjectId
    first: BoxXyxy | None = None  # where it was when it was first seen for sure
    first_stamp_ns: int = 0
    last: BoxXyxy | None = None  # where it was seen last
    is_absent: bool = False  # not visible on the newest frame that says anything
    last_stamp_ns: int = 0  # of that frame
    shift: float = 0.0  # farthest that it was from `first`, in sizes
    sides: frozenset[Side] = frozenset()  # of the picture that it came to touch
    apart: frozenset[ObjectId] = frozenset()  # others that were seen apart from it
    touched: frozenset[ObjectId] = frozenset()  # others that it came to touch


_VIEW = r"(?:(?:the|our|this|its) )?(?:camera s )?(?:field of )?(?:view|frame|image|picture|scene|screen|sight)"
_WHEN = r"(?: (?:first|next|soon|then|now|shortly|in a moment|within \w+(?: \w+)? seconds?))*"
_SIDE = r"(?P<side>left|right|top|bottom|upper|lower)(?: hand)?(?: (?:side|edge|border|end))?"
_LEAVE = (
    rf"\b(?:(?:leaves?|leaving|exits?|exiting)(?: {_VIEW})?"
    rf"|(?:disappears?|vanish(?:es)?)(?: from {_VIEW})?"
    rf"|(?:go|goes|move|moves|roll|rolls|slide|slides|fly|flies|drive|drives|walk|walks|run|runs)"
    rf" out(?: of {_VIEW})?)"
    rf"(?: (?:on|at|by|through|over|across|to|via) (?:the )?{_SIDE}(?: of {_VIEW})?)?{_WHEN}$"
)
_REACH = (
    r"\b(?:reach(?:es)?|touch(?:es)?|hits?|arrives? at|gets? to|comes? to)(?: the)?"
    rf" {_SIDE}(?: of {_VIEW})?{_WHEN}$"
)
_MOVE = (
    r"\b(?:(?:starts?|begins?) (?:to move|moving)"
    r"|(?:will|to|gets?|be|is|are) (?:be )?(?:moved?|picked up|lifted|grasped|grabbed|pushed|pulled)"
    r"|(?:moves?|falls?|topples?|tips? over|rolls? away|picks? up|lifts?|grasps?|grabs?|pushes|push|pulls?))\b"
)
_TOUCHED = (
    rf"\b(?:(?:hits?|touch(?:es)?|strikes?|contacts?|meets?|reach(?:es)?|lands? on"
    rf"|(?:bumps?|crash(?:es)?|runs?|rolls?|knocks?) into|knocks? (?:over|down)|collides? with){_WHEN}$"
    rf"|be (?:hit|touched|struck|contacted|met|reached|bumped into|knocked (?:over|down))\b)"
)
_MEET = (
    rf"\b(?:(?:collide|meet|crash)(?: with each other| into each other)?"
    rf"|(?:hit|touch|strike|reach) each other){_WHEN}$"
)
_PATTERNS = tuple(
    (kind, re.compile(source))
    for kind, source in (
        (ClaimKind.LEAVES, _LEAVE),
        (ClaimKind.REACHES, _REACH),
        (ClaimKind.MEET, _MEET),
        (ClaimKind.TOUCHED, _TOUCHED),
        (ClaimKind.MOVES, _MOVE),
    )
)
# words that turn an event round, put it into the past, or tie it to another one
_DOUBTFUL = re.compile(
    r"\b(?:not|never|no|none|without|except|cannot|stays?|staying|remains?|still|stops?|stopped"
    r"|after|before|if|unless|once|when|while|until|because|why|how|did|was|were|has|have|had"
    r"|last|second|third)\b|n't\b"
)
_SIDES = {
    "left": Side.LEFT, "right": Side.RIGHT, "top": Side.TOP, "bottom": Side.BOTTOM,
    "upper": Side.TOP, "lower": Side.BOTTOM,
}  # fmt: skip


def claim_from_text(text: str) -> Claim | None:
    """What a query foretells of its targets; None if it is nothing that masks can judge."""
    words = " ".join(re.sub(r"[^\w']+", " ", text.lower()).split())
    if _DOUBTFUL.search(words):
        return None
    words = words.replace("'", " ")
    for kind, pattern in _PATTERNS:
        match = pattern.search(words)
        if match is not None:
            return Claim(kind=kind, side=_SIDES.get(match.groupdict().get("side") or ""))
    return None


def watched_on(
    watched: Watched,
    sighting: Sighting,
    others: Mapping[ObjectId, Sighting],
    *,
    stamp_ns: int,
    size_wh: tuple[int, int],
) -> Watched:
    """The summary with one more frame, on which it and the others are shown for sure."""
    watched = replace(watched, is_absent=sighting.box is None, last_stamp_ns=stamp_ns)
    box = sighting.box
    if box is None:
        return watched
    first = watched.first
    if first is None:
        watched = replace(watched, first=box, first_stamp_ns=stamp_ns)
        first = box
    (x, y), (x_first, y_first) = box.centre_xy, first.centre_xy
    size = max(1.0, first.area**0.5)
    shift = ((x - x_first) ** 2 + (y - y_first) ** 2) ** 0.5 / size
    near = {
        i: _touches(sighting, other)
        for i, other in sorted(others.items())[:MAX_OTHERS]
        if other.box is not None
    }
    touched = {i for i, is_near in near.items() if is_near} & watched.apart
    return replace(
        watched,
        last=box,
        shift=max(watched.shift, shift),
        sides=watched.sides | sides_of(box, size_wh, SIDE_PX),
        apart=watched.apart | {i for i, is_near in near.items() if not is_near},
        touched=watched.touched | touched,
    )


def sides_of(box: BoxXyxy, size_wh: tuple[int, int], within_px: float) -> frozenset[Side]:
    """The sides of the picture that a box comes so near."""
    width, height = size_wh
    gaps = {
        Side.LEFT: box.x0,
        Side.TOP: box.y0,
        Side.RIGHT: width - box.x1,
        Side.BOTTOM: height - box.y1,
    }
    return frozenset(side for side, gap in gaps.items() if gap <= within_px)


def judged(
    claim: Claim | None,
    targets: Sequence[Watched],
    *,
    alive: frozenset[ObjectId],
    begin_ns: int,
    end_ns: int,
    size_wh: tuple[int, int],
) -> tuple[Outcome, str]:
    """The outcome with its reason, once the horizon has passed.

    Came true if it did for every target, did not if it did not for one; else unknown.

    Args:
        claim: what was foretold.
        targets: what was seen of each target.
        alive: tracks that are still there.
        begin_ns: stamp of the keyframe.
        end_ns: stamp at which the horizon has passed.
        size_wh: of the picture.
    """
    if claim is None:
        return Outcome.UNKNOWN, "the query's words foretell nothing that masks can judge"
    each = []
    for watched in targets:
        outcome, reason = _verdict(claim, watched, targets, size_wh)
        if outcome is Outcome.DID_NOT:
            doubt = _doubt(watched, alive, begin_ns, end_ns)
            outcome, reason = (Outcome.UNKNOWN, doubt) if doubt else (outcome, reason)
        each.append((outcome, f"{watched.object_id} {reason}"))
    outcomes = [outcome for outcome, _ in each]
    if Outcome.DID_NOT in outcomes:
        whole = Outcome.DID_NOT
    elif each and set(outcomes) == {Outcome.CAME_TRUE}:
        whole = Outcome.CAME_TRUE
    else:
        whole = Outcome.UNKNOWN
    return whole, "; ".join(reason for _, reason in each) or "there was no track to judge by"


def _doubt(watched: Watched, alive: frozenset[ObjectId], begin_ns: int, end_ns: int) -> str:
    """Why it cannot be said that something did not happen; "" if it can."""
    if watched.object_id not in alive:
        return "was let go before the horizon had passed"
    horizon_ns = end_ns - begin_ns
    if watched.first_stamp_ns > begin_ns + SEEN_SHARE * horizon_ns:
        return "was watched for the last part of the horizon only"
    if watched.last_stamp_ns < end_ns - (1 - SEEN_SHARE) * horizon_ns:
        return "was not seen for sure at the end"
    return ""


def _verdict(
    claim: Claim, watched: Watched, targets: Sequence[Watched], size_wh: tuple[int, int]
) -> tuple[Outcome, str]:
    if watched.first is None or watched.last is None:
        return Outcome.UNKNOWN, "was never seen for sure within the horizon"
    if claim.kind is ClaimKind.LEAVES:
        return _left(claim.side, watched, watched.last, size_wh)
    if claim.kind is ClaimKind.REACHES and claim.side is not None:
        return _reached(claim.side, watched, sides_of(watched.first, size_wh, SIDE_PX))
    if claim.kind is ClaimKind.MOVES:
        return _moved(watched)
    if claim.kind is ClaimKind.MEET:
        return _met(watched, targets)
    if watched.touched:
        return Outcome.CAME_TRUE, f"came to touch {', '.join(sorted(watched.touched))}"
    return Outcome.UNKNOWN, "touched nothing that is tracked; what should touch it may not be"


def _reached(side: Side, watched: Watched, at_first: frozenset[Side]) -> tuple[Outcome, str]:
    if side in at_first:
        return Outcome.UNKNOWN, f"was at the {side.value} side already"
    if side in watched.sides:
        return Outcome.CAME_TRUE, f"reached the {side.value} side"
    return _denied(watched, f"did not reach the {side.value} side")


def _moved(watched: Watched) -> tuple[Outcome, str]:
    if watched.shift >= MOVED:
        return Outcome.CAME_TRUE, f"moved by {watched.shift:.1f} of its size"
    if watched.shift < STAYED:
        return _denied(watched, "did not move")
    return Outcome.UNKNOWN, f"moved by {watched.shift:.2f} of its size, too little to tell"


def _met(watched: Watched, targets: Sequence[Watched]) -> tuple[Outcome, str]:
    others = {target.object_id for target in targets} - {watched.object_id}
    if not others:
        return Outcome.UNKNOWN, "is the only target, with none to meet"
    if met := watched.touched & others:
        return Outcome.CAME_TRUE, f"came to touch {', '.join(sorted(met))}"
    return _denied(watched, "touched no other target")


def _left(
    side: Side | None, watched: Watched, last: BoxXyxy, size_wh: tuple[int, int]
) -> tuple[Outcome, str]:
    if not watched.is_absent:
        return Outcome.DID_NOT, "was still in the picture"
    reach_px = SIDE_PX + EXIT_SHARE * max(last.width, last.height)
    sides = sides_of(last, size_wh, reach_px)
    if not sides:
        return Outcome.UNKNOWN, "vanished inside the picture"
    if side is not None and side not in sides:
        names = " and ".join(sorted(s.value for s in sides))
        return Outcome.DID_NOT, f"left at the {names} side"
    return Outcome.CAME_TRUE, "left the picture"


def _denied(watched: Watched, reason: str) -> tuple[Outcome, str]:
    if watched.is_absent:
        return Outcome.UNKNOWN, "was out of sight at the end"
    return Outcome.DID_NOT, reason


def _touches(a: Sighting, b: Sighting) -> bool:
    """Whether two masks touch; decoded only where the boxes do, and only there."""
    if a.box is None or b.box is None or a.mask is None or b.mask is None:
        return False
    x0, y0 = max(a.box.x0, b.box.x0) - TOUCH_PX, max(a.box.y0, b.box.y0) - TOUCH_PX
    x1, y1 = min(a.box.x1, b.box.x1) + TOUCH_PX, min(a.box.y1, b.box.y1) + TOUCH_PX
    same_size = (a.mask.height, a.mask.width) == (b.mask.height, b.mask.width)
    if x1 < x0 or y1 < y0 or not same_size:
        return False
    rows = slice(max(0, int(y0)), int(y1) + 1)
    columns = slice(max(0, int(x0)), int(x1) + 1)
    first, second = (mask_from_rle(m)[rows, columns] for m in (a.mask, b.mask))
    grown = np.pad(first, TOUCH_PX)
    height, width = second.shape
    steps = range(2 * TOUCH_PX + 1)
    return any(
        bool((grown[dy : dy + height, dx : dx + width] & second).any())
        for dy in steps
        for dx in steps
    )
