# SPDX-License-Identifier: Apache-2.0
"""Message definitions as they are installed here, for the head of a bag: who reads it needs no ROS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from foreseg.errors import InputError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore


class Definitions:
    """Reads `share/PACKAGE/msg/NAME.msg` of each type that is asked for, and of all inside it.

    Args:
        share_of: the share folder of a package; raises LookupError where it is not installed.
    """

    def __init__(self, share_of: Callable[[str], Path]) -> None:
        from rosbags.typesys import Stores, get_typestore

        self._share_of = share_of
        self._store = get_typestore(Stores.EMPTY)

    def store_with(self, msgtype: str) -> Typestore:
        """A store that knows `package/msg/Name`.

        Raises:
            InputError: a definition is not installed, or cannot be read.
        """
        from rosbags.typesys import TypesysError, get_types_from_msg

        found, wanted = {}, [msgtype]
        while wanted:
            name = wanted.pop()
            if name in self._store.fielddefs or name in found:
                continue
            try:
                found.update(get_types_from_msg(self._text_of(name), name))
                wanted += _names_in(found[name])
            except (LookupError, OSError, ValueError, TypesysError) as error:
                msg = f"the definition of {name} is not installed here: {error}"
                raise InputError(msg) from error
        if found:
            self._store.register(found)
        return self._store

    def _text_of(self, name: str) -> str:
        package, _, short = name.split("/")
        return (self._share_of(package) / "msg" / f"{short}.msg").read_text("utf-8")


def _names_in(part: object) -> Iterator[str]:
    """Types that a definition of rosbags names."""
    from rosbags.interfaces import Nodetype

    if isinstance(part, (tuple, list)):
        if len(part) == 2 and part[0] is Nodetype.NAME:  # noqa: PLR2004 (kind and name)
            yield str(part[1])
            return
        for inner in part:
            yield from _names_in(inner)
