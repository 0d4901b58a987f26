# SPDX-License-Identifier: Apache-2.0
"""A nano reasoner that is prepared in seconds: three recordings of the shapes world, two small towers."""

from __future__ import annotations

from foreseg_simulation.worlds import World
from foreseg_training.nano.architecture import NanoReasonerConfig
from foreseg_training.nano.dense import DenseConfig
from foreseg_training.nano.preparing import Preparation

SMALL = NanoReasonerConfig(width=64, vision_width=64, vision_layers=2, text_layers=2)
PREPARATION = Preparation(
    worlds=(World.SHAPES,),
    num_recordings=3,
    num_held_out=1,
    num_told=2,
    num_clips=2,
    num_stills=2,
    size_wh=(160, 120),
    model=SMALL,
    dense=DenseConfig(minutes=0.01, batch_size=4, num_workers=0),
)
GRID_THW = (1, 16, 24)
