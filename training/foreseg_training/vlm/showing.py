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
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import View
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg_evaluation.episode import Episode
from foreseg_training.samples import Filtered
from foreseg_training.tracking import TrackingHere, write_videos
from foreseg_training.vlm.method_rewards import VeasonRewards, truth_of
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rewards_tracked import shown_of
from foreseg_training.vlm.rows import completion_of, drawer_of


def shown_rewards(
    recipe: Recipe, episodes: Sequence[Episode], said: Sequence[str] | None, count: int
) -> Iterator[str]:
    """Score completions, one for each sample in turn; the true ones where none are given.

    Raises:
        InputError: no episode gives a sample.
        ConfigError, EngineError, MissingExtraError: the tracker cannot be opened.
    """
    form = Form(recipe.form)
    view = View(image_side_px=recipe.image_side_px)
    method = VeasonMethod(VeasonSettings(num_frames=recipe.num_frames, view=view, form=form))
    names = ["format", "keyframe", "spatial", "no_target"]
    tracking = None
    with contextlib.ExitStack() as undo:
        if recipe.reward_weights.get("consistency"):
            names.insert(3, "consistency")
            folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
            config = TrackerConfig(bundle=recipe.tracker, backend=recipe.tracker_backend)
            tracking = TrackingHere(write_videos(folder / "videos.pickle", episodes), config)
        rewards = VeasonRewards(method, form, tracking)
        functions, _ = rewards.functions(dict.fromkeys(names, 1.0))
        sources = {episode.id: episode for episode in episodes}
        filtered = Filtered()
        samples = drawer_of(recipe).draw(episodes, recipe.seed, filtered)
        num_shown = 0
        for number, sample in enumerate(islice(samples, count)):
            if said is not None and number >= len(said):
                break
            text = completion_of(method, sample) if said is None else said[number]
            columns = {
                "truth": [truth_of(method, sample).to_json()],
                "shown": [shown_of(method, sample, sources[sample.source]).to_json()],
            }
            yield f"{sample.id}: {sample.query.text}"
            yield f"  said: {text[:400]!r}"
            for name, function in zip(names, functions, strict=True):
                (score,) = function([text], **columns)
                yield f"  {name:11} {'does not apply' if score is None else f'{score:.3f}'}"
            num_shown += 1
    if not num_shown:
        msg = f"no episode gives a sample: {str(filtered) or 'there is none'}"
        raise InputError(msg)
    yield filtered.told()
