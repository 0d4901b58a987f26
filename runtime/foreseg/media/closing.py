# SPDX-License-Identifier: Apache-2.0
"""A context that closes at its end: the base of sources and sinks."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's own from Python 3.11 on


class Closing:
    """Closes when its `with` block ends, however it does."""

    def close(self) -> None:
        """Nothing to let go of by default."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
