# SPDX-License-Identifier: Apache-2.0
"""Bags as sources: the images of a recording of ROS 2 or ROS 1, and what was asked while it ran.

No ROS is needed: rosbags reads MCAP, SQLite and ROS 1 files by the definitions that are in them. It is
imported when a bag is opened. Nothing in a bag is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Protocol, cast

import numpy as np

from foreseg.dialogue import AnswerStatus, Query, QueryId
from foreseg.errors import ForesegError, InputError, MissingExtraError, StreamError
from foreseg.frames import U8Array
from foreseg.media.closing import Closing
from foreseg.media.image_messages import (
    CompressedMessage,
    RawMessage,
    rgb_from_compressed_message,
    rgb_from_message,
)
from foreseg.media.sources import SourceFrame, SourceGap, SourceItem
from foreseg.texts import reason_from_error

NS_PER_S = 1_000_000_000
BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
ANSWER = "foreseg_msgs/msg/Answer"
OUTPUTS = ("/masks", "/mask", "/overlay", "/overlay/compressed")  # how foreseg's own images end
NUM_TIMED = 32  # images whose stamps tell the rate
MAX_ANSWERS = 10_000  # that are read of a bag
MAX_RATE_HZ = 1000.0


class _Connection(Protocol):
    """What is used of rosbags' record of a topic."""

    topic: str
    msgtype: str
    msgcount: int


class _Reader(Protocol):
    """What is used of rosbags' reader."""

    connections: list[_Connection]
    stack: object | None  # None while it is closed

    def messages(
        self, connections: Sequence[_Connection]
    ) -> Iterator[tuple[_Connection, int, bytes]]:
        """Messages of these topics, by the time of recording."""

    def deserialize(self, rawdata: bytes, typ: str) -> object:
        """The fields of a message."""

    def close(self) -> None:
        """Close."""


class _Time(Protocol):
    sec: int
    nanosec: int


class _Header(Protocol):
    stamp: _Time


class _Stamped(Protocol):
    header: _Header


class _AnswerMessage(_Stamped, Protocol):
    query_id: str
    query_text: str
    status: int
    text: str
    rationale: str
    reason: str
    asked: _Time
    valid_until: _Time


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAnswer:
    """An answer as the node gave it while the bag was recorded; stamps as in its messages."""

    query_id: str
    query_text: str
    status: AnswerStatus
    words: str  # the answer's text, or the reason for none
    asked_ns: int
    keyframe_ns: int
    horizon_s: float  # 0 = none
    has_rationale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedThen:
    """A question as it was asked while the bag was recorded."""

    query: Query
    at_ns: int  # since the bag's first image


def is_bag(path: Path) -> bool:
    """Whether a path looks like a recording: a file by its suffix, or a folder with metadata."""
    return path.suffix.lower() in BAG_SUFFIXES or (path / "metadata.yaml").is_file()


class BagSource(Closing):
    """The images of one topic, in the order in which they were recorded; stamps from 0.

    A stamp is the header's own, or the time of recording where that is 0. What cannot be decoded
    is left out: a `SourceGap` tells of it.

    Raises:
        StreamError: no bag, a damaged one, no images, or several topics and none was chosen.
        MissingExtraError: rosbags is not installed.
    """

    def __init__(self, path: Path, *, topic: str = "") -> None:
        self._path = path
        self._reader = _opened(path)
        try:
            self.topic = _image_topic(self._reader, path, topic)
            self._connections = [c for c in _images_of(self._reader) if c.topic == self.topic]
            self.name = f"{path} ({self.topic})"
            stamps = self._first_stamps()
        except BaseException:
            self.close()
            raise
        self.origin_ns = stamps[0]  # the first image's stamp
        gaps = [b - a for a, b in pairwise(stamps) if b > a]
        rate_hz = NS_PER_S / median(gaps) if gaps else 0.0
        self._rate_hz = rate_hz if 0 < rate_hz <= MAX_RATE_HZ else None

    @property
    def num_frames(self) -> int:
        """Images as the bag counts them; those that cannot be decoded are among them."""
        return sum(connection.msgcount for connection in self._connections)

    @property
    def rate_hz(self) -> float | None:
        """By the stamps of the first images; None if they tell none."""
        return self._rate_hz

    def counted_frames(self) -> int:
        """As the bag counts them."""
        return self.num_frames

    def __iter__(self) -> Iterator[SourceItem]:
        """Read from the beginning."""
        num_read = 0
        messages = self._reader.messages(connections=self._connections)
        while True:
            try:
                connection, recorded_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 (of a damaged bag rosbags raises anything)
                reason = f"{self._path} is damaged behind image {num_read - 1}: {_words(error)}"
                yield SourceGap(reason=reason, num_frames=max(0, self.num_frames - num_read))
                return
            num_read += 1
            try:
                stamp_ns, image = self._decoded(connection, recorded_ns, data)
            except ForesegError as error:
                reason = f"image {num_read - 1} of {self.topic} cannot be decoded: {error}"
                yield SourceGap(reason=reason, num_frames=1)
                continue
            yield SourceFrame(image=image, stamp_ns=stamp_ns - self.origin_ns)

    def answers(self) -> list[RecordedAnswer]:
        """What foreseg answered while the bag was recorded, each once; later versions count.

        Raises:
            StreamError: the bag is damaged.
        """
        connections = [c for c in self._reader.connections if c.msgtype == ANSWER]
        found: dict[tuple[str, int, int], RecordedAnswer] = {}
        if not connections:
            return []
        try:
            for connection, _, data in self._reader.messages(connections=connections):
                msg = self._reader.deserialize(data, connection.msgtype)
                answer = _answer_from_message(cast("_AnswerMessage", msg))
                found[answer.query_id, answer.asked_ns, answer.keyframe_ns] = answer
                if len(found) == MAX_ANSWERS:
                    break
        except Exception as error:
            text = f"the answers in {self._path} cannot be read: {_words(error)}"
            raise StreamError(text) from error
        return list(found.values())

    def close(self) -> None:
        """Close the files; twice is fine."""
        if self._reader.stack is not None:
            self._reader.close()

    def _decoded(
        self, connection: _Connection, recorded_ns: int, data: bytes
    ) -> tuple[int, U8Array]:
        """Stamp and pixels of one message.

        Raises:
            InputError: it cannot be decoded.
            MissingExtraError: OpenCV is absent.
        """
        msg = self._deserialized(connection, data)
        if connection.msgtype == IMAGE:
            rgb = rgb_from_message(cast("RawMessage", msg))
        else:
            rgb = rgb_from_compressed_message(cast("CompressedMessage", msg))
        return _stamp_of(msg, recorded_ns), np.array(rgb)

    def _deserialized(self, connection: _Connection, data: bytes) -> _Stamped:
        try:
            return cast("_Stamped", self._reader.deserialize(data, connection.msgtype))
        except Exception as error:
            msg = f"no whole message: {_words(error)}"
            raise InputError(msg) from error

    def _first_stamps(self) -> list[int]:
        """Of the first images that are whole messages; at least one.

        Raises:
            StreamError: there is none.
        """
        stamps: list[int] = []
        reason = "it is empty"
        try:
            for connection, recorded_ns, data in self._reader.messages(
                connections=self._connections
            ):
                with suppress(InputError):
                    msg = self._deserialized(connection, data)
                    stamps.append(_stamp_of(msg, recorded_ns))
                if len(stamps) == NUM_TIMED:
                    break
        except Exception as error:  # noqa: BLE001 (of a damaged bag rosbags raises anything)
            reason = _words(error)
        if not stamps:
            text = f"cannot read an image of {self.name}: {reason}"
            raise StreamError(text)
        return stamps


def questions_of(answers: list[RecordedAnswer], origin_ns: int) -> tuple[AskedThen, ...]:
    """The questions behind recorded answers, by the time of their first asking.

    One that was asked more than once stands again, with the median of its distances as period.
    """
    askings: dict[str, set[int]] = {}
    for answer in answers:
        askings.setdefault(answer.query_id, set()).add(answer.asked_ns)
    found: dict[str, AskedThen] = {}
    for answer in sorted(answers, key=lambda answer: answer.asked_ns):
        times = sorted(askings[answer.query_id])
        gaps = [(b - a) / NS_PER_S for a, b in pairwise(times)]
        query = Query(
            id=QueryId(answer.query_id),
            text=answer.query_text,
            period_s=round(median(gaps), 3) if gaps else 0.0,
            horizon_s=answer.horizon_s,
        )
        before = found.setdefault(
            answer.query_id, AskedThen(query=query, at_ns=max(0, times[0] - origin_ns))
        )
        if answer.has_rationale and not before.query.want_rationale:
            wanting = replace(before.query, want_rationale=True)
            found[answer.query_id] = replace(before, query=wanting)
    return tuple(found.values())


def _opened(path: Path) -> _Reader:
    try:
        from rosbags.highlevel import AnyReader
    except ImportError as error:
        package, extra = "rosbags", "bags"
        raise MissingExtraError(package, extra, "reading bags") from error
    if not path.exists():
        msg = f"no bag {path}: give a folder with metadata.yaml, or a file .mcap, .db3 or .bag"
        raise StreamError(msg)
    try:
        reader = AnyReader([path])
        reader.open()
    except Exception as error:
        msg = (
            f"cannot open {path} as a bag: {_words(error)}; expected a folder with metadata.yaml, or"
            " a file .mcap, .db3 or .bag. Was its recorder killed? `ros2 bag reindex` mends that"
        )
        raise StreamError(msg) from error
    return cast("_Reader", reader)


def _images_of(reader: _Reader) -> list[_Connection]:
    return [c for c in reader.connections if c.msgtype in {IMAGE, COMPRESSED} and c.msgcount]


def _topics_of(reader: _Reader) -> str:
    counts: dict[str, int] = {}
    for connection in _images_of(reader):
        counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    return ", ".join(f"{topic} ({count})" for topic, count in sorted(counts.items())) or "none"


def _image_topic(reader: _Reader, path: Path, wanted: str) -> str:
    """The topic that is wanted, else the one with images that are neither foreseg's own nor depth.

    Raises:
        StreamError: none, or several.
    """
    topics = {c.topic for c in _images_of(reader)}
    if wanted:
        if wanted in topics:
            return wanted
        msg = f"{path} has no images on {wanted!r}; it has {_topics_of(reader)}"
        raise StreamError(msg)
    topics = {t for t in topics if not t.endswith(OUTPUTS) and "depth" not in t}
    if len(topics) == 1:
        return topics.pop()
    what = "several topics with images" if topics else "no images of a camera"
    msg = f"{path} has {what}: {_topics_of(reader)}; choose one with --topic"
    raise StreamError(msg)


def _stamp_of(msg: _Stamped, recorded_ns: int) -> int:
    return _ns(msg.header.stamp) or recorded_ns


def _answer_from_message(msg: _AnswerMessage) -> RecordedAnswer:
    keyframe_ns, ends_ns = _ns(msg.header.stamp), _ns(msg.valid_until)
    status = AnswerStatus(int(msg.status))
    return RecordedAnswer(
        query_id=str(msg.query_id),
        query_text=str(msg.query_text),
        status=status,
        words=str(msg.text if status is AnswerStatus.OK else msg.reason),
        asked_ns=_ns(msg.asked),
        keyframe_ns=keyframe_ns,
        horizon_s=max(0.0, round((ends_ns - keyframe_ns) / NS_PER_S, 3)) if ends_ns else 0.0,
        has_rationale=bool(msg.rationale),
    )


def _ns(time: _Time) -> int:
    return int(time.sec) * NS_PER_S + int(time.nanosec)


def _words(error: Exception) -> str:
    """What was raised, in a sentence."""
    return reason_from_error(error)
