# SPDX-License-Identifier: Apache-2.0
"""The methods of the papers end to end on one drawn clip: `methods.py [--json FILE] [--tokens N] [--side N]`.

Tiny random models of the real architectures (Qwen2.5-VL in four bits, a small SAM2), so that every
step is really done: the sampler's answers, the prompt (frames included), the words, the masks of
[SEG] tokens, the tracker (the shipped one). One thread, seeds fixed. The times say where a method
spends its steps, not how long a real model takes; and random words are noise: an answer in text
is then hardly ever one, which is said, while a [SEG] method always gives a mask. Words are put into
mouths twice: the samplers', once theirs are generated, or no round would follow the first; and
`sa2va` is made to say its token, which it must not be made to say otherwise (without it there is
no target).

Those with a sampler run a second time as `fast`: what that saves stands side by side, in
completions and seconds; what it costs in quality needs trained weights. An answer is a target or
"no target"; a mask is one object on one published frame; a repair is a note on how a completion
was read. `rest` is history, pipeline and reading.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from foreseg.driving.executor import Executor  # noqa: E402
from foreseg.driving.player import Latencies, Player  # noqa: E402
from foreseg.engines.load import load_bundle  # noqa: E402
from foreseg.errors import ForesegError  # noqa: E402
from foreseg.frames import DEFAULT_CAMERA, Frame  # noqa: E402
from foreseg.language.base import (  # noqa: E402
    Chunk,
    CompletionStream,
    LanguageRequest,
    SegmentRequest,
    SegmentStream,
)
from foreseg.methods.base import Method  # noqa: E402
from foreseg.methods.fevos import FevosMethod, FevosSettings  # noqa: E402
from foreseg.methods.grounding import View  # noqa: E402
from foreseg.methods.sa2va import Sa2vaMethod, Sa2vaSettings  # noqa: E402
from foreseg.methods.seg_answers import sentence  # noqa: E402
from foreseg.methods.veason import VeasonMethod, VeasonSettings  # noqa: E402
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings  # noqa: E402
from foreseg.methods.visa import VisaMethod, VisaSettings  # noqa: E402
from foreseg.pipeline.state import State  # noqa: E402
from foreseg.prompts import SpatialPrompt  # noqa: E402
from foreseg.reasoner.vlm import VlmReasoner  # noqa: E402
from foreseg.tracker.base import FrameMasks, TrackedObject, TrackKey  # noqa: E402
from foreseg.tracker.sam2 import Sam2Tracker  # noqa: E402
from foreseg_torch.seg.decode import SA2VA_DECODE  # noqa: E402
from foreseg_torch.seg.language_model import SegLanguageModel  # noqa: E402
from foreseg_torch.seg.store import (  # noqa: E402
    ASSEMBLED,
    SEG_METHODS,
    assemble_seg_vlm,
    load_seg_vlm,
)
from foreseg_torch.vlm.language_model import TransformersLanguageModel  # noqa: E402
from foreseg_torch.vlm.loading import Precision, load_vlm, quiet  # noqa: E402

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
    """A language model under a stopwatch, with the number of its completions."""

    def __init__(
        self,
        model: TransformersLanguageModel | SegLanguageModel,
        watch: Stopwatch,
        sampler_tokens: int,
    ) -> None:
        self._model = model
        self._watch = watch
        self._sampler_tokens = sampler_tokens  # of its requests; no other has so few
        self.completions = 0

    def generate(self, request: LanguageRequest) -> CompletionStream:
        """As the model."""
        self.completions += request.num_samples
        stream = self._model.generate(request)
        is_sampling = request.max_tokens == self._sampler_tokens
        for item in self._watch.timed(stream, is_sampling=is_sampling):
            assert isinstance(item, Chunk)  # noqa: S101 (nothing else comes from `generate`)
            yield replace(item, text="") if is_sampling else item
        if is_sampling:
            for sample in range(request.num_samples):
                yield Chunk(text=sampler_words(request), sample=sample)

    def segment(self, request: SegmentRequest) -> SegmentStream:
        """As the model."""
        assert isinstance(self._model, SegLanguageModel)  # noqa: S101 (as `models` made it)
        self.completions += 1
        if request.ending is None:
            request = replace(request, ending=lambda _: f" {sentence()}")
        return self._watch.timed(self._model.segment(request), is_sampling=False)


def sampler_words(request: LanguageRequest) -> str:
    """The middle of what is shown: its frame, or some 60 % of it where an interval is asked for."""
    content = request.messages[0].content
    words = "\n".join(part for part in content if isinstance(part, str))
    if "percentage" in words:
        return "<answer>50%</answer>"
    labels = [int(digits) for digits in re.findall(r"(?m)^<(\d+)>$", words)]
    margin = (max(labels) - min(labels)) / 5
    return f"<answer>[{min(labels) + margin:.0f}, {max(labels) - margin:.0f}]</answer>"


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

    name: str  # of the method, and its setting
    completions: int
    answers: int  # targets, or no target
    failures: tuple[str, ...]  # why there was none
    repairs: tuple[str, ...]
    masks: int  # objects on published frames
    seconds: dict[str, float]


def methods(tokens: int, side: int) -> dict[str, Method]:
    """By their rows' names; samplers say as much as answers do, less a token."""
    says: dict[str, Any] = {
        "view": View(image_side_px=side),
        "reasoning_tokens": tokens,
        "answer_tokens": tokens,
    }
    both = {**says, "sampler_tokens": max(1, tokens - 1)}
    return {
        "veason": VeasonMethod(replace(VeasonSettings(), **says)),
        "videoseg": VideosegMethod(replace(VideosegSettings(), **both)),
        "videoseg-fast": VideosegMethod(replace(VideosegSettings.fast(), **both)),
        "visa": VisaMethod(replace(VisaSettings(), **both)),
        "visa-fast": VisaMethod(replace(VisaSettings.fast(), **both)),
        "fevos": FevosMethod(replace(FevosSettings(), **says)),
        "sa2va": Sa2vaMethod(replace(Sa2vaSettings(), **says)),
    }


def models(
    folder: Path, chosen: Mapping[str, Method]
) -> Iterator[tuple[str, TransformersLanguageModel]]:
    """A model for each row, in four bits."""
    with quiet():
        vlm = save_tiny_vlm(folder / "vlm")
        tiny_hiera().save_pretrained(folder / "sam2")
    for name, method in chosen.items():
        if method.name in SEG_METHODS:
            place = folder / name
            kind = method.name if method.name in ASSEMBLED else "fevos"
            assemble_seg_vlm(str(vlm), folder / "sam2", place, method=kind, seed=SEED)
            made = load_seg_vlm(place, precision=Precision.NF4, device="cpu")
            if name == "sa2va":
                made.model.head.decode = SA2VA_DECODE  # as in a folder that was converted
            yield name, SegLanguageModel(made)
        else:
            loaded = load_vlm(str(vlm), precision=Precision.NF4, device="cpu")
            yield name, TransformersLanguageModel(loaded)


def measure(name: str, method: Method, model: TransformersLanguageModel, tokens: int) -> Row:
    """Play the clip, ask, and track what is answered."""
    watch = TimedTracker.watch = Stopwatch()
    timed = TimedModel(model, watch, max(1, tokens - 1))
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
        reasoner=VlmReasoner(method, timed),
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
        name=name,
        completions=timed.completions,
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
        f"{len(rows)} rows, {len(QUERIES)} queries each on {NUM_FRAMES} frames of"
        f" {SIZE_WH[0]}x{SIZE_WH[1]}; random tiny Qwen2.5-VL (nf4) and SAM2 (fp32), tracker nano;"
        f" {machine_name()}, 1 thread, torch {torch.__version__},"
        f" transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    stages = "".join(f"{stage:>13}" for stage in STAGES)
    counts = ("completions", "answers", "repairs", "masks")
    print(
        f"{'method':>13}" + "".join(f"{count:>12}" for count in counts) + f"{stages}   (seconds)"
    )
    for row in rows:
        numbers = (row.completions, row.answers, len(row.repairs), row.masks)
        times = "".join(f"{row.seconds[stage]:>13.3f}" for stage in STAGES)
        print(f"{row.name:>13}" + "".join(f"{number:>12}" for number in numbers) + times)
    for row in rows:
        for what, notes in (("repair", row.repairs), ("no answer", row.failures)):
            for note in dict.fromkeys(notes):
                print(f"{row.name}: {what}: {note[:100]!a}")


def run(tokens: int, side: int) -> list[Row]:
    torch.set_num_threads(1)
    chosen, rows = methods(tokens, side), []
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(chosen), disable=None) as bar:
        for name, model in models(Path(folder), chosen):
            bar.set_description(name)
            rows.append(measure(name, chosen[name], model, tokens))
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
            names = ("completions", "answers", "masks", "seconds")
            found = {row.name: {name: getattr(row, name) for name in names} for row in rows}
            write_text(place, json.dumps(found, indent=1) + "\n")
    except ForesegError as error:
        print(f"methods.py: {error}", file=sys.stderr)
        return 2
    seg_rows = [row for row in rows if row.name.removesuffix("-fast") in SEG_METHODS]
    without = [row.name for row in seg_rows if not row.masks]
    if without:
        print(f"methods.py: no mask from {' and '.join(without)}", file=sys.stderr)
    return 1 if without else 0


if __name__ == "__main__":
    sys.exit(main())
