# SPDX-License-Identifier: Apache-2.0
"""MeViS, ReVOS and FeVOS: expressions in one JSON file, run-length masks by annotation id in another.

Objects have their annotation ids. FeVOS as the simulation writes it has further keys, which are
read where they are there; see docs/datasets.md. Does not know: pixels, scores.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from foreseg_evaluation.episode import Episode, Question, QuestionKind, TruthSpan
from foreseg_evaluation.problems import DatasetError

from .entries import Entry, read_json, wrong
from .media import EpisodeMedia, RleMasklet, rle_masklet, size_of_rles
from .rationales import Rationale, Rationales, evidence_from, read_rationales
from .reading import Reading, Video, expressions_of, make_episode, open_video, whole

Kinds = Callable[[Entry, bool], QuestionKind]  # of an expression that has targets or not


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where the files of a form stand, and how it says what a question asks for."""

    meta: Path
    masks: Path
    frames: Path
    kinds: Kinds
    may_lack_truth: bool = False
    foreground: Path | None = None


def read_fevos(reading: Reading) -> list[Episode]:
    """Read a split of FeVOS, official or simulated."""
    root = reading.root
    layout = _Layout(
        meta=root / f"meta_expressions_{reading.split}.json",
        masks=root / "mask_dict.json",
        frames=root / "JPEGImages",
        kinds=_fevos_kind,
    )
    return _read(reading, layout, read_rationales(root / "reasoning_data.json", reading))


def read_revos(reading: Reading) -> list[Episode]:
    """Read a split of ReVOS."""
    root = reading.root
    foreground = root / "mask_dict_foreground.json"
    layout = _Layout(
        meta=root / f"meta_expressions_{reading.split}_.json",
        masks=root / "mask_dict.json",
        frames=root / "JPEGImages",
        kinds=_revos_kind,
        foreground=foreground if foreground.exists() else None,
    )
    if layout.foreground is None:
        reading.log.assume(
            "without mask_dict_foreground.json, the foreground is the union of all annotations"
            " that the video's expressions name"
        )
    return _read(reading, layout, {})


def read_mevis(reading: Reading) -> list[Episode]:
    """Read a split of MeViS; `valid` has no truth."""
    folder = reading.root / reading.split
    layout = _Layout(
        meta=folder / "meta_expressions.json",
        masks=folder / "mask_dict.json",
        frames=folder / "JPEGImages",
        kinds=_mevis_kind,
        may_lack_truth=reading.split == "valid",
    )
    return _read(reading, layout, {})


def _mevis_kind(_expression: Entry, has_target: bool) -> QuestionKind:  # noqa: FBT001
    return QuestionKind.REFERRING if has_target else QuestionKind.NO_TARGET


def _revos_kind(expression: Entry, _has_target: bool) -> QuestionKind:  # noqa: FBT001
    kinds = (QuestionKind.REFERRING, QuestionKind.REASONING, QuestionKind.NO_TARGET)
    type_id = expression["type_id"]
    if not 0 <= type_id.integer() < len(kinds):
        raise wrong(type_id, f"expected 0, 1 or 2, got {type_id.value}")
    return kinds[type_id.integer()]


def _fevos_kind(expression: Entry, has_target: bool) -> QuestionKind:  # noqa: FBT001
    stated = expression.find("type")
    if stated is None:
        return QuestionKind.FORESIGHT if has_target else QuestionKind.NO_TARGET
    try:
        kind = QuestionKind(stated.text())
    except ValueError as error:
        known = ", ".join(kind.value for kind in QuestionKind)
        raise wrong(stated, f"expected one of {known}, got {stated.value!r}") from error
    return kind if has_target else QuestionKind.NO_TARGET


@dataclass(slots=True, kw_only=True)
class _Annotations:
    """The masks that a video's expressions name, by annotation id, and why some are unusable."""

    masklets: dict[str, RleMasklet] = field(default_factory=dict)
    errors: dict[str, DatasetError] = field(default_factory=dict)

    def require(self, ids: Sequence[str], place: Entry) -> None:
        """Raise where one of the ids is unknown or unusable."""
        for name in ids:
            if name in self.errors:
                problem = self.errors[name].problem
                raise wrong(place, f"annotation {name!r}: {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Masks:
    """The mask files: rows by annotation id, and the foreground's rows by video."""

    rows: Entry
    foreground: Entry | None


def _read(reading: Reading, layout: _Layout, rationales: Rationales) -> list[Episode]:
    meta = read_json(layout.meta, reading.log)
    masks = None
    if layout.may_lack_truth and not layout.masks.exists():
        reading.log.assume(f"{layout.masks.name} is not there: episodes without truth")
    else:
        foreground = layout.foreground and read_json(layout.foreground, reading.log)
        masks = _Masks(rows=read_json(layout.masks, reading.log), foreground=foreground or None)
    episodes: list[Episode] = []
    for name, entry in reading.progress(list(meta["videos"].entries())):
        with reading.skipping():
            size = partial(_size_of_masks, entry, masks)
            video = open_video(name, entry, layout.frames, reading, size)
            rate_hz = reading.rate(entry.find("rate_hz"))
            media, annotations = _media(video, masks, reading)
            names = _names(entry)
            for expression_id, expression in expressions_of(video, reading):
                with reading.skipping():
                    spans = None if masks is None else _spans(expression, video, annotations)
                    question = _question(expression, spans, layout.kinds)
                    own = _rationale_of(rationales, name, expression_id, question.text)
                    question = replace(question, rationale=own.text)
                    if own.evidence is not None:
                        with reading.skipping():  # the question is whole without it
                            evidence = evidence_from(own.evidence, video.frames.names)
                            question = replace(question, evidence=evidence)
                    episode = make_episode(
                        name,
                        expression_id,
                        media=media,
                        question=question,
                        spans=spans or (),
                        annotated=() if spans is None else video.everywhere,
                        scored=_scored(expression, spans or (), video),
                        rate_hz=rate_hz,
                    )
                    episodes.append(replace(episode, object_names=names))
    return episodes


def _size_of_masks(video: Entry, masks: _Masks | None) -> tuple[int, int]:
    """(W, H) of the first mask that the video's expressions name."""
    for _, expression in () if masks is None else video["expressions"].entries():
        for holder in _holders(expression):
            for name in holder["anno_id"].idents():
                row = masks.rows.find(name) if masks is not None else None
                size_wh = None if row is None else size_of_rles(row)
                if size_wh is not None:
                    return size_wh
    raise wrong(video, "has neither frames nor masks that tell its size")


def _media(
    video: Video, masks: _Masks | None, reading: Reading
) -> tuple[EpisodeMedia, _Annotations]:
    """Look up every annotation that the video or its expressions name."""
    annotations = _Annotations()
    if masks is None:
        return EpisodeMedia(frames=video.frames, masklets={}), annotations
    rows, order, size_wh = masks.rows, video.order, video.frames.size_wh
    for name in _named(video, reading):
        try:
            found = rle_masklet(rows.file, name, rows[name].value, order, size_wh)
            annotations.masklets[name] = found
        except DatasetError as error:
            annotations.errors[name] = error
    with reading.skipping():
        listed = video.entry.find("anno_id")
        if listed is not None:
            annotations.require(listed.idents(), listed)
    union = None
    if masks.foreground is not None:
        with reading.skipping():
            listed = masks.foreground[video.name]["masks_rle"]
            union = rle_masklet(listed.file, listed.key, listed.value, order, size_wh)
    media = EpisodeMedia(frames=video.frames, masklets=annotations.masklets, union=union)
    return media, annotations


def _named(video: Video, reading: Reading) -> list[str]:
    """The annotations that a video and its expressions name, each once, in their order."""
    names: dict[str, None] = {}  # a set that keeps the order
    listed = video.entry.find("anno_id")
    with contextlib.suppress(DatasetError):  # told by the caller
        names.update(dict.fromkeys(() if listed is None else listed.idents()))
    for _, expression in expressions_of(video, reading):
        with contextlib.suppress(DatasetError):  # told where the expression is read
            for holder in _holders(expression):
                names.update(dict.fromkeys(holder["anno_id"].idents()))
    return list(names)


def _holders(expression: Entry) -> Iterator[Entry]:
    """The parts of an expression that name annotations: itself, or its truths over time."""
    truths = expression.find("truths")
    if truths is None:
        yield expression
    else:
        for _, truth in truths.entries():
            yield truth


def _spans(expression: Entry, video: Video, annotations: _Annotations) -> tuple[TruthSpan, ...]:
    num_frames = len(video.everywhere)
    spans: list[TruthSpan] = []
    for holder in _holders(expression):
        ids = holder["anno_id"].idents()
        annotations.require(ids, holder["anno_id"])
        answer = _words(holder, "ans")
        if holder is expression:
            return whole(num_frames, ids, answer)
        first, end = holder["from_frame"].integer(), holder["until_frame"].integer()
        last = spans[-1].end if spans else 0
        if not last <= first < end <= num_frames:
            message = f"expected {last} <= from_frame < until_frame <= {num_frames}"
            raise wrong(holder, f"{message}, got {first} and {end}")
        spans.append(TruthSpan(first=first, end=end, object_ids=ids, answer=answer))
    if not spans:
        raise wrong(expression["truths"], "is empty, expected the truth over time")
    if video.order != range(num_frames):
        raise wrong(video.entry["frames"], "must be in order where truths count frames")
    return tuple(spans)


def _question(
    expression: Entry,
    spans: tuple[TruthSpan, ...] | None,
    kinds: Kinds,
) -> Question:
    text = expression["exp"].text()
    has_target = spans is None or any(span.object_ids for span in spans)
    return Question(
        text=text,
        kind=kinds(expression, has_target),
        answer=_words(expression, "ans"),
        skill=_words(expression, "skill"),
        difficulty=_words(expression, "difficulty"),
    )


def _rationale_of(
    rationales: Rationales, video: str, expression_id: str, question: str
) -> Rationale:
    by_id = rationales.get((video, expression_id))
    return by_id or rationales.get((video, question)) or Rationale()


def _names(video: Entry) -> dict[str, str]:
    """What the objects of a video are called, by annotation id; the simulation says it."""
    found = video.find("names")
    return {} if found is None else {name: words.text() for name, words in found.entries()}


def _words(entry: Entry, name: str) -> str:
    found = entry.find(name)
    return "" if found is None or found.value == "" else found.text()


def _scored(expression: Entry, spans: tuple[TruthSpan, ...], video: Video) -> tuple[int, ...]:
    """Positions that are judged: those that the file names, else all that have a truth."""
    covered = tuple(_covered(spans, len(video.everywhere)))
    named = expression.find("judged_frames")
    if named is None:
        return covered
    listed = [entry.integer() for _, entry in named.entries()]
    if not listed or listed != sorted(set(listed)) or not set(listed) <= set(covered):
        raise wrong(named, "expected ascending positions of frames that have a truth")
    if video.order != range(len(video.everywhere)):
        raise wrong(video.entry["frames"], "must be in order where judged_frames count frames")
    return tuple(listed)


def _covered(spans: tuple[TruthSpan, ...], num_frames: int) -> Iterator[int]:
    for span in spans:
        yield from range(span.first, min(span.end, num_frames))
