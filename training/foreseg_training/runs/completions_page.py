# SPDX-License-Identifier: Apache-2.0
"""`completions.html`: what the model says now and then, with its rewards and the frames it was shown.

One static page without scripts; everything that was said is escaped, and the number of completions is
bounded: the oldest go. One prompt is one line of the file, so that a resumed run can read it back.
Does not know: models, trainers, what rewards mean.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from foreseg.errors import InputError

from .whole_file import write_whole

KEEP = 200  # completions
MAX_CHARACTERS = 4_000  # of a completion
THUMB_PX = 96
_STYLE = (
    "body{font:14px/1.4 sans-serif;margin:2em auto;max-width:70em;padding:0 1em}"
    "article{border-top:1px solid #999;padding:.6em 0}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8881;padding:.4em;margin:.3em 0}"
    "img{margin-right:3px}small{color:#777}b{font-weight:600}"
)
_ARTICLE = re.compile(r'<article data-step="(\d+)" data-count="(\d+)">')


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One completion and what it was worth; None: the reward does not apply."""

    text: str
    rewards: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """A prompt and what was said to it at a step.

    Attributes:
        step: after so many steps of training.
        id: of the sample.
        asked: its words.
        pictures: the frames, any size.
        said: completions.
        truth: a true completion; "" = it is not known.
    """

    step: int
    id: str
    asked: str
    pictures: Sequence[Image.Image]
    said: Sequence[Said]
    truth: str = ""


class CompletionsPage:
    """The page, newest first.

    Args:
        path: of the page.
        keep: so many completions at most, and one prompt at least.
    """

    def __init__(self, path: Path, *, keep: int = KEEP) -> None:
        self._path = path
        self._keep = keep
        self._articles: list[tuple[int, int, str]] = []  # step, completions, a line of HTML

    def begin(self, step: int) -> None:
        """Take up what the page has up to a step; 0: begin anew.

        Raises:
            InputError: it cannot be read.
        """
        self._articles = []
        if not step or not self._path.exists():
            return
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{self._path} cannot be read: {error}"
            raise InputError(msg) from error
        for line in reversed(lines):
            if (found := _ARTICLE.match(line)) and int(found[1]) <= step:
                self._articles.append((int(found[1]), int(found[2]), line))

    def add(self, shown: Sequence[Shown]) -> None:
        """Put prompts on the page and write it.

        Raises:
            InputError: the disk does not take it.
        """
        self._articles += [(each.step, len(each.said), _article(each)) for each in shown]
        while (
            len(self._articles) > 1 and sum(count for _, count, _ in self._articles) > self._keep
        ):
            del self._articles[0]
        lines = [line for _, _, line in reversed(self._articles)]
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>completions</title><style>{_STYLE}</style>'
        note = f"<h1>Completions</h1><p>Newest first; the last {self._keep} at most.</p>"
        write_whole(self._path, "\n".join([head, note, *lines, "</html>"]) + "\n")


def _article(shown: Shown) -> str:
    parts = [f'<article data-step="{shown.step}" data-count="{len(shown.said)}">']
    parts.append(f"<small>step {shown.step}, {_safe(shown.id)}</small><p>{_safe(shown.asked)}</p>")
    parts += [f'<img src="{_data_of(picture)}" alt="">' for picture in shown.pictures]
    if shown.truth:
        parts.append(f"<p><small>true</small></p><pre>{_safe(shown.truth)}</pre>")
    for said in shown.said:
        worth = ", ".join(
            f"{_safe(name)} <b>{'does not apply' if score is None else f'{score:.3f}'}</b>"
            for name, score in said.rewards.items()
        )
        parts.append(f"<pre>{_safe(said.text)}</pre><small>{worth}</small>")
    return "".join([*parts, "</article>"])


def _safe(text: str) -> str:
    """Any text as HTML on one line of the file, bounded."""
    cut = text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ..."
    shown = html.escape(cut.encode("utf-8", "replace").decode("utf-8"))
    return "".join(
        c if c.isprintable() else f"&#{ord(c)};" if c in "\n\t" else "\ufffd" for c in shown
    )


def _data_of(picture: Image.Image) -> str:
    """A picture as a small JPEG inside the page."""
    small = picture.convert("RGB")
    small.thumbnail((THUMB_PX, THUMB_PX))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=60)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
