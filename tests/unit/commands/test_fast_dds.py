# SPDX-License-Identifier: Apache-2.0
"""What killed processes leave in shared memory, and whether there is room: on files, with real locks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from foreseg.commands import checks, fast_dds
from foreseg.commands.checks import Level
from foreseg.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
DEAD, ALIVE = "fastrtps_4abf8f8e8141c42c", "fastdds_f31bc2005437eefd"
OTHERS = (
    *("fastrtps_port7000", "fastrtps_port7000_el", "sem.fastrtps_port7000_mutex"),
    *("fastrtps_11f9577247fd4290", "fastrtps_theirs_el", "nccl-4abf8f8e8141c42c"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A segment whose owner has died, one whose owner lives, and what is none of ours."""
    for name in (DEAD, ALIVE):
        (tmp_path / name).write_bytes(bytes(1000))
        fast_dds.lock_of(tmp_path / name).touch()
    for name in OTHERS:
        (tmp_path / name).write_bytes(bytes(10))
    handle = os.open(fast_dds.lock_of(tmp_path / ALIVE), os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield tmp_path
    os.close(handle)


def test_only_what_has_no_owner_is_removed(folder: Path) -> None:
    assert fast_dds.abandoned(folder) == [folder / DEAD]
    assert fast_dds.remove_abandoned(folder) == (1, 1000)
    left = {path.name for path in folder.iterdir()}
    assert left == {ALIVE, f"{ALIVE}_el", *OTHERS}
    assert fast_dds.remove_abandoned(folder) == (0, 0)


def test_looking_frees_no_lock(folder: Path) -> None:
    for _ in range(2):
        fast_dds.remove_abandoned(folder)
    assert (folder / ALIVE).exists()


def test_no_shared_memory_is_no_error(tmp_path: Path) -> None:
    assert fast_dds.abandoned(tmp_path / "absent") == []
    assert fast_dds.remove_abandoned(tmp_path / "absent") == (0, 0)


def test_the_profile_says_how_large_a_segment_is(tmp_path: Path) -> None:
    assert fast_dds.segment_bytes(ROOT / "launch/params/fastdds.xml") == 64 * 2**20
    assert fast_dds.segment_bytes(ROOT / "launch/params/fastdds.xml") < fast_dds.PARTICIPANT_BYTES
    for text in ("<profiles><a>", "<profiles><segment_size>much</segment_size></profiles>"):
        (tmp_path / "bad.xml").write_text(text)
        with pytest.raises(ConfigError, match=r"bad\.xml cannot be read"):
            fast_dds.segment_bytes(tmp_path / "bad.xml")
    with pytest.raises(ConfigError, match="cannot be read"):
        fast_dds.segment_bytes(tmp_path / "absent.xml")
    (tmp_path / "other.xml").write_text("<profiles/>")
    assert fast_dds.segment_bytes(tmp_path / "other.xml") == 0


def test_the_largest_mapped_segment_is_found() -> None:
    maps = (
        "7f0000000000-7f0000086000 rw-s 00000000 00:17 17235  /dev/shm/fastrtps_f31bc2005437eefd\n"
        "7f1000000000-7f1004300000 rw-s 00000000 00:17 17233  /dev/shm/fastdds_4abf8f8e8141c42c\n"
        "7f2000000000-7f2008000000 rw-s 00000000 00:17 17240  /dev/shm/fastrtps_port7000\n"
        "7f3000000000-7f3090000000 r-xp 00000000 00:17 17241  /usr/lib/libfastrtps.so.2.14\n"
    )
    assert fast_dds.mapped_segment_bytes(maps) == 0x4300000
    assert fast_dds.mapped_segment_bytes("") == 0


@pytest.mark.parametrize(
    ("total_mb", "free_mb", "has_left", "level", "words"),
    [
        (8000, 4000, False, Level.OK, ""),
        (8000, 4000, True, Level.OK, "the next start"),
        (64, 64, False, Level.WARN, "too small"),
        (64, 10, True, Level.WARN, "too small"),
        (8000, 10, True, Level.WARN, "the next start"),
        (8000, 10, False, Level.WARN, "full"),
    ],
)
def test_too_small_full_and_as_it_should_be_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    total_mb: int,
    free_mb: int,
    has_left: bool,
    level: Level,
    words: str,
) -> None:
    room = fast_dds.Room(total_bytes=total_mb * 10**6, free_bytes=free_mb * 10**6)
    monkeypatch.setattr(fast_dds, "room", lambda _: room)
    if not has_left:
        fast_dds.remove_abandoned(folder)
    check = checks.shared_memory(folder)
    assert check.level is level
    assert words in check.advice
    assert (check.advice == "") == (words == "")
    assert f"{total_mb} MB" in check.found
    assert ("1 segments" in check.found) == has_left
