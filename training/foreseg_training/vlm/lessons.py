# SPDX-License-Identifier: Apache-2.0
"""Which methods that answer in text can be trained, and how a recipe becomes one."""

from __future__ import annotations

from foreseg.errors import ConfigError
from foreseg.methods.grounding import View
from foreseg.methods.veason import VeasonMethod
from foreseg.methods.videoseg import VideosegMethod
from foreseg.reasoner.options import MethodOptions, method_from_options
from foreseg_training.vlm.lesson import Lessons
from foreseg_training.vlm.lessons_veason import VeasonLessons
from foreseg_training.vlm.lessons_videoseg import VideosegLessons, check_videoseg
from foreseg_training.vlm.recipe import Recipe


def lessons_of(recipe: Recipe, view: View) -> Lessons:
    """The lessons of a recipe whose method answers in text.

    Args:
        recipe: its numbers.
        view: how frames are shown.

    Raises:
        ConfigError: another method, or numbers that do not fit it.
    """
    method = method_from_options(method_options(recipe), view)
    if isinstance(method, VeasonMethod):
        return VeasonLessons(recipe, method)
    if isinstance(method, VideosegMethod):
        check_videoseg(recipe)
        return VideosegLessons(recipe, method)
    msg = f"veason and videoseg are trained on answers in text, {recipe.method} is not"
    raise ConfigError(msg)


def method_options(recipe: Recipe) -> MethodOptions:
    """A recipe's method, as the robot's options name it."""
    if recipe.method == "videoseg":
        return MethodOptions(
            method=recipe.method,
            num_key_frames=recipe.num_key_frames,
            num_reference_frames=recipe.num_reference_frames,
            form=recipe.form,
            tells_budget=recipe.tells_budget,
        )
    return MethodOptions(
        method=recipe.method,
        num_frames=recipe.num_frames,
        form=recipe.form,
        tells_budget=recipe.tells_budget,
    )
