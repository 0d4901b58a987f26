# SPDX-License-Identifier: Apache-2.0
"""[SEG] is recognised by its id, and thoughts are counted in tokens."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="tokenizers are transformers'")

from tests.support.tiny_vlm import tiny_tokenizer

from foreseg.methods.seg_answers import TOKEN, mark_of, spelled
from foreseg_torch.seg.tokens import marked_text, reasoning_tokens

TOKENIZER = tiny_tokenizer()


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False).input_ids)


@pytest.fixture(scope="module")
def seg_id() -> int:
    """The tokenizer's id of [SEG], in a vocabulary that spells it, too."""
    taught = tiny_tokenizer()
    taught.add_tokens([TOKEN])
    return int(taught.convert_tokens_to_ids(TOKEN))


def test_only_the_token_becomes_a_mark(seg_id: int) -> None:
    spelt = ids_of("It is [SEG], ")
    assert seg_id not in spelt
    ids = [*spelt, seg_id, *ids_of(" and "), seg_id, TOKENIZER.eos_token_id]
    assert marked_text(ids, TOKENIZER, seg_id) == f"It is [SEG], {mark_of(0)} and {mark_of(1)}"
    assert marked_text([], TOKENIZER, seg_id) == ""
    assert marked_text([seg_id], TOKENIZER, seg_id) == mark_of(0)


def test_a_spelt_mark_is_none(seg_id: int) -> None:
    text = marked_text(ids_of(f"so {mark_of(0)}"), TOKENIZER, seg_id)
    assert spelled(text) == text == "so 0"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("<think>abc</think><answer>x</answer>", 3),
        ("<answer>x</answer><think>abcd</think>", 4),
        ("<answer>x</answer>", 0),
        ("abc</think><answer>x</answer>", 3),
        ("<think>abc", 3),
        ("<think>\u00e9</think><answer>x</answer>", 2),  # two bytes, a token each
        ("", 0),
    ],
)
def test_thoughts_are_counted_in_tokens(text: str, count: int) -> None:
    assert reasoning_tokens([*ids_of(text), TOKENIZER.eos_token_id], TOKENIZER) == count
