# SPDX-License-Identifier: Apache-2.0
"""Whatever lies at a path, reading it neither waits nor fills the memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foreseg.engines.load import bundle_folder
from foreseg.files import file_size, read_file, user_path


def test_a_plain_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"four")
    assert read_file(path, 4) == b"four"
    assert file_size(path) == 4
    (tmp_path / "link").symlink_to(path)
    assert read_file(tmp_path / "link", 100) == b"four"
    with pytest.raises(OSError, match="it has 4 bytes, expected at most 3"):
        read_file(path, 3)


def test_holes_are_counted_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 40)
    assert file_size(path) == 1 << 40
    with pytest.raises(OSError, match="1099511627776 bytes"):
        read_file(path, 1 << 24)


def num_open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_pipe_a_device_a_folder_and_nothing_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    num_open = num_open_files()
    for path in (pipe, Path("/dev/zero"), Path("/dev/null"), tmp_path):
        for read in (file_size, lambda p: read_file(p, 10)):
            with pytest.raises(OSError, match="it is no plain file"):
                read(path)
    for path in (tmp_path / "absent", tmp_path / "a\0b", tmp_path / ("n" * 5000)):
        with pytest.raises(OSError, match=r"\w"):
            read_file(path, 10)
    assert num_open_files() == num_open


def test_a_home_folder_is_opened_and_one_that_nobody_has_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/masks.png") == tmp_path / "masks.png"
    assert user_path("a/~") == Path("a/~")
    for read in (user_path, bundle_folder):
        assert read("~no such user/nano") == Path("~no such user/nano")
