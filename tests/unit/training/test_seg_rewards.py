# SPDX-License-Identifier: Apache-2.0
"""FeVOS's rewards over token ids, by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="completions are torch's trainers'")
pytest.importorskip("cv2", reason="rows come with the robot's frames")
from tests.support.tiny_vlm import tiny_tokenizer

from foreseg.errors import ConfigError
from foreseg.methods.grammar import Form
from foreseg.methods.seg_answers import TOKEN
from foreseg_training.vlm.seg_decoding import answer_of
from foreseg_training.vlm.seg_rewards import SegRewards
from foreseg_training.vlm.seg_rows import masks_text

TOKENIZER = tiny_tokenizer()
TOKENIZER.add_tokens([TOKEN])
SEG = int(TOKENIZER.convert_tokens_to_ids(TOKEN))
REWARDS = SegRewards(TOKENIZER, SEG, Form.THINK_FIRST)
RIGHT = f"<think>So.</think><answer>It is {TOKEN}.</answer>"
NONE = '<think>So.</think><answer>{"no_target": "nothing"}</answer>'
SPELT = "<think>So.</think><answer>It is [SEG].</answer>"


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False).input_ids)


def spelt(text: str) -> list[int]:
    """The same text without the token: as letters."""
    return list(tiny_tokenizer()(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize(
    ("ids", "score"),
    [
        (ids_of(RIGHT), 1.0),
        (ids_of(NONE), 1.0),
        (spelt(SPELT), 0.0),
        (ids_of(f"<think>{TOKEN}</think><answer>It.</answer>"), 0.0),
        (ids_of(f"<think>So.</think><answer>{TOKEN} and {TOKEN}</answer>"), 0.0),
        (ids_of(f"<answer>{TOKEN}</answer>"), 0.0),  # no thought
        (ids_of("<think>So"), 0.0),
        ([], 0.0),
    ],
)
def test_the_form_wants_one_token_in_the_answer_or_none_in_words(
    ids: list[int], score: float
) -> None:
    assert REWARDS.format([[*ids, TOKENIZER.eos_token_id]]) == [score]


def test_the_mask_is_compared_on_every_frame() -> None:
    truth = np.zeros((4, 6, 8), bool)
    truth[:2, :, :4] = True
    half = truth.copy()
    half[:2, 3:] = False
    texts = [masks_text(list(truth))] * 5
    said = [ids_of(RIGHT), ids_of(RIGHT), ids_of(NONE), ids_of("<think>"), spelt(SPELT)]
    scores = REWARDS.mask(said, texts, [truth, half, None, None, None])
    assert scores == [1.0, 0.75, 0.5, 0.0, 0.0]
    nothing = masks_text(list(np.zeros_like(truth)))
    assert REWARDS.mask(said[2:4], [nothing] * 2, [None, None]) == [1.0, 0.0]


def test_rewards_have_names_and_weights() -> None:
    functions, weights = REWARDS.functions({"mask": 0.5, "format": 0.0})
    assert [function.__name__ for function in functions] == ["mask"]
    assert weights == [0.5]
    for wrong in ({"iou": 1.0}, {"mask": 0.0}, {}):
        with pytest.raises(ConfigError, match="reward_weights want some of format, mask"):
            REWARDS.functions(wrong)


def test_an_answer_is_what_stands_between_its_tags() -> None:
    assert answer_of(RIGHT) == f"It is {TOKEN}."
    assert answer_of("It is.") == "It is."
    assert answer_of("<think>So") is None
