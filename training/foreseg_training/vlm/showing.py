# SPDX-License-Identifier: Apache-2.0
"""What each reward says of completions, as lines of text. Needs no model: it counts in pixels."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from foreseg.config import TrackerConfig
from foreseg.errors import InputError
from foreseg.methods.grounding import View
from foreseg.methods.labels import LabelForm
from foreseg_evaluation.episode import Episode
from foreseg_training.samples import Filtered
from foreseg_training.tracking import TrackingHere, write_videos
from foreseg_training.vlm.lessons import lessons_of
from foreseg_training.vlm.recipe import Recipe


def shown_rewards(
    recipe: Recipe, episodes: Sequence[Episode], said: Sequence[str] | None, count: int
) -> Iterator[str]:
    """Score completions, one for each sample in turn; the true ones where none are given.

    Raises:
        InputError: no episode gives a sample.
        ConfigError, EngineError, MissingExtraError: the tracker cannot be opened.
    """
    view = View(image_side_px=recipe.image_side_px, labels=LabelForm(recipe.labels))
    lessons = lessons_of(recipe, view)
    tracking = None
    with contextlib.ExitStack() as undo:
        if recipe.is_tracked:
            folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
            config = TrackerConfig(bundle=recipe.tracker, backend=recipe.tracker_backend)
            tracking = TrackingHere(write_videos(folder / "videos.pickle", episodes), config)
        filtered = Filtered()
        drawn = lessons.draw(episodes, filtered, has_completions=False)
        num_shown = 0
        for number, lesson in enumerate(islice(drawn, count)):
            if said is not None and number >= len(said):
                break
            text = lesson.completion() if said is None else said[number]
            yield f"{lesson.id}: {lesson.words}"
            yield f"  said: {text[:400]!r}"
            for name, score in lessons.scores(text, lesson.columns, tracking).items():
                yield f"  {name:11} {'does not apply' if score is None else f'{score:.3f}'}"
            num_shown += 1
    if not num_shown:
        msg = f"no episode gives a sample: {str(filtered) or 'there is none'}"
        raise InputError(msg)
    yield filtered.told()
