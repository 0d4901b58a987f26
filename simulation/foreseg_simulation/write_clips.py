# SPDX-License-Identifier: Apache-2.0
"""Write wandering clips as folders: `python -m foreseg_simulation.write_clips --out DIR`.

Each clip has `frames/` and `masks/` (grey PNGs: 0 background, k object k, 255 never used).
Only objects that are mostly visible on the first frame are labelled: nobody prompts a sliver.
With `--hide-below 0.25`, only those that later show less than that share of their first area, and
are back at the end.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import cv2
import numpy as np

from .shapes.wandering import WanderingConfig, WorldFrame, wander

HELD_OUT_SEED = 910_000_000
_VISIBLE_SHARE = 0.8
_MIN_AREA_SHARE = 0.002  # of the frame


def main() -> None:
    """Read the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--num-frames", type=int, default=21)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED, help="of the first clip")
    parser.add_argument("--max-objects", type=int, default=3, help="labelled in a clip")
    parser.add_argument("--hide-below", type=float, help="share of the first area, 0..1")
    options = parser.parse_args()
    seed, written = options.seed, 0
    while written < options.clips:
        frames = list(itertools.islice(wander(seed, WanderingConfig()), options.num_frames))
        objects = promptable_objects(frames[0])
        if options.hide_below is not None:
            objects = [k for k in objects if hides_and_returns(frames, k, options.hide_below)]
        objects = objects[: options.max_objects]
        if objects:
            write_clip(options.out / f"wandering_{seed}", frames, objects)
            written += 1
        seed += 1


def promptable_objects(frame: WorldFrame) -> list[int]:
    """List the objects of a frame that are large enough and mostly visible."""
    ids = frame.instance_ids
    areas = np.bincount(ids.ravel(), minlength=len(frame.full_areas_px) + 1)
    least = _MIN_AREA_SHARE * ids.size
    full_areas = enumerate(frame.full_areas_px, start=1)
    return [k for k, full in full_areas if areas[k] >= max(least, _VISIBLE_SHARE * full)]


def hides_and_returns(frames: list[WorldFrame], object_id: int, share: float) -> bool:
    """Whether an object shows less than a share of its first area for a time, then half again."""
    areas = [np.count_nonzero(frame.instance_ids == object_id) for frame in frames]
    return bool(min(areas) < share * areas[0] and areas[-1] >= areas[0] / 2)


def write_clip(folder: Path, frames: list[WorldFrame], objects: list[int]) -> None:
    """Write frames and label maps; `objects` are renumbered from 1 in their order."""
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    label_of_id = np.zeros(256, dtype=np.uint8)
    label_of_id[objects] = np.arange(1, len(objects) + 1)
    for frame in frames:
        name = f"{frame.index:05d}.png"
        bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / "frames" / name), bgr)
        cv2.imwrite(str(folder / "masks" / name), label_of_id[frame.instance_ids])


if __name__ == "__main__":
    main()
