# SPDX-License-Identifier: Apache-2.0
"""`transformers`' own streaming of SAM2 and EdgeTAM, frame by frame: what engines must follow.

Takes pixels that are already resized and normalised, so no image processor (and no torchvision).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    EdgeTamVideoInferenceSession,
    EdgeTamVideoModel,
    Sam2VideoInferenceSession,
)

from foreseg_torch.tracker.video_models import VideoModel

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


class Sam2Reference:
    """One session: prompt on the next frame, then step; frames are counted from 0."""

    def __init__(self, model: VideoModel) -> None:
        self._model = model
        side = model.image_size
        is_edgetam = isinstance(model, EdgeTamVideoModel)
        make = EdgeTamVideoInferenceSession if is_edgetam else Sam2VideoInferenceSession
        self._session = make(
            video=None,
            video_height=side,
            video_width=side,
            inference_device="cpu",
            inference_state_device="cpu",
            video_storage_device="cpu",
            dtype=torch.float32,
        )
        self._next_frame = 0
        self._newest = torch.empty(0)  # the frame that was segmented last

    def prompt_points(self, object_id: int, coords: F32, labels: I32) -> None:
        """Points (P, 2) in model pixels with labels (P,) for the next frame; a box is 2 and 3."""
        row = self._session.obj_id_to_idx(object_id)
        inputs = {
            "point_coords": torch.from_numpy(coords)[None, None],
            "point_labels": torch.from_numpy(labels)[None, None],
        }
        self._session.add_point_inputs(row, self._next_frame, inputs)
        self._session.obj_with_new_inputs.append(object_id)

    def prompt_mask(self, object_id: int, mask: F32) -> None:
        """A mask (S, S) of 0 and 1 for the next frame."""
        row = self._session.obj_id_to_idx(object_id)
        self._session.add_mask_inputs(row, self._next_frame, torch.from_numpy(mask)[None, None])
        self._session.obj_with_new_inputs.append(object_id)

    def step(self, pixels: F32) -> tuple[F32, F32]:
        """Segment the next frame, (1, 3, S, S): mask logits (N, m, m) and object logits (N,)."""
        self._newest = torch.from_numpy(pixels)[0]
        out = self._model(inference_session=self._session, frame=self._newest)
        self._next_frame += 1
        logits = out.pred_masks.float().reshape(-1, *out.pred_masks.shape[-2:])
        return logits.numpy(), out.object_score_logits.float().reshape(-1).numpy()

    def refine(self, object_id: int, coords: F32, labels: I32) -> F32:
        """Prompt again on the frame that was segmented last: that object's logits (m, m)."""
        row = self._session.obj_id_to_idx(object_id)
        frame = self._next_frame - 1
        inputs = {
            "point_coords": torch.from_numpy(coords)[None, None],
            "point_labels": torch.from_numpy(labels)[None, None],
        }
        self._session.add_point_inputs(row, frame, inputs)
        self._session.obj_with_new_inputs.append(object_id)
        # with the frame: without, pointers' ages are scaled by the length of the video so far
        out = self._model(inference_session=self._session, frame=self._newest, frame_idx=frame)
        return out.pred_masks.float()[row, 0].numpy()
