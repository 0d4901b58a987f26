# SPDX-License-Identifier: Apache-2.0
"""The four methods end to end on one drawn clip: `methods.py [--json FILE] [--tokens N] [--side N]`.

Tiny random models of the real architectures (Qwen2.5-VL in four bits, a small SAM2), so that every
step is really done: the sampler's answers, the prompt (frames included), the words, the masks of
[SEG] tokens, the tracker (the shipped one). One thread, seeds fixed. The times say where a method
spends its steps, not how long a real model takes; and random words are noise: an answer in text
is then hardly ever one, which is said, while a [SEG] method always gives a mask.

An answer is a target or "no target"; a mask is one object on one published frame; a repair is a
note on how a completion was read. `rest` is history, pipeline and reading.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.sam2_models import tiny_hiera  # noqa: E402
from tests.support.scene import Recorder, image_of  # noqa: E402
from tests.support.tiny_vlm import save_tiny_vlm  # noqa: E402

from foreseg.commands.bundle_bench import (  # noqa: E402
    machine_name,
    whole_number,
    writable_file,
    write_text,
)
from foreseg.config import Config  # noqa: E402
from foreseg.dialogue import Answer, AnswerStatus, Query, QueryId  # noqa: E402
from foreseg.engines.load import load_bundle  # noqa: E402
from foreseg.errors import ForesegError  # noqa: E402
from foreseg.executor import Executor  # noqa: E402
from foreseg.frames import DEFAULT_CAMERA, Frame  # noqa: E402
from foreseg.methods.base import Method  # noqa: E402
from foreseg.methods.fevos import FevosMethod, FevosSettings  # noqa: E402
from foreseg.methods.grounding import View  # noqa: E402
from foreseg.methods.veason import VeasonMethod, VeasonSettings  # noqa: E402
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings  # noqa: E402
from foreseg.methods.visa import VisaMethod, VisaSettings  # noqa: E402
from foreseg.player import Latencies, Player  # noqa: E402
from foreseg.prompts import SpatialPrompt  # noqa: E402
from foreseg.reasoner.language import (  # noqa: E402
    Chunk,
    CompletionStream,
    LanguageRequest,
    SegmentRequest,
    SegmentStream,
)
from foreseg.reasoner.vlm import VlmReasoner  # noqa: E402
from foreseg.state import State  # noqa: E402
from foreseg.tracker.base import FrameMasks, TrackedObject, TrackKey  # noqa: E402
from foreseg.tracker.sam2 import Sam2Tracker  # noqa: E402
from foreseg_torch.language_model import TransformersLanguageModel  # noqa: E402
from foreseg_torch.seg_language_model import SegLanguageModel  # noqa: E402
from foreseg_torch.seg_store import SEG_METHODS, assemble_seg_vlm, load_seg_vlm  # noqa: E402
from foreseg_torch.vlm_loading import Precision, load_vlm, quiet  # noqa: E402

QUERIES = ("what will the red square hit?", "which one moves?")
SIZE_WH = (160, 120)
RATE_HZ = 25
NUM_FRAMES = 70
ASKED_AT = (30, 45)
SEED = 2  # of the projection: its masks are large enough to be tracked
MAX_TOKENS, MAX_SIDE = 512, 448
STAGES = ("sampling", "prefill", "generation", "segmentation", "tracking", "rest")
_REPAIRS = re.compile(r"\[read with repairs: (.*)\]")


class Stopwatch:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, stream: SegmentStream, *, is_sampling: bool) -> SegmentStream:
        """The same stream; what its reader does meanwhile is not counted."""
        stage = "sampling" if is_sampling else "prefill"
        with closing(stream):
            while True:
                began = time.perf_counter()
                item = next(stream, None)
                took = time.perf_counter() - began
                is_token = isinstance(item, Chunk) and (item.num_tokens > 0 or item.text != "")
                if stage == "generation" and item is not None and not is_token:
                    self.seconds["segmentation"] += took  # a frame encoded, or masks decoded
                else:
                    self.seconds[stage] += took
                if item is None:
                    return
                if stage == "prefill" and is_token:
                    stage = "generation"
                yield item


class TimedModel:
    """A language model under a stopwatch."""

    def __init__(
        self, model: TransformersLanguageModel | SegLanguageModel, watch: Stopwatch
    ) -> None:
        self._model = model
        self._watch = watch

    def generate(self, request: LanguageRequest) -> CompletionStream:
        """As the model; a sampler's temperature is above 0."""
        stream = self._model.generate(request)
        for item in self._watch.timed(stream, is_sampling=request.temperature > 0):
            assert isinstance(item, Chunk)  # noqa: S101 (nothing else comes from `generate`)
            yield item

    def segment(self, request: SegmentRequest) -> SegmentStream:
        """As the model."""
        assert isinstance(self._model, SegLanguageModel)  # noqa: S101 (as `models` made it)
        return self._watch.timed(self._model.segment(request), is_sampling=False)


class TimedTracker(Sam2Tracker):
    """The tracker under a stopwatch."""

    watch = Stopwatch()

    def prompt(self, frame: Frame, key: TrackKey, prompt: SpatialPrompt) -> TrackedObject:
        """As the tracker."""
        began = time.perf_counter()
        try:
            return super().prompt(frame, key, prompt)
        finally:
            self.watch.seconds["tracking"] += time.perf_counter() - began

    def track(self, frame: Frame, keys: Sequence[TrackKey]) -> FrameMasks:
        """As the tracker."""
        began = time.perf_counter()
        try:
            return super().track(frame, keys)
        finally:
            self.watch.seconds["tracking"] += time.perf_counter() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of one method."""

    method: str
    answers: int  # targets, or no target
    failures: tuple[str, ...]  # why there was none
    repairs: tuple[str, ...]
    masks: int  # objects on published frames
    seconds: dict[str, float]


def methods(tokens: int, side: int) -> dict[str, Method]:
    view = View(image_side_px=side)
    words = {"view": view, "reasoning_tokens": tokens, "answer_tokens": tokens}
    return {
        "veason": VeasonMethod(VeasonSettings(**words)),  # type: ignore[arg-type]
        "videoseg": VideosegMethod(VideosegSettings(**words, sampler_tokens=tokens)),  # type: ignore[arg-type]
        "visa": VisaMethod(VisaSettings(**words, sampler_tokens=tokens)),  # type: ignore[arg-type]
        "fevos": FevosMethod(FevosSettings(**words)),  # type: ignore[arg-type]
    }


def models(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, TransformersLanguageModel]]:
    """A model for each method, in four bits."""
    with quiet():
        vlm = save_tiny_vlm(folder / "vlm")
        tiny_hiera().save_pretrained(folder / "sam2")
    for name in names:
        if name in SEG_METHODS:
            place = folder / name
            assemble_seg_vlm(str(vlm), folder / "sam2", place, method=name, seed=SEED)
            made = load_seg_vlm(place, precision=Precision.NF4, device="cpu")
            yield name, SegLanguageModel(made)
        else:
            loaded = load_vlm(str(vlm), precision=Precision.NF4, device="cpu")
            yield name, TransformersLanguageModel(loaded)


def measure(name: str, method: Method, model: TransformersLanguageModel) -> Row:
    """Play the clip, ask, and track what is answered."""
    watch = TimedTracker.watch = Stopwatch()
    bundle = load_bundle("nano", threads=1)
    config = Config()
    executor = Executor(
        config, (DEFAULT_CAMERA,), lambda rows: TimedTracker(bundle, max_objects=rows)
    )
    output = Recorder()
    player = Player(
        State.start(config, (DEFAULT_CAMERA,)),
        executor,
        output,
        reasoner=VlmReasoner(method, TimedModel(model, watch)),
        latencies=Latencies(tracker_ns=20_000_000, reasoner_ns=300_000_000),
    )
    began = time.perf_counter()
    for number in range(NUM_FRAMES):
        if number in ASKED_AT:
            text = QUERIES[ASKED_AT.index(number)]
            player.ask(Query(id=QueryId(text), text=text, want_rationale=True))
        player.feed(DEFAULT_CAMERA, image_of(number, SIZE_WH), number * 1_000_000_000 // RATE_HZ)
    player.settle()
    whole = time.perf_counter() - began
    seconds = {stage: watch.seconds[stage] for stage in STAGES[:-1]}
    answers = output.answers
    return Row(
        method=name,
        answers=sum(a.status in (AnswerStatus.OK, AnswerStatus.NO_TARGET) for a in answers),
        failures=tuple(a.reason for a in answers if a.status is AnswerStatus.FAILED),
        repairs=tuple(repair for answer in answers for repair in repairs_of(answer)),
        masks=sum(np.unique(m.label_map[m.label_map > 0]).size for m in output.masks),
        seconds={**seconds, "rest": whole - sum(seconds.values())},
    )


def repairs_of(answer: Answer) -> list[str]:
    return [r for found in _REPAIRS.findall(answer.rationale) for r in found.split(", ")]


def show(rows: Sequence[Row]) -> None:
    print(
        f"four methods, {len(QUERIES)} queries each on {NUM_FRAMES} frames of"
        f" {SIZE_WH[0]}x{SIZE_WH[1]}; random tiny Qwen2.5-VL (nf4) and SAM2 (fp32), tracker nano;"
        f" {machine_name()}, 1 thread, torch {torch.__version__},"
        f" transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    stages = "".join(f"{stage:>13}" for stage in STAGES)
    print(f"{'method':>9} {'answers':>8} {'repairs':>8} {'masks':>6}{stages}   (seconds)")
    for row in rows:
        times = "".join(f"{row.seconds[stage]:>13.3f}" for stage in STAGES)
        print(f"{row.method:>9} {row.answers:>8} {len(row.repairs):>8} {row.masks:>6}{times}")
    for row in rows:
        for what, notes in (("repair", row.repairs), ("no answer", row.failures)):
            for note in dict.fromkeys(notes):
                print(f"{row.method}: {what}: {note[:100]!a}")


def run(tokens: int, side: int) -> list[Row]:
    torch.set_num_threads(1)
    chosen, rows = methods(tokens, side), []
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(chosen), disable=None) as bar:
        for name, model in models(Path(folder), list(chosen)):
            bar.set_description(name)
            rows.append(measure(name, chosen[name], model))
            bar.update()
    return rows


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write what is shown there as well")
    parser.add_argument("--tokens", default="32", metavar="N", help="at most, of each part said")
    parser.add_argument("--side", default="224", metavar="N", help="of the frames shown, px")
    args = parser.parse_args(words)
    try:
        tokens = whole_number(args.tokens, "--tokens", MAX_TOKENS)
        side = whole_number(args.side, "--side", MAX_SIDE)
        place = None if args.json is None else writable_file(args.json)
        rows = run(tokens, side)
        show(rows)
        if place is not None:
            found = {
                row.method: {"answers": row.answers, "masks": row.masks, "seconds": row.seconds}
                for row in rows
            }
            write_text(place, json.dumps(found, indent=1) + "\n")
    except ForesegError as error:
        print(f"methods.py: {error}", file=sys.stderr)
        return 2
    without = [row.method for row in rows if row.method in SEG_METHODS and not row.masks]
    if without:
        print(f"methods.py: no mask from {' and '.join(without)}", file=sys.stderr)
    return 1 if without else 0


if __name__ == "__main__":
    sys.exit(main())
