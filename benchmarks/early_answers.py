# SPDX-License-Identifier: Apache-2.0
"""Ways to answer early, each against its absence: seconds to the first mask, and J&F, in one table.

    foreseg-sim generate --preset val-v1 --out val_v1
    foreseg-export reasoner --from training/checkpoints/nano_reasoner --out nano_reasoner
    .venv/bin/python benchmarks/early_answers.py --bundle nano_reasoner --dataset val_v1

Clips are asked about offline, streams every two seconds. Seconds are of a processor, in the asking
thread, with one thread of ONNX Runtime, the median over askings: other work on the machine hardly
counts. To them comes one prompt of the tracker. The two ways of a row are asked in turn. A failed
answer has J&F 0 here. Streams are played with these medians as latencies; on devices that are not at
hand with theirs, which is a prediction: the answers are still the nano reasoner's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from statistics import mean, median

from tqdm import tqdm

from foreseg.commands.bundle_bench import machine_name, whole_number, writable_file, write_text
from foreseg.config import Config
from foreseg.dialogue import (
    VERDICTS,
    Abstained,
    AnswerDone,
    NoTarget,
    Query,
    QueryId,
    TargetsFound,
)
from foreseg.driving.executor import Executor
from foreseg.driving.label_origins import MAX_OFFSET
from foreseg.driving.player import Latencies
from foreseg.errors import ConfigError, ForesegError
from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameWindow
from foreseg.history.reduction import reduce_window
from foreseg.history.windows import WindowPolicy
from foreseg.language.base import CompletionStream, LanguageRequest
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import Coordinates
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.nano.bundle import CARD, NanoBundle, read_nano_bundle
from foreseg.nano.language_model import OnnxLanguageModel
from foreseg.pipeline.events import AskId
from foreseg.reasoner.base import AnswerStream, Reasoner
from foreseg.reasoner.fitted_view import FittedView
from foreseg.reasoner.options import labels_from_name
from foreseg.reasoner.prompt_card import PromptCard, card_from_json, check_words
from foreseg.reasoner.vlm import VlmReasoner
from foreseg.tracker.base import TrackKey
from foreseg_evaluation.bootstrap import mean_interval
from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.devices import ANSWER_TOKENS, SAID_TOKENS, device_profile
from foreseg_evaluation.episode import Dataset, Episode
from foreseg_evaluation.offline import AnswerError, EpisodeFrames, ask_over_all, follow_answer
from foreseg_evaluation.prediction import Prediction
from foreseg_evaluation.prompt_forms import PromptForm, prompt_of
from foreseg_evaluation.report import bounds_in_words, episode_score, number_in_words
from foreseg_evaluation.scoring import score_episode, stream_scores
from foreseg_evaluation.streaming import play_episode, prediction_on_screen
from foreseg_evaluation.system import System, SystemConfig

PERIOD_S = 2.0
BUDGET = 12  # tokens of thoughts that are cut
STREAM_SECONDS = 20.0  # an episode at least as long is a stream
TRACKER_MS = device_profile("cpu-core").tracker_ms
DEVICES = ("orin", "thor", "a100")
BAR = 0.6  # of the time to the first mask with the thoughts first


class Kept(Enum):
    """What the model keeps between two completions."""

    NOTHING = "nothing"
    FRAMES = "frames"
    ALL = "frames and prompt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to be asked."""

    form: Form = Form.ANSWER_FIRST
    keeps_to_grammar: bool = True
    budget: int = 0  # of thoughts; 0 = the method's own
    pins_frames: bool = False
    kept: Kept = Kept.ALL
    guesses: bool = True  # what comes next, run together


THOUGHTS_FIRST = Way(form=Form.THINK_FIRST)
ANSWER_FIRST = Way()
CUT = replace(THOUGHTS_FIRST, budget=BUDGET)
CUT_ASKED_AGAIN = replace(CUT, keeps_to_grammar=False)
CLIP_ROWS: Mapping[str, tuple[Way, Way]] = {
    "answer first": (THOUGHTS_FIRST, ANSWER_FIRST),
    "answer alone": (THOUGHTS_FIRST, Way(form=Form.ANSWER_ONLY)),
    "next tokens guessed, thoughts first": (replace(THOUGHTS_FIRST, guesses=False), THOUGHTS_FIRST),
    "next tokens guessed, answer first": (replace(ANSWER_FIRST, guesses=False), ANSWER_FIRST),
    "grammar, thoughts first": (replace(THOUGHTS_FIRST, keeps_to_grammar=False), THOUGHTS_FIRST),
    "grammar, answer first": (Way(keeps_to_grammar=False), ANSWER_FIRST),
    f"thoughts cut at {BUDGET} tokens by the grammar": (THOUGHTS_FIRST, CUT),
    "cut by asking again: keys and values kept": (
        replace(CUT_ASKED_AGAIN, kept=Kept.FRAMES), CUT_ASKED_AGAIN,
    ),
    "places that stay (pins_frames)": (ANSWER_FIRST, Way(pins_frames=True)),
}  # fmt: skip
UNKEPT = Way(kept=Kept.NOTHING)
PINNED = Way(pins_frames=True)
AGAIN_ROWS: Mapping[str, tuple[Way, Way]] = {
    "frames' tokens kept": (UNKEPT, Way(kept=Kept.FRAMES)),
    "and the prompt's keys and values": (Way(kept=Kept.FRAMES), ANSWER_FIRST),
    "and places that stay (pins_frames)": (ANSWER_FIRST, PINNED),
    "all three": (UNKEPT, PINNED),
    "answer first, with all three": (replace(PINNED, form=Form.THINK_FIRST), PINNED),
}
FIRST_UNKEPT = replace(THOUGHTS_FIRST, kept=Kept.NOTHING)


class KeepingModel:
    """The model, which forgets before a completion what a way does not keep."""

    def __init__(self, model: OnnxLanguageModel, kept: Kept) -> None:
        self.model = model
        self._kept = kept
        self.num_prompt = self.num_read = 0

    def generate(self, request: LanguageRequest) -> CompletionStream:
        """As the model."""
        if self._kept is not Kept.ALL:
            self.model.forget(frames=self._kept is Kept.NOTHING)
        try:
            yield from self.model.generate(request)
        finally:
            self.num_prompt += self.model.num_prompt
            self.num_read += self.model.num_prompt - self.model.num_reused


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an asking took."""

    seconds: float  # of a processor, to the verdict; NaN without one
    num_prompt: int  # tokens of its prompts
    num_read: int  # of these, read anew
    num_encoded: int  # frames
    num_said: int  # tokens, until no more of the answer was wanted
    verdict: object  # None: it failed


class TimedReasoner:
    """A reasoner that is asked in one way, under a stopwatch."""

    def __init__(self, method: VeasonMethod, model: OnnxLanguageModel, kept: Kept) -> None:
        self.keeping = KeepingModel(model, kept)
        self._reasoner: Reasoner = VlmReasoner(method, self.keeping)
        self.asked: list[Asked] = []

    @property
    def window_policy(self) -> WindowPolicy:
        """The method's."""
        return self._reasoner.window_policy

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """As the reasoner."""
        keeping = self.keeping
        keeping.num_prompt = keeping.num_read = 0
        before, began = keeping.model.encoder.num_encoded, time.thread_time()
        seconds, num_said = math.nan, 0
        verdict: TargetsFound | NoTarget | Abstained | None = None
        try:
            for part in self._reasoner.ask(query, window):
                if isinstance(part, VERDICTS):
                    seconds = time.thread_time() - began
                    verdict = (
                        part if isinstance(part, Abstained) else replace(part, confidence=0.0)
                    )
                elif isinstance(part, AnswerDone):
                    num_said = part.tokens
                yield part
        finally:  # its reader may leave after the last part
            self.asked.append(
                Asked(
                    seconds=seconds,
                    num_prompt=keeping.num_prompt,
                    num_read=keeping.num_read,
                    num_encoded=keeping.model.encoder.num_encoded - before,
                    num_said=num_said,
                    verdict=verdict,
                )
            )


class Reasoners:
    """Makes a reasoner for each way, each with a model of its own."""

    def __init__(self, bundle: NanoBundle, card: PromptCard) -> None:
        self._bundle, self._card = bundle, card

    def made(self, way: Way) -> TimedReasoner:
        """A new one."""
        card = self._card
        view = FittedView(
            image_side_px=card.image_side_px,
            coordinates=Coordinates.PIXELS,
            patch_px=self._bundle.manifest.images.unit_px,
            labels=labels_from_name(card.labels),
            frame_pixels=card.frame_pixels,
        )
        settings = VeasonSettings(
            num_frames=card.num_frames,
            view=view,
            form=way.form,
            tells_budget=card.tells_budget,
            keeps_to_grammar=way.keeps_to_grammar,
            pins_frames=way.pins_frames,
        )
        if way.budget:
            settings = replace(settings, reasoning_tokens=way.budget)
        check_words(VeasonMethod(replace(settings, form=None)), card)
        model = OnnxLanguageModel(
            self._bundle, frame_pixels=card.frame_pixels, guesses=way.guesses
        )
        return TimedReasoner(VeasonMethod(settings), model, way.kept)


class AskedSystem(System):
    """The nano tracker with whichever reasoner is to be asked now."""

    def __init__(self, dataset: Dataset) -> None:
        config = SystemConfig(
            name="early", reasoner="random_box", rationale=False, period_s=PERIOD_S
        )
        super().__init__(config, dataset)
        self.asked: Reasoner | None = None

    def reasoner(self, episode: Episode, *, is_live: bool) -> Reasoner:
        """That one."""
        return self.asked or super().reasoner(episode, is_live=is_live)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one way."""

    seconds: float  # to the first mask
    scores: tuple[float, ...] = ()  # J&F of each question, percent
    num_failed: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to answer early, and its absence."""

    what: str
    where: str
    without: Found
    by: Found


def question_of(episode: Episode) -> str:
    assert episode.question is not None  # noqa: S101 (others are left out)
    return episode.question.text


def j_and_f(episode: Episode, prediction: Prediction) -> float:
    return episode_score(score_episode(episode, prediction)).j_and_f


def prompt_seconds(system: System, episode: Episode) -> float:
    """Of a processor, for the first mask of an object that is pointed at."""
    tracker, frame = system.tracker(1), EpisodeFrames(episode)[0]
    height, width = frame.image.shape[:2]
    mask = episode.truth(0) | False
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    took = []
    for number in range(5):
        began = time.thread_time()
        tracker.prompt(frame, TrackKey(str(number)), prompt_of(PromptForm.BOX, mask))
        took.append(time.thread_time() - began)
        tracker.reset()
    return median(took)


def clip_rows(
    system: AskedSystem, reasoners: Reasoners, clips: Sequence[Episode], mask_s: float
) -> Iterator[Row]:
    """Offline: every way about every clip, each as if it were the first asking."""
    ways = dict.fromkeys(way for pair in CLIP_ROWS.values() for way in pair)
    made = {way: reasoners.made(way) for way in ways}
    scores: dict[Way, list[float]] = defaultdict(list)
    for episode in tqdm(clips, desc="clips", disable=None):
        known: dict[object, float] = {}
        for way, reasoner in made.items():
            reasoner.keeping.model.forget()
            try:
                spoken = ask_over_all(
                    reasoner, episode, max_side_px=Config().reasoner.max_side_px,
                    want_rationale=False,
                )  # fmt: skip
            except AnswerError:
                scores[way].append(0.0)
                continue
            answer = spoken.status, spoken.keyframe, spoken.prompts
            if answer not in known:  # the same answer has the same masks
                known[answer] = j_and_f(episode, follow_answer(system, episode, spoken))
            scores[way].append(known[answer])
    found = {
        way: Found(
            seconds=typical_s(reasoner.asked) + mask_s,
            scores=tuple(scores[way]),
            num_failed=sum(asked.verdict is None for asked in reasoner.asked),
            note=f"{median([asked.num_said for asked in reasoner.asked]):.0f} tokens said",
        )
        for way, reasoner in made.items()
    }
    for what, (without, by) in CLIP_ROWS.items():
        yield Row(what=what, where="offline", without=found[without], by=found[by])


def typical_s(asked: Sequence[Asked]) -> float:
    """The median of the askings that were answered."""
    seconds = [each.seconds for each in asked if not math.isnan(each.seconds)]
    return median(seconds) if seconds else math.nan


class Askings:
    """Every way in turn, asked about the same moments of streams, as the pipeline takes its windows."""

    def __init__(self, system: AskedSystem, reasoners: Reasoners) -> None:
        ways = dict.fromkeys(way for pair in AGAIN_ROWS.values() for way in pair)
        self._system = system
        self.made = {way: reasoners.made(way) for way in (*ways, FIRST_UNKEPT)}
        self.shared, self.own = reasoners.made(PINNED), reasoners.made(PINNED)

    def play(self, episode: Episode, other: str) -> None:
        """A standing question, and another one that waits while it is answered."""
        executor = Executor(Config(), (DEFAULT_CAMERA,), self._system.tracker)
        query = Query(id=QueryId("question"), text=question_of(episode), period_s=PERIOD_S)
        waiting = Query(id=QueryId("waiting"), text=other)
        reasoners = (*self.made.values(), self.shared, self.own)
        for reasoner in reasoners:
            reasoner.keeping.model.forget()
        due_ns = number = 0
        for position in range(episode.num_frames):
            stamp_ns = episode.stamp_ns(position)
            executor.push(
                DEFAULT_CAMERA, episode.image(position), stamp_ns=stamp_ns, at_ns=stamp_ns
            )
            if stamp_ns < due_ns + PERIOD_S * 1e9:
                continue
            due_ns = stamp_ns
            for reasoner in reasoners:
                number += 1
                window = executor.take_window(AskId(number), query, reasoner.window_policy)
                window = reduce_window(window, Config().reasoner.max_side_px)
                self._ask(reasoner, query, waiting, window)
                executor.release_window(AskId(number))

    def _ask(
        self, reasoner: TimedReasoner, query: Query, waiting: Query, window: FrameWindow
    ) -> None:
        for _ in reasoner.ask(query, window):
            pass
        if reasoner in (self.shared, self.own):
            reasoner.asked.pop()  # only who waits is timed
            if reasoner is self.own:
                first = FrameIndex(int(window.origin_index) - MAX_OFFSET // 3)
                window = replace(window, origin_index=first)
            for _ in reasoner.ask(waiting, window):
                pass

    def rows(self, mask_s: float) -> Iterator[Row]:
        """What came of all streams."""
        found = {way: self._found(reasoner, mask_s) for way, reasoner in self.made.items()}
        for what, (without, by) in AGAIN_ROWS.items():
            row = Row(what=what, where="asked again", without=found[without], by=found[by])
            if replace(without, kept=by.kept) == by:
                pairs = zip(self.made[without].asked, self.made[by].asked, strict=True)
                same = [one.verdict == other.verdict for one, other in pairs]
                note = f"{row.by.note}; {sum(same)} of {len(same)} answers equal"
                row = replace(row, by=replace(row.by, note=note))
            yield row
        own, shared = (self._found(each, mask_s) for each in (self.own, self.shared))
        yield Row(what="who waits: labels shared", where="asked next", without=own, by=shared)

    def _found(self, reasoner: TimedReasoner, mask_s: float) -> Found:
        asked = reasoner.asked
        return Found(
            seconds=typical_s(asked) + mask_s,
            num_failed=sum(each.verdict is None for each in asked),
            note=f"reads {100 * self.share_read(asked):.0f} % of its prompt,"
            f" sees {mean([each.num_encoded for each in asked]):.1f} frames anew",
        )

    @staticmethod
    def share_read(asked: Sequence[Asked]) -> float:
        """Tokens read anew, of all tokens of the prompts."""
        return sum(each.num_read for each in asked) / sum(each.num_prompt for each in asked)

    def stream_ways(self) -> Iterator[tuple[str, str, Way, Way, Latencies, Latencies]]:
        """What is played, where, in which two ways, and as late as what."""
        seconds = {way: typical_s(reasoner.asked) for way, reasoner in self.made.items()}

        def here(way: Way) -> Latencies:
            return latencies(TRACKER_MS, 1000 * seconds[way])

        core = "streams, one core"
        yield "answer first", core, FIRST_UNKEPT, UNKEPT, here(FIRST_UNKEPT), here(UNKEPT)
        kept = "all kept, places that stay"
        yield kept, core, UNKEPT, PINNED, here(UNKEPT), here(PINNED)
        share = self.share_read(self.made[PINNED].asked)
        for name in DEVICES:
            profile, where = device_profile(name), f"streams, {name} (predicted)"
            slow = latencies(profile.tracker_ms, profile.answer_ms(SAID_TOKENS))
            first = latencies(profile.tracker_ms, profile.answer_ms(ANSWER_TOKENS))
            least = latencies(profile.tracker_ms, profile.answer_ms(ANSWER_TOKENS, share))
            yield "answer first", where, FIRST_UNKEPT, UNKEPT, slow, first
            yield kept, where, UNKEPT, PINNED, first, least


def latencies(tracker_ms: float, reasoner_ms: float) -> Latencies:
    return Latencies(tracker_ns=round(tracker_ms * 1e6), reasoner_ns=round(reasoner_ms * 1e6))


def stream_rows(
    system: AskedSystem, reasoners: Reasoners, askings: Askings, streams: Sequence[Episode]
) -> Iterator[Row]:
    """Streaming: each way with its latency, once."""
    known: dict[tuple[Way, Latencies], Found] = {}
    for what, where, *ways, without, by in askings.stream_ways():
        pair = tuple(zip(ways, (without, by), strict=True))
        for way, late in pair:
            if (way, late) not in known:
                known[way, late] = played(system, reasoners.made(way), late, streams, where)
        yield Row(what=what, where=where, without=known[pair[0]], by=known[pair[1]])


def played(
    system: AskedSystem,
    reasoner: TimedReasoner,
    late: Latencies,
    streams: Sequence[Episode],
    where: str,
) -> Found:
    """Play all streams."""
    scores, first_s = [], []
    system.asked = reasoner
    for episode in tqdm(streams, desc=where, disable=None):
        reasoner.keeping.model.forget()
        record = play_episode(system, episode, late)
        scores.append(j_and_f(episode, prediction_on_screen(record, episode)))
        first_s.append(stream_scores(episode, record)["time_to_first_mask_s"])
    shown = [seconds for seconds in first_s if not math.isnan(seconds)]
    on_screen = f"{mean(shown):.1f} s" if shown else "never"
    assert late.reasoner_ns is not None  # noqa: S101 (as `latencies` makes them)
    assert late.tracker_ns is not None  # noqa: S101
    return Found(
        seconds=(late.reasoner_ns + late.tracker_ns) / 1e9,
        scores=tuple(scores),
        num_failed=sum(asked.verdict is None for asked in reasoner.asked),
        note=f"on screen after {on_screen}",
    )


def shortened(episode: Episode, seconds: float) -> Episode:
    """Its first seconds."""
    end = min(episode.num_frames, math.ceil(seconds * episode.rate_hz))
    spans = [replace(s, end=min(s.end, end)) for s in episode.spans if s.first < end]
    return replace(
        episode,
        frame_names=episode.frame_names[:end],
        spans=tuple(spans),
        annotated=tuple(p for p in episode.annotated if p < end),
        scored=tuple(p for p in episode.scored if p < end),
    )


def spread(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """So many of them at most, evenly picked."""
    step = max(1.0, len(episodes) / count)
    return [episodes[int(k * step)] for k in range(min(len(episodes), count))]


HEAD = "way|where|s without|s with|share|J&F without|J&F with|difference|95 %|failed|notes"


def line_of(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def cells(row: Row) -> list[str]:
    without, by = row.without, row.by
    pairs = zip(without.scores, by.scores, strict=True)
    gain = mean_interval([after - before for before, after in pairs])
    notes = [note for note in (without.note, by.note) if note]
    return [
        row.what,
        row.where,
        f"{without.seconds:.3f}",
        f"{by.seconds:.3f}",
        f"{by.seconds / without.seconds:.2f}",
        *(f"{mean(each.scores):.1f}" if each.scores else "" for each in (without, by)),
        number_in_words(gain.mean) if gain.count else "",
        bounds_in_words(gain) if gain.count else "",
        f"{without.num_failed} -> {by.num_failed}",
        " -> ".join(notes),
    ]


def found_rows(options: argparse.Namespace) -> Iterator[Row]:
    """Row by row, as they are found; at the end what they are of is told."""
    folder = Path(options.bundle)
    bundle = read_nano_bundle(folder)
    card = card_from_json(bundle.files[CARD], str(folder / CARD))
    if card.method != VeasonMethod.name or card.form:
        msg = f"{folder}: wanted is a reasoner that knows all forms of veason"
        raise ConfigError(msg)
    dataset = read_dataset(Path(options.dataset), "fevos", split=options.split)
    asked = [e for e in dataset.episodes if e.question is not None]
    clips = [e for e in asked if e.duration_s < STREAM_SECONDS and len(e.spans) <= 1]
    streams = [e for e in asked if e.duration_s >= STREAM_SECONDS]
    clips = spread(clips, whole_number(options.questions, "--questions", 100_000))
    streams = spread(streams, whole_number(options.streams, "--streams", 100_000))
    seconds = whole_number(options.seconds, "--seconds", 100_000)
    streams = [shortened(e, seconds) for e in streams]
    if not clips or not streams:
        msg = f"{options.dataset}: wanted are questions about clips and about streams"
        raise ConfigError(msg)
    system, reasoners = AskedSystem(dataset), Reasoners(bundle, card)
    mask_s = prompt_seconds(system, clips[0])
    yield from clip_rows(system, reasoners, clips, mask_s)
    askings = Askings(system, reasoners)
    texts = [question_of(episode) for episode in asked]
    for episode in tqdm(streams, desc="asked again", disable=None):
        askings.play(episode, next(text for text in texts if text != question_of(episode)))
    yield from askings.rows(mask_s)
    yield from stream_rows(system, reasoners, askings, streams)
    num_askings = len(askings.shared.asked)
    print(
        f"\n{len(clips)} questions about clips, {len(streams)} about the first {seconds} s of streams"
        f" with {num_askings} askings; {bundle.manifest.name} ({bundle.manifest.precision}),"
        f" {machine_name()}, 1 thread; a first mask takes the tracker {1000 * mask_s:.0f} ms"
    )


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", required=True, help="made by `foreseg-export reasoner`")
    parser.add_argument("--dataset", required=True, help="in FeVOS's form, with clips and streams")
    parser.add_argument("--split", default="val")
    parser.add_argument("--questions", default="40", metavar="N", help="about clips, at most")
    parser.add_argument("--streams", default="4", metavar="N", help="questions, at most")
    parser.add_argument("--seconds", default="30", metavar="N", help="of each stream, at most")
    parser.add_argument("--json", metavar="FILE", help="all figures, for machines")
    options = parser.parse_args(words)
    try:
        place = None if options.json is None else writable_file(options.json)
        rows: list[Row] = []
        for row in found_rows(options):
            if not rows:
                print(line_of(HEAD.split("|")))
                print(line_of(["---"] * len(HEAD.split("|"))))
            print(line_of(cells(row)), flush=True)
            rows.append(row)
        if place is not None:
            write_text(place, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    except ForesegError as error:
        print(f"early_answers.py: {error}", file=sys.stderr)
        return 2
    first = rows[0]
    share = first.by.seconds / first.without.seconds
    kept = "kept" if share <= BAR else "not kept"
    print(f"answer first, offline: {share:.2f} of the time; the bar of {BAR} is {kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
