# SPDX-License-Identifier: Apache-2.0
"""Recipes: how a published model was asked, as data. View, frames, words, budgets, precision.

A model that is asked otherwise than it was trained answers worse, and nothing else tells so. A
model trained here has a prompt card instead (`prompt_card`). Does not know models or servers.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foreseg.errors import ConfigError
from foreseg.files import read_file
from foreseg.methods.grounding import Shape
from foreseg.methods.wording import Wording
from foreseg.reasoner.options import (
    AUTO,
    TEXT_METHODS,
    Scalar,
    coordinates_from_name,
    form_from_name,
)

RECIPE = "recipe.json"  # of a model's folder
NONE = "none"  # of the option `recipe`
SHIPPED = Path(__file__).parent / "recipes"
MAX_RECIPE_BYTES = 100_000
PRECISIONS = ("nf4", "int8", "bf16", "fp32")
MAX_SHOWN = 12  # frames in a request of a method that chooses them itself

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a published model was asked; docs/reasoners.md explains the fields."""

    name: str
    source: str
    models: tuple[str, ...]  # owner/name on the hub, for which it is proposed
    method: str
    num_frames: int  # 0: the method chooses them itself
    shape: str
    image_side_px: int
    coordinates: str
    precision: str
    label: str
    between: str
    lowers_query: bool
    strips: str
    content: tuple[str, ...]
    form: str
    reasoning_tokens: int
    answer_tokens: int

    @cached_property
    def wording(self) -> Wording:
        """Its words."""
        return Wording(
            content=self.content,
            label=self.label,
            between=self.between,
            lowers_query=self.lowers_query,
            strips=self.strips,
            form=form_from_name(self.form),
            reasoning_tokens=self.reasoning_tokens,
            answer_tokens=self.answer_tokens,
        )

    def fits(self, model: str) -> bool:
        """True for a model's id, a folder named as the model, or one of the hub's cache."""
        parts = {part.lower() for part in Path(model).parts}
        for known in self.models:
            owner, _, name = known.lower().partition("/")
            if parts & {name, f"models--{owner}--{name}"}:
                return True
        return False

    def options(self) -> dict[str, Scalar]:
        """What it says in options of a reasoner, budgets of pixels aside."""
        return {
            "method": self.method,
            "num_frames": self.num_frames,
            "image_side_px": self.image_side_px,
            "coordinates": self.coordinates,
        }


def shipped_recipes() -> tuple[Recipe, ...]:
    """Those that foreseg has, by name."""
    return tuple(read_recipe(path) for path in sorted(SHIPPED.glob("*.json")))


def chosen_recipe(
    values: Mapping[str, Scalar], models: Sequence[str], *, default_method: str
) -> Recipe | None:
    """The recipe that a reasoner's options name, or that is proposed for its model.

    Args:
        values: the options given. `recipe`: a name, a file, `none`, or `auto`: what lies in the
            model's folder, else what is known of the model's name; where the options have another
            method, or it is a prompt card's model, none.
        models: the model as the options name it, and whatever else it is known as.
        default_method: of the reasoner, where the options have none.

    Raises:
        ConfigError: no such recipe, a damaged one, or one of another method.
    """
    said = str(values.get("recipe", AUTO))
    if said == NONE:
        return None
    method = values.get("method")
    if said != AUTO:
        recipe = _named(said)
        if method not in (None, recipe.method):
            msg = f"the recipe {recipe.name} is of the method {recipe.method}, got {method!r}"
            raise ConfigError(msg)
        return recipe
    own = Path(models[0]) / RECIPE if models and models[0] else None
    if own is not None and own.is_file():
        proposed = [read_recipe(own)]
    else:
        proposed = [r for r in shipped_recipes() if any(map(r.fits, models))]
    for recipe in proposed:
        if method in (None, recipe.method):
            _LOG.info(
                "%s is asked by the recipe %s; the option recipe: none asks it in the words of %s",
                *(models[0], recipe.name, method or default_method),
            )
            return recipe
    return None


def options_with_recipe(
    values: Mapping[str, Scalar], recipe: Recipe, names: Sequence[str]
) -> dict[str, Scalar]:
    """A reasoner's options where the recipe decides what they leave open; its frames fit their budgets.

    Args:
        values: the options given.
        recipe: of the model.
        names: of the options that the reasoner has.
    """
    options = {**recipe.options(), **values}
    pixels = int(options["image_side_px"]) ** 2
    budgets = {
        "frame_pixels": pixels,
        "query_pixels": pixels * (int(options["num_frames"]) or MAX_SHOWN),
    }
    options = {**budgets, **options}
    return {name: value for name, value in options.items() if name in names or name in values}


def read_recipe(path: Path) -> Recipe:
    """A recipe from its file.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    try:
        value: object = json.loads(read_file(path, MAX_RECIPE_BYTES))
    except OSError as error:
        msg = f"the recipe {path} cannot be read: {error}"
        raise ConfigError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"the recipe {path} is no JSON: {error}"
        raise ConfigError(msg) from error
    fields = {item.name: str(item.type) for item in dataclasses.fields(Recipe)}
    del fields["name"]
    if not isinstance(value, dict) or set(value) != set(fields):
        shown = ", ".join(map(str, value)) if isinstance(value, dict) else type(value).__name__
        msg = f"the recipe {path} wants a JSON object of {', '.join(fields)}, got {shown}"
        raise ConfigError(msg)
    texts = ("models", "content")
    for name, item in value.items():
        is_list = isinstance(item, list) and all(isinstance(text, str) for text in item)
        if not (is_list if name in texts else type(item).__name__ == fields[name]):
            kind = "a list of texts" if name in texts else fields[name]
            msg = f"the recipe {path} wants {kind} as {name}, got {item!r}"
            raise ConfigError(msg)
    lists = {name: tuple(value[name]) for name in texts}
    recipe = Recipe(name=_name_of(path), **{**value, **lists})
    _check(recipe, path)
    return recipe


def _check(recipe: Recipe, path: Path) -> None:
    shapes = [shape.value for shape in Shape]
    choices = {"method": TEXT_METHODS, "shape": shapes, "precision": PRECISIONS}
    try:
        for name, known in choices.items():
            if getattr(recipe, name) not in known:
                msg = f"{name} wants one of {', '.join(known)}, got {getattr(recipe, name)!r}"
                raise ConfigError(msg)  # noqa: TRY301 (told with its file, as the others)
        if recipe.coordinates != AUTO:
            coordinates_from_name(recipe.coordinates)
        _ = recipe.wording
    except ConfigError as error:
        msg = f"the recipe {path}: {error}"
        raise ConfigError(msg) from error


def _named(said: str) -> Recipe:
    if said.endswith(".json"):
        return read_recipe(Path(said).expanduser())
    shipped = {path.stem: path for path in SHIPPED.glob("*.json")}
    if said not in shipped:
        names = ", ".join((AUTO, NONE, *sorted(shipped)))
        msg = f"recipe wants one of {names}, or a file that ends in .json, got {said!r}"
        raise ConfigError(msg)
    return read_recipe(shipped[said])


def _name_of(path: Path) -> str:
    return path.parent.name if path.name == RECIPE else path.stem
