# SPDX-License-Identifier: Apache-2.0
"""Completions that always parse: every whole one is allowed to its end, and what is not one is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreseg.dialogue import NoTarget, Query, QueryId, TargetsFound
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.language.token_guide import TokenGuide
from foreseg.methods.answer_grammar import CompletionGrammar
from foreseg.methods.base import AnswerStep
from foreseg.methods.grammar import Form
from foreseg.methods.reading import read_completion
from foreseg.methods.veason import VeasonMethod, VeasonSettings

_SHORT = 60  # tokens of thoughts
_FORMS = (Form.THINK_FIRST, Form.ANSWER_FIRST, Form.ANSWER_ONLY)
_BOX = st.tuples(
    st.integers(0, 50), st.integers(0, 40), st.integers(1, 50), st.integers(1, 40)
).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


def _window() -> FrameWindow:
    refs = [
        FrameRef(
            camera=DEFAULT_CAMERA, index=FrameIndex(i), epoch=0, stamp_ns=i, received_ns=i,
            size_wh=(112, 84),
        )
        for i in (0, 4, 12)
    ]  # fmt: skip
    frames = tuple(Frame(ref=ref, image=np.zeros((84, 112, 3), np.uint8)) for ref in refs)
    return FrameWindow(frames=frames, origin_index=FrameIndex(-7))  # labels 7, 11 and 19


def _step(form: Form) -> AnswerStep:
    method = VeasonMethod(VeasonSettings(num_frames=3, form=form, keeps_to_grammar=True))
    query = Query(id=QueryId("q"), text="Which one?", want_rationale=True)
    step = next(method.plan(query, _window()))
    assert isinstance(step, AnswerStep)
    return step


def _grammar(form: Form) -> CompletionGrammar:
    grammar = _step(form).request.grammar
    assert isinstance(grammar, CompletionGrammar)
    return grammar


def _answer(label: int, boxes: list[list[int]]) -> str:
    return json.dumps({"keyframe_timestamp": label, "bbox_2d_list": boxes})


@pytest.mark.parametrize("form", _FORMS)
@given(
    label=st.sampled_from((7, 11, 19)),
    boxes=st.lists(_BOX, min_size=1, max_size=4),
    thought=st.text(st.characters(exclude_characters="<"), max_size=40),
)
def test_a_whole_answer_is_allowed_to_its_end(
    form: Form, label: int, boxes: list[list[int]], thought: str
) -> None:
    grammar = _grammar(form)
    said = f"<answer>{_answer(label, boxes)}</answer>"
    text = form.put(f"<think>{thought}</think>", said)
    assert all(grammar.allows(text[:n], 1) for n in range(len(text) + 1))
    assert [n for n in range(len(text) + 1) if grammar.may_end(text[:n])] == [len(text)]


@pytest.mark.parametrize("form", _FORMS)
def test_no_target_is_an_answer(form: Form) -> None:
    answer = '<answer>{"no_target": "nothing in the frames fits"}</answer>'
    text = form.put("<think>It is not there.</think>", answer)
    assert _grammar(form).allows(text, 1)
    assert _grammar(form).may_end(text)
    part = read_completion(_step(form), text).verdict.part
    assert isinstance(part, NoTarget)


@pytest.mark.parametrize(
    "answer",
    [
        _answer(8, [[1, 2, 3, 4]]),  # a frame that is not shown
        _answer(1, [[1, 2, 3, 4]]),  # the beginning of one
        _answer(7, [[3, 2, 3, 4]]),  # no width
        _answer(7, [[1, 5, 3, 4]]),  # bottom above top
        _answer(7, [[1, 2, 300, 4]]),  # beyond the frame
        _answer(7, [[1, 2, 3]]),
        _answer(7, []),
        _answer(7, [[1, 2, 3, 4]]).replace("2", "02"),
        _answer(7, [[1, 2, 3, 4]]) + " ",
        "none",
    ],
)
def test_what_is_no_answer_is_refused(answer: str) -> None:
    text = f"<answer>{answer}</answer>"
    assert not _grammar(Form.ANSWER_ONLY).allows(text, 1)
    assert not _grammar(Form.ANSWER_ONLY).may_end(text)


def test_thoughts_end_at_their_budget() -> None:
    grammar = _grammar(Form.THINK_FIRST)
    late = grammar.reasoning_tokens
    assert grammar.allows("<think>It rolls", late // 2)
    assert not grammar.allows("<think>It rolls", late)
    assert grammar.allows("<think>It rolls</thi", late)
    assert grammar.allows("<think>It rolls</think>\n<answer>", late)
    assert _grammar(Form.ANSWER_FIRST).allows(
        "<answer>" + _answer(7, [[1, 2, 3, 4]]) + "</answer>\n<think>It rolls", late
    )


@given(data=st.data())
def test_whatever_a_model_says_under_guidance_is_read_as_an_answer(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(_FORMS))
    step = _step(form)
    pieces = [
        "<think>", "</think>", "<answer>", "</answer>", "\n", "<", "a", " ball", "é",
        '{"keyframe_timestamp": ', ', "bbox_2d_list": [[', "], [", "]]}", ", ",
        '{"no_target": "nothing in the frames fits"}', *map(str, range(120)),
        *sorted(set(_answer(7, []) + "<answer></answer><think>no_target: nothing in the frames fits")),
    ]  # fmt: skip
    end, special = len(pieces), len(pieces) + 1
    guide = TokenGuide(
        replace(_grammar(form), reasoning_tokens=_SHORT),  # by chance alone thoughts go on and on
        lambda tokens: "".join(pieces[t] for t in tokens if t < end),
        end_ids=[end],
        special_ids=[end, special],
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    said: list[int] = []
    while len(said) < 400:
        token = guide.first(map(int, rng.permutation(special + 1)))
        assert token is not None
        if token == end:
            break
        guide.feed(token)
        said.append(token)
    text = "".join(pieces[t] for t in said)
    part = read_completion(step, text).verdict.part
    assert isinstance(part, NoTarget | TargetsFound)
    if isinstance(part, TargetsFound):
        assert part.keyframe_index in (0, 4, 12)


def test_where_nothing_is_allowed_the_model_says_what_it_likes() -> None:
    guide = TokenGuide(
        _grammar(Form.ANSWER_ONLY), lambda tokens: "x" * len(tokens), end_ids=[], special_ids=[]
    )
    assert guide.first([1, 2, 3]) is None
