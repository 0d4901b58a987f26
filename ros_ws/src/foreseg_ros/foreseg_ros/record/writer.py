# SPDX-License-Identifier: Apache-2.0
"""A bag that is written message by message, whole whatever ends it. Knows no rclpy."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from foreseg.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.typesys.store import Typestore

METADATA_VERSION: Final = 8  # what Humble's rosbag2 reads as well as newer ones
MIN_FREE_BYTES = 200_000_000  # so much of the disk is left: the index still has to be written
LOOK_EVERY_BYTES = 16_000_000  # between two looks at the disk


class BagWriter:
    """Writes an MCAP bag in rosbag2's form; its folder is made with the first message.

    Raises:
        InputError: there is something at its place already, or nothing can be made there.
        MissingExtraError: rosbags is not installed.
    """

    def __init__(self, out: Path, *, max_bytes: int, is_compressed: bool = False) -> None:
        try:
            from rosbags.rosbag2 import StoragePlugin, Writer
            from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
        except ImportError as error:
            package, extra = "rosbags", "bags"
            raise MissingExtraError(package, extra, "recording") from error
        if out.exists():
            msg = f"{out} exists already; give another --out"
            raise InputError(msg)
        self.out = out
        self.counts: Counter[str] = Counter()  # messages of each topic
        self.num_bytes = 0
        self.ending = ""  # why nothing more is written, in words
        self._max_bytes = max_bytes
        self._next_look_bytes = 0
        self._writer = Writer(out, version=METADATA_VERSION, storage_plugin=StoragePlugin.MCAP)
        if is_compressed:
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections: dict[str, Connection] = {}
        self._is_open = False

    def write(
        self,
        topic: str,
        msgtype: str,
        store: Typestore,
        qos: Qos,
        data: bytes,
        *,
        stamp_ns: int,
    ) -> None:
        """Write one message; nothing any more once it is `ending`.

        Args:
            topic: its full name.
            msgtype: as `package/msg/Name`.
            store: knows that type.
            qos: as the topic is published.
            data: as rclpy serialises it.
            stamp_ns: when it was received.

        Raises:
            InputError: the folder cannot be made.
        """
        if self.ending:
            return
        try:
            if not self._is_open:
                self._open()
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(
                    topic, msgtype, typestore=store, offered_qos_profiles=[qos]
                )
            self._writer.write(self._connections[topic], stamp_ns, data)
        except OSError as error:
            self.ending = f"cannot write {self.out}: {error.strerror or error}"
            return
        self.counts[topic] += 1
        self.num_bytes += len(data)
        if self.num_bytes >= self._max_bytes:
            self.ending = f"--max-mb {self._max_bytes // 10**6} are written"
        elif self.num_bytes >= self._next_look_bytes:
            self._next_look_bytes = self.num_bytes + LOOK_EVERY_BYTES
            if shutil.disk_usage(self.out).free < MIN_FREE_BYTES:
                self.ending = f"less than {MIN_FREE_BYTES // 10**6} MB of the disk are free"

    def close(self) -> str:
        """Write index and metadata; why that failed, or nothing. Twice is fine."""
        if not self._is_open:
            return ""
        self._is_open = False
        try:
            self._writer.close()
        except OSError as error:
            self._writer.abort()
            return (
                f"{self.out} has no index: {error.strerror or error}; make room, and"
                f" `ros2 bag reindex {self.out}` mends it"
            )
        return ""

    def _open(self) -> None:
        try:
            self._writer.open()
        except OSError as error:
            msg = f"cannot make {self.out}: {error.strerror or error}; give another --out"
            raise InputError(msg) from error
        self._is_open = True
