# SPDX-License-Identifier: Apache-2.0
"""What every export is measured by: the bundle in foreseg's tracker against `transformers`'.

Both get the same pixels of a drawn clip; compared are mask logits on the model's grid, and masks
at source size. And each piece alone, on golden inputs, against the torch piece it was traced from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from foreseg.engines.load import Bundle
from foreseg.engines.manifest import Parity, Sam2Geometry
from foreseg.masks import MaskRle, rle_from_mask
from foreseg.tracker.drawn_clip import Clip
from foreseg.tracker.golden import (
    MIN_AREA_PX,
    GoldenStep,
    MaskRows,
    RecordingEngine,
    overlaps,
    root_mean_square,
    rounded,
    track_clip,
)
from foreseg.tracker.preprocess import pixels_from_image, points_from_prompt
from foreseg_torch.tracker.sam2_reference import Sam2Reference
from foreseg_torch.tracker.video_models import VideoModel

F32 = NDArray[np.float32]

GATES = {"fp32": 0.999, "fp16": 0.99, "int8": 0.97}  # mean mask IoU of the clip
GOLDEN_ROWS = 2  # objects in one launch of a golden step
NOTES = {"sam2": "memory stored as float32; the reference stores bfloat16", "edgetam": ""}


class Judge:
    """Streams a clip through the torch model once, then measures bundles against it.

    Args:
        model: the reference.
        geometry: of its bundles.
        clip: whose frames both see.
        gate: the mean mask IoU to reach.
        on_frame: called after each frame of the reference.
    """

    def __init__(
        self,
        model: VideoModel,
        geometry: Sam2Geometry,
        clip: Clip,
        *,
        gate: float = GATES["fp32"],
        on_frame: Callable[[], object] = lambda: None,
    ) -> None:
        self.clip = clip
        self._gate, self._reference_name = gate, type(model).__name__
        reference = Sam2Reference(model)
        for i, prompt in enumerate(clip.prompts):
            points = points_from_prompt(prompt, clip.size_wh, geometry.image_size)
            reference.prompt_points(i, points.coords, points.labels)
        logits, masks = [], []
        for image in clip.frames:
            wanted, _ = reference.step(pixels_from_image(image, geometry))
            logits.append(wanted)
            masks.append(_masks_at_source(wanted, clip.size_wh))
            on_frame()
        self.logits: F32 = np.stack(logits)  # (T, N, m, m)
        self.masks: MaskRows = tuple(masks)

    def measure(
        self, bundle: Bundle, on_frame: Callable[[], object] = lambda: None
    ) -> tuple[Parity, MaskRows]:
        """Stream the clip through a bundle; how well it agrees, and its masks."""
        tracked = track_clip(bundle, self.clip, on_frame)
        difference = tracked.logits - self.logits
        ious = [iou for _, _, iou in overlaps(tracked.masks, self.masks)]
        parity = Parity(
            reference=f"transformers {self._reference_name}, torch {torch.__version__}",
            frames=len(self.clip.frames),
            objects=len(self.clip.prompts),
            masks=len(ious),
            min_area_px=MIN_AREA_PX,
            max_abs_logit=float(np.abs(difference).max()),
            rms_logit=root_mean_square(difference),
            reference_rms_logit=root_mean_square(self.logits),
            min_iou=min(ious, default=0.0),
            mean_iou=float(np.mean(ious)) if ious else 0.0,
            gate_mean_iou=self._gate,
            note=NOTES[bundle.manifest.family],
        )
        return parity, tracked.masks


def compare(model: VideoModel, bundle: Bundle, clip: Clip) -> Parity:
    """Stream one clip through both and measure."""
    parity, _ = Judge(model, bundle.manifest.geometry, clip).measure(bundle)
    return parity


def golden_steps(
    modules: Mapping[str, nn.Module], bundle: Bundle, clip: Clip
) -> tuple[GoldenStep, ...]:
    """One tracking step of each piece with a full memory, as the torch pieces compute it.

    Args:
        modules: the pieces in float32.
        bundle: drives the tracker up to that step.
        clip: where the step is taken from.
    """
    num_frames = min(len(clip.frames), bundle.manifest.geometry.num_recent + 2)
    start = replace(clip, frames=clip.frames[:num_frames], prompts=clip.prompts[:GOLDEN_ROWS])
    engines = tuple(RecordingEngine(engine) for engine in bundle.engines)
    track_clip(replace(bundle, engines=engines), start)
    steps = []
    for engine in engines:
        inputs = rounded(engine.newest)
        with torch.no_grad():
            given = {name: torch.from_numpy(value) for name, value in inputs.items()}
            out = modules[engine.name](**given)
        values = out if isinstance(out, tuple) else (out,)
        outputs = {
            spec.name: value.numpy() for spec, value in zip(engine.outputs, values, strict=True)
        }
        steps.append(GoldenStep(piece=engine.name, inputs=inputs, outputs=outputs))
    return tuple(steps)


def _masks_at_source(logits: F32, size_wh: tuple[int, int]) -> tuple[MaskRle, ...]:
    at_source = functional.interpolate(
        torch.from_numpy(logits)[:, None], size=size_wh[::-1], mode="bilinear", align_corners=False
    )
    return tuple(rle_from_mask(mask) for mask in (at_source[:, 0] > 0).numpy())
