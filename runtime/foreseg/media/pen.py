# SPDX-License-Identifier: Apache-2.0
"""Text and panels on one image, at one size of text.

Images are (H, W, 3) uint8 RGB, drawn upon in place. OpenCV is imported when a pen is made; version
5's own font writes Latin, Greek, Cyrillic, Chinese, Japanese and Korean, version 4's ASCII; other
letters become question marks.
"""

from __future__ import annotations

import math
import unicodedata
from types import ModuleType

import numpy as np

from foreseg.errors import MissingExtraError
from foreseg.frames import U8Array

Colour = tuple[int, int, int]  # RGB

WHITE: Colour = (255, 255, 255)
PANEL: Colour = (16, 20, 26)
MAX_LINE_CHARS = 400
TAIL_STEP_CHARS = (
    400  # where a rationale's newest part begins moves in such steps, not by the word
)
ASCII_FOR = str.maketrans({"…": "...", "·": "-", "\u2013": "-", "→": "->", "“": '"', "”": '"'})


class Pen:
    """Draws text and panels onto one image, at one size of text."""

    def __init__(self, canvas: U8Array, *, text_px: int) -> None:
        self.cv2 = import_cv2("drawing")
        self.canvas = canvas
        self.text_px = text_px
        self.line_px = round(text_px * 1.45)
        self.margin_px = max(3, text_px // 2)
        self._face = self.cv2.FontFace("sans") if hasattr(self.cv2, "FontFace") else None
        self._dots = "..." if self._face is None else "…"

    def width(self, text: str, *, is_bold: bool = False) -> int:
        """Pixels that the text takes."""
        if self._face is None:
            size, _ = self.cv2.getTextSize(text, 0, self.text_px / 29, 1 + is_bold)
            return int(size[0])
        size_wh = (0, 0)
        weight = 700 if is_bold else 500
        box = self.cv2.getTextSize(size_wh, text, (0, 0), self._face, self.text_px, weight)
        return int(box[0] + box[2])

    def cut(self, text: str, max_width: int, *, is_bold: bool = False) -> str:
        """The text on one line, cut with an ellipsis where it is too wide."""
        flat = self._flat(text[:MAX_LINE_CHARS])
        if self._num_fitting(flat, max_width, is_bold=is_bold) == len(flat):
            return flat
        fits = self._num_fitting(flat, max_width, is_bold=is_bold, end=self._dots)
        return flat[:fits].rstrip() + self._dots if fits else ""

    def wrapped(
        self,
        text: str,
        max_width: int,
        max_lines: int,
        *,
        is_bold: bool = False,
        from_end: bool = False,
    ) -> list[str]:
        """The text on lines, broken at spaces where there are; an ellipsis stands for the rest.

        With `from_end` the last lines are given, else the first.
        """
        num_chars = max_lines * MAX_LINE_CHARS
        if from_end and len(text) > num_chars:
            text = text[-(-(len(text) - num_chars) // TAIL_STEP_CHARS) * TAIL_STEP_CHARS :]
        left = self._flat(text if from_end else text[:num_chars])
        lines: list[str] = []
        while left and max_lines > 0 and (from_end or len(lines) < max_lines):
            num = max(1, self._num_fitting(left[:MAX_LINE_CHARS], max_width, is_bold=is_bold))
            if num < len(left):
                space = left.rfind(" ", 0, num + 1)
                num = space if space > num // 2 else num
            is_last = len(lines) == max_lines - 1 and not from_end
            lines.append(left if is_last else left[:num].rstrip())
            left = left[num:].lstrip()
        if lines and not from_end:
            lines[-1] = self.cut(lines[-1], max_width, is_bold=is_bold)
        if len(lines) > max_lines:
            first, *others = lines[-max_lines:]
            lines = [self._dots + (first.partition(" ")[2] or first[1:]), *others]
        return lines

    def _flat(self, text: str) -> str:
        flat = " ".join(text.split())
        if self._face is not None:
            return flat
        plain = unicodedata.normalize("NFKD", flat.translate(ASCII_FOR))
        kept = "".join(c for c in plain if not unicodedata.combining(c))
        return kept.encode("ascii", "replace").decode("ascii")

    def _num_fitting(self, text: str, max_width: int, *, is_bold: bool, end: str = "") -> int:
        """How many characters, with `end` behind them, fit into the width."""
        if self.width(text + end, is_bold=is_bold) <= max_width:
            return len(text)
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self.width(text[:middle] + end, is_bold=is_bold) <= max_width:
                fits = middle
            else:
                too_long = middle
        return fits

    def text(
        self,
        xy: tuple[int, int],
        text: str,
        colour: Colour,
        *,
        max_width: int,
        is_bold: bool = False,
    ) -> int:
        """Write on one line with the baseline at y; gives the width written."""
        line = self.cut(text, max_width, is_bold=is_bold)
        if not line:
            return 0
        if self._face is None:
            scale, weight = self.text_px / 29, 1 + is_bold
            self.cv2.putText(self.canvas, line, xy, 0, scale, colour, weight, self.cv2.LINE_AA)
        else:
            weight = 700 if is_bold else 500
            self.cv2.putText(self.canvas, line, xy, colour, self._face, self.text_px, weight)
        return self.width(line, is_bold=is_bold)

    def panel(self, x: int, y: int, width: int, height: int, colour: Colour, alpha: float) -> None:
        """Shade a rectangle, cut to the image."""
        part = self.canvas[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
        if part.size:
            part[:] = blended(part, colour, alpha)

    def baseline(self, y: int, height: int | None = None) -> int:
        """Where to write on a line, or on another band, that begins at y."""
        return y + round(((height or self.line_px) + 0.72 * self.text_px) / 2)

    def smaller(self) -> Pen:
        """A pen for what is less important."""
        return Pen(self.canvas, text_px=max(10, round(0.8 * self.text_px)))

    def on(self, canvas: U8Array) -> Pen:
        """The same pen on another canvas."""
        return Pen(canvas, text_px=self.text_px)


def text_px_of(shape: tuple[int, ...]) -> int:
    """Legible at 320 x 240 and not loud at 1920 x 1080."""
    return max(10, min(56, round(0.23 * math.pow(min(shape[0], 0.75 * shape[1]), 0.72))))


def blended(pixels: U8Array, colour: Colour, alpha: float) -> U8Array:
    """Pixels (..., 3) with so much, 0 to 1, of a colour in them."""
    tint = np.asarray(colour, dtype=np.float32) * alpha
    mixed: U8Array = (pixels * np.float32(1 - alpha) + tint).astype(np.uint8)
    return mixed


def import_cv2(purpose: str) -> ModuleType:
    """OpenCV, or the error that names the extra to install."""
    try:
        import cv2
    except ImportError as error:
        package, extra = "cv2", "video"
        raise MissingExtraError(package, extra, purpose) from error
    return cv2
