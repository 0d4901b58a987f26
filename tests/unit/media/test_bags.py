# SPDX-License-Identifier: Apache-2.0
"""Bags as sources: every storage, stamps, damage, several cameras, and what was asked then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'foreseg[bags]'")

from rosbags.rosbag2 import StoragePlugin
from tests.support.bags import (
    DELAY_NS,
    FIRST_NS,
    RATE_HZ,
    TOPIC,
    Given,
    image_at,
    stamp_of,
    write_bag,
)

from foreseg.dialogue import AnswerStatus
from foreseg.errors import StreamError
from foreseg.media.bags import BagSource, is_bag, questions_of
from foreseg.media.sources import SourceFrame, SourceGap, frames_of, open_source


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_bag_gives_its_images_with_stamps_from_0(tmp_path: Path, plugin: StoragePlugin) -> None:
    bag = write_bag(tmp_path / "bag", 5, plugin=plugin)
    with open_source(str(bag)) as source:
        assert isinstance(source, BagSource)
        assert (source.num_frames, source.counted_frames()) == (5, 5)
        assert source.rate_hz == pytest.approx(RATE_HZ, rel=1e-6)
        for _ in range(2):  # it can be read again
            frames = list(frames_of(source))
            assert [f.stamp_ns for f in frames] == [stamp_of(i) - FIRST_NS for i in range(5)]
            for index, frame in enumerate(frames):
                np.testing.assert_array_equal(frame.image, image_at(index))
                assert frame.image.flags.writeable


def test_the_file_of_a_bag_is_one_too_and_no_other_folder_is(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", 3)
    with BagSource(bag / "bag.mcap") as source:
        assert len(list(source)) == 3
    assert is_bag(bag)
    assert not is_bag(tmp_path)
    assert not is_bag(tmp_path / "trace.jsonl")


def test_without_stamps_the_time_of_recording_counts(tmp_path: Path) -> None:
    with BagSource(write_bag(tmp_path / "bag", 3, has_stamps=False)) as source:
        assert source.origin_ns == FIRST_NS + DELAY_NS
        assert [f.stamp_ns for f in frames_of(source)][1:] == [
            stamp_of(i) - FIRST_NS for i in (1, 2)
        ]


def test_an_image_that_is_cut_off_is_left_out_and_told(tmp_path: Path) -> None:
    with BagSource(write_bag(tmp_path / "bag", 4, cut=2)) as source:
        kinds = [type(item) for item in source]
        assert kinds == [SourceFrame, SourceFrame, SourceGap, SourceFrame]
        (gap,) = [item for item in source if isinstance(item, SourceGap)]
    assert gap.num_frames == 1
    assert "image 2 of /camera/image_raw cannot be decoded: image data is cut off" in gap.reason


def test_of_several_cameras_one_is_chosen_and_foresegs_own_images_are_none(tmp_path: Path) -> None:
    own = ("/foreseg/masks", "/foreseg/overlay", "/camera/depth/image_raw")
    with BagSource(write_bag(tmp_path / "one", 2, topics=(TOPIC, *own))) as source:
        assert source.topic == TOPIC
    two = write_bag(tmp_path / "two", 2, topics=("/left/image", "/right/image"))
    with pytest.raises(StreamError, match=r"several topics.*/left/image \(2\), .*--topic"):
        BagSource(two)
    with BagSource(two, topic="/right/image") as source:
        assert len(list(source)) == 2
    with pytest.raises(StreamError, match="no images on '/up'"):
        BagSource(two, topic="/up")
    with pytest.raises(StreamError, match=r"no images of a camera: /foreseg/masks \(2\)"):
        BagSource(write_bag(tmp_path / "none", 2, topics=own[:1]))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 0.999])
def test_a_bag_that_is_cut_off_is_one_sentence(tmp_path: Path, share: float) -> None:
    whole = (write_bag(tmp_path / "bag", 4) / "bag.mcap").read_bytes()
    path = tmp_path / "cut.mcap"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(StreamError, match=r"cannot open .*cut\.mcap as a bag: .*reindex"):
        BagSource(path)


def test_a_bag_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"^no bag .*nothing\.mcap: give a folder with"):
        BagSource(tmp_path / "nothing.mcap")


@pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
def test_a_bag_with_damaged_bytes_gives_what_it_can(tmp_path: Path, place: float) -> None:
    path = write_bag(tmp_path / "bag", 30) / "bag.mcap"
    data = bytearray(path.read_bytes())
    start = int(place * len(data))
    data[start : start + 4000] = b"\xff" * 4000
    path.write_bytes(bytes(data))
    with BagSource(path) as source:
        items = list(source)
    assert any(isinstance(item, SourceFrame) for item in items)
    assert sum(1 if isinstance(i, SourceFrame) else i.num_frames for i in items) <= 30  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "nonsense", "rosbag2_bagfile_information: {version: 9}"])
def test_wrong_metadata_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(StreamError, match="cannot open"):
        open_source(str(tmp_path))


def test_what_was_asked_is_read_from_the_answers(tmp_path: Path) -> None:
    answers = [
        Given(query_id="watch", text="what moves?", asked_s=1.0),
        Given(query_id="watch", text="what moves?", asked_s=1.0, rationale="it does"),
        Given(query_id="once", text="what will leave?", asked_s=2.0, horizon_s=3.0, status=1),
        Given(query_id="watch", text="what moves?", asked_s=3.0),
        Given(query_id="watch", text="what moves?", asked_s=5.5),
    ]
    with BagSource(write_bag(tmp_path / "bag", 2, answers=answers)) as source:
        recorded = source.answers()
        asked = questions_of(recorded, source.origin_ns)
    assert len(recorded) == 4, "one came again with its rationale"
    assert recorded[1].status is AnswerStatus.NO_TARGET
    assert recorded[1].words == "why not"
    (watch, once) = asked
    assert (watch.query.id, watch.query.period_s, watch.query.want_rationale) == (
        "watch",
        2.25,
        True,
    )
    assert watch.at_ns == 10**9
    assert (once.query.text, once.query.period_s, once.query.horizon_s) == (
        "what will leave?",
        0.0,
        3.0,
    )
    assert once.at_ns == 2 * 10**9


def test_a_bag_without_answers_tells_none(tmp_path: Path) -> None:
    with BagSource(write_bag(tmp_path / "bag", 2)) as source:
        assert source.answers() == []
    assert questions_of([], 0) == ()
