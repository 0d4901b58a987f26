# SPDX-License-Identifier: Apache-2.0
"""What the vision graph makes of frames, kept while there is room: none is encoded twice.

Does not know where in a prompt a frame stands; its tokens do not depend on it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.base import Engine, on_host
from foreseg.frames import U8Array
from foreseg.language.images import F32Array, ImageGeometry
from foreseg.nano.positions import Grid, patch_places, window_numbers

MAX_SCORES = 1 << 20  # of one head: frames x patches^2 in one run, unless one frame has more


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenFrame:
    """A frame as the language model takes it."""

    key: bytes  # of its pixels, 16 bytes
    grid: Grid
    tokens: F32Array  # (T, C)


class VisionEncoder:
    """The vision graph, with the tokens of the frames seen last.

    Args:
        engine: runs the graph.
        images: how frames become patches.
        window_px: side of a window of attention.
        frame_pixels: each frame is read at this many pixels at most.
        max_bytes: of tokens that are kept.
    """

    def __init__(
        self,
        engine: Engine,
        images: ImageGeometry,
        *,
        window_px: int,
        frame_pixels: int,
        max_bytes: int,
    ) -> None:
        self._engine = engine
        self._images = images
        self._window_tokens = window_px // images.unit_px
        self._frame_pixels = frame_pixels
        self._max_bytes = max_bytes
        self._kept: OrderedDict[bytes, SeenFrame] = OrderedDict()
        self._num_bytes = 0
        self._num_encoded = 0

    @property
    def num_encoded(self) -> int:
        """Frames that went through the graph so far."""
        return self._num_encoded

    @property
    def num_bytes(self) -> int:
        """What the tokens kept take in memory."""
        return self._num_bytes

    def grid_of(self, image: U8Array) -> Grid:
        """1, rows and columns of patches at which a frame is read."""
        height, width = image.shape[:2]
        fitted = self._images.fitted_wh((width, height), self._frame_pixels)
        return 1, fitted[1] // self._images.patch_px, fitted[0] // self._images.patch_px

    def forget(self) -> None:
        """Keep nothing of what was seen so far."""
        self._kept.clear()
        self._num_bytes = 0

    def encode(self, images: Sequence[U8Array]) -> Iterator[list[SeenFrame] | None]:
        """See frames; None after each run of the graph, at last all of them in order."""
        keys = [_key(image) for image in images]
        found: dict[bytes, SeenFrame] = {}
        waiting: dict[Grid, dict[bytes, U8Array]] = {}
        for key, image in zip(keys, images, strict=True):
            if key in self._kept:
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
            else:
                waiting.setdefault(self.grid_of(image), {})[key] = image
        for grid, frames in waiting.items():
            step = max(1, MAX_SCORES // (grid[1] * grid[2]) ** 2)
            left = list(frames.items())
            for start in range(0, len(left), step):
                for seen in self._encoded(grid, left[start : start + step]):
                    found[seen.key] = seen
                    self._keep(seen)
                yield None
        yield [found[key] for key in keys]

    def _encoded(self, grid: Grid, frames: Sequence[tuple[bytes, U8Array]]) -> list[SeenFrame]:
        """The tokens of frames of one size."""
        merge = self._images.merge
        patches = [self._images.patches(image, self._frame_pixels)[0] for _, image in frames]
        values = patches[0].shape[1]
        outputs = self._engine.run(
            {
                "patches": np.stack(patches).reshape(len(frames), -1, merge * merge, values),
                "places": patch_places(grid, merge),
                "windows": window_numbers(grid, merge, self._window_tokens),
            }
        )
        tokens: NDArray[np.float32] = np.asarray(on_host(outputs["tokens"]), np.float32)
        self._num_encoded += len(frames)
        return [
            SeenFrame(key=key, grid=grid, tokens=tokens[number].copy())
            for number, (key, _) in enumerate(frames)
        ]

    def _keep(self, seen: SeenFrame) -> None:
        if seen.tokens.nbytes > self._max_bytes:
            return
        self._kept[seen.key] = seen
        self._num_bytes += seen.tokens.nbytes
        while self._num_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.tokens.nbytes


def _key(image: U8Array) -> bytes:
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
    digest.update(repr(image.shape).encode())
    return digest.digest()
