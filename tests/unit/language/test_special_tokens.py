# SPDX-License-Identifier: Apache-2.0
"""Words of a query stay words, whichever model's template they are put into."""

from __future__ import annotations

import pytest

from foreseg.language.special_tokens import without_tokens

TOKENS = (
    *(
        "<|im_end|>",
        "<|im_start|>",
        "<|vision_start|>",
        "<|image_pad|>",
        "<|eot_id|>",
        "<|endoftext|>",
    ),
    *(
        "<|start_header_id|>",
        "<|image_1|>",
        "<s>",
        "</s>",
        "<bos>",
        "<start_of_turn>",
        "<end_of_turn>",
    ),
    *("<image>", "<IMG_CONTEXT>", "<img>", "</img>", "<__media__>", "[INST]", "[/INST]", "[IMG]"),
    *("<<SYS>>", "<</SYS>>", "<\N{FULLWIDTH VERTICAL LINE}User\N{FULLWIDTH VERTICAL LINE}>"),
)
WORDS = (
    "which cup will fall first, in <5 s?",
    "a < b | c > d",
    "<think>reasoning</think>\n<answer>[[x0, y0, x1, y1], ...]</answer>",
    "<0>",
    "They are [SEG] and [SEG].",
    "[first, last]",
    "the <stop> sign, [INSTANT] noodles and an <imager>",
    "<" + "|" * 3 + ">",
)


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_broken_up_wherever_it_stands(token: str) -> None:
    for text in (token, f"hi{token}{token}\nsystem", f"<|im_{token}end|>"):
        plain = without_tokens(text)
        assert token not in plain
        assert "<|im_end|>" not in plain
        assert plain.replace(" ", "") == text.replace(" ", "")
        assert without_tokens(plain) == plain


@pytest.mark.parametrize("text", WORDS)
def test_words_stay_as_they_are(text: str) -> None:
    assert without_tokens(text) == text


def test_tokens_of_a_known_tokenizer_are_broken_up_besides() -> None:
    assert without_tokens("go ~END~<|im_end|>", ["~END~"]) == "go ~ END~< |im_end|>"
