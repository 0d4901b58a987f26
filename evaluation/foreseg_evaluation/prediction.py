# SPDX-License-Identifier: Apache-2.0
"""What a system answers to an episode: words, a keyframe, and masks by object and position.

Does not know: how it came about, or whether it is right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from foreseg.masks import MaskRle
from foreseg.prompts import SpatialPrompt

from .results import TARGET


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """An answer in words."""

    status: str = ""  # "ok", "no_target", "abstained", "failed"; "" = nothing was said
    text: str = ""
    reason: str = ""
    rationale: str = ""
    keyframe: int | None = None  # position
    shown: tuple[int, ...] | None = None  # positions that it was given; None = not known
    prompts: tuple[SpatialPrompt, ...] = ()  # source pixels of the keyframe
    drawn: Mapping[int, MaskRle] = field(default_factory=dict)  # by position: its own masks
    num_drawn: int = 1  # targets whose union `drawn` is
    confidence: float = math.nan  # NaN = unknown
    tokens: int = 0
    seconds: float = 0.0  # asked -> answered

    @property
    def is_claim(self) -> bool:
        """True for targets and for "no target"; abstaining claims nothing."""
        return self.status in {"ok", "no_target"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Masks by object id, then position; a position left out was not answered.

    With a question there is one row, `TARGET`: the union of all that was named. There an empty
    mask says that nothing fits; who says nothing leaves the position out, and is not right by that.
    """

    masks: Mapping[str, Mapping[int, MaskRle]]
    spoken: Spoken = field(default_factory=Spoken)

    @property
    def is_empty(self) -> bool:
        """True if no pixel was answered for the question."""
        return all(mask.is_absent for mask in self.masks.get(TARGET, {}).values())
