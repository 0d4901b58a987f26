# SPDX-License-Identifier: Apache-2.0
"""Draw clips to look at: a contact sheet, or a short video, with masks, questions and answers.

Does not know: datasets on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from foreseg.errors import InputError
from foreseg.masks import mask_from_rle

from .clip import Clip, ClipKind, Expression
from .generation import Command, Job, jobs_of, make_clip, make_clip_of
from .recording import Shot, image_of
from .textures import U8Array
from .worlds import World, scene_maker, scenes_of

_COLUMNS = 4  # frames of a clip on a sheet
_STORY_COLUMNS = 6
_CELL_WH = (240, 180)
_TEXT_ROW_PX = 15
_CAPTION_ROWS = 3
_VIDEO_SCALE = 2
_VIDEO_S = 12.0
_TINT = (60, 255, 90)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_preview(world: World, scene: str | None, seed: int, out: Path) -> None:
    """Draw one clip of each scene, or of one scene.

    Raises:
        InputError: for an unknown scene, a seed below 0, or another kind of file.
    """
    names = list(scenes_of(world)) if scene is None else [scene]
    for name in names:
        scene_maker(world, name)  # refuses what is unknown before anything is drawn
    if out.suffix == ".png":
        sheets = [_sheet(name, _clip(world, name, seed, ClipKind.CLIP)) for name in names]
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_image(out, np.concatenate(sheets))
    elif out.suffix == ".mp4":
        streams = [_clip(world, name, seed, ClipKind.STREAM) for name in names]
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_video(out, streams)
    else:
        msg = f"{out} ends in {out.suffix!r}, expected .png or .mp4"
        raise InputError(msg)


def write_stories_preview(seed: int, split: str, count: int, out: Path) -> None:
    """Draw some long clips, a row each.

    Args:
        seed: of the clips.
        split: whose shapes and words.
        count: how many, at least 1.
        out: a .png.

    Raises:
        InputError: no count, a seed below 0, or another kind of file.
    """
    if out.suffix != ".png" or count < 1:
        msg = f"stories are drawn as a .png of at least one row, got {count} and {out.name}"
        raise InputError(msg)
    command = Command(
        worlds=(World.SHAPES,), clips=0, streams=0, longs=count, seed=seed, split=split
    )
    sheets = [
        _sheet("story", make_clip(job)[0], columns=_STORY_COLUMNS) for job in jobs_of(command)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    _write_image(out, np.concatenate(sheets))


def _clip(world: World, scene: str, seed: int, kind: ClipKind) -> Clip:
    command = Command(worlds=(world,), clips=1, streams=1, seed=seed, split="val")
    number = list(scenes_of(world)).index(scene)
    clip, _ = make_clip_of(Job(command=command, world=world, kind=kind, number=number), scene)
    return clip


def _sheet(name: str, clip: Clip, *, columns: int = _COLUMNS) -> U8Array:
    """Some frames of a clip in a row, the answer's target tinted, the words beneath."""
    expression = max(clip.expressions, key=lambda e: (e.is_future, len(e.target_ids)))
    even = np.linspace(0, len(clip.shots) - 1, columns).round().astype(int).tolist()
    best = [] if clip.kind is ClipKind.CLIP else [expression.keyframe]
    wanted = dict.fromkeys([even[-1], *best, *reversed(expression.evidence), *even])
    chosen = sorted(list(wanted)[:columns])
    cells = [_cell(clip.shots[i], i, expression) for i in chosen]
    row = np.concatenate(cells, axis=1)
    lead = "" if expression.lead_s is None else f", event in {expression.lead_s:.1f} s"
    hardness = "hard" if expression.is_hard else "easy"
    head = f"{name}: {expression.text} - {expression.answer}"
    head = f"{head} [{expression.skill.value}, {hardness}{lead}]"
    lines = [head, *_wrapped(expression.reasoning, row.shape[1])]
    caption = np.full((_TEXT_ROW_PX * _CAPTION_ROWS + 6, row.shape[1], 3), 255, dtype=np.uint8)
    for number, line in enumerate(lines[:_CAPTION_ROWS], start=1):
        _put(caption, line, (4, number * _TEXT_ROW_PX - 3), (0, 0, 0))
    return np.concatenate([row, caption])


def _cell(shot: Shot, position: int, expression: Expression) -> U8Array:
    image = cv2.resize(
        _tinted(shot, expression.target_ids), _CELL_WH, interpolation=cv2.INTER_AREA
    )
    mark = "*" if position in expression.evidence else ""
    _put(image, f"{position}{mark}", (4, 14), (255, 255, 255))
    return image


def _tinted(shot: Shot, target_ids: Sequence[int]) -> U8Array:
    """The frame with the outlines of the targets' masks."""
    image = np.ascontiguousarray(image_of(shot))
    for target in target_ids:
        if target in shot.objects:
            mask = mask_from_rle(shot.objects[target].mask).astype(np.uint8)
            found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(image, found, -1, _TINT, 2)
    return image


def _write_video(out: Path, streams: Sequence[Clip]) -> None:
    """Play the beginning of each stream, with the truth of the first question as it changes."""
    width, height = (side * _VIDEO_SCALE for side in streams[0].size_wh)
    size_wh = (width, height + 2 * _TEXT_ROW_PX + 6)
    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(out), fourcc, streams[0].rate_hz, size_wh)
    if not writer.isOpened():
        msg = f"OpenCV cannot write the video {out}; write a .png instead"
        raise InputError(msg)
    for clip in streams:
        for image in _video_frames(clip, (width, height)):
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()


def _video_frames(clip: Clip, size_wh: tuple[int, int]) -> Iterator[U8Array]:
    expression = clip.expressions[0]
    for position, shot in enumerate(clip.shots[: round(_VIDEO_S * clip.rate_hz)]):
        span = next((s for s in expression.spans if s.first <= position < s.end), None)
        image = cv2.resize(_tinted(shot, () if span is None else span.target_ids), size_wh)
        caption = np.full((2 * _TEXT_ROW_PX + 6, size_wh[0], 3), 255, dtype=np.uint8)
        _put(caption, expression.text, (4, _TEXT_ROW_PX), (0, 0, 0))
        answer = "(nothing tells yet)" if span is None else span.answer
        _put(caption, answer, (4, 2 * _TEXT_ROW_PX), (0, 90, 0))
        yield np.concatenate([image, caption])


def _wrapped(text: str, width_px: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if cv2.getTextSize(longer, _FONT, 0.4, 1)[0][0] > width_px - 8:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _put(image: U8Array, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, _FONT, 0.4, colour, 1, cv2.LINE_AA)


def _write_image(path: Path, image: U8Array) -> None:
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())
