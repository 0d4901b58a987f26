# SPDX-License-Identifier: Apache-2.0
"""What a run did, in records and in words; what its file and its camera form share."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from foreseg.commands.options import RunOptions
from foreseg.commands.pointing import TimedPrompt
from foreseg.commands.run_files import RunFiles
from foreseg.config import Config
from foreseg.dialogue import Answer, AnswerStatus, Outcome
from foreseg.errors import InputError
from foreseg.masks import rle_area
from foreseg.media.captions import words_of
from foreseg.media.sources import SourceGap
from foreseg.pipeline.events import Reply
from foreseg.pipeline.state import State
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.tracker.base import Tracker

NS = 1_000_000_000
NAMES_SHOWN = 3
MAX_GAPS_TOLD = 8
LINE_CHARS = 96
STREAM_ENDED = "the stream ended"
OUTCOME_WORDS = {
    Outcome.UNKNOWN: "not known whether it came true",
    Outcome.CAME_TRUE: "came true",
    Outcome.DID_NOT: "did not come true",
}


@dataclass(slots=True, kw_only=True)
class Gaps:
    """What a file should have given and did not: all of it counted, some of it in words."""

    num_frames: int = 0
    reasons: list[str] = field(default_factory=list)  # the first few

    def add(self, gap: SourceGap) -> bool:
        """Count one; True if it is kept in words."""
        self.num_frames += gap.num_frames
        is_kept = len(self.reasons) < MAX_GAPS_TOLD
        if is_kept:
            self.reasons.append(gap.reason)
        return is_kept


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did."""

    num_frames: int
    elapsed_s: float
    counters: Mapping[str, int]
    objects: Mapping[ObjectId, Reply | None]  # what was replied to each object pointed at
    unanswered: dict[str, str]  # words of a query -> why there is no answer
    is_interrupted: bool
    end: str = STREAM_ENDED  # what ended it, in words
    gaps: Gaps = field(default_factory=Gaps)  # of the source


def load_tracker(config: Config) -> Callable[[int], Tracker]:
    """Makes trackers over the configured bundle; a fallback is told on stderr.

    Raises:
        ConfigError: no such back-end.
        EngineError: the bundle is missing or damaged, or its back-end does not start.
    """
    from foreseg.engines.load import load_configured
    from foreseg.tracker.views import tracker_factory

    bundle = load_configured(config.tracker)
    if bundle.backend.reason:
        sys.stderr.write(f"foreseg: the tracker runs on {bundle.backend}\n")
    return tracker_factory(bundle, config.tracker.view)


def checked_prompt(one: TimedPrompt, size_wh: tuple[int, int]) -> SpatialPrompt:
    """The prompt of an object, made fit for its frame.

    Raises:
        InputError: it lies outside.
    """
    try:
        return one.prompt.checked(size_wh)
    except InputError as error:
        msg = f"{one.words}: {error}"
        raise InputError(msg) from error


def end_of(options: RunOptions, num_frames: int) -> str:
    """What ended a run after so many frames, in words: its source, or the user's own limit."""
    if num_frames == options.max_frames:
        return f"--max-frames {num_frames} ended the run"
    return STREAM_ENDED


def fate_of(reply: Reply | None, num_shown: int, end: str) -> str:
    """What became of an object, in words; `num_shown` frames have a mask of it, `end` ended the run."""
    if reply is None:
        return f"not added: {end} before"
    if not reply.success:
        return f"not added: {reply.message}"
    return f"masks on {num_shown} frame{'' if num_shown == 1 else 's'}"


def describe_answer(
    answer: Answer,
    first_masks_ns: int | None,
    *,
    has_rationale: bool,
    end: str = STREAM_ENDED,
) -> list[str]:
    """Lines that say all of an answer: words, keyframe, prompts, times, and why if it is wanted.

    Args:
        answer: any.
        first_masks_ns: the stamp of the first frame with masks of its objects, if there was one.
        has_rationale: whether to give its chain of thought.
        end: what ended the run.
    """
    lines = [f"{answer.query_text!r} ({answer.query_id}): {words_of(answer)}"]
    facts = [answer.status.name]
    if answer.keyframe_index is not None:
        age_s = (answer.answered_stamp_ns - answer.keyframe_stamp_ns) / NS
        facts.append(f"keyframe {answer.keyframe_index}, {age_s:.2f} s old when answered")
    if not math.isnan(answer.confidence):
        facts.append(f"confidence {answer.confidence:.2f}")
    facts.append(f"took {answer.latency_s:.2f} s by the clock")
    if first_masks_ns is not None:
        after_s = (first_masks_ns - answer.answered_stamp_ns) / NS
        facts.append(f"first masks {after_s:.2f} s after it")
    lines.append("; ".join(facts))
    if answer.valid_until_stamp_ns and answer.status is AnswerStatus.OK:
        words = answer.reason or f"{end} before its horizon"
        lines.append(f"{OUTCOME_WORDS[answer.outcome]}: {words}")
    elif answer.reason and answer.status is AnswerStatus.OK:
        lines.append(answer.reason)
    names: list[str] = [*answer.object_ids]
    if len(names) != len(answer.prompts):  # some got no track, or the answer failed
        names += ["an object without a track"] * (len(answer.prompts) - len(names))
    lines += [
        f"{name}: {_prompt_in_words(prompt)}"
        for name, prompt in zip(names, answer.prompts)  # noqa: B905 (equal)
    ]
    if has_rationale and answer.rationale:
        text = " ".join(answer.rationale.split())
        lines += textwrap.wrap(f"rationale: {text}", LINE_CHARS)
    return [line if i == 0 else f"  {line}" for i, line in enumerate(lines)]


def _prompt_in_words(prompt: SpatialPrompt) -> str:
    parts = []
    if prompt.box is not None:
        parts.append("box " + ", ".join(f"{value:g}" for value in prompt.box))
    parts += [f"{point.label.name.lower()} {point.x:g}, {point.y:g}" for point in prompt.points]
    if prompt.mask is not None:
        parts.append(f"a mask of {rle_area(prompt.mask)} pixels")
    return "; ".join(parts)


def note_from_state(state: State) -> str:
    """What goes on, for the progress bar."""
    if state.asking is not None:
        return "asking"
    tracks = [track for camera in state.cameras.values() for track in camera.tracks]
    names = ", ".join(track.object_id for track in tracks[:NAMES_SHOWN])
    more = len(tracks) - NAMES_SHOWN
    return f"tracking {names}{f' and {more} more' if more > 0 else ''}" if tracks else ""


def unanswered_queries(
    options: RunOptions, files: RunFiles, state: State, end: str
) -> dict[str, str]:
    """The queries without any answer, each with the reason; `end` ended the run."""
    answered = {answer.query_id for answer in files.answers}
    asked = {entry.query.id for entry in state.queries if entry.num_asked}
    reasons = {}
    for query in options.queries:
        if query.id in answered:
            continue
        if query.id in asked:
            why = f"{end} while it was asked"
        elif not state.reasoner_up:
            why = f"the reasoner is down: {state.reasoner_reason}"
        else:
            why = f"{end} before it was asked (scheduler.warm_up_s)"
        reasons[query.text] = why
    return reasons
