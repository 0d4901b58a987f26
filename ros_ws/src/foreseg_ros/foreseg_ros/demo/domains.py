# SPDX-License-Identifier: Apache-2.0
"""A ROS domain that nobody else on this machine has taken this way."""

from __future__ import annotations

import atexit
import errno
import random
import socket

from foreseg.errors import InputError

MAX_DOMAIN = 101  # above it, Linux's ephemeral ports begin


def reserve_domain() -> int:
    """A ROS domain id, 1 to 101, that no other process gets from here until this one ends.

    Whoever binds the name of a domain in Linux's abstract namespace has the domain; nothing is
    left behind. A node that was started without asking here may be on it all the same.

    Raises:
        InputError: other processes have all of them.
    """
    for domain in random.SystemRandom().sample(range(1, MAX_DOMAIN + 1), MAX_DOMAIN):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0foreseg-domain-{domain}")
        except OSError as error:
            held.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        atexit.register(held.close)
        return domain
    msg = (
        f"processes on this machine have all of the ROS domains 1 to {MAX_DOMAIN}: "
        "wait for one to end"
    )
    raise InputError(msg)
