# SPDX-License-Identifier: Apache-2.0
"""Text as it streams, up to the first of some strings that end it. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """What may be the beginning of a stop string waits until it is known whether it is one.

    Args:
        strings: none of them empty; without any, everything is handed on at once.
    """

    def __init__(self, strings: Sequence[str] = ()) -> None:
        self._strings = tuple(strings)
        self._waiting = ""
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """True once a stop string has come; nothing is handed on any more."""
        return self._is_over

    def feed(self, text: str) -> str:
        """What of the text so far is known to stand before any stop string."""
        if self._is_over:
            return ""
        text = self._waiting + text
        found = [at for string in self._strings if (at := text.find(string)) >= 0]
        if found:
            self._is_over, self._waiting = True, ""
            return text[: min(found)]
        keep = len(text) - self._num_waiting(text)
        self._waiting = text[keep:]
        return text[:keep]

    def finish(self) -> str:
        """What waited, and was no stop string."""
        text, self._waiting = self._waiting, ""
        return text

    def _num_waiting(self, text: str) -> int:
        """Length of the longest end of a text that begins a stop string."""
        longest = max(map(len, self._strings), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(string.startswith(text[-length:]) for string in self._strings):
                return length
        return 0
