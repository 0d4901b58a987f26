# SPDX-License-Identifier: Apache-2.0
"""docs/reproduce.md: every command is one that its parser takes, and every system file can be read."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from foreseg.cli import make_parser as foreseg_parser
from foreseg.reasoner.recipe import chosen_recipe
from foreseg_evaluation.cli import make_parser as eval_parser
from foreseg_evaluation.datasets import FORMS
from foreseg_evaluation.system import read_system
from foreseg_export.cli import make_parser as export_parser

PAGE = Path(__file__).parents[3] / "docs" / "reproduce.md"
PARSERS = {"foreseg": foreseg_parser, "foreseg-eval": eval_parser, "foreseg-export": export_parser}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


OURS = [words for words in commands() if words[0] in PARSERS]


def systems(folder: Path) -> dict[str, Path]:
    found = {}
    for block in blocks("yaml"):
        name = block.splitlines()[0].removeprefix("# ")
        found[name] = folder / name
        found[name].write_text(block, "utf-8")
    return found


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_a_command_is_one_that_its_parser_takes(words: list[str]) -> None:
    PARSERS[words[0]]().parse_args(words[1:])  # SystemExit where it does not


def test_nothing_else_is_run_than_what_is_known() -> None:
    others = {words[0] for words in commands()} - set(PARSERS)
    assert others == {"pip", "echo"}
    assert len(OURS) > 15


def test_every_system_is_written_down_and_used_and_every_table_asked_of_all(
    tmp_path: Path,
) -> None:
    found = systems(tmp_path)
    runs = [words for words in OURS if words[0] == "foreseg-eval"]
    used = {
        (words[words.index("--form") + 1], words[words.index("--system") + 1]) for words in runs
    }
    assert used == {(form, name) for form in ("fevos", "revos", "mevis") for name in found}
    for path in found.values():
        assert read_system(str(path)).settings["tracker.backend"] == "cuda"
    for words in runs:
        form = FORMS[words[words.index("--form") + 1]]
        assert words[words.index("--split") + 1] in form.splits


def test_the_models_that_are_asked_by_a_recipe_have_one() -> None:
    asked = [json.loads(words[1]) for words in commands() if words[0] == "echo"]
    recipes = [chosen_recipe(values, [values["model"]], default_method="") for values in asked]
    assert [recipe and recipe.name for recipe in recipes] == ["veason-560", "visionreasoner-840"]


def test_folders_of_systems_are_made_by_the_page(tmp_path: Path) -> None:
    made = {words[words.index("--out") + 1] for words in OURS if words[0] == "foreseg-export"}
    for path in systems(tmp_path).values():
        system = read_system(str(path))
        assert system.tracker in made
        model = str(system.reasoner_options.get("model", "./sam2-large"))
        assert model.removeprefix("./") in made
