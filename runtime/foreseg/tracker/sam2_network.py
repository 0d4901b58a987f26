# SPDX-License-Identifier: Apache-2.0
"""The four graphs of a SAM2 bundle as four typed calls; keeps no state.

What only the next graph reads stays where the engines run: features, conditioned features, memory
maps, and the mask logits for the memory encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.base import Engine, Tensor, on_host
from foreseg.engines.load import Bundle
from foreseg.engines.manifest import Sam2Geometry
from foreseg.frames import U8Array
from foreseg.tracker.memory_bank import MemoryBatch
from foreseg.tracker.preprocess import PromptPoints, no_points, pixels_from_image

F32 = NDArray[np.float32]

_FALSE, _TRUE = np.zeros(1, np.float32), np.ones(1, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameFeatures:
    """A frame as the image encoder sees it; (1, channels, side, side) float32 each."""

    stride4: Tensor
    stride8: Tensor
    feat: Tensor  # stride 16
    feat_no_memory: Tensor  # `feat` as the decoder wants it for an object without memory

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
    kept_logits: Tensor  # `logits` where the engines run


class Sam2Network:
    """Image encoder, memory attention, decoder and memory encoder of one bundle.

    Raises:
        EngineError: the bundle lacks a piece.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._geometry = bundle.manifest.geometry
        self._image_encoder: Engine = bundle.engine("image_encoder")
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
        kept = ("stride4", "stride8", "feat", "feat_no_memory")
        out = self._image_encoder.run({"pixels": pixels}, keep=kept)
        return FrameFeatures(
            stride4=out["stride4"],
            stride8=out["stride8"],
            feat=out["feat"],
            feat_no_memory=out["feat_no_memory"],
        )

    def recall(self, features: FrameFeatures, batch: MemoryBatch) -> Tensor:
        """Condition a frame on what B rows remember: (B, C, h, w).

        Every row must remember something.
        """
        inputs: dict[str, Tensor] = {
            "feat": features.feat,
            "memory": batch.memory,
            "memory_position": batch.position,
            "memory_valid": batch.valid,
            "pointer": batch.pointer,
            "pointer_age": batch.pointer_age,
            "pointer_valid": batch.pointer_valid,
        }
        return self._memory_attention.run(inputs, keep=("conditioned",))["conditioned"]

    def decode(
        self,
        features: FrameFeatures,
        conditioned: Tensor,
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
        inputs: dict[str, Tensor] = {
            "feat": conditioned,
            "stride4": features.stride4,
            "stride8": features.stride8,
            "point_coords": np.repeat(given.coords[None], rows, axis=0),
            "point_labels": np.repeat(given.labels[None], rows, axis=0),
            "mask_input": np.repeat(mask, rows, axis=0),
            "has_mask": np.repeat(_FALSE if mask_input is None else _TRUE, rows),
            "multimask": np.repeat(_TRUE if multimask else _FALSE, rows),
        }
        out = self._decoder.run(inputs, keep=("mask_logits",))
        return Decoded(
            logits=_f32(out["mask_logits"]),
            score=_f32(out["score"]),
            object_logit=_f32(out["object_logit"]),
            pointer=_f32(out["pointer_out"]),
            kept_logits=out["mask_logits"],
        )

    def memorise(
        self,
        features: FrameFeatures,
        logits: Tensor,
        object_logits: Sequence[float],
        *,
        prompted: bool,
    ) -> Tensor:
        """Memory maps (B, L, Cm) of mask logits (B, m, m); a prompted mask is made hard."""
        rows = logits.shape[0]
        inputs: dict[str, Tensor] = {
            "feat": features.feat,
            "mask_logits": logits,
            "object_logit": np.asarray(object_logits, np.float32),
            "hard": np.repeat(_TRUE if prompted else _FALSE, rows),
        }
        return self._memory_encoder.run(inputs, keep=("memory",))["memory"]


def _f32(tensor: Tensor) -> F32:
    """On the host; SAM2's outputs are all float32, as their specs say."""
    return cast("F32", on_host(tensor))
