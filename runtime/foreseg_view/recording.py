# SPDX-License-Identifier: Apache-2.0
"""The last seconds as a ZIP: frames, tracks, answers, and the trace, for a bug report or a data set.

`frames` is a folder that `foreseg run` and `foreseg view` read, `trace.jsonl` one that `foreseg replay` does.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO

from foreseg import __version__
from foreseg.frames import Frame, FrameIndex
from foreseg_view.board import Board
from foreseg_view.host import Host
from foreseg_view.pixels import encoded_jpeg
from foreseg_view.records import answer_record, object_record

NS = 1_000_000_000
MAX_FRAMES = 900
MEMORY_BYTES = 8_000_000  # more of it goes to disk
CHUNK_BYTES = 1 << 16


class Recording:
    """Frames are added one by one; nothing is held up by it."""

    def __init__(self, board: Board, host: Host) -> None:
        self.num_frames = 0
        self._board = board
        self._host = host
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115 (who sends it closes it)
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)
        self._lines: list[str] = []
        self._last_index = 0
        self._seconds = 0

    @property
    def name(self) -> str:
        """For a file's name: the last frame."""
        return f"{self._last_index:06d}"

    def indices(self, seconds: int) -> list[FrameIndex]:
        """Which frames are at hand, the oldest first, at most so many seconds of them."""
        status, self._seconds = self._host.status(), seconds
        if status.oldest_index is None or status.newest_index is None:
            return []
        first = self._board.first_index_of(seconds)
        if first is None:
            return []
        first = max(first, status.oldest_index, status.newest_index - MAX_FRAMES + 1)
        return [FrameIndex(index) for index in range(first, status.newest_index + 1)]

    def add(self, frame: Frame) -> None:
        """One frame, with the tracks that it had."""
        index = int(frame.index)
        self._archive.writestr(
            f"frames/{index:06d}.jpg", encoded_jpeg(frame.image), zipfile.ZIP_STORED
        )
        tracks = self._board.past_tracks(index)
        record = {
            "frame": index,
            "stamp_ns": frame.ref.stamp_ns,
            "size_wh": list(frame.ref.size_wh),
            "tracks": [
                {**object_record(track, self._board), "mask_rle": track.mask and track.mask.counts}
                for track in tracks
            ],
        }
        self._lines.append(json.dumps(record))
        self.num_frames += 1
        self._last_index = index

    def finished(self) -> IO[bytes]:
        """The whole, from its beginning; whoever reads it closes it."""
        info = {
            "foreseg": __version__,
            "source": self._host.source,
            "seconds_wanted": self._seconds,
            "frames": self.num_frames,
        }
        answers = [answer_record(shown, self._board) for shown in self._board.answers()]
        with self._archive as archive:
            archive.writestr("info.json", json.dumps(info, indent=1) + "\n")
            archive.writestr("tracks.jsonl", "".join(line + "\n" for line in self._lines))
            archive.writestr("answers.jsonl", "".join(json.dumps(a) + "\n" for a in answers))
            path = self._host.trace_path
            if path is not None:
                archive.write(path, "trace.jsonl")
        self._file.seek(0)
        return self._file


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """A file's content, and then it is closed."""
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
