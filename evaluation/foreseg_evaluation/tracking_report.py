# SPDX-License-Identifier: Apache-2.0
"""Print how a tracker follows objects, beside two baselines.

`python -m foreseg_evaluation.tracking_report --bundle nano held_out/ clip_folder ...`

Each folder is a clip (`frames/`, `masks/`) or a folder of clips. Every object that the first
annotated frame shows is prompted with its box there and followed for `--num-frames` frames.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2

from foreseg.engines.load import load_bundle
from foreseg.errors import ForesegError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import mask_from_rle
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import Tracker, TrackKey
from foreseg.tracker.sam2 import Sam2Tracker

from .clips import BoolArray, ObjectClip, U8Array, read_clip
from .tracking import (
    Method,
    TrackingScore,
    box_around,
    repeat_first_mask,
    score_method,
    warp_by_flow,
)

_KEY = TrackKey("object")
_STEP_NS = 33_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--bundle", default="nano", help="a bundle's folder, or 'nano'")
    parser.add_argument("--backend", default="cpu", help="what executes it; default: cpu")
    parser.add_argument("--num-frames", type=int, default=20, help="after the first; 0 for all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(options.threads)
    bundle, backend, threads = options.bundle, options.backend, options.threads
    try:
        with load_bundle(bundle, backend=backend, threads=threads) as opened:
            methods = standard_methods(follow_with(Sam2Tracker(opened, max_objects=1)), "tracker")
            for folder in options.folders:
                sys.stdout.write(report(folder, methods, options.num_frames or None) + "\n")
    except (ForesegError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def standard_methods(tracker: Method, name: str) -> dict[str, Method]:
    """Put a tracker beside the baselines."""
    return {name: tracker, "repeat first mask": repeat_first_mask, "flow warp": warp_by_flow}


def follow_with(tracker: Tracker) -> Method:
    """Make a method of a tracker: prompt with the box of the first mask, then track."""

    def follow(images: Sequence[U8Array], first: BoolArray) -> list[BoolArray]:
        tracker.reset()
        prompt = SpatialPrompt(box=BoxXyxy(*box_around(first)))
        frames = (_frame(i, image) for i, image in enumerate(images))
        masks = [mask_from_rle(tracker.prompt(next(frames), _KEY, prompt).mask)]
        results = (tracker.track(frame, [_KEY]).objects[0] for frame in frames)
        return [*masks, *(mask_from_rle(result.mask) for result in results)]

    return follow


def report(folder: Path, methods: Mapping[str, Method], num_frames: int | None) -> str:
    """Score every object under a folder and format one table."""
    scores: dict[str, list[TrackingScore]] = {name: [] for name in methods}
    for clip in find_clips(folder, num_frames):
        for name, method in methods.items():
            scores[name].append(score_method(method, clip))
    return format_table(folder.name, scores)


def find_clips(folder: Path, num_frames: int | None) -> Iterable[ObjectClip]:
    """Yield the objects of a clip, or of every clip in a folder, sorted by name."""
    clips = [folder] if (folder / "frames").is_dir() else sorted(folder.iterdir())
    count = None if num_frames is None else num_frames + 1
    for clip in clips:
        if (clip / "frames").is_dir():
            yield from read_clip(clip, num_frames=count)


def format_table(title: str, scores: Mapping[str, Sequence[TrackingScore]]) -> str:
    """Format means in percent, over all objects and over those that hide or leave."""
    first = next(iter(scores.values()))
    hidden = [score.is_occluded for score in first]
    lines = [
        f"### {title}: {len(first)} objects, {sum(hidden)} of them occluded or away at some time",
        "| method | prompted J | J&F | J | F | J&F, occluded objects |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in scores.items():
        columns = [
            [row.prompted_j for row in rows],
            [row.j_and_f for row in rows],
            [row.tracked_j for row in rows],
            [row.tracked_f for row in rows],
            [row.j_and_f for row in rows if row.is_occluded],
        ]
        cells = [f"{100 * statistics.fmean(c):.1f}" if c else "-" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _frame(index: int, image: U8Array) -> Frame:
    height, width = image.shape[:2]
    ref = FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(index),
        epoch=0,
        stamp_ns=index * _STEP_NS,
        received_ns=index * _STEP_NS,
        size_wh=(width, height),
    )
    return Frame(ref=ref, image=image)


if __name__ == "__main__":
    main()
