# SPDX-License-Identifier: Apache-2.0
"""Chains of thought from a teacher: what it is asked for one sample, and whether its reply will do.

A chain is refused where it gives away that the answer was known, or differs from the truth in its
keyframe or its objects. How well it reasons is not judged here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from foreseg.frames import Frame, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.history.reduction import reduce_image
from foreseg.language.base import LanguageRequest, Message, Role
from foreseg.methods.grounding import label_text
from foreseg.methods.near_json import values_from_text
from foreseg_evaluation.episode import Episode
from foreseg_training.negatives import names_in, says
from foreseg_training.samples import Sample

from .chain_words import EXAMPLES, EXAMPLES_NONE, RULES, RULES_NONE
from .errands import Checked, Errand

RED = (255, 0, 0)
MAX_WORDS = 220  # of a chain
MIN_WORDS = 4  # of a part
_PARTS = ("scene", "why_this_frame", "where")
_PARTS_NONE = ("scene", "looked_for", "why_none")

_BOXED = re.compile(
    r"\bbound(?:ing|ed by a)\b|\brectang|\boutlin|\bhighlight|\bannotat|\bcoordinates?\b"
    r"|\bred (?:box|frame|border|mark)|\bboxed\b|\bmarked\b|\bmarkings?\b",
    re.IGNORECASE,
)
_BOX = re.compile(r"\bbox(?:es)?\b", re.IGNORECASE)
_TOLD = re.compile(
    r"\b(?:was|were|am|are|been|is) (?:told|given|provided|instructed|named as)\b"
    r"|\b(?:given|provided|named|specified|chosen|designated) (?:key)?frame\b"
    r"|\bground[- ]truth\b|\b(?:right|correct|known) answer\b|\bas (?:stated|given|instructed)\b",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?(?:think|answer)\b|<\||\[SEG\]|<SEG>", re.IGNORECASE)
_NUMBERED = re.compile(
    r"\b(frames?)\s*(?:number\s*|no\.?\s*)?(?:<\s*(\d+)\s*>|#?(\d+)\b)|<\s*(\d+)\s*>",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainTruth:
    """What a chain is held to.

    Attributes:
        keyframe: the label of the frame that it is about; None: nothing fits.
        num_objects: targets that are seen there.
        targets: what they are called; empty = unknown.
        others: what everything else in the video is called.
        may_say_box: the question or the answer speaks of a box.
        evidence: kept with the chain, as `reasoning_data.json` has it.
    """

    keyframe: int | None
    num_objects: int
    targets: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    may_say_box: bool = False
    evidence: Mapping[str, Any] = field(default_factory=dict)


def chain_errand(
    sample: Sample, episode: Episode, *, image_side_px: int, max_tokens: int, temperature: float,
    seed: int,
) -> Errand:  # fmt: skip
    """Ask for the chain of a sample that was drawn of an episode.

    Args:
        sample: frames, truth and keyframe.
        episode: names its objects, where it does.
        image_side_px: longest side of the frames as they are sent.
        max_tokens: of the reply.
        temperature: of the teacher.
        seed: draws the example.
    """
    has_target = sample.keyframe is not None
    rng = np.random.default_rng([seed, *sample.id.encode()])
    examples = EXAMPLES if has_target else EXAMPLES_NONE
    example = examples[int(rng.integers(len(examples)))]
    rules = f"{RULES if has_target else RULES_NONE}\nFor example, of another video:\n{example}"
    content: list[str | U8Array] = []
    for frame in sample.window.frames:
        content.append(label_text(sample.window.label_of(frame.index)))
        content.append(boxed_image(frame, sample.boxes[frame.index], image_side_px))
    content.append(_asked(sample))
    messages = (
        Message(role=Role.SYSTEM, content=(rules,)),
        Message(role=Role.USER, content=tuple(content)),
    )
    request = LanguageRequest(
        messages=messages, max_tokens=max_tokens, temperature=temperature, seed=seed
    )
    truth = truth_of_chain(sample, episode)
    return Errand(id=sample.id, request=request, check=partial(checked_chain, truth=truth))


def truth_of_chain(sample: Sample, episode: Episode) -> ChainTruth:
    """What the chain of a sample is held to."""
    words = f"{sample.query.text} {sample.answer}".lower()
    if sample.keyframe is None:
        return ChainTruth(keyframe=None, num_objects=0, may_say_box="box" in words)
    label = sample.window.label_of(sample.keyframe)
    names = episode.object_names
    ids = {i for span in episode.spans for i in span.object_ids}
    is_named = bool(names) and all(i in names for i in ids)
    return ChainTruth(
        keyframe=label,
        num_objects=len(sample.boxes[sample.keyframe]),
        targets=tuple(sorted(names[i] for i in ids)) if is_named else (),
        others=tuple(sorted(n for i, n in names.items() if i not in ids)) if is_named else (),
        may_say_box="box" in words or any("box" in name for name in names.values()),
        evidence=_evidence(sample, episode),
    )


def _evidence(sample: Sample, episode: Episode) -> dict[str, Any]:
    """The frames by name, and a box around all targets of the keyframe."""
    assert sample.keyframe is not None  # noqa: S101 (the caller looked)
    name_of = {index: episode.frame_names[p] for index, p in sample.positions.items()}
    corners = np.array(sample.boxes[sample.keyframe])
    around = [*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0)]
    return {
        "keyframe": name_of[sample.keyframe],
        "frames": [name_of[index] for index in sample.window.indices],
        "boxes": {name_of[sample.keyframe]: [float(number) for number in around]},
        "is_about_keyframe": True,
    }


def boxed_image(frame: Frame, boxes: Sequence[BoxXyxy], image_side_px: int) -> U8Array:
    """A frame, reduced, with red boxes around the targets; (h, w, 3) RGB."""
    image = np.array(reduce_image(frame.image, image_side_px))
    height, width = image.shape[:2]
    scale = width / frame.image.shape[1], height / frame.image.shape[0]
    thick = max(2, round(max(height, width) / 200))
    for box in boxes:
        x0, y0, x1, y1 = (round(number) for number in box.scaled(scale))
        outer = image[max(y0 - thick, 0) : y1 + thick, max(x0 - thick, 0) : x1 + thick]
        inside = np.array(image[y0:y1, x0:x1])
        outer[:] = RED
        image[y0:y1, x0:x1] = inside
    return image


def _asked(sample: Sample) -> str:
    question = f"The question: {sample.query.text}"
    if sample.keyframe is None:
        return question
    answer = f"\nThe answer in words: {sample.answer}" if sample.answer else ""
    label = label_text(sample.window.label_of(sample.keyframe))
    return f"{question}{answer}\nThe frame to point at: {label}"


def checked_chain(text: str, truth: ChainTruth) -> Checked:
    """Read a reply, and hold it to the truth."""
    readings = [r.value for r in values_from_text(text) if isinstance(r.value, dict)]
    names = _PARTS if truth.keyframe is not None else _PARTS_NONE
    value = next((v for v in readings if set(names) & set(v)), None)
    if value is None:
        return Checked(reason="holds no object of the form that was asked for")
    parts = [" ".join(said.split()) for n in names if isinstance(said := value.get(n), str)]
    if len(parts) < len(names) or any(len(part.split()) < MIN_WORDS for part in parts):
        return Checked(reason="lacks a part, or says next to nothing in it")
    chain = " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts)
    objects = value.get("objects")
    listed = [o for o in objects if isinstance(o, str)] if isinstance(objects, list) else None
    reason = (
        _unfit_words(chain, truth)
        or _wrong_keyframe(chain, value.get("keyframe"), truth)
        or _wrong_objects(chain, listed, truth)
    )
    if reason:
        return Checked(reason=reason)
    evidence = {"evidence": dict(truth.evidence)} if truth.evidence else {}
    return Checked(found={"chain": _unnumbered(chain), **evidence})


def _unfit_words(chain: str, truth: ChainTruth) -> str:
    if len(chain.split()) > MAX_WORDS:
        return f"is longer than {MAX_WORDS} words"
    if _TAG.search(chain):
        return "holds a tag of the answer's form"
    if _BOXED.search(chain) or (not truth.may_say_box and _BOX.search(chain)):
        return "speaks of boxes or marks"
    if _TOLD.search(chain):
        return "gives away that it was told"
    return ""


def _wrong_keyframe(chain: str, keyframe: object, truth: ChainTruth) -> str:
    if isinstance(keyframe, str) and keyframe.strip("<> ").isdecimal():
        keyframe = int(keyframe.strip("<> "))
    if isinstance(keyframe, bool) or keyframe != truth.keyframe:
        return "names another keyframe than the true one"
    for word, *numbers in _NUMBERED.findall(chain):
        number = next(n for n in numbers if n)
        if int(number) != truth.keyframe or word.lower() == "frames":
            return "speaks of another frame by its number"
    return ""


def _wrong_objects(chain: str, listed: Sequence[str] | None, truth: ChainTruth) -> str:
    if listed is None or len(listed) != truth.num_objects:
        return "names another number of objects than there are"
    if not truth.targets:
        return ""
    every = (*truth.targets, *truth.others)
    said = " ".join(listed)
    if set(names_in(said, every)) & (set(truth.others) - set(truth.targets)):
        return "names an object that is none of the targets"
    seen = truth.targets if len(truth.targets) == truth.num_objects else ()
    if not all(says(chain, name) for name in seen):
        return "does not name a target as it is called"
    return ""


def _unnumbered(chain: str) -> str:
    """The keyframe is "this frame": its number is another one each time it is drawn."""

    def put(match: re.Match[str]) -> str:
        at_start = match.start() == 0 or chain[: match.start()].rstrip().endswith((".", "!", "?"))
        return "This frame" if at_start else "this frame"

    return re.sub(r"\b([Tt]his) this frame", r"\1 frame", _NUMBERED.sub(put, chain))
