# SPDX-License-Identifier: Apache-2.0
"""Milliseconds per frame of a SAM2 bundle for 1, 2 and 4 objects: `tracker_latency.py [--json F]`.

Times `Sam2Tracker.track` whole (resize, engines, memory, masks and run-length code at source size)
and, beside it, the engines' share. Objects are boxes on a drawn clip, each frame is new. With `--checkpoint` the
peer runs too, on the same frames: `transformers`' Sam2VideoModel streaming in torch, from
normalised pixels to mask logits, to be read against the column of the engines.
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
from foreseg.engines.manifest import Sam2Geometry
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import TrackKey
from foreseg.tracker.preprocess import pixels_from_image, points_from_prompt
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


def clip_ground(size_wh: tuple[int, int]) -> np.ndarray:
    w, h = size_wh
    noise = np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 5)


def clip_boxes(size_wh: tuple[int, int]) -> list[BoxXyxy]:
    w, h = size_wh
    centres = [(w * (1 + i % 2) / 3, h * (1 + i // 2) / 3) for i in range(4)]
    return [BoxXyxy(x - h / 9, y - h / 9, x + h / 9, y + h / 9) for x, y in centres]


class Peer:
    """`transformers`' streaming in torch on the same frames, from pixels to mask logits."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        import torch

        from foreseg_export.checkpoints import open_checkpoint

        torch.set_num_threads(threads)
        self.model = open_checkpoint(checkpoint).model

    def start(
        self, boxes: list[BoxXyxy], geometry: Sam2Geometry, size_wh: tuple[int, int]
    ) -> None:
        """A new session that will be prompted on its first frame."""
        from foreseg_torch.sam2_reference import Sam2Reference

        self.reference = Sam2Reference(self.model)
        for i, box in enumerate(boxes):
            points = points_from_prompt(SpatialPrompt(box=box), size_wh, geometry.image_size)
            self.reference.prompt_points(i, points.coords, points.labels)

    def step_ms(self, frame: Frame, geometry: Sam2Geometry) -> float:
        """Time of one frame, its resize left out."""
        pixels = pixels_from_image(frame.image, geometry)
        start = time.perf_counter_ns()
        self.reference.step(pixels)
        return (time.perf_counter_ns() - start) / 1e6


def measure(
    bundle: Bundle,
    objects: int,
    frames: int,
    warm_up: int,
    size_wh: tuple[int, int],
    peer: Peer | None,
) -> dict[str, object]:
    """Frame by frame in turn with the peer, so that both meet the same load of the machine."""
    engines = tuple(TimedEngine(engine) for engine in bundle.engines)
    tracker = Sam2Tracker(replace(bundle, engines=engines), max_objects=objects)
    geometry = bundle.manifest.geometry
    ground, boxes = clip_ground(size_wh), clip_boxes(size_wh)[:objects]
    keys = [TrackKey(str(i)) for i in range(objects)]
    first = clip_frame(0, ground, size_wh)
    for key, box in zip(keys, boxes, strict=True):
        tracker.prompt(first, key, SpatialPrompt(box=box))
    if peer is not None:
        peer.start(boxes, geometry, size_wh)
        peer.step_ms(first, geometry)
    total, inside, other = [], [], []
    for t in range(1, warm_up + frames + 1):
        frame = clip_frame(t, ground, size_wh)
        spent = sum(engine.spent_ns for engine in engines)
        start = time.perf_counter_ns()
        tracker.track(frame, keys)
        total.append((time.perf_counter_ns() - start) / 1e6)
        inside.append((sum(engine.spent_ns for engine in engines) - spent) / 1e6)
        other.append(0.0 if peer is None else peer.step_ms(frame, geometry))
    total, inside, other = total[warm_up:], inside[warm_up:], other[warm_up:]
    steps = warm_up + frames
    return {
        "objects": objects,
        "median_ms": float(np.median(total)),
        "p99_ms": float(np.percentile(total, 99)),
        "engines_median_ms": float(np.median(inside)),
        "outside_engines_median_ms": float(np.median(np.subtract(total, inside))),
        "pieces_mean_ms": {e.name: round(e.spent_ns / 1e6 / steps, 2) for e in engines},
        "peer_median_ms": float(np.median(other)),
        "peer_p99_ms": float(np.percentile(other, 99)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=[640, 480], metavar=("W", "H"))
    parser.add_argument("--checkpoint", type=Path, help="of the bundle: run the torch peer too")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    cv2.setNumThreads(arguments.threads)
    size_wh = (arguments.size[0], arguments.size[1])
    with load_bundle(arguments.bundle, threads=arguments.threads) as bundle:
        peer = Peer(arguments.checkpoint, arguments.threads) if arguments.checkpoint else None
        rows = [
            measure(bundle, n, arguments.frames, arguments.warm_up, size_wh, peer)
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
    for row in rows if peer else []:
        print(
            f"{row['objects']:>8} {row['peer_median_ms']:>10.1f} {row['peer_p99_ms']:>8.1f}"
            f"  transformers in torch, {row['peer_median_ms'] / row['engines_median_ms']:.1f}x the"
            " engines' median"
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
