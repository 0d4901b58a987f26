# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a training on a processor: bfloat16 where it is the faster one, which is measured.

A processor may list bfloat16 and multiply slower in it (docs/log.md). Does not know: models.
"""

from __future__ import annotations

import argparse
import logging
import time

_LOG = logging.getLogger(__name__)
PRECISIONS = ("auto", "bf16", "fp32")
_SHAPE = (4096, 192, 576)  # rows, inner, columns, as in the small models
_TURNS = 20  # on a busy machine many of them are interrupted


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--precision` to a parser."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of matrix products; auto: bf16 if this processor multiplies faster in it",
    )


def is_bf16(precision: str) -> bool:
    """Whether to multiply in bfloat16; `auto` takes a fifth of a second to measure.

    Args:
        precision: one of `PRECISIONS`.
    """
    if precision != "auto":
        return precision == "bf16"
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of several, each waits for one that is interrupted
    seconds = {name: _product_s(name) for name in (torch.bfloat16, torch.float32)}
    torch.set_num_threads(num_threads)
    pays = seconds[torch.bfloat16] < seconds[torch.float32]
    _LOG.info(
        "products of matrices: bf16 %.2f ms, fp32 %.2f ms: %s",
        1000 * seconds[torch.bfloat16], 1000 * seconds[torch.float32], "bf16" if pays else "fp32",
    )  # fmt: skip
    return pays


def _product_s(dtype: object) -> float:
    """The thread's seconds for one product of matrices, the least of some."""
    import torch

    rows, inner, columns = _SHAPE
    a, b = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)  # type: ignore[call-overload]
    found = []
    for _ in range(_TURNS + 1):
        began = time.thread_time()
        torch.mm(a, b)
        found.append(time.thread_time() - began)
    return min(found[1:])
