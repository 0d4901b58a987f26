# SPDX-License-Identifier: Apache-2.0
"""Words that no chat template or tokenizer can take for tokens of its own.

A query is words: it must not end a message, begin another speaker's, or show an image. What looks
like such a token gets a space behind its first character. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAMES = (
    "s bos eos pad unk mask sep cls start_of_turn end_of_turn start_of_image end_of_image"
    " vision_start vision_end image images img img_context image_placeholder image_soft_token"
    " __media__ video audio"
)
_CAPITALS = "INST IMG IMG_BREAK IMG_END SYSTEM_PROMPT AVAILABLE_TOOLS TOOL_CALLS"
_BARS = "|\N{FULLWIDTH VERTICAL LINE}"
# of ChatML, Qwen, Llama, Phi and DeepSeek; Gemma, LLaVA and InternVL; Mistral; Llama 2
_TOKEN = re.compile(
    rf"<[{_BARS}][^<>{_BARS}\n]{{1,64}}[{_BARS}]>|</?(?i:{_NAMES.replace(' ', '|')})>"
    rf"|\[/?(?:{_CAPITALS.replace(' ', '|')})\]|<</?SYS>>"
)


def without_tokens(text: str, tokens: Iterable[str] = ()) -> str:
    """The text with every special token broken up.

    Args:
        text: of a message.
        tokens: of a tokenizer that is known, besides those of the usual families.
    """
    while _TOKEN.search(text):  # one may stand within another
        text = _TOKEN.sub(lambda match: _broken(match[0]), text)
    for token in tokens:
        text = text.replace(token, _broken(token))
    return text


def _broken(token: str) -> str:
    return f"{token[0]} {token[1:]}"
