# SPDX-License-Identifier: Apache-2.0
"""`foreseg bench BUNDLE --budget`: what of the camera's period each stage of a frame takes here.

From a JPEG, as compressed topics and many cameras bring it, to a label map. Stages inside the
tracker's step that cannot be seen from outside are done once more beside it, on what it made. What
ROS takes to publish is not in it: `benchmarks/node_overhead.py` measures that.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from foreseg.commands.bundle_bench import (
    MAX_FRAMES,
    MAX_OBJECTS,
    SIZE_WH,
    WARM_UP,
    Spread,
    drawn_frame,
    drawn_prompts,
    spread_of,
    timed,
    whole_number,
    writable_file,
    write_text,
)
from foreseg.engines.load import Bundle, load_bundle
from foreseg.engines.processor import this_processor
from foreseg.errors import InputError
from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg.tracker.base import TrackKey
from foreseg.tracker.postprocess import label_map, logits_at_source, object_from_mask, window
from foreseg.tracker.preprocess import import_cv2, pixels_from_image
from foreseg.tracker.sam2 import Sam2Tracker

MAX_HZ = 1000
_ELSE, _WHOLE = "rest of the step", "decode and step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of a frame's way."""

    name: str
    times: Spread

    def share(self, period_ms: float) -> float:
        """Of the camera's period, in the median."""
        return self.times.p50_ms / period_ms


def budget(arguments: argparse.Namespace) -> int:
    """Time the stages for each number of objects, and print them beside the camera's period."""
    from foreseg.commands.progress import ProgressBar

    if arguments.selftest or arguments.reasoner:
        msg = "--budget times stages and tests nothing: leave --selftest and --reasoner out"
        raise InputError(msg)
    counts = [
        whole_number(word, "--objects", MAX_OBJECTS) for word in arguments.objects.split(",")
    ]
    frames = whole_number(arguments.frames, "--frames", MAX_FRAMES)
    threads = whole_number(arguments.threads, "--threads", os.cpu_count() or 1)
    rate_hz = whole_number(arguments.hz, "--hz", MAX_HZ)
    file = writable_file(arguments.json) if arguments.json else None
    import_cv2().setNumThreads(threads)
    load = os.getloadavg()[0]
    found: dict[int, tuple[Stage, ...]] = {}
    with load_bundle(arguments.bundle, backend=arguments.backend, threads=threads) as bundle:
        bar, done = ProgressBar(len(counts) * (WARM_UP + frames)), 0

        def count_frame() -> None:
            nonlocal done
            done += 1
            bar.update(done)

        for objects in counts:
            found[objects] = time_stages(bundle, objects, frames, count_frame)
        bar.close(done)
        ran_on = str(bundle.backend)
    print(f"{this_processor()}, load {load:.1f} before, {threads} thread(s), {ran_on}")
    for objects, stages in found.items():
        print_budget(stages, objects, rate_hz)
    if file is not None:
        told = {
            "processor": str(this_processor()),
            "load": load,
            "threads": threads,
            "backend": ran_on,
            "rate_hz": rate_hz,
            "frames": frames,
            "stages": {count: [asdict(stage) for stage in found[count]] for count in found},
        }
        write_text(file, json.dumps(told, indent=2) + "\n")
        print(f"wrote {file}")
    return 0


def time_stages(
    bundle: Bundle, objects: int, frames: int, on_frame: Callable[[], None] = lambda: None
) -> tuple[Stage, ...]:
    """Track the drawn clip and time each stage, after `WARM_UP` frames that do not count.

    The last stage is the whole: decoding and the tracker's step, as they ran.
    """
    watched, engines = timed(bundle)
    tracker = Sam2Tracker(watched, max_objects=objects)
    keys = [TrackKey(str(i)) for i in range(objects)]
    for key, prompt in zip(keys, drawn_prompts(objects), strict=True):
        tracker.prompt(drawn_frame(0), key, prompt)
    found: dict[str, list[float]] = {}
    for index in range(1, WARM_UP + frames + 1):
        drawn = drawn_frame(index)
        jpeg = _encoded(drawn.image)
        for engine in engines:
            engine.taken_ms()
        taken = _Watch()
        frame = replace(drawn, image=_decoded(jpeg))
        taken.lap("decode")
        tracker.track(frame, keys)
        step_ms = taken.lap("")
        inside = {engine.name: engine.taken_ms() for engine in engines}
        taken.skip()
        pixels_from_image(frame.image, bundle.manifest.geometry)
        taken.lap("resize")
        logits = [logits_at_source(tracker.logits_of(key), SIZE_WH) for key in keys]
        masks: list[Mask] = [one > 0 for one in logits]
        taken.lap("masks")
        records = [
            object_from_mask(key, mask, object_logit=1.0, score=1.0)
            for key, mask in zip(keys, masks, strict=True)
        ]
        taken.lap("boxes and run-length code")
        boxes = [record.box for record in records]
        cut = [
            None if box is None else one[window(box)]
            for one, box in zip(logits, boxes, strict=True)
        ]
        label_map(cut, boxes, SIZE_WH)
        taken.lap("label map")
        if index > WARM_UP:
            stages = _in_order(taken.laps, inside, step_ms)
            for name, spent_ms in stages.items():
                found.setdefault(name, []).append(spent_ms)
        on_frame()
    return tuple(Stage(name=name, times=spread_of(spent)) for name, spent in found.items())


def print_budget(stages: Sequence[Stage], objects: int, rate_hz: float) -> None:
    """A table for the operator, and whether the camera's period is enough."""
    period_ms = 1000.0 / rate_hz
    print(f"\n{objects} object(s), a camera of {rate_hz:g} Hz: {period_ms:.1f} ms a frame")
    print(f"{'stage':<28}{'p50 / p99 ms':>16}  of the period")
    for stage in stages:
        cell = f"{stage.times.p50_ms:.2f} / {stage.times.p99_ms:.2f}"
        print(f"{stage.name:<28}{cell:>16}  {stage.share(period_ms):>8.1%}")
    whole = stages[-1]
    left_ms = period_ms - whole.times.p99_ms
    if left_ms >= 0:
        print(f"fits, also in the 99th percentile: {left_ms:.1f} ms are left for all else")
    elif whole.times.p50_ms <= period_ms:
        print("fits in the median, not in the 99th percentile: single frames are left out")
    else:
        print(f"does not fit: at most {1000.0 / whole.times.p50_ms:.1f} Hz here")


class _Watch:
    """Times since the last look."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.skip()

    def skip(self) -> None:
        """What went by belongs to nobody."""
        self._ns = time.perf_counter_ns()

    def lap(self, name: str) -> float:
        """Milliseconds since the last look."""
        now = time.perf_counter_ns()
        spent_ms, self._ns = (now - self._ns) / 1e6, now
        if name:
            self.laps[name] = spent_ms
        return spent_ms


def _in_order(
    laps: dict[str, float], inside: dict[str, float], step_ms: float
) -> dict[str, float]:
    """Stages as a frame meets them; the rest is what no other stage explains."""
    before = {name: laps[name] for name in ("decode", "resize")}
    after = {name: spent for name, spent in laps.items() if name not in before}
    known = laps["resize"] + sum(inside.values()) + sum(after.values())
    rest = {_ELSE: max(0.0, step_ms - known), _WHOLE: laps["decode"] + step_ms}
    return before | inside | after | rest


def _encoded(image: U8Array) -> U8Array:
    cv2 = import_cv2()
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))
    encoded: U8Array = jpeg
    return encoded


def _decoded(jpeg: U8Array) -> U8Array:
    cv2 = import_cv2()
    image: U8Array = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    image.flags.writeable = False
    return image
