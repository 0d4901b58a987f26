# SPDX-License-Identifier: Apache-2.0
"""The tracking report for a checkpoint, with torch in place of an engine bundle.

`python -m foreseg_training.tracker.report CHECKPOINT folder ...` streams with `transformers`'
own session, so it needs no export; `foreseg_evaluation.tracking_report` is the published one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from foreseg_evaluation.clips import BoolArray, U8Array
from foreseg_evaluation.prompt_forms import box_around
from foreseg_evaluation.tracking import Followed, Method
from foreseg_evaluation.tracking_report import report, standard_methods
from foreseg_torch.tracker.nano_tracker import (
    NanoTrackerConfig,
    load_nano_tracker,
    read_nano_tracker_config,
)

from .batches import normalise


def main() -> None:
    """Read the command line, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--num-frames", type=int, default=20, help="after the first; 0 for all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    model = load_nano_tracker(options.checkpoint)
    follow = follow_with(model, read_nano_tracker_config(options.checkpoint))
    methods = standard_methods({"nano tracker (torch)": follow})
    for folder in options.folders:
        sys.stdout.write(report(folder, methods, options.num_frames or None) + "\n")


def follow_with(model: Sam2VideoModel, config: NanoTrackerConfig) -> Method:
    """Make a method of a model: prompt with the box of the first mask, then stream."""

    def follow(images: Sequence[U8Array], first: BoolArray) -> Followed:
        height, width = first.shape
        side = config.image_size
        session = Sam2VideoInferenceSession(
            video=None, video_height=height, video_width=width, dtype=torch.float32
        )
        row = session.obj_id_to_idx(1)
        box = np.array(box_around(first), dtype=np.float32).reshape(2, 2)
        corners = torch.from_numpy(box * np.array([side / width, side / height], dtype=np.float32))
        session.add_point_inputs(
            row,
            0,
            {
                "point_coords": corners[None, None],
                "point_labels": torch.tensor([[[2, 3]]], dtype=torch.int32),
            },
        )
        session.obj_with_new_inputs = [1]
        masks, object_logits = [], []
        for image in images:
            small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
            pixels = normalise(small, config.pixel_mean, config.pixel_std)
            step = model(inference_session=session, frame=pixels)
            large = functional.interpolate(step.pred_masks, size=(height, width), mode="bilinear")
            masks.append((large[0, 0] > 0).numpy())
            object_logits.append(float(step.object_score_logits.squeeze()))
        return Followed(masks=masks, object_logits=object_logits)

    return follow


if __name__ == "__main__":
    main()
