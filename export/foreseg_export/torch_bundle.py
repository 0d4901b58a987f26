# SPDX-License-Identifier: Apache-2.0
"""The back-end `torch`: a checkpoint, opened as a bundle that torch runs. Nothing is exported."""

from __future__ import annotations

from pathlib import Path

import torch

from foreseg.engines.load import Bundle
from foreseg.errors import InputError
from foreseg_export.checkpoints import open_checkpoint
from foreseg_export.sam2 import geometry_of
from foreseg_torch.tracker.engine import torch_bundle


def bundle_from_checkpoint(where: str, threads: int = 1) -> Bundle:
    """Open a checkpoint of any form that `foreseg-export sam2` takes, on the GPU if there is one.

    Args:
        where: a file, a folder, or the id of a model on the hub.
        threads: of the CPU, for all that torch does in this process.

    Raises:
        InputError: there is none, or it is of a form or geometry that is not known.
    """
    checkpoint = open_checkpoint(Path(where))
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch_bundle(
            checkpoint.model, geometry_of(checkpoint), name=checkpoint.name, device=device
        )
    except ValueError as error:
        msg = f"checkpoint {checkpoint.name} cannot be run: {error}"
        raise InputError(msg) from error
