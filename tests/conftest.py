# SPDX-License-Identifier: Apache-2.0
"""What all tests need: ^C works, also where the shell that started them ignores it."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A job in the background of a script inherits an ignored SIGINT, and hands it on."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
