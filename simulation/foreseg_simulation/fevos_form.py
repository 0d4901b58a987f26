# SPDX-License-Identifier: Apache-2.0
"""Clips on disk in FeVOS's form: parts that land one by one, and the files made of all of them.

A dataset's folder holds `JPEGImages/<video>/<frame>.jpg`, `meta_expressions_<split>.json`,
`mask_dict.json` and `reasoning_data.json`; `parts/` has one record a video. Does not know: how a
clip comes about, or in which order the parts are made.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .clip import Clip, ClipKind, Expression
from .recording import Shot

Json: TypeAlias = dict[str, Any]

FRAMES = "JPEGImages"
PARTS = "parts"
REASONING_VERSION = 1


def write_part(root: Path, video: str, clip: Clip, source: Mapping[str, str | int]) -> None:
    """Write a clip's frames, then, at once, its record.

    Args:
        root: the dataset's folder.
        video: name of the clip; must not tell the answer.
        clip: what to write.
        source: what it was made of; joins the video's keys.
    """
    folder = root / FRAMES / video
    if folder.exists():  # of a run that was interrupted before the record landed
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for position, shot in enumerate(clip.shots):
        (folder / f"{frame_name(position)}.jpg").write_bytes(shot.jpeg)
    write_json(part_path(root, video), _part(video, clip, source))


def part_path(root: Path, video: str) -> Path:
    """Where the record of a video lands."""
    return root / PARTS / f"{video}.json"


def assemble(root: Path, split: str, videos: Sequence[str]) -> list[Json]:
    """Make the dataset's files of its parts, numbered in the order of `videos`.

    Returns:
        The records of all videos, as `meta_expressions_<split>.json` has them.
    """
    metas: dict[str, Json] = {}
    masks: Json = {}
    records: list[Json] = []
    for vid_id, video in enumerate(videos):
        part = json.loads(part_path(root, video).read_text("utf-8"))
        anno_of = {int(object_id): len(masks) + k for k, object_id in enumerate(part["masks"])}
        for object_id, per_frame in part["masks"].items():
            masks[str(anno_of[int(object_id)])] = per_frame
        names = {str(anno_of[int(i)]): name for i, name in part["names"].items()}
        ids = {"vid_id": vid_id, "anno_id": sorted(anno_of.values())}
        meta = {**ids, **part["video"], "names": names}
        for expression in meta["expressions"].values():
            for truth in (expression, *expression.get("truths", ())):
                truth["anno_id"] = [anno_of[object_id] for object_id in truth["obj_id"]]
        metas[video] = meta
        records += part["records"]
    write_json(root / f"meta_expressions_{split}.json", {"videos": metas})
    write_json(root / "mask_dict.json", masks)
    reasoning = {"format": "foreseg", "version": REASONING_VERSION, "records": records}
    write_json(root / "reasoning_data.json", reasoning)
    return list(metas.values())


def write_json(path: Path, content: Json) -> None:
    """Write a file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    landing = path.with_name(f".{path.name}.{os.getpid()}")
    landing.write_text(json.dumps(content, separators=(",", ":")) + "\n", "utf-8")
    landing.replace(path)


def frame_name(position: int) -> str:
    """Name a frame by its position."""
    return f"{position:05d}"


def _part(video: str, clip: Clip, source: Mapping[str, str | int]) -> Json:
    width, height = clip.size_wh
    expressions = {str(i): _expression(clip, e) for i, e in enumerate(clip.expressions)}
    return {
        "video": {
            "height": height,
            "width": width,
            "frames": [frame_name(i) for i in range(len(clip.shots))],
            "expressions": expressions,
            "rate_hz": clip.rate_hz,
            "kind": clip.kind.value,
            **source,
        },
        "names": {str(i): clip.names[i] for i in sorted(clip.names)},
        "masks": {str(i): [_rle(shot, i) for shot in clip.shots] for i in sorted(clip.names)},
        "records": [
            _reasoning(video, str(i), clip, expression)
            for i, expression in enumerate(clip.expressions)
        ],
    }


def _rle(shot: Shot, object_id: int) -> Json | None:
    seen = shot.objects.get(object_id)
    if seen is None:
        return None
    return {"size": [seen.mask.height, seen.mask.width], "counts": seen.mask.counts}


def _expression(clip: Clip, expression: Expression) -> Json:
    """The keys of one expression; `anno_id` is filled in when all parts are there."""
    written: Json = {
        "exp": expression.text,
        "ans": expression.answer,
        "obj_id": list(expression.target_ids),
        "anno_id": [],
        "type": expression.kind.value,
        "skill": expression.skill.value,
        "difficulty": "hard" if expression.is_hard else "easy",
    }
    if expression.lead_s is not None:
        written["lead_s"] = round(expression.lead_s, 3)
    if expression.judged:
        written["judged_frames"] = list(expression.judged)
    if clip.kind is ClipKind.STREAM:
        written["truths"] = [
            {
                "from_frame": span.first,
                "until_frame": span.end,
                "obj_id": list(span.target_ids),
                "anno_id": [],
                "ans": span.answer,
            }
            for span in expression.spans
        ]
    return written


def _reasoning(video: str, exp_id: str, clip: Clip, expression: Expression) -> Json:
    boxes = {
        frame_name(position): _box(clip.shots[position], expression.target_ids)
        for position in sorted({*expression.evidence, expression.keyframe})
    }
    return {
        "video": video,
        "exp_id": exp_id,
        "question": expression.text,
        "reasoning": expression.reasoning,
        "answer": expression.answer,
        "evidence": {
            "keyframe": frame_name(expression.keyframe),
            "frames": [frame_name(position) for position in expression.evidence],
            "boxes": {name: box for name, box in boxes.items() if box is not None},
        },
    }


def _box(shot: Shot, target_ids: Sequence[int]) -> list[int] | None:
    """The box around all targets that a frame shows."""
    boxes = [shot.objects[i].box_xyxy for i in target_ids if i in shot.objects]
    if not boxes:
        return None
    return [
        *(min(box[k] for box in boxes) for k in (0, 1)),
        *(max(box[k] for box in boxes) for k in (2, 3)),
    ]
