# SPDX-License-Identifier: Apache-2.0
"""The site of docs/: builds without a warning, and every link in it leads somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

for package in ("mkdocs", "material", "mkdocstrings_handlers"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(
            f"no {package} here: pip install 'foreseg[docs]'",
            allow_module_level=True,
        )

ROOT = Path(__file__).resolve().parents[2]
LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src"}


@dataclass
class Links(HTMLParser):
    """What a built page links to and loads, and which anchors it has."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in {"stylesheet", "icon", "preload"}:
            self.loaded.append(found["href"])
        if tag in LOADED and LOADED[tag] in found:
            self.loaded.append(found[LOADED[tag]])


def page_of(text: str) -> Links:
    links = Links()
    links.feed(text)
    return links


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    # 404.html is served for any address, so its links are those of a server's root
    found = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    return {path: page_of(path.read_text("utf-8")) for path in found}


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fault_of(link: str, page: Path, pages: dict[Path, Links]) -> str | None:
    """Why a link leads nowhere; None if it leads to a place of the site, or out of it."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return "no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].ids:
        return "no such anchor"
    return None


def test_every_link_and_anchor_leads_somewhere(site: Path, pages: dict[Path, Links]) -> None:
    faults = [
        f"{page.relative_to(site)}: {link}: {fault}"
        for page, links in pages.items()
        for link in (*links.links, *links.loaded)
        if (fault := fault_of(link, page, pages))
    ]
    assert faults == []
    assert sum(len(links.links) for links in pages.values()) > 1000


def test_a_link_to_nothing_would_be_seen(pages: dict[Path, Links]) -> None:
    page = next(path for path in pages if path.parent.name == "ros")
    assert fault_of("../view/#beside-a-node", page, pages) is None
    assert fault_of("../view/#nowhere", page, pages) == "no such anchor"
    assert fault_of("../nowhere/", page, pages) == "no such file"


def test_a_page_loads_nothing_from_elsewhere(pages: dict[Path, Links]) -> None:
    loaded = {link for links in pages.values() for link in links.loaded}
    assert {link for link in loaded if urlsplit(link).netloc} == set()


def test_code_stands_beside_paragraphs_not_in_them(pages: dict[Path, Links]) -> None:
    wrong = [str(page) for page in pages if '<p><div class="highlight' in page.read_text("utf-8")]
    assert wrong == []


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    for source in (ROOT / "docs").rglob("*.md"):
        name = source.relative_to(ROOT / "docs").with_suffix("")
        folder = name.parent if name.name == "README" else name
        assert (site / folder / "index.html").is_file(), source
    assert "Try it" in (site / "index.html").read_text("utf-8"), "README.md comes first"
    assert (site / "contributing" / "index.html").is_file()


def test_the_search_finds_docs_and_docstrings(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    texts = {entry["location"]: entry["text"] for entry in index["docs"]}
    assert "camera" in texts["ros/#topics"] + texts["ros/"]
    assert "api/engines/#foreseg.engines.base.Engine" in texts


def test_every_module_of_the_core_is_documented(site: Path, pages: dict[Path, Links]) -> None:
    core = ROOT / "runtime" / "foreseg"
    modules = {
        ".".join(path.relative_to(core.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in core.rglob("*.py")
        if path.parent != core or not path.name.startswith("_")
    }
    documented = {
        anchor
        for page, links in pages.items()
        if page.is_relative_to(site / "api")
        for anchor in links.ids
    }
    assert modules - documented == set()


def test_the_words_behind_a_field_are_in_its_documentation(site: Path) -> None:
    page = (site / "api" / "engines" / "index.html").read_text("utf-8")
    assert "side of the square model input, model pixels" in page


def test_what_a_page_links_to_outside_docs_comes_along(site: Path) -> None:
    carried = "runtime/foreseg_view/static/openapi.json"
    assert (site / "tree" / carried).read_bytes() == (ROOT / carried).read_bytes()


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        (
            "README.md",
            "[r](docs/ros.md#topics), [l](LICENSE)",
            "[r](ros.md#topics), [l](tree/LICENSE)",
        ),
        ("docs/view.md", "[c](../CONTRIBUTING.md)", "[c](contributing.md)"),
        ("docs/decisions/0003-labels.md", "![d](../images/demo.png)", "![d](../images/demo.png)"),
        ("CONTRIBUTING.md", "[t](tests/support/README.md)", "[t](tree/tests/support/README.md)"),
        ("tests/support/README.md", "[c](../../CONTRIBUTING.md)", "[c](../../../contributing.md)"),
        ("docs/view.md", "[gone](nowhere.md) `[x](ros.md)`", "[gone](nowhere.md) `[x](ros.md)`"),
        (
            "docs/view.md",
            "[w](https://e.org/a.md) [h](#the-page)",
            "[w](https://e.org/a.md) [h](#the-page)",
        ),
    ],
)
def test_a_link_means_the_same_file_in_the_site(
    hook: ModuleType, path: str, line: str, expected: str
) -> None:
    assert hook._translated(line, path, hook.place_of(path)) == expected
    assert hook.path_of(hook.place_of(path)) == path


def test_lists_and_tables_begin_after_a_line_of_text_as_on_a_forge(hook: ModuleType) -> None:
    from markdown import Markdown

    text = (
        "Words:\n- one\n- two\n  lines\n\nA table\n| a | b |\n|---|---|\n| 1 | 2 |\n\nIn\n2. words"
    )
    page = Markdown(extensions=["tables", hook.ForgeMarkdown()]).convert(text)
    assert page.count("<li>") == 2
    assert page.count("<table>") == 1
    assert "In\n2. words" in page
