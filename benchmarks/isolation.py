# SPDX-License-Identifier: Apache-2.0
"""What a language model that generates beside the tracker costs the tracker.

A worker tracks one object on frames at a camera's pace, its reasoner's process holds a model of
Qwen2.5-VL's architecture with random weights (sizes of the 3B, few layers). Stretches in which the
model generates without a pause alternate with idle ones. Timed: frame handed over -> masks out.
Prints one table: `isolation.py [--seconds S] [--json FILE]`; the bar is p99 at most 1.5x idle.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import trange

from foreseg.commands.bundle_bench import drawn_frame, whole_number, writable_file, write_text
from foreseg.config import config_from_settings
from foreseg.dialogue import Answer, Query, QueryId
from foreseg.driving.executor import Executor, PublishedMasks
from foreseg.driving.worker import Worker
from foreseg.engines.load import load_bundle
from foreseg.errors import ConfigError, ForesegError, InputError
from foreseg.frames import DEFAULT_CAMERA
from foreseg.geometry import BoxXyxy
from foreseg.pipeline.events import Reply
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.tracker.sam2 import Sam2Tracker

ROOT = Path(__file__).resolve().parents[1]
WARM_UP_S = 3.0
START_S = 300.0  # for loading and quantising the model
BOX = SpatialPrompt(box=BoxXyxy(80, 80, 160, 160))
BAR = 1.5
WIDTH_STEP = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The command line; whole numbers."""

    seconds: int = 20
    rounds: int = 3
    rate: int = 15
    layers: int = 4
    hidden: int = 2048
    threads: int = 1
    json: Path | None = None


MEANINGS = {  # the largest, and what it is
    "seconds": (600, "of one stretch"),
    "rounds": (100, "of an idle and a busy stretch"),
    "rate": (120, "frames a second"),
    "layers": (36, "of the language model"),
    "hidden": (2048, f"its width, a multiple of {WIDTH_STEP}"),
    "threads": (256, "of the tracker and of the reasoner, each"),
}


@dataclass
class Watch:
    """When which frame came out, and what was answered."""

    out_ns: dict[int, int] = field(default_factory=dict)  # by stamp
    tokens: int = 0
    answers: int = 0
    reasons: set[str] = field(default_factory=set)

    def publish_masks(self, masks: PublishedMasks) -> None:
        """Note the time."""
        self.out_ns[masks.frame.stamp_ns] = time.perf_counter_ns()

    def publish_answer(self, answer: Answer) -> None:
        """Count."""
        self.answers += 1
        self.tokens += answer.tokens
        self.reasons.add(answer.reason[:60])


def save_model(folder: Path, layers: int, hidden: int) -> None:
    """A random model; its words are bytes, its end is hardly ever drawn."""
    sys.path.insert(0, str(ROOT))
    import torch
    from tests.support.tiny_vlm import save_tiny_vlm, tiny_model
    from transformers import Qwen2_5_VLForConditionalGeneration

    from foreseg_torch.vlm.loading import quiet

    with quiet():
        save_tiny_vlm(folder)
    config = tiny_model().config
    text, vision = config.text_config, config.vision_config
    text.hidden_size = vision.out_hidden_size = hidden
    text.intermediate_size, text.num_hidden_layers = 11_008 * hidden // 2048, layers
    text.num_attention_heads, text.num_key_value_heads = (
        hidden // WIDTH_STEP,
        max(1, hidden // 1024),
    )
    text.rope_parameters = {**text.rope_parameters, "mrope_section": [16, 24, 24]}
    text.layer_types = ["full_attention"] * layers
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    with quiet():
        model.save_pretrained(folder)
    num = sum(p.numel() for p in model.parameters())
    print(f"model: {num / 1e6:.0f} M parameters, {layers} layers of {hidden}", flush=True)


def make_worker(arguments: Arguments, options: Path, watch: Watch) -> Worker:
    """A worker whose reasoner is the model."""
    config = config_from_settings(
        {
            "reasoner.kind": f"transformers:{options}",
            "reasoner.threads": arguments.threads,
            "reasoner.timeout_s": 600.0,
            "tracker.threads": arguments.threads,
            "scheduler.warm_up_s": 0.0,
        }
    )
    bundle = load_bundle("nano", threads=config.tracker.threads)
    executor = Executor(
        config, (DEFAULT_CAMERA,), lambda rows: Sam2Tracker(bundle, max_objects=rows)
    )
    return Worker(config, (DEFAULT_CAMERA,), executor, watch)


class Stretch:
    """Sends frames for a while; keeps how long each took."""

    def __init__(self, worker: Worker, watch: Watch, rate_hz: float) -> None:
        self._worker, self._watch, self._period_s = worker, watch, 1 / rate_hz
        self._index = 0
        self._sent_ns: dict[int, int] = {}
        self._is_waiting = False

    def run(self, seconds: float, *, busy: bool) -> tuple[list[float], float]:
        """(milliseconds of each frame, share of frames sent while a question was open)."""
        sent: list[int] = []
        open_questions = 0
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            is_asking = self._worker.snapshot().state.asking is not None
            open_questions += is_asking
            if busy and not self._is_waiting:
                self._is_waiting = True
                query = Query(id=QueryId("q"), text="what next?", max_reasoning_tokens=2000)
                self._worker.requests.ask(query, self._take_reply, wants_answer=True)
            image = drawn_frame(self._index).image
            stamp = time.time_ns()
            self._sent_ns[stamp] = time.perf_counter_ns()
            sent.append(stamp)
            self._worker.submit_frame(DEFAULT_CAMERA, image, stamp)
            self._index += 1
            time.sleep(max(0.0, self._period_s - (time.monotonic() - began)))
        if not busy:
            self._worker.requests.remove_query(QueryId("q"), _ignore)
        out = self._watch.out_ns
        took = [(out[s] - self._sent_ns[s]) / 1e6 for s in sent if s in out]
        return took, open_questions / max(1, len(sent))

    def _take_reply(self, _reply: Reply) -> None:
        self._is_waiting = False


def _ignore(_reply: Reply) -> None:
    """The answer is counted where it is published."""


def wait_until_up(worker: Worker) -> None:
    """Wait for the model to be loaded.

    Raises:
        ConfigError: it cannot be.
    """
    stop = threading.Event()
    until = time.monotonic() + START_S
    while not worker.snapshot().state.reasoner_up:
        state = worker.snapshot().state
        if time.monotonic() > until or state.counters.get("reasoner_stops"):
            msg = f"the reasoner did not start: {state.reasoner_reason}"
            raise ConfigError(msg)
        stop.wait(0.2)


def measure(arguments: Arguments, options: Path) -> dict[str, object]:
    """Alternate idle and busy stretches."""
    watch = Watch()
    worker = make_worker(arguments, options, watch)
    worker.start()
    try:
        wait_until_up(worker)
        stretch = Stretch(worker, watch, arguments.rate)
        stretch.run(0.5, busy=False)
        worker.requests.add_objects(DEFAULT_CAMERA, [(ObjectId("disc"), BOX)], _ignore)
        stretch.run(WARM_UP_S, busy=True)
        idle: list[float] = []
        busy: list[float] = []
        shares: list[float] = []
        for _ in trange(arguments.rounds, desc="stretches", unit="pair", disable=None):
            stretch.run(1.0, busy=False)  # until a cancelled question has ended
            idle += stretch.run(arguments.seconds, busy=False)[0]
            stretch.run(1.0, busy=True)
            times, share = stretch.run(arguments.seconds, busy=True)
            busy += times
            shares.append(share)
        state = worker.snapshot().state
    finally:
        worker.stop()
    rows = {
        name: {
            "frames": len(times),
            "p50_ms": float(np.median(times)),
            "p99_ms": float(np.quantile(times, 0.99)),
        }
        for name, times in (("idle", idle), ("generating", busy))
    }
    return {
        **rows,
        "p99_ratio": rows["generating"]["p99_ms"] / rows["idle"]["p99_ms"],
        "share_of_time_generating": float(np.mean(shares)),
        "answers": watch.answers,
        "dropped": {k: v for k, v in state.counters.items() if k.startswith("dropped_")},
    }


def arguments_from(words: Sequence[str] | None) -> Arguments:
    """What the command line says.

    Raises:
        ForesegError: a number or a file that cannot be.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for item in fields(Arguments):
        if item.name != "json":
            default, about = str(item.default), MEANINGS[item.name][1]
            parser.add_argument(
                f"--{item.name}", default=default, metavar="N", help=f"{about}; default {default}"
            )
    parser.add_argument("--json", metavar="FILE", help="write what is shown there as well")
    said = vars(parser.parse_args(words))
    place = said.pop("json")
    numbers = {n: whole_number(word, f"--{n}", MEANINGS[n][0]) for n, word in said.items()}
    if numbers["hidden"] % WIDTH_STEP:
        msg = f"--hidden wants a multiple of {WIDTH_STEP}, got {numbers['hidden']}"
        raise InputError(msg)
    return Arguments(**numbers, json=None if place is None else writable_file(place))


def show(result: Mapping[str, Any]) -> None:
    load = os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load:.1f}")
    print(f"{'':12}{'frames':>8}{'p50 ms':>9}{'p99 ms':>9}")
    for name in ("idle", "generating"):
        row = result[name]
        print(f"{name:12}{row['frames']:8d}{row['p50_ms']:9.1f}{row['p99_ms']:9.1f}")
    print(
        f"p99 {result['p99_ratio']:.2f}x idle (bar {BAR}x);"
        f" generating {result['share_of_time_generating']:.0%} of the busy time"
    )


def main(words: Sequence[str] | None = None) -> int:
    try:
        arguments = arguments_from(words)
        with tempfile.TemporaryDirectory() as scratch:
            model = Path(scratch) / "model"
            save_model(model, arguments.layers, arguments.hidden)
            options = Path(scratch) / "options.json"
            options.write_text(json.dumps({"model": str(model), "precision": "nf4"}), "utf-8")
            result = measure(arguments, options)
        show(result)
        if arguments.json is not None:
            write_text(arguments.json, json.dumps(result, indent=1) + "\n")
    except ForesegError as error:
        print(f"isolation.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nisolation.py: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
