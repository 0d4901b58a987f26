# SPDX-License-Identifier: Apache-2.0
"""The five ratings of a simulated question, computed from what the simulation knows of its scene.

Ours, for where no teacher is at hand; see docs/training.md for the formulae. Each is 1 + 9 x, with x of
0 to 1. Does not know: models, scenes of their own kind.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from foreseg.errors import InputError
from foreseg.masks import Mask
from foreseg_evaluation.episode import Episode, Question
from foreseg_training.negatives import names_in, words_of
from foreseg_training.samples import judged_positions

from .ratings import LEAST, MOST, Ratings

MANY_OBJECTS = 8
LARGE, SMALL = 0.25, 0.0005  # shares of a frame, of the target where it is largest
MANY_EVENTS = 6  # frames of evidence
FAR = 2.0  # diagonals of the frame that the target's centre goes in all
_SKILLS = {  # how far from going on as now: what it takes, as the simulation calls it
    "motion": 0.0, "naming": 0.0, "recall": 0.25, "absence": 0.25, "goal": 0.5, "affordance": 0.5,
    "rebound": 0.5, "habit": 0.75, "balance": 0.75, "decoy": 0.75, "occlusion": 1.0, "chain": 1.0,
}  # fmt: skip


def scene_ratings(episode: Episode) -> Ratings:
    """Rate an episode that gives a sample, of a dataset that names its objects.

    Raises:
        InputError: it does not, so nothing can be computed.
    """
    question = episode.question
    if question is None or not episode.object_names:
        msg = (
            f"{episode.id}: its dataset does not name the objects, as the simulation's do: ratings"
            " want a teacher"
        )
        raise InputError(msg)
    masks = [episode.truth(position) for position in judged_positions(episode)]
    targets = {i for span in episode.spans for i in span.object_ids}
    names = episode.object_names
    own = [names[i] for i in targets if i in names]
    others = [name for i, name in names.items() if i not in targets]
    return Ratings(
        scene_complexity=_rating((len(names) - 1) / (MANY_OBJECTS - 1)),
        segmentation_challenge=_rating(_hard_to_see(masks) if targets else 0.0),
        temporal_ambiguity=_rating(_spread(question)),
        motion_complexity=_rating(_moving(question, masks)),
        linguistic_ambiguity=_rating(_unnamed(question, own, others, names)),
    )


def _rating(share: float) -> float:
    return LEAST + (MOST - LEAST) * min(max(share, 0.0), 1.0)


def _hard_to_see(masks: Sequence[Mask]) -> float:
    """Mean of how small the target is where it is largest, and how often it is not seen at all."""
    shares = [float(mask.mean()) for mask in masks]
    if not any(shares):
        return 1.0
    small = math.log(LARGE / max(shares)) / math.log(LARGE / SMALL)
    hidden = sum(share == 0 for share in shares) / len(shares)
    return (min(max(small, 0.0), 1.0) + hidden) / 2


def _spread(question: Question) -> float:
    """How many frames show why."""
    frames = () if question.evidence is None else question.evidence.frames
    return (len(frames) - 1) / (MANY_EVENTS - 1)


def _moving(question: Question, masks: Sequence[Mask]) -> float:
    """Mean of what it takes to foresee, and how far the target goes; hard ones at least half."""
    skill = _SKILLS.get(question.skill, 0.5)
    if question.difficulty == "hard":  # constant velocity would answer wrongly
        skill = max(skill, 0.5)
    centres = [np.argwhere(mask).mean(axis=0) for mask in masks if mask.any()]
    if len(centres) < 2:
        return skill / 2
    steps = np.linalg.norm(np.diff(np.array(centres), axis=0), axis=1)
    diagonal = math.hypot(*masks[0].shape)
    return (skill + min(float(steps.sum()) / (FAR * diagonal), 1.0)) / 2


def _unnamed(
    question: Question,
    own: Collection[str],
    others: Collection[str],
    names: Mapping[str, str],
) -> float:
    """Mean of whether the words leave the target unnamed, and how much its name is another's, too."""
    said = names_in(question.text, list(names.values()))
    is_named = bool(set(said) & set(own))
    twins = [
        len(words_of(name) & words_of(other)) / max(len(words_of(name)), 1)
        for name in own
        for other in others
    ]
    return ((0.0 if is_named else 1.0) + max(twins, default=0.0)) / 2
