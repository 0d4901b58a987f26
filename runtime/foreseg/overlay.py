# SPDX-License-Identifier: Apache-2.0
"""Drawing onto frames: masks with their names, a legend, a banner with question and answer.

Images come in and go out as (H, W, 3) uint8 RGB. Knows nothing of files or messages. OpenCV is
imported when something is drawn; version 5's own font writes every language, version 4's ASCII.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from foreseg.dialogue import Answer, AnswerStatus
from foreseg.errors import InputError, MissingExtraError
from foreseg.frames import U8Array
from foreseg.tracker.base import LabelMap
from foreseg.tracks import Track, TrackState

Colour = tuple[int, int, int]  # RGB

WHITE: Colour = (255, 255, 255)
GREY: Colour = (176, 182, 190)
AMBER: Colour = (255, 196, 64)
PANEL: Colour = (16, 20, 26)
PANEL_ALPHA = 0.68
FILL_ALPHA = 0.42
UNCERTAIN_FILL_ALPHA = 0.16  # fainter, and its outline is dashed
MAX_LEGEND_ROWS = 8
FIRST_COLOURS: tuple[Colour, ...] = (
    (255, 140, 0), (0, 176, 255), (124, 222, 48), (236, 72, 153), (168, 120, 255), (250, 219, 20),
    (0, 209, 178), (255, 92, 80), (94, 129, 255), (202, 161, 104),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayLabel:
    """What the legend says of one label of the map."""

    index: int  # value in the label map
    name: str
    state: TrackState = TrackState.TRACKED
    detail: str = ""  # which query it answers, how old that answer is


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The question and what is known; an age in seconds is shown where it is given."""

    query: str
    answer: str = ""
    age_s: float | None = None


def overlay_labels(tracks: Iterable[Track]) -> tuple[OverlayLabel, ...]:
    """Legend rows of published tracks."""
    return tuple(
        OverlayLabel(
            index=track.index,
            name=track.object_id,
            state=track.state,
            detail=", ".join((*track.query_ids, *(("catching up",) if track.catching_up else ()))),
        )
        for track in tracks
    )


def banner_from_answer(answer: Answer, stamp_ns: int) -> Banner:
    """What an answer says, seen from a frame with this stamp."""
    said = answer.text if answer.status is AnswerStatus.OK else answer.reason
    return Banner(
        query=answer.query_text,
        answer=said or answer.status.name.lower().replace("_", " "),
        age_s=max(0, stamp_ns - answer.keyframe_stamp_ns) / 1e9,
    )


def colour_of(index: int) -> Colour:
    """The colour of a label, the same in every frame and run; 0 is black."""
    if index <= 0:
        return (0, 0, 0)
    if index <= len(FIRST_COLOURS):
        return FIRST_COLOURS[index - 1]
    hue = index * 0.618034 % 1.0  # the golden ratio spreads any number of hues
    r, g, b = colorsys.hsv_to_rgb(hue, 0.75 if index % 2 else 0.55, 0.95)
    return round(r * 255), round(g * 255), round(b * 255)


def draw_overlay(
    image: U8Array,
    label_map: LabelMap,
    labels: Sequence[OverlayLabel] = (),
    banner: Banner | None = None,
) -> U8Array:
    """A copy of the frame with masks, their names, a legend and a banner.

    A track that is not TRACKED is drawn faintly with a dashed outline; labels without a legend
    row are drawn without a name.

    Raises:
        InputError: if the label map is of another size.
    """
    if label_map.shape != image.shape[:2]:
        msg = f"an overlay wants a label map of {image.shape[:2]}, got {label_map.shape}"
        raise InputError(msg)
    canvas = np.array(image, dtype=np.uint8, order="C")
    pen = Pen(canvas, text_px=_text_px(canvas.shape))
    by_index = {label.index: label for label in labels}
    tops: list[tuple[OverlayLabel, int, int]] = []
    for index in np.flatnonzero(np.bincount(label_map.ravel())).tolist():
        if index == 0:
            continue
        label = by_index.get(index)
        x, y = _draw_mask(pen, label_map, index, label)
        if label is not None:
            tops.append((label, x, y))
    legend_wh = _draw_legend(pen, labels) if labels else (0, 0)
    bottom = canvas.shape[0] if banner is None else _draw_banner(pen, banner)
    for label, x, y in tops:
        pen.chip((x, y), label.name, colour_of(label.index), legend_wh=legend_wh, bottom=bottom)
    return canvas


class Pen:
    """Draws text and panels onto one image, at one size of text."""

    def __init__(self, canvas: U8Array, *, text_px: int) -> None:
        self.cv2 = import_cv2("drawing")
        self.canvas = canvas
        self.text_px = text_px
        self.line_px = round(text_px * 1.45)
        self.margin_px = max(3, text_px // 2)
        self._face = self.cv2.FontFace("sans") if hasattr(self.cv2, "FontFace") else None

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
        flat = " ".join(text[:400].split())
        if self._face is None:
            flat = flat.encode("ascii", "replace").decode("ascii")
        if self.width(flat, is_bold=is_bold) <= max_width:
            return flat
        dots = "..." if self._face is None else "…"
        fits, too_long = 0, len(flat)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self.width(flat[:middle] + dots, is_bold=is_bold) <= max_width:
                fits = middle
            else:
                too_long = middle
        return flat[:fits].rstrip() + dots if fits else ""

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
            part[:] = _blended(part, colour, alpha)

    def chip(
        self,
        xy: tuple[int, int],
        text: str,
        colour: Colour,
        *,
        legend_wh: tuple[int, int],
        bottom: int,
    ) -> None:
        """A name on its object's colour, over a point; inside the image, clear of the panels."""
        width = self.canvas.shape[1]
        line = self.cut(text, width // 2, is_bold=True)
        pad = max(2, self.text_px // 4)
        w, h = self.width(line, is_bold=True) + 2 * pad, self.text_px + pad
        x = min(max(0, xy[0] - w // 2), max(0, width - w))
        top = legend_wh[1] + 1 if x < legend_wh[0] else 0
        y = min(max(top, xy[1] - h - pad), max(0, bottom - h))
        self.panel(x, y, w, h, colour, 0.92)
        is_light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140  # noqa: PLR2004
        ink = PANEL if is_light else WHITE
        baseline = y + round((h + 0.72 * self.text_px) / 2)
        self.text((x + pad, baseline), line, ink, max_width=w, is_bold=True)


def _draw_mask(
    pen: Pen, label_map: LabelMap, index: int, label: OverlayLabel | None
) -> tuple[int, int]:
    """Fill and outline one label; gives the middle of its top edge."""
    cv2 = pen.cv2
    mask = (label_map == index).astype(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    region, inside = pen.canvas[y : y + h, x : x + w], mask[y : y + h, x : x + w] > 0
    is_sure = label is None or label.state is TrackState.TRACKED
    colour = colour_of(index)
    alpha = FILL_ALPHA if is_sure else UNCERTAIN_FILL_ALPHA
    region[inside] = _blended(region[inside], colour, alpha)
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(pen.text_px / 8))
    if is_sure:
        cv2.drawContours(pen.canvas, outlines, -1, PANEL, thickness + 2, cv2.LINE_AA)
        cv2.drawContours(pen.canvas, outlines, -1, colour, thickness, cv2.LINE_AA)
        return x + w // 2, y
    dash = max(4, pen.text_px // 2)
    for outline in outlines:
        for start in range(0, len(outline), 2 * dash):
            piece = [outline[start : start + dash + 1]]
            cv2.polylines(pen.canvas, piece, False, PANEL, thickness + 2, cv2.LINE_AA)  # noqa: FBT003
            cv2.polylines(pen.canvas, piece, False, colour, thickness, cv2.LINE_AA)  # noqa: FBT003
    return x + w // 2, y


def _draw_legend(pen: Pen, labels: Sequence[OverlayLabel]) -> tuple[int, int]:
    """Upper left: swatch, name, state unless TRACKED, detail; gives its lower right corner."""
    margin, swatch = pen.margin_px, round(pen.text_px * 0.75)
    max_width = pen.canvas.shape[1] - 4 * margin - swatch
    rows = [(_legend_text(label), label) for label in labels[:MAX_LEGEND_ROWS]]
    more = len(labels) - len(rows)
    lines = [text for text, _ in rows] + ([f"and {more} more"] if more else [])
    widest = max(min(max_width, pen.width(pen.cut(line, max_width))) for line in lines)
    width, height = widest + swatch + 3 * margin, len(lines) * pen.line_px + margin
    pen.panel(margin, margin, width, height, PANEL, PANEL_ALPHA)
    for i, line in enumerate(lines):
        x, y = 2 * margin, round(1.5 * margin) + i * pen.line_px
        top = y + (pen.line_px - swatch) // 2
        ink = WHITE
        if i < len(rows):
            label = rows[i][1]
            is_here = label.state in (TrackState.TRACKED, TrackState.UNCERTAIN)
            thickness = -1 if label.state is TrackState.TRACKED else max(1, swatch // 6)
            corner = (x + swatch, top + swatch)
            pen.cv2.rectangle(pen.canvas, (x, top), corner, colour_of(label.index), thickness)
            ink = WHITE if is_here else GREY
        baseline = y + round((pen.line_px + 0.72 * pen.text_px) / 2)
        pen.text((x + swatch + margin, baseline), line, ink, max_width=max_width)
    return margin + width, margin + height


def _legend_text(label: OverlayLabel) -> str:
    state = "" if label.state is TrackState.TRACKED else label.state.name.lower()
    return "  ·  ".join(part for part in (label.name, state, label.detail) if part)


def _draw_banner(pen: Pen, banner: Banner) -> int:
    """At the bottom: the query, below it the answer with its age; gives its upper edge."""
    height, width = pen.canvas.shape[:2]
    margin = pen.margin_px
    panel_height = 2 * pen.line_px + margin
    top = height - panel_height
    pen.panel(0, top, width, panel_height, PANEL, PANEL_ALPHA)
    age = "" if banner.age_s is None else f"{banner.age_s:.1f} s old"
    age_width = pen.width(age) + 2 * margin if age else 0
    first = top + margin // 2 + round((pen.line_px + 0.72 * pen.text_px) / 2)
    room = width - 2 * margin
    pen.text((margin, first), banner.query, WHITE, max_width=room, is_bold=True)
    answer = banner.answer or "no answer yet"
    ink = AMBER if banner.answer else GREY
    pen.text((margin, first + pen.line_px), answer, ink, max_width=room - age_width)
    if age:
        x = width - margin - pen.width(age)
        pen.text((x, first + pen.line_px), age, GREY, max_width=age_width)
    return int(top)


def _text_px(shape: tuple[int, ...]) -> int:
    """Legible at 320 x 240 and not loud at 1920 x 1080."""
    return max(10, min(48, round(0.23 * math.pow(min(shape[0], 0.75 * shape[1]), 0.72))))


def _blended(pixels: U8Array, colour: Colour, alpha: float) -> U8Array:
    tint = np.asarray(colour, dtype=np.float32) * alpha
    blended: U8Array = (pixels * np.float32(1 - alpha) + tint).astype(np.uint8)
    return blended


def import_cv2(purpose: str) -> ModuleType:
    """OpenCV, or the error that names the extra to install."""
    try:
        import cv2
    except ImportError as error:
        package, extra = "cv2", "video"
        raise MissingExtraError(package, extra, purpose) from error
    return cv2
