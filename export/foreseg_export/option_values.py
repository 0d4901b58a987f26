# SPDX-License-Identifier: Apache-2.0
"""What options of the command line take; knows none of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A reader of whole numbers; both bounds are inclusive."""
    bounds = f"of at least {least}" if most is None else f"of {least} to {most}"

    def read(text: str) -> int:
        if text.isascii() and text.isdecimal():
            value = int(text)
            if value >= least and (most is None or value <= most):
                return value
        msg = f"wants a whole number {bounds}, got {text!r}"
        raise argparse.ArgumentTypeError(msg)

    return read


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        msg = f"wants a number above 0 and at most 1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return value
