# SPDX-License-Identifier: Apache-2.0
"""Drawing onto frames: masks with names, a legend, question, answer, rationale, an inset.

Images come in and go out as (H, W, 3) uint8 RGB. Knows nothing of files or messages. OpenCV is
imported when something is drawn; version 5's own font writes Latin, Greek, Cyrillic, Chinese,
Japanese and Korean, version 4's ASCII; other letters become question marks.
"""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np

from foreseg.dialogue import Answer, AnswerStatus
from foreseg.errors import InputError, MissingExtraError
from foreseg.frames import U8Array
from foreseg.geometry import BoxXyxy, box_iou
from foreseg.pipeline.state import Asking
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.tracker.base import LabelMap

Colour = tuple[int, int, int]  # RGB

WHITE: Colour = (255, 255, 255)
GREY: Colour = (176, 182, 190)
AMBER: Colour = (255, 196, 64)
RED: Colour = (255, 112, 96)
PANEL: Colour = (16, 20, 26)
PANEL_ALPHA = 0.6
RATIONALE_ALPHA = 0.5
FILL_ALPHA = 0.42
UNCERTAIN_FILL_ALPHA = 0.16  # fainter, and its outline is dashed
MAX_LEGEND_ROWS = 8
MAX_LEGEND_SHARE = 0.3  # of the image's height, as the next one
MAX_RATIONALE_SHARE = 0.2
MAX_RATIONALE_LINES = 4
INSET_SHARE = 0.2  # of the image's width
MAX_INSET_SHARE = 0.35  # of its height
MAX_BANNER_LINES = 3
FAILURES = (AnswerStatus.FAILED, AnswerStatus.STALE, AnswerStatus.EVICTED)
MAX_LINE_CHARS = 400
TAIL_STEP_CHARS = (
    400  # where a rationale's newest part begins moves in such steps, not by the word
)
ASCII_FOR = str.maketrans({"…": "...", "·": "-", "\u2013": "-", "→": "->", "“": '"', "”": '"'})
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
    """The question and what is known of its answer; what is not given is not shown."""

    query: str
    answer: str = ""  # or why there is none
    status: AnswerStatus = AnswerStatus.OK
    age_s: float | None = None  # of the frame that the answer is about
    keyframe: int | None = None
    confidence: float = math.nan
    rationale: str = ""
    is_thinking: bool = False  # the rationale still grows: its newest part is shown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inset:
    """A past frame beside the newest one; `inset_size` says how large it should be."""

    image: U8Array  # (h, w, 3) RGB, shown as it is
    age_s: float


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
    has_keyframe = answer.keyframe_index is not None
    age_s = max(0, stamp_ns - answer.keyframe_stamp_ns) / 1e9 if has_keyframe else None
    return Banner(
        query=answer.query_text,
        answer=words_of(answer),
        status=answer.status,
        age_s=age_s,
        keyframe=answer.keyframe_index,
        confidence=answer.confidence,
        rationale=answer.rationale,
    )


def banner_while_asking(asking: Asking, before: Banner | None) -> Banner:
    """While a question is with the reasoner: its thoughts, where they are wanted, else `before`."""
    thought = asking.rationale if asking.query.want_rationale else ""
    text = asking.query.text
    banner = before
    if banner is None or (thought and banner.query != text):
        banner = Banner(query=text)
    return replace(banner, rationale=thought, is_thinking=True) if thought else banner


def words_of(answer: Answer) -> str:
    """An answer in a sentence: its text, or what became of it and why."""
    if answer.status is AnswerStatus.OK:
        return answer.text or "an answer without words"
    name = answer.status.name.lower().replace("_", " ")
    return f"{name}: {answer.reason or answer.text}".rstrip(": ")


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
    inset: Inset | None = None,
) -> U8Array:
    """A copy of the frame with masks, their names, a legend, a banner, a rationale and an inset.

    The banner lies above, the rationale below, the legend in the upper corner where it covers
    less of what is tracked, the inset in such a lower corner, above the rationale; where there is
    no room for it between the others, it is left out. A track that is not TRACKED is drawn
    faintly with a dashed outline; labels without a legend row are drawn without a name.

    Raises:
        InputError: if the label map is of another size.
    """
    canvas = np.array(image, dtype=np.uint8, order="C")
    pen = Pen(canvas, text_px=text_px_of(canvas.shape))
    tops = draw_masks(pen, label_map, labels)
    top, bottom = 0, canvas.shape[0]
    if banner is not None:
        top = _draw_banner(pen, banner)
        bottom = _draw_rationale(pen, banner)
    small = pen.smaller()
    taken = [_draw_legend(small, labels, label_map, top)] if labels else []
    if inset is not None:
        room = (max([top, *(round(box.y1) for box in taken)]), bottom)
        taken += _draw_inset(small, inset, label_map, rows=room)
    for label, x, y in sorted(tops, key=lambda item: item[0].state):
        taken += small.chip((x, y), label, taken, rows=(top, bottom))
    return canvas


def draw_masks(
    pen: Pen, label_map: LabelMap, labels: Sequence[OverlayLabel] = ()
) -> list[tuple[OverlayLabel, int, int]]:
    """Fill and outline every label; gives those with a legend row, with their top edge's middle.

    Raises:
        InputError: if the label map is of another size.
    """
    if label_map.shape != pen.canvas.shape[:2]:
        msg = f"an overlay wants a label map of {pen.canvas.shape[:2]}, got {label_map.shape}"
        raise InputError(msg)
    by_index = {label.index: label for label in labels}
    tops: list[tuple[OverlayLabel, int, int]] = []
    for index in np.flatnonzero(np.bincount(label_map.ravel())).tolist():
        if index == 0:
            continue
        label = by_index.get(index)
        x, y = _draw_mask(pen, label_map, index, label)
        if label is not None:
            tops.append((label, x, y))
    return tops


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
            part[:] = _blended(part, colour, alpha)

    def baseline(self, y: int, height: int | None = None) -> int:
        """Where to write on a line, or on another band, that begins at y."""
        return y + round(((height or self.line_px) + 0.72 * self.text_px) / 2)

    def smaller(self) -> Pen:
        """A pen for what is less important."""
        return Pen(self.canvas, text_px=max(10, round(0.8 * self.text_px)))

    def on(self, canvas: U8Array) -> Pen:
        """The same pen on another canvas."""
        return Pen(canvas, text_px=self.text_px)

    def chip(
        self,
        xy: tuple[int, int],
        label: OverlayLabel,
        taken: Sequence[BoxXyxy],
        *,
        rows: tuple[int, int],
    ) -> list[BoxXyxy]:
        """A name on its object's colour, at a point and between `rows`, where a place is free.

        Gives the box that it covers.
        """
        width, colour = self.canvas.shape[1], colour_of(label.index)
        line = self.cut(label.name, width // 2, is_bold=True)
        pad = max(2, self.text_px // 4)
        w, h = self.width(line, is_bold=True) + 2 * pad, self.text_px + pad
        x = min(max(0, xy[0] - w // 2), max(0, width - w))
        for wanted in (xy[1] - h - pad, xy[1] + pad):  # above the object, else inside it
            y = min(max(rows[0], wanted), max(0, rows[1] - h))
            box = BoxXyxy(x, y, x + w, y + h)
            if all(box_iou(box, other) == 0 for other in taken):
                break
        else:
            return []
        self.panel(x, y, w, h, colour, 0.92)
        is_light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140  # noqa: PLR2004
        ink = PANEL if is_light else WHITE
        self.text((x + pad, self.baseline(y, h)), line, ink, max_width=w, is_bold=True)
        return [box]


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


def _draw_legend(
    pen: Pen, labels: Sequence[OverlayLabel], label_map: LabelMap, top: int
) -> BoxXyxy:
    """Swatch, name, state unless TRACKED, detail, below `top`; gives the box that it covers."""
    height, width = pen.canvas.shape[:2]
    margin, swatch = pen.margin_px, round(pen.text_px * 0.75)
    max_width = width - 4 * margin - swatch
    max_rows = min(MAX_LEGEND_ROWS, max(1, int(MAX_LEGEND_SHARE * height / pen.line_px)))
    shown = labels if len(labels) <= max_rows else labels[: max_rows - 1]
    lines = [pen.cut(_legend_text(label), max_width) for label in shown]
    if len(shown) < len(labels):
        lines.append(f"{len(labels) - len(shown)} {'more' if shown else 'objects'}")
    w = max(pen.width(line) for line in lines) + swatch + 3 * margin
    h = len(lines) * pen.line_px + margin
    left = _clearer_corner(label_map, (w, h), top + margin, margin)
    pen.panel(left, top + margin, w, h, PANEL, PANEL_ALPHA)
    for i, line in enumerate(lines):
        x, y = left + margin, top + round(1.5 * margin) + i * pen.line_px
        ink = WHITE
        if i < len(shown):
            label = shown[i]
            is_here = label.state in (TrackState.TRACKED, TrackState.UNCERTAIN)
            thickness = -1 if label.state is TrackState.TRACKED else max(1, swatch // 6)
            upper = y + (pen.line_px - swatch) // 2
            corner = (x + swatch, upper + swatch)
            pen.cv2.rectangle(pen.canvas, (x, upper), corner, colour_of(label.index), thickness)
            ink = WHITE if is_here else GREY
        pen.text((x + swatch + margin, pen.baseline(y)), line, ink, max_width=max_width)
    return BoxXyxy(left, top + margin, left + w, top + margin + h)


def _clearer_corner(label_map: LabelMap, size_wh: tuple[int, int], top: int, margin: int) -> int:
    """The left edge of a box: at the left, unless it covers clearly less at the right."""
    (w, h), width = size_wh, label_map.shape[1]
    right = max(margin, width - margin - w)
    covered = [np.count_nonzero(label_map[top : top + h, x : x + w]) for x in (margin, right)]
    return right if covered[1] < covered[0] // 2 else margin


def _legend_text(label: OverlayLabel) -> str:
    state = "" if label.state is TrackState.TRACKED else label.state.name.lower()
    return "  ·  ".join(part for part in (label.name, state, label.detail) if part)


def _draw_banner(pen: Pen, banner: Banner) -> int:
    """Above: the query, below it the answer with its age; gives its lower edge."""
    width, margin = pen.canvas.shape[1], pen.margin_px
    room = width - 2 * margin
    answer = banner.answer or ("thinking …" if banner.is_thinking else "no answer yet")
    notes = _notes(pen, banner, room - pen.width(answer) - 3 * margin)
    beside = room - (pen.width(notes) + 3 * margin if notes else 0)
    said = pen.wrapped(answer, beside, MAX_BANNER_LINES - 1)
    asked = pen.wrapped(banner.query, room, MAX_BANNER_LINES - max(1, len(said)), is_bold=True)
    ink = GREY
    if banner.answer:
        ink = RED if banner.status in FAILURES else AMBER
    num_lines = max(1, len(asked)) + max(1, len(said))
    height = num_lines * pen.line_px + margin
    pen.panel(0, 0, width, height, PANEL, PANEL_ALPHA)
    y = margin // 2
    for i, line in enumerate((*asked, *said)):
        is_query = i < len(asked)
        colour = WHITE if is_query else ink
        xy = (margin, pen.baseline(y + i * pen.line_px))
        pen.text(xy, line, colour, max_width=room, is_bold=is_query)
    if notes:
        xy = (width - margin - pen.width(notes), pen.baseline(y + len(asked) * pen.line_px))
        pen.text(xy, notes, GREY, max_width=room)
    return int(height)


def _notes(pen: Pen, banner: Banner, max_width: int) -> str:
    """Age, keyframe, confidence: as many as there is room for, but always the age."""
    parts = []
    if banner.age_s is not None:
        parts.append(f"{banner.age_s:.1f} s old")
    if banner.keyframe is not None:
        parts.append(f"frame {banner.keyframe}")
    if not math.isnan(banner.confidence):
        parts.append(f"confidence {banner.confidence:.2f}")
    while len(parts) > 1 and pen.width("  ·  ".join(parts)) > max_width:
        parts.pop()
    return "  ·  ".join(parts)


def _draw_rationale(pen: Pen, banner: Banner) -> int:
    """Below, in smaller letters: the chain of thought; gives its upper edge."""
    height, width = pen.canvas.shape[:2]
    small = pen.smaller()
    max_lines = min(MAX_RATIONALE_LINES, int(MAX_RATIONALE_SHARE * height / small.line_px))
    room = width - 2 * small.margin_px
    lines = small.wrapped(banner.rationale, room, max_lines, from_end=banner.is_thinking)
    if not lines:
        return int(height)
    top = height - len(lines) * small.line_px - small.margin_px
    small.panel(0, top, width, height - top, PANEL, RATIONALE_ALPHA)
    for i, line in enumerate(lines):
        y = small.baseline(top + small.margin_px // 2 + i * small.line_px)
        small.text((small.margin_px, y), line, WHITE, max_width=room)
    return int(top)


def inset_size(canvas_wh: tuple[int, int], source_wh: tuple[int, int]) -> tuple[int, int]:
    """Width and height of an inset on such a canvas, in the aspect of its source."""
    scale = min(
        INSET_SHARE * canvas_wh[0] / source_wh[0], MAX_INSET_SHARE * canvas_wh[1] / source_wh[1]
    )
    return max(1, round(scale * source_wh[0])), max(1, round(scale * source_wh[1]))


def _draw_inset(
    pen: Pen, inset: Inset, label_map: LabelMap, *, rows: tuple[int, int]
) -> list[BoxXyxy]:
    """In the lower corner where it covers less, framed, its age below; gives what it covers."""
    width, (h, w) = label_map.shape[1], inset.image.shape[:2]
    margin, edge = pen.margin_px, max(1, pen.text_px // 8)
    box_w, box_h = w + 2 * edge, h + 2 * edge + pen.line_px
    y = rows[1] - margin - box_h
    if y < rows[0] or box_w + 2 * margin > width:
        return []

    def num_covered(x: int) -> int:
        return int(np.count_nonzero(label_map[y : y + box_h, x : x + box_w]))

    x = min(width - margin - box_w, margin, key=num_covered)  # at the right where it is equal
    pen.panel(x, y, box_w, box_h, PANEL, 1.0)
    pen.panel(x, y, box_w, h + 2 * edge, AMBER, 1.0)
    pen.canvas[y + edge : y + edge + h, x + edge : x + edge + w] = inset.image
    age, small = f"{inset.age_s:.1f} s old", pen.smaller()
    said = next((t for t in (f"keyframe, {age}", age) if small.width(t) <= w - edge), age)
    xy = (x + 2 * edge, small.baseline(y + h + 2 * edge, pen.line_px))
    small.text(xy, said, AMBER, max_width=w)
    return [BoxXyxy(x, y, x + box_w, y + box_h)]


def text_px_of(shape: tuple[int, ...]) -> int:
    """Legible at 320 x 240 and not loud at 1920 x 1080."""
    return max(10, min(56, round(0.23 * math.pow(min(shape[0], 0.75 * shape[1]), 0.72))))


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
