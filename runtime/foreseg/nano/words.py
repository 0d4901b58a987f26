# SPDX-License-Identifier: Apache-2.0
"""A nano reasoner's words: messages as one text, the text as tokens, and tokens as text again.

`tokenizers` alone reads the tokenizer's file; the chat's form is ChatML's, which the export holds
against the model's own template. Does not know what the words mean.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, cast

from foreseg.errors import EngineError, MissingExtraError
from foreseg.language.base import Message
from foreseg.language.special_tokens import without_tokens

_WORD = re.compile(r"[^\W\d_]+")
_VISION = ("<|vision_start|>", "<|vision_end|>")


class _Encoding(Protocol):
    """The part of `tokenizers.Encoding` that is used here."""

    ids: list[int]


class _Added(Protocol):
    """The part of `tokenizers.AddedToken` that is used here."""

    content: str
    special: bool


class Tokenizer(Protocol):
    """The part of `tokenizers.Tokenizer` that is used here."""

    def encode(self, sequence: str, *, add_special_tokens: bool) -> _Encoding:
        """A text as tokens."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Tokens as text."""

    def token_to_id(self, token: str) -> int | None:
        """A token's number."""

    def id_to_token(self, id: int) -> str | None:  # noqa: A002 (its name)
        """A number's token."""

    def get_added_tokens_decoder(self) -> Mapping[int, _Added]:
        """Tokens beside those learnt."""


def open_tokenizer(content: bytes, where: str) -> Tokenizer:
    """A tokenizer from its file's content.

    Raises:
        EngineError: it is none.
        MissingExtraError: `tokenizers` is absent.
    """
    try:
        library = importlib.import_module("tokenizers")
    except ImportError as error:
        package, extra = "tokenizers", "nano"
        raise MissingExtraError(package, extra, "the nano reasoner") from error
    try:
        return cast("Tokenizer", library.Tokenizer.from_str(content.decode("utf-8")))
    except Exception as error:  # the library raises nothing more special
        msg = f"{where} is no tokenizer: {' '.join(str(error).split())[:200]}"
        raise EngineError(msg) from error


def special_tokens(tokenizer: Tokenizer) -> frozenset[str]:
    """What a message's text must not spell."""
    added = tokenizer.get_added_tokens_decoder().values()
    return frozenset(token.content for token in added if token.special)


def unread_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """Words of a text, each once, that the texts of the training did not have.

    A word that is there is one token of its own, at a sentence's beginning or within it.
    """

    def is_read(word: str) -> bool:
        forms = (word, word.lower(), word.capitalize())
        spelled = [form for word_ in forms for form in (word_, f" {word_}")]
        return any(len(tokenizer.encode(s, add_special_tokens=False).ids) == 1 for s in spelled)

    return [word for word in dict.fromkeys(_WORD.findall(text)) if not is_read(word)]


def chat_text(messages: Iterable[Message], image_token: str, tokens: Collection[str]) -> str:
    """Messages as one text that ends where the assistant is to speak; an image is one token.

    Args:
        messages: text and images in the order in which they are read.
        image_token: stands for an image.
        tokens: broken up where a message's text spells them.
    """
    image = image_token.join(_VISION)
    said = []
    for message in messages:
        parts = [
            without_tokens(part, tokens) if isinstance(part, str) else image
            for part in message.content
        ]
        said.append(f"<|im_start|>{message.role.value}\n{''.join(parts)}<|im_end|>\n")
    return "".join(said) + "<|im_start|>assistant\n"
