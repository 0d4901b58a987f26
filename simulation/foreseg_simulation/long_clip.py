# SPDX-License-Identifier: Apache-2.0
"""Long clips: a story's observed frames, and questions whose target shows in a fifth of it at most.

Does not know: files.
"""

from __future__ import annotations

import numpy as np

from .clip import Clip, ClipKind, Expression, ExpressionKind
from .recording import shot_of
from .stories.asking import Ask
from .stories.choosing import Posed, areas_of, choose, is_shown
from .stories.story import RATE_HZ, Story, make_story

MOST_SEEN = 0.2  # of the frames
_NUM_QUESTIONS = (3, 5)
_MOST_JUDGED = 60  # frames with a target
_UNSHOWN = 4  # frames with a target for each without that is judged
_NS_PER_S = 1_000_000_000


def cut_long(
    scene_seed: int, split: str, rng: np.random.Generator, *, size_wh: tuple[int, int]
) -> Clip | None:
    """Draw a story and ask 3 to 5 questions about it; None if nothing fits.

    Scores are taken of frames with a target and of a quarter as many without: over all frames,
    silence would be right on four of five.

    Args:
        scene_seed: of the story.
        split: whose shapes and words.
        rng: source of the choice of questions.
        size_wh: of the frames, pixels.
    """
    story = make_story(scene_seed, split, aspect=size_wh[0] / size_wh[1])
    frames = list(story.draw(np.arange(story.num_frames) / RATE_HZ, size_wh))
    areas = areas_of([ids for _, ids in frames], len(story.things))

    def is_fit(ask: Ask) -> bool:
        seen = areas[:, list(ask.target_ids)].any(axis=1).mean() if ask.target_ids else 0.0
        return seen <= MOST_SEEN and is_shown(ask, areas, size_wh[0] * size_wh[1])

    asked = choose(rng, story, int(rng.integers(_NUM_QUESTIONS[0], _NUM_QUESTIONS[1] + 1)), is_fit)
    if not any(posed.ask.target_ids for posed in asked):
        return None
    names = story.names
    shots = tuple(
        shot_of(image, ids, names, round(k * _NS_PER_S / RATE_HZ))
        for k, (image, ids) in enumerate(frames)
    )
    return Clip(
        kind=ClipKind.LONG,
        size_wh=size_wh,
        rate_hz=RATE_HZ,
        names=names,
        shots=shots,
        expressions=tuple(_expression(story, posed, areas) for posed in asked),
    )


def best_row(target_ids: tuple[int, ...], areas: np.ndarray, otherwise: int) -> int:
    """Row of the frame that shows the most targets, and of those the most of them."""
    if not target_ids:
        return otherwise
    own = areas[:, list(target_ids)]
    return int(np.lexsort((own.sum(axis=1), (own > 0).sum(axis=1)))[-1])


def _expression(story: Story, posed: Posed, areas: np.ndarray) -> Expression:
    ask, last = posed.ask, len(areas) - 1
    kind = ExpressionKind.NO_TARGET
    if ask.target_ids:
        kind = ExpressionKind.DESCRIPTIVE if ask.event_s is None else ExpressionKind.FORESIGHT
    positions = {min(max(round(s * RATE_HZ), 0), last) for s in ask.evidence_s}
    return Expression(
        text=posed.text,
        answer=posed.answer,
        kind=kind,
        skill=ask.skill,
        is_future=ask.event_s is not None,
        is_hard=ask.is_hard,
        target_ids=ask.target_ids,
        lead_s=None if ask.event_s is None else ask.event_s - story.cut_s,
        reasoning=" ".join(ask.steps),
        evidence=tuple(sorted(positions)),
        keyframe=best_row(ask.target_ids, areas, last),
        judged=_judged(ask.target_ids, areas),
    )


def _judged(target_ids: tuple[int, ...], areas: np.ndarray) -> tuple[int, ...]:
    """Frames with a target, and a quarter as many without, evenly over the clip."""
    shown = areas[:, list(target_ids)].any(axis=1) if target_ids else np.zeros(len(areas), bool)
    with_target = _evenly(np.flatnonzero(shown), _MOST_JUDGED)
    most = -(-len(with_target) // _UNSHOWN) if target_ids else _MOST_JUDGED
    picked = [with_target, _evenly(np.flatnonzero(~shown), most)]
    return tuple(sorted(int(p) for p in np.concatenate(picked)))


def _evenly(positions: np.ndarray, most: int) -> np.ndarray:
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).round().astype(int)]
