# SPDX-License-Identifier: Apache-2.0
"""Objects that are given, not asked for (DAVIS, SA-V): a prompt each, on the first frame with it.

Nothing is asked there, so a system's reasoner only says what is given: the true mask, the true
box, or a random box. Other reasoners have nothing to do and are refused. Does not know: trackers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from foreseg.errors import ConfigError
from foreseg.masks import Mask
from foreseg.prompts import SpatialPrompt

from .episode import Episode
from .reasoners import prompt_from_mask, random_box

_Give = Callable[[Episode, str, Mask], SpatialPrompt]
FirstPrompts = Mapping[int, Sequence[tuple[str, SpatialPrompt]]]


def _mask(_episode: Episode, _object_id: str, mask: Mask) -> SpatialPrompt:
    return prompt_from_mask(mask, as_mask=True)


def _box(_episode: Episode, _object_id: str, mask: Mask) -> SpatialPrompt:
    return prompt_from_mask(mask, as_mask=False)


def _random_box(episode: Episode, object_id: str, _mask: Mask) -> SpatialPrompt:
    return SpatialPrompt(box=random_box(f"{episode.id}/{object_id}", episode.size_wh))


_GIVEN: Mapping[str, _Give] = MappingProxyType(
    {"oracle_first_mask": _mask, "oracle_box": _box, "random_box": _random_box}
)


def check_first_prompts(reasoner: str) -> None:
    """Check that a system's reasoner says what is given where nothing is asked.

    Args:
        reasoner: its kind, as the system's YAML has it.

    Raises:
        ConfigError: it only answers questions, or points at another frame than the first.
    """
    if reasoner not in _GIVEN:
        msg = (
            "this dataset asks nothing: its objects are given on the first frame that shows them,"
            f" and only the tracker is judged. The reasoner {reasoner!r} has no part in that: take"
            f" one of {', '.join(_GIVEN)} (the true mask, the true box, a random box) beside your"
            " tracker, as the system first-frame-mask does beside the nano tracker"
        )
        raise ConfigError(msg)


def first_prompts(episode: Episode, reasoner: str) -> FirstPrompts:
    """Map positions to the objects that show for the first time there, each with its prompt.

    Raises:
        ConfigError: as `check_first_prompts`.
        DatasetError: a true mask that cannot be read.
    """
    check_first_prompts(reasoner)
    give = _GIVEN[reasoner]
    found: dict[int, list[tuple[str, SpatialPrompt]]] = {}
    left = list(episode.object_ids)
    for position in episode.annotated:
        if not left:
            break
        for object_id in tuple(left):
            mask = episode.media.mask(object_id, position)
            if mask is not None and np.any(mask):
                prompt = give(episode, object_id, mask)
                found.setdefault(position, []).append((object_id, prompt))
                left.remove(object_id)
    return found
