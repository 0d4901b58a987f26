# SPDX-License-Identifier: Apache-2.0
"""A small tokenizer: bytes, the words and numbers of its texts, and the phrases of the prompts.

What a method says in every prompt is one token a sentence: its words cost nothing to a model that
reads no other ones. All else falls back to words, then bytes. Does not know: methods, models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END, PAD, IMAGE, VIDEO = "<|im_end|>", "<|endoftext|>", "<|image_pad|>", "<|video_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
SPECIAL = (PAD, "<|im_start|>", END, VISION_START, VISION_END, IMAGE, VIDEO)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MAX_NUMBER = 512  # of which each is one token
_PIECES = r" ?[A-Za-z]+|\d{1,3}| ?[^\sA-Za-z\d]+ ?|\s+"
KEYFRAME_BEGIN = '{"keyframe_timestamp": '
BOXES_BEGIN, BOXES_END = ', "bbox_2d_list": [[', "]]}"
ANSWER_PHRASES = (
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    KEYFRAME_BEGIN,
    BOXES_BEGIN,
    "], [",
    BOXES_END,
    '{"no_target": "nothing in the frames fits"}',
)
_SENTENCES = re.compile(r"(?<=[.:?\n]) ?")
_LEAST_PHRASE = 16  # letters


def train_tokenizer(
    texts: Iterable[str], phrases: Sequence[str], *, vocab_size: int = 2048
) -> PreTrainedTokenizerFast:
    """Learn words from texts, and take phrases whole.

    Args:
        texts: questions, and what is answered.
        phrases: of the prompts, `phrases_of`.
        vocab_size: at most, phrases apart.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    numbers = [str(number) for number in range(MAX_NUMBER)] * 20
    tokenizer.train_from_iterator([*texts, *phrases, *numbers], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(SPECIAL),
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.add_tokens([*ANSWER_PHRASES, *phrases])
    return fast


def phrases_of(prompts: Iterable[str]) -> list[str]:
    """Sentences of prompts, as they stand there; prompts should ask nothing that users do."""
    sentences = {sentence for prompt in prompts for sentence in _SENTENCES.split(prompt)}
    return sorted(sentence for sentence in sentences if len(sentence) >= _LEAST_PHRASE)
