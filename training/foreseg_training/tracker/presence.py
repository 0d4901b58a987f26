# SPDX-License-Identifier: Apache-2.0
"""Set where "absent" begins: shift the object score so that few visible objects are lost.

The score orders frames well before its zero lies well: absent objects weigh more in training than
they are common. The shift goes into the head's last bias, so every engine and `transformers`
itself have it. Does not know: how clips are drawn, how the weights came about.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Sam2VideoModel

from foreseg_torch.tracker.nano_tracker import (
    NanoTrackerConfig,
    load_nano_tracker,
    read_nano_tracker_config,
    save_nano_tracker,
)

from .batches import Batch
from .clips import MakeClip, make_clip
from .losses import SLIVER_PX
from .photo_clips import PhotoClipMaker
from .photos import PhotoSet, read_photos
from .unroll import unroll
from .validation import held_out_clips

_LOG = logging.getLogger(__name__)
MAX_LOST = 0.025  # of visible object-frames that may be said absent
_ROUNDS = 3  # a shift changes what is remembered, and so later scores
_NUM_CLIPS = 40
_NUM_FRAMES = 8
_EXIT_PROBABILITY = 0.8


def presence_batches(
    held_out: PhotoSet | None, config: NanoTrackerConfig, num_clips: int = _NUM_CLIPS
) -> list[Batch]:
    """Clips to set it on: of held-out photographs whose objects often leave, and simulated ones."""
    makers: list[MakeClip] = [make_clip]
    if held_out is not None:
        makers.append(PhotoClipMaker(photos=held_out, exit_probability=_EXIT_PROBABILITY).make)
    size, mean, std = config.image_size, config.pixel_mean, config.pixel_std
    return [
        held_out_clips(maker, num_clips, size, mean, std, num_frames=_NUM_FRAMES)
        for maker in makers
    ]


@torch.no_grad()
def set_presence(
    model: Sam2VideoModel, batches: Sequence[Batch], max_lost: float = MAX_LOST
) -> float:
    """Shift a model's object score in place; returns the whole shift, in logits.

    Args:
        model: any `Sam2VideoModel`.
        batches: clips in which objects leave.
        max_lost: of visible object-frames after the first, 0..1; slivers are not counted.
    """
    model.eval()
    bias = model.mask_decoder.pred_obj_score_head.proj_out.bias
    before = float(bias)
    for _ in range(_ROUNDS):
        there, away = _scores(model, batches)
        lost, found = float((there <= 0).float().mean()), float((away <= 0).float().mean())
        _LOG.info("said absent: %.3f of visible, %.3f of absent", lost, found)
        bias -= torch.quantile(there, max_lost)
    there, away = _scores(model, batches)
    lost, found = float((there <= 0).float().mean()), float((away <= 0).float().mean())
    _LOG.info("said absent: %.3f of visible, %.3f of absent", lost, found)
    return float(bias) - before


def _scores(model: Sam2VideoModel, batches: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Object scores of visible and of absent object-frames."""
    there, away = [], []
    for batch in batches:
        for t, output in enumerate(unroll(model, batch)):
            if t:
                area = batch.targets[:, t].flatten(1).sum(dim=1)
                there.append(output.object_logits[area >= SLIVER_PX])
                away.append(output.object_logits[area == 0])
    return torch.cat(there), torch.cat(away)


def main(words: Sequence[str] | None = None) -> None:
    """Set the score of a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--photos", type=Path, help="folder of photographs with masks")
    parser.add_argument("--out", type=Path, required=True, help="where the new one goes")
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = read_nano_tracker_config(arguments.checkpoint)
    model = load_nano_tracker(arguments.checkpoint)
    held_out = None
    if arguments.photos is not None:
        _, held_out = read_photos(arguments.photos).split()
    shift = set_presence(model, presence_batches(held_out, config))
    notes = {"foreseg.presence_shift": f"{shift:.4f}"}
    save_nano_tracker(model, config, arguments.out, notes=notes)
    sys.stdout.write(f"{arguments.out}: object score shifted by {shift:+.2f}\n")


if __name__ == "__main__":
    main()
