# SPDX-License-Identifier: Apache-2.0
"""Text that leaves Python: messages, logs and files carry UTF-8, and a `str` may hold what cannot.

A lone surrogate comes from a model's broken JSON, a file's or an argument's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_REASON_CHARS = 2_000


def is_utf8(text: str) -> bool:
    """True if UTF-8 can carry the text as it is."""
    return text.isascii() or utf8_text(text) == text


def utf8_text(text: str) -> str:
    """The text with a question mark for each lone surrogate."""
    return text.encode("utf-8", "replace").decode("utf-8")


def first_names(names: Sequence[str], *, most: int = 12) -> str:
    """The first `most` names, and how many more there are: "a, b and 3 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def reason_from_error(error: BaseException) -> str:
    """An exception in a sentence that every message carries: its type, and what it says.

    At most `MAX_REASON_CHARS`; never raises, also where the exception cannot be printed.
    """
    try:
        said = str(error)
    except Exception as second:  # noqa: BLE001 (anybody's `__str__`)
        said = f"unprintable ({type(second).__name__})"
    kind = type(error).__name__
    return utf8_text(f"{kind}: {said}" if said else kind)[:MAX_REASON_CHARS]
