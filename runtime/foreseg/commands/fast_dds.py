# SPDX-License-Identifier: Apache-2.0
"""Fast DDS's profile and shared memory: what is in force, what fits, what killed processes left.

A process makes a segment a participant, and holds a lock on the empty file `NAME_el` beside it as
long as it lives. The kernel lets go of the lock of a process that died, in any container that
shares the memory: so a segment whose lock is free has no owner. The small files of ports are used
again by the next process, and left alone here.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from foreseg.errors import ConfigError

# Fast DDS 2 reads the first, Fast DDS 3 the second.
PROFILE_VARIABLES: Final = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
PROFILE_PLACE: Final = ("launch", "params", "fastdds.xml")
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 (where it is)
PARTICIPANT_BYTES: Final = 71_000_000  # that one takes with the shipped profile, measured
LOCK_SUFFIX: Final = "_el"
_SEGMENT = re.compile(r"fast(?:rtps|dds)_[0-9a-f]{16}")
_MAPPED = re.compile(rf"^([0-9a-f]+)-([0-9a-f]+) .*/{_SEGMENT.pattern}$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A file system of shared memory."""

    total_bytes: int
    free_bytes: int

    def __str__(self) -> str:
        return f"{self.total_bytes / 1e6:.0f} MB, {self.free_bytes / 1e6:.0f} MB of it free"


def room(folder: Path = SHARED_MEMORY) -> Room:
    """How much there is.

    Raises:
        OSError: it is not there.
    """
    found = os.statvfs(folder)
    return Room(
        total_bytes=found.f_blocks * found.f_frsize, free_bytes=found.f_bavail * found.f_frsize
    )


def profile_in_force(environment: Mapping[str, str]) -> tuple[str, Path] | None:
    """The variable that names a profile, and the file that it names; None if none does."""
    variable = next((name for name in PROFILE_VARIABLES if environment.get(name)), None)
    return None if variable is None else (variable, Path(environment[variable]))


def shipped_profile() -> Path | None:
    """The profile as installed, or in the source tree."""
    source = Path(__file__).resolve().parents[3].joinpath(*PROFILE_PLACE)
    installed = Path(sys.prefix).joinpath("share", "foreseg", *PROFILE_PLACE)
    return next((path for path in (installed, source) if path.is_file()), None)


def segment_bytes(profile: Path) -> int:
    """The largest shared-memory segment that a profile asks for; 0 = it asks for none.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        root = ET.parse(profile).getroot()  # noqa: S314 (the operator's own file)
        sizes = [int(e.text or 0) for e in root.iter() if e.tag.endswith("segment_size")]
    except (OSError, ET.ParseError, ValueError) as error:
        msg = f"the Fast DDS profile {profile} cannot be read: {error}"
        raise ConfigError(msg) from error
    return max(sizes, default=0)


def mapped_segment_bytes(maps: str) -> int:
    """The largest segment that a process has, from the text of its /proc/PID/maps; 0 = none."""
    return max((int(end, 16) - int(start, 16) for start, end in _MAPPED.findall(maps)), default=0)


def abandoned(folder: Path = SHARED_MEMORY) -> list[Path]:
    """Segments whose owner has died."""
    found = []
    for segment in _segments(folder):
        with _lock_taken(segment) as is_free:
            if is_free:
                found.append(segment)
    return found


def remove_abandoned(folder: Path = SHARED_MEMORY) -> tuple[int, int]:
    """Remove them, as far as they are ours to remove: how many, and their bytes."""
    num_removed, num_bytes = 0, 0
    for segment in _segments(folder):
        with _lock_taken(segment) as is_free:
            if not is_free:
                continue
            try:
                size = segment.stat().st_size
                segment.unlink()
                lock_of(segment).unlink()
            except (FileNotFoundError, PermissionError):  # removed meanwhile, or another user's
                continue
            num_removed, num_bytes = num_removed + 1, num_bytes + size
    return num_removed, num_bytes


def lock_of(segment: Path) -> Path:
    """The file whose lock says that the owner lives."""
    return segment.with_name(segment.name + LOCK_SUFFIX)


def _segments(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _SEGMENT.fullmatch(path.name))
    except OSError:  # no shared memory, nothing left in it
        return []


@contextmanager
def _lock_taken(segment: Path) -> Iterator[bool]:
    """Try to hold the lock meanwhile; False where somebody else holds it, or there is none."""
    try:
        handle = os.open(lock_of(segment), os.O_RDONLY)
    except OSError:  # on its way in or out, or not for us to see
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
