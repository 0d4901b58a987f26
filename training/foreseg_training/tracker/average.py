# SPDX-License-Identifier: Apache-2.0
"""Average checkpoints of one run: `python -m foreseg_training.tracker.average OUT IN IN ...`.

Late checkpoints of one run lie in one basin; their mean keeps what each stage was best at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from foreseg_torch.tracker.nano_tracker import (
    load_nano_tracker,
    read_nano_tracker_config,
    save_nano_tracker,
)


def main() -> None:
    """Read the command line, average, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("sources", type=Path, nargs="+")
    options = parser.parse_args()
    average_checkpoints(options.sources, options.target)


def average_checkpoints(sources: list[Path], target: Path) -> None:
    """Write the mean of checkpoints of one geometry.

    Raises:
        ValueError: if their configs differ.
    """
    configs = [read_nano_tracker_config(path) for path in sources]
    if any(config != configs[0] for config in configs):
        msg = f"checkpoints of one geometry can be averaged, got {configs}"
        raise ValueError(msg)
    states = [load_nano_tracker(path).state_dict() for path in sources]
    model = load_nano_tracker(sources[0])
    mean = {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }
    model.load_state_dict(mean)
    notes = {"foreseg.averaged": f"{len(sources)} checkpoints of one run"}
    save_nano_tracker(model, configs[0], target, notes=notes)


if __name__ == "__main__":
    main()
