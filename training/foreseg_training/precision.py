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
_TURNS, _MOST_S = (
    20,
    0.5,
)  # on a busy machine many of them are interrupted; a slow product needs no more


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--precision` to a parser."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of matrix products; auto: bf16 if this processor multiplies faster in it",
    )


def is_bf16(precision: str) -> bool:
    """Whether to multiply in bfloat16, which takes half a second or so to measure; a warning where that was asked for and is the slower.

    Args:
        precision: one of `PRECISIONS`.
    """
    if precision == "fp32":
        return False
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of several, each waits for one that is interrupted
    seconds = {name: _product_s(name) for name in (torch.bfloat16, torch.float32)}
    torch.set_num_threads(num_threads)
    times = seconds[torch.bfloat16] / seconds[torch.float32]
    if precision == "bf16":
        if times > 1:
            _LOG.warning("this processor takes %.1f times as long in bf16 as in fp32", times)
        return True
    pays = times < 1
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
    found: list[float] = []
    while len(found) <= _TURNS and (len(found) < 2 or sum(found) < _MOST_S):
        began = time.thread_time()
        torch.mm(a, b)
        found.append(time.thread_time() - began)
    return min(found[1:])
