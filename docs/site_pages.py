# SPDX-License-Identifier: Apache-2.0
"""The site's pages that do not lie in docs/: a hook of MkDocs, named in `mkdocs.yml`.

README.md is the first page, every room of the core has a page of its docstrings, and what a page
links to outside docs/ comes along below `tree/`. So the Markdown stays as a forge shows it, and a
link works in both places. A link to nothing stays as it is: MkDocs warns of it.

Nothing of foreseg is imported; sources are read as text.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor
from markdown.util import STX
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "runtime" / "foreseg"
API_TITLE = "The core's API"
# path in the repository -> path in the site; the rest keeps its path, below OUTSIDE
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
DOCS, OUTSIDE = "docs/", "tree/"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|//)([^)#\s]+)(?=[)#\s])")
FENCE = re.compile(r"^ *(```+|~~~+)")
CODE = re.compile(r"(`+).+?\1")
# What a forge takes for the begin of a list or a table, even straight after a line of text.
BLOCKS = (re.compile(r"(?:[-*+]|1[.)]) \S"), re.compile(r"\|"))
KEPT = re.compile(rf"{STX}wzxhzdk:\d+")  # where Python-Markdown had fenced code


class ForgeBlocks(Preprocessor):
    """Sets lists, tables and code apart by blank lines: Python-Markdown wants them, no forge does."""

    def run(self, lines: list[str]) -> list[str]:
        """All lines of a page or a docstring, with blank ones between."""
        spaced: list[str] = []
        for line in lines:
            before = spaced[-1] if spaced else ""
            if before.strip() and line.strip() and not before.startswith(" "):
                begins = [block.match(line) and not block.match(before) for block in BLOCKS]
                is_beside_code = KEPT.match(line) or KEPT.match(before)
                spaced += [""] if any(begins) or is_beside_code else []
            spaced.append(line)
        return spaced


class ForgeMarkdown(Extension):
    """Python-Markdown that takes what a forge takes."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (the library's name)
        """Work on what fenced code, at 25, has left."""
        md.preprocessors.register(ForgeBlocks(md), "forge_blocks", 24)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for each room into the entry of the navigation that is called API_TITLE."""
    config.markdown_extensions.append(ForgeMarkdown())
    entries = [{title: f"api/{name}.md"} for name, (title, _) in rooms_of_core().items()]
    for entry in config.nav or ():
        if isinstance(entry, dict) and API_TITLE in entry:
            entry[API_TITLE] = entries
            return config
    msg = f"mkdocs.yml's nav has no entry {API_TITLE!r} for the pages of the core's docstrings"
    raise ValueError(msg)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside docs/: the three pages, the rooms, and what pages link to."""
    for name, (title, modules) in rooms_of_core().items():
        _add(files, config, f"api/{name}.md", room_page(title, modules))
    pages = [DOCS + file.src_uri for file in files.documentation_pages() if file.abs_src_path]
    todo, seen = [*pages, *PLACES], set(pages)
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            source = ROOT / path
            if not path.endswith(".md"):
                files.append(
                    File.generated(config, place_of(path), abs_src_path=os.fspath(source))
                )
                continue
            _add(files, config, place_of(path), source.read_text("utf-8"))
        elif path not in pages:
            continue
        targets = targets_of((ROOT / path).read_text("utf-8"), path)
        todo += [target for target in targets if not target.startswith(DOCS)]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make one page fit for Python-Markdown, with links between places of the site."""
    del config, files
    uri = page.file.src_uri
    if uri.startswith("api/"):
        return markdown
    path = path_of(uri)
    return "\n".join(
        _translated(line, path, uri) if is_text else line for line, is_text in lines_of(markdown)
    )


def _add(files: Files, config: MkDocsConfig, uri: str, content: str) -> None:
    files.append(File.generated(config, uri, content=content))


def rooms_of_core() -> dict[str, tuple[str, list[str]]]:
    """What each page of docstrings shows: its name -> (title, dotted names of modules)."""
    flat = [f"foreseg.{path.stem}" for path in sorted(CORE.glob("[!_]*.py"))]
    rooms = {"records": ("records", flat)}
    for init in sorted(CORE.glob("*/__init__.py")):
        package = f"foreseg.{init.parent.name}"
        modules = [f"{package}.{path.stem}" for path in sorted(init.parent.glob("[!_]*.py"))]
        rooms[init.parent.name] = (init.parent.name, [package, *modules])
    return rooms


def room_page(title: str, modules: list[str]) -> str:
    """The Markdown of a page of docstrings; the package alone does not list its modules."""
    heading = f"# `foreseg.{title}`" if modules[0].endswith(f".{title}") else f"# {title.title()}"
    return "\n\n".join([heading, *(f"::: {module}" for module in modules)]) + "\n"


def place_of(path: str) -> str:
    """Where a file of the repository is in the site; both as `a/b.md`."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return PLACES.get(path, OUTSIDE + path)


def path_of(uri: str) -> str:
    """The other way round."""
    for path, place in PLACES.items():
        if uri == place:
            return path
    return uri.removeprefix(OUTSIDE) if uri.startswith(OUTSIDE) else DOCS + uri


def target_of(link: str, path: str) -> str | None:
    """The file of the repository that a link on the page at `path` means; None if there is none."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def targets_of(markdown: str, path: str) -> list[str]:
    """All files of the repository that the page at `path` links to."""
    found = [
        target_of(link, path)
        for line, is_text in lines_of(markdown)
        if is_text
        for link in LINK.findall(CODE.sub("", line))
    ]
    return [target for target in found if target]


def lines_of(markdown: str) -> list[tuple[str, bool]]:
    """Each line with whether it is text, not code between fences."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        match = FENCE.match(line)
        lines.append((line, not fence and not match))
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence):
            fence = ""
    return lines


def _translated(line: str, path: str, uri: str) -> str:
    """A line of text with its links as the site has them; code in it stays as it is."""

    def link_in_site(match: re.Match[str]) -> str:
        target = target_of(match[1], path)
        if target is None:
            return match[1]
        return posixpath.relpath(place_of(target), posixpath.dirname(uri) or ".")

    parts, end = [], 0
    for code in CODE.finditer(line):
        parts += [LINK.sub(link_in_site, line[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(link_in_site, line[end:])])
