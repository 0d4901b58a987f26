# SPDX-License-Identifier: Apache-2.0
"""Drawing onto frames: masks with names, a legend, question, answer, rationale, an inset.

Images come in and go out as (H, W, 3) uint8 RGB. Knows nothing of files or messages; what is
said is in `captions`, how letters are written in `pen`.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreseg.dialogue import AnswerStatus
from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.geometry import BoxXyxy, box_iou
from foreseg.media.captions import Banner, OverlayLabel
from foreseg.media.pen import PANEL, WHITE, Colour, Pen, blended, text_px_of
from foreseg.pipeline.tracks import TrackState
from foreseg.tracker.base import LabelMap

GREY: Colour = (176, 182, 190)
AMBER: Colour = (255, 196, 64)
RED: Colour = (255, 112, 96)
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
MIN_BANNER_LINES = 3
MAX_BANNER_SHARE = 0.25  # of the image's height, other queries aside
FIRST_COLOURS: tuple[Colour, ...] = (
    (255, 140, 0), (0, 176, 255), (124, 222, 48), (236, 72, 153), (168, 120, 255), (250, 219, 20),
    (0, 209, 178), (255, 92, 80), (94, 129, 255), (202, 161, 104),
)  # fmt: skip
FAILURES = (AnswerStatus.FAILED, AnswerStatus.STALE, AnswerStatus.EVICTED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inset:
    """A past frame beside the newest one; `inset_size` says how large it should be."""

    image: U8Array  # (h, w, 3) RGB, shown as it is
    age_s: float


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
    *,
    has_legend: bool = True,
) -> U8Array:
    """A copy of the frame with masks, their names, a legend, a banner, a rationale and an inset.

    The banner lies above, the rationale below, the legend in the upper corner where it covers
    less of what is tracked, the inset in such a lower corner, above the rationale, below or beside
    the legend; where there is no room for it between the others, it is left out. A track that is not TRACKED is drawn
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
    taken = [_draw_legend(small, labels, label_map, top)] if labels and has_legend else []
    if inset is not None:
        taken += _draw_inset(small, inset, label_map, taken, rows=(top, bottom))
    for label, x, y in sorted(tops, key=lambda item: item[0].state):
        taken += _draw_chip(small, (x, y), label, taken, rows=(top, bottom))
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
    region[inside] = blended(region[inside], colour, alpha)
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


def _draw_chip(
    pen: Pen,
    xy: tuple[int, int],
    label: OverlayLabel,
    taken: Sequence[BoxXyxy],
    *,
    rows: tuple[int, int],
) -> list[BoxXyxy]:
    """A name on its object's colour, at a point and between `rows`, where a place is free.

    Gives the box that it covers.
    """
    width, colour = pen.canvas.shape[1], colour_of(label.index)
    line = pen.cut(label.name, width // 2, is_bold=True)
    pad = max(2, pen.text_px // 4)
    w, h = pen.width(line, is_bold=True) + 2 * pad, pen.text_px + pad
    x = min(max(0, xy[0] - w // 2), max(0, width - w))
    for wanted in (xy[1] - h - pad, xy[1] + pad):  # above the object, else inside it
        y = min(max(rows[0], wanted), max(0, rows[1] - h))
        box = BoxXyxy(x, y, x + w, y + h)
        if all(box_iou(box, other) == 0 for other in taken):
            break
    else:
        return []
    pen.panel(x, y, w, h, colour, 0.92)
    is_light = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140  # noqa: PLR2004
    ink = PANEL if is_light else WHITE
    pen.text((x + pad, pen.baseline(y, h)), line, ink, max_width=w, is_bold=True)
    return [box]


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
    """Above: the query, below it the answer with its age, other queries; gives its lower edge."""
    width, margin = pen.canvas.shape[1], pen.margin_px
    room = width - 2 * margin
    max_lines = max(MIN_BANNER_LINES, int(MAX_BANNER_SHARE * pen.canvas.shape[0] / pen.line_px))
    answer = banner.answer or ("thinking …" if banner.is_thinking else "no answer yet")
    notes = _notes(pen, banner, room - pen.width(answer) - 3 * margin)
    beside = room - (pen.width(notes) + 3 * margin if notes else 0)
    said = pen.wrapped(answer, beside, max(2, max_lines - 2))
    asked = pen.wrapped(banner.query, room, max_lines - max(1, len(said)), is_bold=True)
    ink = GREY
    if banner.answer:
        ink = RED if banner.status in FAILURES else AMBER
    num_lines = max(1, len(asked)) + max(1, len(said))
    small, own_px = pen.smaller(), num_lines * pen.line_px
    height = own_px + len(banner.others) * small.line_px + margin
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
    for i, (query, words) in enumerate(banner.others):
        xy = (margin, small.baseline(y + own_px + i * small.line_px))
        begun = small.text(xy, query, WHITE, max_width=room // 2) + margin
        small.text((xy[0] + begun, xy[1]), words, GREY, max_width=room - begun)
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
    pen: Pen,
    inset: Inset,
    label_map: LabelMap,
    taken: Sequence[BoxXyxy],
    *,
    rows: tuple[int, int],
) -> list[BoxXyxy]:
    """In the free lower corner where it covers less, framed, its age below; gives what it covers."""
    width, (h, w) = label_map.shape[1], inset.image.shape[:2]
    margin, edge = pen.margin_px, max(1, pen.text_px // 8)
    box_w, box_h = w + 2 * edge, h + 2 * edge + pen.line_px
    y = rows[1] - margin - box_h
    if y < rows[0] or box_w + 2 * margin > width:
        return []

    def is_free(x: int) -> bool:
        box = BoxXyxy(x, y, x + box_w, y + box_h)
        return all(box_iou(box, other) == 0 for other in taken)

    def num_covered(x: int) -> int:
        return int(np.count_nonzero(label_map[y : y + box_h, x : x + box_w]))

    free = [x for x in (width - margin - box_w, margin) if is_free(x)]
    if not free:
        return []
    x = min(free, key=num_covered)  # at the right where it is equal
    pen.panel(x, y, box_w, box_h, PANEL, 1.0)
    pen.panel(x, y, box_w, h + 2 * edge, AMBER, 1.0)
    pen.canvas[y + edge : y + edge + h, x + edge : x + edge + w] = inset.image
    age, small = f"{inset.age_s:.1f} s old", pen.smaller()
    said = next((t for t in (f"keyframe, {age}", age) if small.width(t) <= w - edge), age)
    xy = (x + 2 * edge, small.baseline(y + h + 2 * edge, pen.line_px))
    small.text(xy, said, AMBER, max_width=w)
    return [BoxXyxy(x, y, x + box_w, y + box_h)]
