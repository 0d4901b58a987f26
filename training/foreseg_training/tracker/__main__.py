# SPDX-License-Identifier: Apache-2.0
"""Train the nano tracker: `python -m foreseg_training.tracker --out DIR --minutes 110`.

The same as `foreseg-train tracker`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from foreseg.errors import ForesegError
from foreseg_training.tracker_command import add_tracker_arguments, train_tracker


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_tracker_arguments(parser)
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        train_tracker(options)
    except (ForesegError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
