# SPDX-License-Identifier: Apache-2.0
"""Whatever a model says: no exception, no prompt outside its frame, no matter how it streams."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.reasoners import query, window_of
from tests.support.segmenting_models import saying

from foreseg.dialogue import AnswerDone, AnswerFailed, NoTarget, TargetsFound
from foreseg.frames import FrameWindow
from foreseg.language.base import Segmented
from foreseg.methods.base import Method, Verdict
from foreseg.methods.fevos import FevosMethod
from foreseg.methods.grammar import CompletionReader, Form
from foreseg.methods.grounding import Coordinates, View
from foreseg.methods.near_json import MAX_CHARS, values_from_text
from foreseg.methods.sa2va import Sa2vaMethod
from foreseg.methods.seg_answers import TOKEN, forced_ending, mark_of, read_targets
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.methods.visa import VisaMethod, VisaSettings
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.vlm import VlmReasoner

WINDOW = window_of([np.zeros((45, 77, 3), np.uint8)] * 4)  # labels 0, 4, 8, 12
VIEWS = (View(), View(coordinates=Coordinates.MILLI), View(patch_px=1, image_side_px=32))
VEASON = [VeasonMethod(VeasonSettings(view=view)) for view in VIEWS]
READERS: list[Callable[[str], Verdict]] = [
    partial(method.read, window=view.shown(WINDOW))
    for method, view in zip(VEASON, VIEWS, strict=True)
]

GOOD = (
    '{"keyframe_timestamp": 4, "bbox_2d_list": [[3, 4, 30, 40], [40.5, 2, 60, 20]]}',
    '[{"bbox_2d": [3, 4, 30, 40], "point_2d": [9, 9], "negative_point_2d": [50, 9]}]',
    '{"no_target": "nothing leaves the view"}',
    "```json\n{'keyframe': '<8>', 'boxes': [(1, 2, 30, 40),]}\n```",
)
FRAGMENTS = st.sampled_from(
    [
        *"[]{}()<>\"',:;`\\/#+-.0123456789eE \n\t",
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<ANSWER>",
        "<th",
        "bbox_2d_list",
        "bbox_2d",
        "keyframe",
        "no_target",
        "null",
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 40,
        "\\ud83d",
        "答案",
        "ответ",
        "الإجابة",
        "🟥",
        "\x00",
        "\u202e",
        "<th\u0131n\u212a>",
        "[[[[",
        "//",
        "```json",
    ]
)
HOSTILE = st.lists(FRAGMENTS, max_size=60).map("".join)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A good answer, cut, with pieces changed."""
    text = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, min(len(text), at + 6)))
        text = text[:at] + draw(st.one_of(FRAGMENTS, st.just(""))) + text[end:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


TEXTS = st.one_of(st.text(max_size=300), HOSTILE, mutated())
NUMBERS = st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6).filter(math.isfinite))


def check(verdict: Verdict, window: FrameWindow = WINDOW) -> None:
    part = verdict.part
    if isinstance(part, TargetsFound):
        frame = window.get(part.keyframe_index)
        assert frame is not None
        assert 0 < len(part.prompts) <= 64
        for prompt in part.prompts:
            assert prompt.checked(frame.ref.size_wh) == prompt
    else:
        assert isinstance(part, (NoTarget, AnswerFailed))
        assert part.reason


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.sampled_from(READERS))
def test_any_answer_is_read_or_refused_with_a_reason(
    text: str, read: Callable[[str], Verdict]
) -> None:
    check(read(text))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(NUMBERS, min_size=3, max_size=5), max_size=5),
    st.integers(-5, 20),
    st.sampled_from(READERS),
)
def test_any_numbers_give_prompts_inside_the_frame(
    boxes: list[list[float]], keyframe: int, read: Callable[[str], Verdict]
) -> None:
    answer = {"keyframe_timestamp": keyframe, "bbox_2d_list": boxes}
    check(read(json.dumps(answer)))


def test_enormous_answers_are_read_in_bounded_time() -> None:
    enormous = ["[" * 10**6, '{"a":' * 10**5, "[1," * 10**6, "<answer>" * 10**5, "//" * 10**6]
    box = "[1,2,30,40],"
    enormous.append('{"keyframe": 4, "boxes": [' + box * 10**5)
    for text in enormous:
        for read in READERS[:1]:
            check(read(text))
        reader = CompletionReader()
        reader.feed(text)
        assert reader.is_full
        reader.finish()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(JSON, max_size=4) | st.dictionaries(st.text(), JSON, max_size=4),
    st.sampled_from([None, 1]),
)
def test_good_json_is_read_as_json_reads_it_and_without_repair(
    value: object, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=indent is None, indent=indent)
    (reading,) = values_from_text(text)
    assert len(text) <= MAX_CHARS
    assert reading.value == json.loads(text)
    assert reading.repairs == ()


def streamed(chunks: list[str]) -> tuple[str, str | None]:
    reader = CompletionReader()
    rationale, answers = "", []
    for piece in [*(reader.feed(chunk) for chunk in chunks), reader.finish()]:
        rationale += piece.rationale
        answers += [] if piece.answer is None else [piece.answer]
    assert len(answers) <= 1
    return rationale, answers[0] if answers else None


@st.composite
def completions(draw: st.DrawFn) -> str:
    body = st.one_of(mutated(), HOSTILE, st.text(max_size=20))
    rationale, answer = f"<think>{draw(body)}</think>", f"<answer>{draw(body)}</answer>"
    text = draw(st.sampled_from(Form)).put(rationale, answer)
    return draw(st.sampled_from([text, text.replace("</think>", ""), text[8:], draw(HOSTILE)]))


@settings(max_examples=200, deadline=None)
@given(completions(), st.data())
def test_any_chunking_reads_like_the_whole(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=30)))
    edges = [0, *cuts, len(text)]
    chunks = [text[a:b] for a, b in pairwise(edges)]
    assert streamed(chunks) == streamed([text]) == streamed(list(text))


@settings(max_examples=100, deadline=None)
@given(
    st.text().filter(lambda text: "<" not in text),
    st.sampled_from(GOOD),
    st.sampled_from(Form),
)
def test_a_completion_in_good_form_gives_its_parts(text: str, answer: str, form: Form) -> None:
    whole = form.put(f"<think>{text}</think>", f"<answer>{answer}</answer>")
    rationale, found = streamed([whole])
    assert found == answer
    assert rationale.strip() == (text.strip() if form.has_rationale else "")
    assert [other for other in Form if other.matches(whole)] == [form]


def test_a_closed_answer_is_there_before_the_rationale_follows() -> None:
    reader = CompletionReader()
    assert reader.feed("<answer>{}</answe").answer is None
    assert reader.feed("r>\n<think>bec").answer == "{}"
    assert reader.feed("ause</think>").rationale == "ause"


MASKS = tuple(np.eye(45, 77, k=i, dtype=np.bool_) for i in range(4))
SEG_GOOD = (
    f"<think>It leans.</think>\n<answer>It is {TOKEN}.</answer>",
    f"<answer>They are {TOKEN} and {TOKEN}.</answer><think>Both do.</think>",
    '<think>Nobody.</think><answer>{"no_target": "nothing leaves the view"}</answer>',
    f"Sure, it is {TOKEN}.",
)
SEG_METHODS: tuple[Method, ...] = (
    FevosMethod(),
    VisaMethod(VisaSettings(num_answers=1)),
    Sa2vaMethod(),
)


@st.composite
def seg_completions(draw: st.DrawFn) -> str:
    """A completion with tokens, cut, with hostile pieces, tokens and false marks in it."""
    text = draw(st.sampled_from(SEG_GOOD))
    pieces = st.one_of(FRAGMENTS, st.sampled_from([TOKEN, "\ue000", "\ue0007\ue001", "[SEG", ""]))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, min(len(text), at + 8)))
        text = text[:at] + draw(pieces) + text[end:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(seg_completions(), HOSTILE, st.text(max_size=200)),
    st.sampled_from(SEG_METHODS),
    st.integers(1, 30),
)
def test_any_completion_of_a_seg_method_gives_masks_or_no_target(
    text: str, method: Method, step: int
) -> None:
    model = saying(*(["50%"] if isinstance(method, VisaMethod) else []), text)
    model.step = step
    parts = list(checked_ask(VlmReasoner(method, model), query("what falls?"), WINDOW))
    assert isinstance(parts[-1], AnswerDone), parts[-1]
    (verdict,) = (part for part in parts if isinstance(part, (TargetsFound, NoTarget)))
    check(Verdict(part=verdict))
    if isinstance(verdict, TargetsFound):
        assert all(prompt.mask is not None for prompt in verdict.prompts)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.text(max_size=100), HOSTILE, mutated()),
    st.lists(st.integers(0, 9), max_size=6),
    st.integers(0, 4),
)
def test_any_marks_are_read_or_refused_with_a_reason(
    text: str, marks: list[int], num_found: int
) -> None:
    found = [
        Segmented(masks=(MASKS[i], MASKS[0]), qualities=(0.5, 0.1 * i)) for i in range(num_found)
    ]
    text = text.join(mark_of(number) for number in marks)
    verdict = read_targets(text, found, frames=WINDOW.frames[:2])
    check(verdict)
    assert found or not isinstance(verdict.part, TargetsFound)


@pytest.mark.slow
def test_enormous_completions_end_in_bounded_time() -> None:
    for text in (TOKEN * 10**4, "<think>" * 10**5, "[" * 10**6, f"<answer>{TOKEN}" * 10**4):
        forced_ending(text)
        parts = list(
            checked_ask(VlmReasoner(FevosMethod(), saying(text)), query("what falls?"), WINDOW)
        )
        assert isinstance(parts[-1], AnswerDone)
