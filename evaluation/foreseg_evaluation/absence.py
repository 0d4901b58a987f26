# SPDX-License-Identifier: Apache-2.0
"""Whether a tracker knows when its object is not there: its object score against the truth.

Does not know: trackers, clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

SLIVER_SHARE = 0.0003  # of the frame: less than this of an object is neither there nor away


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsenceScore:
    """Over annotated object-frames after the prompted one; NaN where there is nothing to judge."""

    num_absent: int
    num_visible: int
    auroc: float  # chance that a visible object-frame scores above an absent one, 0..1
    absent_found: float  # share of absent ones that are said absent, 0..1
    visible_lost: float  # share of visible ones that are said absent, 0..1


def absence_score(logits: Sequence[float], is_visible: Sequence[bool]) -> AbsenceScore:
    """Compare object logits (above 0: visible) with the truth.

    AUROC is the rank statistic of Mann and Whitney; ties count a half.

    Raises:
        ValueError: their numbers differ.
    """
    scores, visible = np.asarray(logits, np.float64), np.asarray(is_visible, bool)
    if scores.shape != visible.shape or scores.ndim != 1:
        msg = f"one logit wants one truth, got {scores.shape} and {visible.shape}"
        raise ValueError(msg)
    num_visible = int(visible.sum())
    num_absent = len(visible) - num_visible
    auroc = absent_found = visible_lost = float("nan")
    if num_visible and num_absent:
        ranks = rankdata(scores)[visible].sum()
        auroc = (ranks - num_visible * (num_visible + 1) / 2) / (num_visible * num_absent)
    if num_absent:
        absent_found = float((scores[~visible] <= 0).mean())
    if num_visible:
        visible_lost = float((scores[visible] <= 0).mean())
    return AbsenceScore(
        num_absent=num_absent,
        num_visible=num_visible,
        auroc=float(auroc),
        absent_found=absent_found,
        visible_lost=visible_lost,
    )
