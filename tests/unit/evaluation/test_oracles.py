# SPDX-License-Identifier: Apache-2.0
"""Oracles: where they point, in which form, and that a random span may miss the target."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("cv2", reason="forms of prompts are found with OpenCV")

from tests.support.episodes import SIDE, SIZE_WH, Squares, make_episode

from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg.prompts import PointLabel
from foreseg_evaluation.offline import ask_over_all
from foreseg_evaluation.prediction import Spoken
from foreseg_evaluation.prompt_forms import PromptForm
from foreseg_evaluation.reasoners import Keyframe, OracleReasoner, random_span

NUM_FRAMES = 30
SHOWN = range(10, 16)  # where the target is seen; it comes over the left edge


class Coming(Squares):
    """The red square comes over the left edge, stays, and is gone."""

    def corner(self, name: str, position: int) -> tuple[int, int]:
        if name == "blue":
            return (90, 60)
        return (min(6 * (position - SHOWN[0]) - SIDE + 6, 0), 8)

    def image(self, position: int) -> U8Array:
        del position
        return np.zeros((*SIZE_WH[::-1], 3), dtype=np.uint8)

    def mask(self, object_id: str, position: int) -> Mask:
        mask = np.zeros(SIZE_WH[::-1], dtype=bool)
        x, y = self.corner(object_id, position)
        if object_id == "blue" or position in SHOWN:
            mask[y : y + SIDE, max(x, 0) : x + SIDE] = True
        return mask


def told(keyframe: Keyframe, form: PromptForm = PromptForm.BOX, name: str = "clip/0") -> Spoken:
    episode = make_episode(name=name, num_frames=NUM_FRAMES, media=Coming())
    reasoner = OracleReasoner(episode=episode, keyframe=keyframe, form=form, is_live=False)
    return ask_over_all(reasoner, episode, max_side_px=640)


def test_the_first_frame_shows_a_sliver_and_the_best_one_all() -> None:
    first, best = told(Keyframe.FIRST), told(Keyframe.BEST)
    assert first.keyframe == SHOWN[0]
    assert best.keyframe in range(13, 16)
    (sliver,), (whole,) = first.prompts, best.prompts
    assert sliver.box is not None
    assert whole.box is not None
    assert sliver.box.x1 - sliver.box.x0 == 6
    assert whole.box.x1 - whole.box.x0 == SIDE


def test_points_lie_on_the_target_and_beside_it() -> None:
    (prompt,) = told(Keyframe.BEST, PromptForm.BOX_POINTS).prompts
    labels = [point.label for point in prompt.points]
    assert prompt.box is not None
    assert labels == [PointLabel.FOREGROUND, PointLabel.BACKGROUND]
    mask = Coming().mask("red", 15)
    inside = [bool(mask[int(p.y), int(p.x)]) for p in prompt.points]
    assert inside == [True, False]
    assert told(Keyframe.BEST, PromptForm.MASK).prompts[0].mask is not None


def test_a_random_span_is_as_long_as_the_true_one_and_mostly_misses_it() -> None:
    missed = 0
    for number in range(20):
        name = f"clip/{number}"
        span = random_span(name, NUM_FRAMES, len(SHOWN))
        assert len(span) == len(SHOWN)
        assert span == random_span(name, NUM_FRAMES, len(SHOWN))
        assert 0 <= span[0] <= span[-1] < NUM_FRAMES
        spoken = told(Keyframe.RANDOM_SPAN, name=name)
        if set(span) & set(SHOWN):
            assert spoken.keyframe in span
        else:
            assert spoken.status == "no_target"
            missed += 1
    assert 5 < missed < 20
