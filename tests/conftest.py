# SPDX-License-Identifier: Apache-2.0
"""What all tests need, set before anything is imported: one thread of arithmetic, and ^C."""

from __future__ import annotations

import os
import signal


def pytest_configure() -> None:
    """Two threads on two busy cores wait for each other, in torch most of all.

    A job in the background of a script inherits an ignored SIGINT, and hands it on.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
