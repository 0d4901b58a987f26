# SPDX-License-Identifier: Apache-2.0
"""The four graphs of a SAM2 bundle as four typed calls on numpy arrays; keeps no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.base import Array, Engine
from foreseg.engines.load import Bundle
from foreseg.engines.manifest import Sam2Geometry
from foreseg.frames import U8Array
from foreseg.tracker.memory_bank import MemoryBatch
from foreseg.tracker.preprocess import PromptPoints, no_points, pixels_from_image

F32 = NDArray[np.float32]

_FALSE, _TRUE = np.zeros(1, np.float32), np.ones(1, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameFeatures:
    """A frame as the image encoder sees it; (1, channels, side, side) each."""

    stride4: F32
    stride8: F32
    feat: F32  # stride 16
    feat_no_memory: F32  # `feat` as the decoder wants it for an object without memory

    @property
    def num_bytes(self) -> int:
        """Size of all four."""
        return sum(a.nbytes for a in (self.stride4, self.stride8, self.feat, self.feat_no_memory))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """What the decoder says of B rows."""

    logits: F32  # (B, m, m) mask logits; far below 0 everywhere where the object is absent
    score: F32  # (B,) predicted mask IoU
    object_logit: F32  # (B,) > 0: visible
    pointer: F32  # (B, C)


class Sam2Network:
    """Image encoder, memory attention, decoder and memory encoder of one bundle.

    Raises:
        EngineError: the bundle lacks a piece.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._geometry = bundle.manifest.geometry
        self._image_encoder = bundle.engine("image_encoder")
        self._memory_attention = bundle.engine("memory_attention")
        self._decoder = bundle.engine("decoder")
        self._memory_encoder = bundle.engine("memory_encoder")
        side = self._geometry.mask_size
        self._no_mask: F32 = np.zeros((1, side, side), np.float32)

    @property
    def geometry(self) -> Sam2Geometry:
        """Sizes of the bundle."""
        return self._geometry

    def encode_image(self, image: U8Array) -> FrameFeatures:
        """Encode an (h, w, 3) RGB image of any size."""
        pixels = pixels_from_image(image, self._geometry)
        out = _run(self._image_encoder, {"pixels": pixels})
        return FrameFeatures(
            stride4=out["stride4"],
            stride8=out["stride8"],
            feat=out["feat"],
            feat_no_memory=out["feat_no_memory"],
        )

    def recall(self, features: FrameFeatures, batch: MemoryBatch) -> F32:
        """Condition a frame on what B rows remember: (B, C, h, w).

        Every row must remember something.
        """
        inputs: dict[str, Array] = {
            "feat": features.feat,
            "memory": batch.memory,
            "memory_position": batch.position,
            "memory_valid": batch.valid,
            "pointer": batch.pointer,
            "pointer_age": batch.pointer_age,
            "pointer_valid": batch.pointer_valid,
        }
        return _run(self._memory_attention, inputs)["conditioned"]

    def decode(
        self,
        features: FrameFeatures,
        conditioned: F32,
        *,
        points: PromptPoints | None = None,
        mask_input: F32 | None = None,
        multimask: bool,
    ) -> Decoded:
        """Masks of B rows; a prompt, if there is one, holds for all of them.

        Args:
            features: of the frame.
            conditioned: (B, C, h, w).
            points: or None.
            mask_input: (m, m) for the prompt encoder, or None.
            multimask: take the best of several candidate masks.
        """
        rows = conditioned.shape[0]
        given = no_points() if points is None else points
        mask = self._no_mask if mask_input is None else mask_input[None]
        inputs: dict[str, Array] = {
            "feat": conditioned,
            "stride4": features.stride4,
            "stride8": features.stride8,
            "point_coords": np.repeat(given.coords[None], rows, axis=0),
            "point_labels": np.repeat(given.labels[None], rows, axis=0),
            "mask_input": np.repeat(mask, rows, axis=0),
            "has_mask": np.repeat(_FALSE if mask_input is None else _TRUE, rows),
            "multimask": np.repeat(_TRUE if multimask else _FALSE, rows),
        }
        out = _run(self._decoder, inputs)
        return Decoded(
            logits=out["mask_logits"],
            score=out["score"],
            object_logit=out["object_logit"],
            pointer=out["pointer_out"],
        )

    def memorise(
        self,
        features: FrameFeatures,
        logits: F32,
        object_logits: Sequence[float],
        *,
        prompted: bool,
    ) -> F32:
        """Memory maps (B, L, Cm) of mask logits (B, m, m); a prompted mask is made hard."""
        rows = logits.shape[0]
        inputs: dict[str, Array] = {
            "feat": features.feat,
            "mask_logits": logits,
            "object_logit": np.asarray(object_logits, np.float32),
            "hard": np.repeat(_TRUE if prompted else _FALSE, rows),
        }
        return _run(self._memory_encoder, inputs)["memory"]


def _run(engine: Engine, inputs: dict[str, Array]) -> dict[str, F32]:
    """Run a graph whose outputs are all float32, as SAM2's are (their specs are checked there)."""
    return cast("dict[str, F32]", engine.run(inputs))
