# SPDX-License-Identifier: Apache-2.0
"""The typed errors of foreseg: an operator's or programmer's mistake, never what a stream brings.

What a live stream brings anyway (late, stale, evicted, lost) is a value or an event, not an error.
"""

from __future__ import annotations


class ForesegError(Exception):
    """Base of all errors that foreseg raises on purpose."""


class ConfigError(ForesegError):
    """A parameter has a value that cannot work."""


class InputError(ForesegError):
    """An image, prompt, query or file from outside is unusable; says what was expected."""


class StreamError(ForesegError):
    """A source of frames could not be opened, or broke."""


class EngineError(ForesegError):
    """An engine bundle is missing, damaged, or made for something else."""


class MissingExtraError(ForesegError):
    """An optional dependency is absent.

    Attributes:
        package: the import that failed.
        extra: the extra of foreseg that installs it.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package {package!r}: install it with"
            f" `pip install 'foreseg[{extra}]'`"
        )
