# SPDX-License-Identifier: Apache-2.0
"""Where patches and tokens stand: rows and columns of a frame, its windows, positions in a prompt.

The formulas are those of `transformers`' Qwen2.5-VL (`get_vision_position_ids`,
`get_vision_window_index`, `get_rope_index`), for still images. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

I64Array = NDArray[np.int64]
Grid = tuple[int, int, int]  # 1, rows, columns of patches


def patch_places(grid: Grid, merge: int) -> I64Array:
    """(T, merge^2, 2): row and column of each patch, token by token."""
    _, rows, columns = grid
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    blocks = places.reshape(rows // merge, merge, columns // merge, merge, 2).swapaxes(1, 2)
    return np.ascontiguousarray(blocks.reshape(-1, merge * merge, 2), np.int64)


def window_numbers(grid: Grid, merge: int, window_tokens: int) -> I64Array:
    """(T,): which window each token of a frame is in; windows are `window_tokens` a side."""
    rows, columns = grid[1] // merge, grid[2] // merge
    across = -(-columns // window_tokens)
    down = np.arange(rows)[:, None] // window_tokens
    numbers = down * across + np.arange(columns)[None, :] // window_tokens
    return np.ascontiguousarray(numbers.reshape(-1), np.int64)


def prompt_positions(is_image: NDArray[np.bool_], grids: Sequence[Grid], merge: int) -> I64Array:
    """(3, L): positions in time, rows and columns of a prompt's tokens.

    Text goes on by one in all three. A frame stands at one time; the text behind it goes on after
    the longer of its sides.

    Args:
        is_image: (L,): tokens that stand for a frame's; each frame's are neighbours, and no two
            frames touch.
        grids: of the frames, in order.
        merge: so many patches a side are a token.
    """
    positions = np.zeros((3, len(is_image)), np.int64)
    left = iter(grids)
    at = place = 0
    while at < len(is_image):
        if not is_image[at]:
            positions[:, at] = place
            at, place = at + 1, place + 1
            continue
        _, rows, columns = next(left)
        rows, columns = rows // merge, columns // merge
        end = at + rows * columns
        positions[0, at:end] = place
        positions[1, at:end] = place + np.repeat(np.arange(rows), columns)
        positions[2, at:end] = place + np.tile(np.arange(columns), rows)
        at, place = end, place + max(rows, columns)
    return positions
