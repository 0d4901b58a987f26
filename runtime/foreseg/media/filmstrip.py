# SPDX-License-Identifier: Apache-2.0
"""One picture of one answer: what the reasoner saw, where it pointed, which masks came of it.

For papers and bug reports: black on white, 1600 pixels wide, a bounded number of frames. Knows
nothing of runs; `filmstrips` collects what is shown here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foreseg.dialogue import Answer, AnswerStatus, ObservedMask, Outcome
from foreseg.frames import Frame, FrameIndex, FrameWindow, U8Array
from foreseg.masks import MaskRle, mask_from_rle
from foreseg.media.captions import OverlayLabel, words_of
from foreseg.media.overlay import colour_of, draw_masks
from foreseg.media.pen import Colour, Pen, import_cv2
from foreseg.prompts import ObjectId, PointLabel, SpatialPrompt
from foreseg.tracker.base import LabelMap

WIDTH = 1600
MARGIN = 24
GAP = 12
MAX_WINDOW_CELLS = 8
MOMENT_COLUMNS = 3
MAX_MOMENTS = 6
MIN_WINDOW_CELLS = 6  # fewer are drawn as large as if there were so many
MAX_RATIONALE_LINES = 14
NS = 1_000_000_000

PAPER: Colour = (255, 255, 255)
INK: Colour = (22, 26, 32)
SOFT: Colour = (104, 112, 122)
RULE: Colour = (214, 218, 224)
STATUS_COLOURS: dict[AnswerStatus, Colour] = {
    AnswerStatus.OK: (16, 124, 65),
    AnswerStatus.NO_TARGET: (70, 84, 104),
    AnswerStatus.FAILED: (186, 36, 28),
    AnswerStatus.STALE: (160, 92, 0),
    AnswerStatus.EVICTED: (160, 92, 0),
    AnswerStatus.ABSTAINED: (110, 60, 140),
}
KEYFRAME: Colour = (214, 118, 0)
FOREGROUND: Colour = (20, 190, 70)
BACKGROUND: Colour = (225, 40, 40)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """A published frame with the masks of the answer's objects; may be reduced."""

    index: int
    stamp_ns: int
    image: U8Array  # (h, w, 3) RGB
    label_map: LabelMap  # (h, w), of these objects only
    labels: tuple[OverlayLabel, ...]
    what: str  # "hop", "caught up", how long after the first masks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Filmstrip:
    """What is known of one answer."""

    answer: Answer
    window: FrameWindow | None  # some of the question's frames, reduced; None: not at hand
    num_window_frames: int
    moments: tuple[Moment, ...]  # in order
    observed: tuple[ObservedMask, ...] = ()  # of the frames in `window`, where they were asked for
    origin_ns: int  # the stamp from which seconds are counted


def draw_filmstrip(strip: Filmstrip) -> U8Array:
    """The picture, (H, 1600, 3) RGB."""
    bands = [_title_band(strip)]
    if strip.window is not None and strip.window.frames:
        bands.append(_window_band(strip, strip.window))
    keyframe = _keyframe_of(strip)
    if keyframe is not None or strip.moments:
        bands.append(_result_band(strip, keyframe))
    bands.append(_text_band(strip))
    return np.concatenate(bands)


def chosen_indices(
    indices: Sequence[FrameIndex], keyframe: FrameIndex | None
) -> tuple[FrameIndex, ...]:
    """Which frames of a window are shown: the first, the last, the keyframe, even ones between."""
    if len(indices) <= MAX_WINDOW_CELLS:
        return tuple(indices)
    last = len(indices) - 1
    ranks = {round(i * last / (MAX_WINDOW_CELLS - 1)) for i in range(MAX_WINDOW_CELLS)}
    if keyframe is not None and keyframe in indices:
        rank = list(indices).index(keyframe)
        if rank not in ranks:
            ranks.remove(min(ranks - {0, last}, key=lambda other: abs(other - rank)))
            ranks.add(rank)
    return tuple(indices[rank] for rank in sorted(ranks))


def _keyframe_of(strip: Filmstrip) -> Frame | None:
    index = strip.answer.keyframe_index
    return None if strip.window is None or index is None else strip.window.get(index)


def _title_band(strip: Filmstrip) -> U8Array:
    """The query, below it what became of it."""
    answer = strip.answer
    room = WIDTH - 2 * MARGIN
    title, body = _pen(text_px=32), _pen(text_px=24)
    asked = title.wrapped(answer.query_text, room, 3, is_bold=True) or [""]
    status = answer.status.name.replace("_", " ")
    chip_width = body.width(status, is_bold=True) + 2 * body.margin_px
    words = words_of(answer)
    if answer.status is not AnswerStatus.OK:
        words = words.partition(": ")[2] or "no reason is given"
    said = body.wrapped(words, room - chip_width - body.margin_px, 4) or [""]
    height = MARGIN + len(asked) * title.line_px + len(said) * body.line_px + GAP
    title = title.on(_paper(height))
    body = body.on(title.canvas)
    y = MARGIN
    for line in asked:
        title.text((MARGIN, title.baseline(y)), line, INK, max_width=room, is_bold=True)
        y += title.line_px
    body.panel(MARGIN, y + 2, chip_width, body.line_px - 4, STATUS_COLOURS[answer.status], 1.0)
    x = MARGIN + body.margin_px
    body.text((x, body.baseline(y)), status, PAPER, max_width=room, is_bold=True)
    for line in said:
        x = MARGIN + chip_width + body.margin_px
        body.text((x, body.baseline(y)), line, INK, max_width=room)
        y += body.line_px
    return body.canvas


def _window_band(strip: Filmstrip, window: FrameWindow) -> U8Array:
    """The frames that were sent, small, in one row."""
    frames = window.frames
    columns = max(MIN_WINDOW_CELLS, len(frames))
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    height = _cell_height(width, frames[0].ref.size_wh)
    pen = _pen(text_px=16)
    pen = pen.on(_paper(2 * pen.line_px + height + 2 * GAP))
    shown, total = len(frames), strip.num_window_frames
    what = f"{shown} of {total}" if shown < total else f"{total}"
    masks = {observed.frame_index: observed.mask for observed in strip.observed}
    also = " and the masks of its targets" if masks else ""
    _heading(pen, MARGIN, f"What the reasoner saw: {what} frames, with their labels{also}")
    for i, frame in enumerate(frames):
        x, y = MARGIN + i * (width + GAP), pen.line_px + GAP // 2
        is_keyframe = frame.index == strip.answer.keyframe_index
        if is_keyframe:
            pen.panel(x - 4, y - 4, width + 8, height + 8, KEYFRAME, 1.0)
        image = _resized(frame.image, (width, height))
        if frame.index in masks:
            image = _with_mask(image, masks[frame.index], _target_index(strip))
        _paste(pen.canvas, image, (x, y), (width, height))
        caption = f"<{window.label_of(frame.index)}>  {_seconds(strip, frame.ref.stamp_ns)}"
        caption += "  keyframe" if is_keyframe else ""
        xy = (x, pen.baseline(y + height + 4))
        ink = KEYFRAME if is_keyframe else SOFT
        pen.text(xy, caption, ink, max_width=width, is_bold=is_keyframe)
    return pen.canvas


def _result_band(strip: Filmstrip, keyframe: Frame | None) -> U8Array:
    """At the left the keyframe with its prompts, at the right the masks as published."""
    num_columns = MOMENT_COLUMNS + 2  # the keyframe takes two columns and two rows
    width = (WIDTH - 2 * MARGIN - (num_columns - 1) * GAP) // num_columns
    size_wh = keyframe.ref.size_wh if keyframe else strip.moments[0].image.shape[1::-1]
    height = _cell_height(width, size_wh)
    pen = _pen(text_px=16)
    caption_px = 2 * pen.line_px
    pen = pen.on(_paper(pen.line_px + GAP // 2 + 2 * (height + caption_px) + GAP))
    top = pen.line_px + GAP // 2
    left = MARGIN
    if keyframe is not None:
        hero_wh = (2 * width + GAP, _cell_height(2 * width + GAP, size_wh))
        drawn = draw_keyframe(keyframe, strip.answer, _indices_of(strip), hero_wh, text_px=16)
        _heading(pen, MARGIN, f"Keyframe: frame {keyframe.index}, as the answer points")
        _paste(pen.canvas, drawn, (MARGIN, top), hero_wh)
        xy = (MARGIN, pen.baseline(top + hero_wh[1] + 4))
        pen.text(xy, _prompts_in_words(strip.answer.prompts), SOFT, max_width=hero_wh[0])
        left += 2 * (width + GAP)
    _heading(pen, left, "Masks as published" if strip.moments else "No masks were published")
    for i, moment in enumerate(strip.moments[:MAX_MOMENTS]):
        x = left + i % MOMENT_COLUMNS * (width + GAP)
        y = top + i // MOMENT_COLUMNS * (height + caption_px)
        _paste(pen.canvas, _moment_drawn(moment, (width, height)), (x, y), (width, height))
        lines = (moment.what, _moment_in_words(strip, moment))
        for row, line in enumerate(lines):
            xy = (x, pen.baseline(y + height + row * (pen.line_px - 3)))
            ink = SOFT if row else INK
            pen.text(xy, line, ink, max_width=width, is_bold=not row)
    return pen.canvas


def _text_band(strip: Filmstrip) -> U8Array:
    """Times, objects, rationale."""
    pen, label = _pen(text_px=18), 150
    room = WIDTH - 2 * MARGIN - label
    lines: list[tuple[str, str]] = []
    for name, text, max_lines in _facts(strip):
        wrapped = pen.wrapped(text, room, max_lines)
        lines += [(name if i == 0 else "", line) for i, line in enumerate(wrapped)]
    pen = pen.on(_paper(len(lines) * pen.line_px + GAP + MARGIN))
    pen.panel(MARGIN, 2, WIDTH - 2 * MARGIN, 1, RULE, 1.0)
    for i, (name, line) in enumerate(lines):
        y = pen.baseline(GAP + i * pen.line_px)
        pen.text((MARGIN, y), name, SOFT, max_width=label)
        pen.text((MARGIN + label, y), line, INK, max_width=room)
    return pen.canvas


def _facts(strip: Filmstrip) -> list[tuple[str, str, int]]:
    """Name, text, lines at most."""
    answer = strip.answer
    facts = [("Times", _times(strip), 2)]
    if answer.latency_s:  # of another clock than the stream's, which a slow machine lags behind
        took = f"{answer.latency_s:.2f} s by the machine's own clock, from question to answer"
        facts.append(("Took", took, 1))
    if strip.moments:
        rows = strip.moments[-1].labels
        said = ", ".join(f"{row.name} {row.state.name.lower()}" for row in rows)
        facts.append(("Objects", f"{said or 'none'} on frame {strip.moments[-1].index}", 2))
    confidence = "unknown" if math.isnan(answer.confidence) else f"{answer.confidence:.2f}"
    outcome = {
        Outcome.UNKNOWN: "not known",
        Outcome.CAME_TRUE: "came true",
        Outcome.DID_NOT: "did not come true",
    }[answer.outcome]
    facts.append(("Trust", f"confidence {confidence}; outcome {outcome}", 1))
    facts.append(("Rationale", answer.rationale or "none", MAX_RATIONALE_LINES))
    source = f"{answer.query_id}, camera {answer.camera!r}"
    facts.append(("From", source + (f", {answer.tokens} tokens" if answer.tokens else ""), 1))
    return facts


def _times(strip: Filmstrip) -> str:
    answer, first = strip.answer, next(iter(strip.moments), None)
    if not answer.answered_stamp_ns and not answer.latency_s:
        return "it was not asked, or its answer was not waited for"
    # All of it in the stream's own time: the stamps of the frames that were newest then.
    ended = "answered" if answer.status is AnswerStatus.OK else "ended"
    ended += f" at {_seconds(strip, answer.answered_stamp_ns)}"
    parts = [f"asked at {_seconds(strip, answer.asked_stamp_ns)}", ended]
    if answer.keyframe_index is not None:
        age_s = (answer.answered_stamp_ns - answer.keyframe_stamp_ns) / NS
        parts.append(f"keyframe {age_s:.2f} s old by then")
    if first is not None:
        parts.append(f"first masks on frame {first.index} at {_seconds(strip, first.stamp_ns)}")
    caught_up = next((m for m in strip.moments[1:] if m.what.startswith("caught up")), None)
    if caught_up is not None and first is not None:
        after_s = (caught_up.stamp_ns - first.stamp_ns) / NS
        parts.append(f"caught up {after_s:.2f} s later")
    return "; ".join(parts)


def draw_keyframe(
    frame: Frame,
    answer: Answer,
    indices: Mapping[str, int],
    size_wh: tuple[int, int],
    *,
    text_px: int,
) -> U8Array:
    """An answer's keyframe with its boxes, points and masks, as large as fits into `size_wh`.

    Args:
        frame: the keyframe; its image may be reduced.
        answer: whose prompts are drawn.
        indices: of the tracks that the answer named, by object id: they give the colours.
        size_wh: of the picture at most.
        text_px: lines and points are drawn as boldly as text of this size would be.
    """
    image = _resized(frame.image, size_wh).copy()
    names: Sequence[ObjectId | str] = answer.object_ids
    if len(names) != len(answer.prompts):  # some got no track: which ones is not known
        names = [""] * len(answer.prompts)
    pen = Pen(image, text_px=text_px)
    for i, (prompt, name) in enumerate(zip(answer.prompts, names), start=1):  # noqa: B905 (equal)
        _draw_prompt(pen, prompt, frame.ref.size_wh, indices.get(name, i))
    return pen.canvas


def _indices_of(strip: Filmstrip) -> dict[str, int]:
    return {row.name: row.index for moment in strip.moments for row in moment.labels}


def _target_index(strip: Filmstrip) -> int:
    """Whose colour stands for all targets together: the first one's."""
    indices = _indices_of(strip)
    return next((indices[name] for name in strip.answer.object_ids if name in indices), 1)


def _with_mask(image: U8Array, mask: MaskRle, index: int) -> U8Array:
    pen = Pen(image.copy(), text_px=10)  # a thin outline
    _draw_rle(pen, mask, index)
    return pen.canvas


def _draw_rle(pen: Pen, mask: MaskRle, index: int) -> None:
    cv2, (height, width) = pen.cv2, pen.canvas.shape[:2]
    whole = mask_from_rle(mask).astype(np.uint8)
    labels = cv2.resize(whole, (width, height), interpolation=cv2.INTER_NEAREST)
    draw_masks(pen, (labels * np.uint16(index)).astype(np.uint16))


def _draw_prompt(pen: Pen, prompt: SpatialPrompt, source_wh: tuple[int, int], index: int) -> None:
    cv2, (height, width) = pen.cv2, pen.canvas.shape[:2]
    sx, sy = width / source_wh[0], height / source_wh[1]
    thin = max(1, round(pen.text_px / 5.5))
    if prompt.mask is not None:
        _draw_rle(pen, prompt.mask, index)
    if prompt.box is not None:
        box = prompt.box.scaled((sx, sy))
        corners = (round(box.x0), round(box.y0)), (round(box.x1) - 1, round(box.y1) - 1)
        cv2.rectangle(pen.canvas, *corners, PAPER, thin + 2)
        cv2.rectangle(pen.canvas, *corners, colour_of(index), thin)
    for point in prompt.points:
        xy = (round(point.x * sx), round(point.y * sy))
        is_foreground = point.label is PointLabel.FOREGROUND
        ink, radius, arm = FOREGROUND if is_foreground else BACKGROUND, 2 * thin + 1, thin + 1
        cv2.circle(pen.canvas, xy, radius + (thin + 1) // 2, PAPER, -1, cv2.LINE_AA)
        cv2.circle(pen.canvas, xy, radius, ink, -1, cv2.LINE_AA)
        x, y = xy
        cv2.line(pen.canvas, (x - arm, y), (x + arm, y), PAPER, (thin + 1) // 2)
        if is_foreground:
            cv2.line(pen.canvas, (x, y - arm), (x, y + arm), PAPER, (thin + 1) // 2)


def _prompts_in_words(prompts: Sequence[SpatialPrompt]) -> str:
    num_boxes = sum(prompt.box is not None for prompt in prompts)
    num_masks = sum(prompt.mask is not None for prompt in prompts)
    labels = [point.label for prompt in prompts for point in prompt.points]
    num_inside = labels.count(PointLabel.FOREGROUND)
    counts = (
        (num_boxes, "box", "boxes"),
        (num_inside, "foreground point (+)", "foreground points (+)"),
        (len(labels) - num_inside, "background point (-)", "background points (-)"),
        (num_masks, "mask prompt", "mask prompts"),
    )
    said = [f"{number} {one if number == 1 else many}" for number, one, many in counts if number]
    return ", ".join(said)


def _moment_drawn(moment: Moment, size_wh: tuple[int, int]) -> U8Array:
    cv2 = import_cv2("drawing")
    image = _resized(moment.image, size_wh).copy()
    labels = moment.label_map
    if labels.shape != image.shape[:2]:
        labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    pen = Pen(image, text_px=10)  # thin outlines
    draw_masks(pen, labels, moment.labels)
    return pen.canvas


def _moment_in_words(strip: Filmstrip, moment: Moment) -> str:
    states = sorted({row.state for row in moment.labels})
    said = "/".join(state.name.lower() for state in states) or "its objects are gone"
    return f"frame {moment.index}, {_seconds(strip, moment.stamp_ns)}: {said}"


def _seconds(strip: Filmstrip, stamp_ns: int) -> str:
    return f"{(stamp_ns - strip.origin_ns) / NS:.2f} s"


def _heading(pen: Pen, x: int, text: str) -> None:
    pen.text((x, pen.baseline(0)), text, INK, max_width=WIDTH - x - MARGIN, is_bold=True)


def _cell_height(width: int, size_wh: tuple[int, int]) -> int:
    """By the frames' aspect, at most a square: upright frames get borders."""
    return max(1, min(width, round(width * size_wh[1] / size_wh[0])))


def _resized(image: U8Array, size_wh: tuple[int, int]) -> U8Array:
    """As large as fits, in its own aspect."""
    cv2 = import_cv2("drawing")
    (width, height), (h, w) = size_wh, image.shape[:2]
    scale = min(width / w, height / h)
    inner = (max(1, min(width, round(w * scale))), max(1, min(height, round(h * scale))))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized: U8Array = cv2.resize(image, inner, interpolation=how)
    return resized


def _paste(canvas: U8Array, image: U8Array, xy: tuple[int, int], size_wh: tuple[int, int]) -> None:
    """In the middle of a cell, on grey where it does not fill it."""
    (x, y), (width, height), (h, w) = xy, size_wh, image.shape[:2]
    canvas[y : y + height, x : x + width] = RULE
    left, top = x + (width - w) // 2, y + (height - h) // 2
    canvas[top : top + h, left : left + w] = image


def _paper(height: int) -> U8Array:
    return np.full((height, WIDTH, 3), PAPER, dtype=np.uint8)


def _pen(*, text_px: int) -> Pen:
    """A pen to measure with, before there is a canvas."""
    return Pen(_paper(1), text_px=text_px)
