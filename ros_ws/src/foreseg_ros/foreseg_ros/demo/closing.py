# SPDX-License-Identifier: Apache-2.0
"""The end of the demo: judge, draw, write, print, and decide whether it worked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from foreseg.commands.storyboard import Storyboard
from foreseg.dialogue import AnswerStatus
from foreseg.media.sinks import OverlayVideoWriter, contact_sheet, write_image
from foreseg_ros.demo.clips import Clip
from foreseg_ros.demo.drawing import VIDEO_HZ, write_part
from foreseg_ros.demo.judging import judge
from foreseg_ros.demo.parts import PartResult
from foreseg_ros.demo.report import figures_of, summary_record, table, write_summary
from foreseg_ros.demo.scene import DemoScene

CELLS = (6, 3)  # of part one and two
COLUMNS = 3
CELL_WIDTH = 480
PICTURE_WIDTH = 1200
PICTURE_COLOURS = 256


def conclude(
    scene: PartResult,
    video: PartResult | None,
    *,
    out: Path,
    world: DemoScene,
    clip: Clip | None,
    notes: list[str],
    rmw: str,
    load: float,
) -> int:
    """Write everything; 0 only if masks flowed and the first query was answered.

    Args:
        scene: part one.
        video: part two, if there was one.
        out: folder of the files.
        world: the scene.
        clip: what part two played.
        notes: what was left out, and why.
        rmw: the middleware.
        load: processes that wanted to run on this machine before the demo began.
    """
    print("judging and drawing", flush=True)
    judged = judge(scene, world)
    figures = [figures_of(f"simulated: {world.name}, seed {world.seed}", scene, judged)]
    if video is not None and clip is not None:
        figures.append(figures_of(f"video: {clip.name}", video))
    _draw([part for part in (scene, video) if part is not None], out)
    all_notes = [*notes, *(note for part in figures for note in part.notes)]
    extra = {
        "rmw": rmw,
        "machine": {"cores": os.cpu_count(), "load_before": round(load, 2)},
        "scene": {"name": world.name, "seed": world.seed},
        "video": None if clip is None else {"name": clip.name, "licence": clip.licence},
        "all_notes": all_notes,
    }
    record = summary_record(figures[0], figures[1] if len(figures) > 1 else None, extra)
    write_summary(out / "summary.json", record)
    print(table(figures))
    for note in all_notes:
        print(f"note: {note}")
    print(f"measured on {os.cpu_count()} cores with a load of {load:.1f} before, over {rmw}")
    print(f"wrote overlay.mp4, contact_sheet.png, trace.jsonl and summary.json in {out}")
    first = figures[0].first
    has_flowed = all(part.has_flowed for part in figures)
    is_answered = first is not None and first.status in (
        AnswerStatus.OK.name,
        AnswerStatus.NO_TARGET.name,
    )
    if not has_flowed:
        print("FAILED: no masks came")
    if not is_answered:
        print(f"FAILED: the query was not answered: {first.words if first else 'no answer'}")
    return 0 if has_flowed and is_answered else 1


def write_picture(sheet: Path, picture: Path) -> None:
    """A contact sheet small enough for a repository: the README's picture is made so."""
    from PIL import Image

    with Image.open(sheet) as image:
        height = round(PICTURE_WIDTH * image.height / image.width)
        small = image.convert("RGB").resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
    picture.parent.mkdir(parents=True, exist_ok=True)
    small.quantize(PICTURE_COLOURS).save(picture, optimize=True)


def _draw(parts: list[PartResult], out: Path) -> None:
    sheets = []
    with OverlayVideoWriter(out / "overlay.mp4", VIDEO_HZ) as video:
        for part, num_cells in zip(parts, CELLS, strict=False):
            board = Storyboard(num_cells=num_cells, max_events=num_cells - 1)
            write_part(part, video, board)
            cells = [(scene.image, scene.caption) for scene in board.scenes()]
            cells += cells[-1:] * (num_cells - len(cells))  # a full row, so that widths agree
            if cells:
                sheets.append(contact_sheet(cells, columns=COLUMNS, cell_width=CELL_WIDTH))
    if sheets:
        write_image(out / "contact_sheet.png", np.concatenate(sheets))
