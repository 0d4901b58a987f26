# SPDX-License-Identifier: Apache-2.0
"""Milliseconds per frame of a SAM2 bundle for 1, 2 and 4 objects: `tracker_latency.py [--json]`.

Times `Sam2Tracker.track` whole (resize, engines, memory, masks and run-length code at source size)
and, beside it, the engines' share. Objects are boxes on a drawn clip, each frame is new.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from foreseg.engines.base import Array, Engine, TensorSpec
from foreseg.engines.load import Bundle, load_bundle
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import TrackKey
from foreseg.tracker.sam2 import Sam2Tracker


class TimedEngine:
    """An engine that adds up the time of its runs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name, self.provider = engine.name, engine.provider
        self.inputs: tuple[TensorSpec, ...] = engine.inputs
        self.outputs: tuple[TensorSpec, ...] = engine.outputs
        self.spent_ns = 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run and time."""
        start = time.perf_counter_ns()
        outputs = self.engine.run(inputs)
        self.spent_ns += time.perf_counter_ns() - start
        return outputs

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def clip_frame(t: int, ground: np.ndarray, size_wh: tuple[int, int]) -> Frame:
    w, h = size_wh
    image = ground.copy()
    for i in range(4):
        x, y = w * (1 + i % 2) // 3 + t % 40, h * (1 + i // 2) // 3
        cv2.circle(image, (x, y), h // 9, (40 + 50 * i, 200 - 40 * i, 60 * i), -1)
    ref = FrameRef(
        camera=DEFAULT_CAMERA, index=FrameIndex(t), epoch=0, stamp_ns=t, received_ns=t,
        size_wh=size_wh,
    )  # fmt: skip
    return Frame(ref=ref, image=image)


def measure(
    bundle: Bundle, objects: int, frames: int, warm_up: int, size_wh: tuple[int, int]
) -> dict[str, object]:
    engines = tuple(TimedEngine(engine) for engine in bundle.engines)
    tracker = Sam2Tracker(replace(bundle, engines=engines), max_objects=objects)
    w, h = size_wh
    ground = np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)
    ground = cv2.GaussianBlur(ground, (0, 0), 5)
    keys = [TrackKey(str(i)) for i in range(objects)]
    first = clip_frame(0, ground, size_wh)
    for i, key in enumerate(keys):
        x, y, r = w * (1 + i % 2) / 3, h * (1 + i // 2) / 3, h / 9
        tracker.prompt(first, key, SpatialPrompt(box=BoxXyxy(x - r, y - r, x + r, y + r)))
    total, inside = [], []
    for t in range(1, warm_up + frames + 1):
        frame = clip_frame(t, ground, size_wh)
        spent = sum(engine.spent_ns for engine in engines)
        start = time.perf_counter_ns()
        tracker.track(frame, keys)
        total.append((time.perf_counter_ns() - start) / 1e6)
        inside.append((sum(engine.spent_ns for engine in engines) - spent) / 1e6)
    total, inside = total[warm_up:], inside[warm_up:]
    pieces = {
        engine.name: round(engine.spent_ns / 1e6 / (warm_up + frames), 2) for engine in engines
    }
    return {
        "objects": objects,
        "median_ms": float(np.median(total)),
        "p99_ms": float(np.percentile(total, 99)),
        "engines_median_ms": float(np.median(inside)),
        "outside_engines_median_ms": float(np.median(np.subtract(total, inside))),
        "pieces_mean_ms": pieces,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=[640, 480], metavar=("W", "H"))
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    cv2.setNumThreads(arguments.threads)
    size_wh = (arguments.size[0], arguments.size[1])
    with load_bundle(arguments.bundle, threads=arguments.threads) as bundle:
        rows = [
            measure(bundle, n, arguments.frames, arguments.warm_up, size_wh)
            for n in arguments.objects
        ]
        manifest, provider = bundle.manifest, bundle.engines[0].provider
    about = {
        "bundle": manifest.name,
        "source": manifest.source_name,
        "device": _cpu_name(),
        "provider": provider,
        "threads": arguments.threads,
        "precision": manifest.pieces[0].precision,
        "model_px": manifest.geometry.image_size,
        "source_px": list(size_wh),
        "frames": arguments.frames,
        "warm_up": arguments.warm_up,
        "parity_mean_iou": manifest.parity.mean_iou,
    }
    print(
        f"{about['bundle']} ({about['source']}), {about['device']}, {provider}, {about['threads']}"
        f" thread(s), {about['precision']}, model {about['model_px']} px, source"
        f" {size_wh[0]}x{size_wh[1]}, {about['frames']} frames after {about['warm_up']} of"
        f" warm-up, parity mean IoU {about['parity_mean_iou']:.5f}"
    )
    print(
        f"{'objects':>8} {'median ms':>10} {'p99 ms':>8} {'engines':>8} {'outside':>8}  pieces (mean ms)"
    )
    for row in rows:
        print(
            f"{row['objects']:>8} {row['median_ms']:>10.1f} {row['p99_ms']:>8.1f}"
            f" {row['engines_median_ms']:>8.1f} {row['outside_engines_median_ms']:>8.2f}"
            f"  {row['pieces_mean_ms']}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
