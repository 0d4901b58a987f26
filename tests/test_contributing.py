# SPDX-License-Identifier: Apache-2.0
"""What the pages for contributors say of the tree is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_architecture import PACKAGES, RECORDS, ROOMS

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ("method", "tracker back-end", "reasoner", "dataset", "scene")
PATH = re.compile(r"`([\w./-]+/[\w./-]+)`")


def recipe_of(subject: str) -> str:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    start = page.index(f"\n**A {subject}** ")
    end = page.find("\n\n**A ", start)
    return page[start : end if end > 0 else len(page)]


@pytest.mark.parametrize("subject", RECIPES)
def test_a_recipe_names_files_of_the_tree(subject: str) -> None:
    named = PATH.findall(recipe_of(subject))
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert any(name.startswith("tests/") for name in named)
    assert any(name.startswith("docs/") for name in named)


def test_every_double_is_on_the_page_of_doubles() -> None:
    folder = ROOT / "tests" / "support"
    rows = re.findall(
        r"^\| `(\w+\.py)` \|", (folder / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert sorted(rows) == sorted(path.name for path in folder.glob("[!_]*.py"))


def test_unit_tests_lie_by_room() -> None:
    rooms = {place for room in ROOMS["foreseg"] for place in room.places}
    packages = {package.partition("_")[2] for package in PACKAGES} - {""}
    folders = {path.parent.name for path in (ROOT / "tests" / "unit").rglob("*/test_*.py")}
    assert folders <= rooms | packages | {RECORDS}


def test_each_row_of_what_goes_wrong_names_its_tests() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    start = page.index("| What happens |")
    lines = page[start : page.index("\n\n", start)].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    for row in rows[2:]:
        assert len(row) == 4, row
        named = re.findall(r"`([\w/]+\.py)`", row[3])
        assert named or row[3] == "none", row
        assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
