# SPDX-License-Identifier: Apache-2.0
"""A picture of each answer: which frames it shows, what they are called, and that it is bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.colour_tracker import ColourTracker
from tests.support.scene import SIZE_WH, box_of, image_of, truth_of

from foreseg import cli
from foreseg.commands import filmstrips
from foreseg.commands.run_files import RunFiles
from foreseg.commands.run_report import describe_answer
from foreseg.config import Config, HistoryConfig
from foreseg.dialogue import (
    Abstained,
    Answer,
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    AnswerStatus,
    NoTarget,
    ObservedMask,
    Query,
    QueryId,
    RationalePart,
    TargetsFound,
)
from foreseg.driving.executor import Executor
from foreseg.driving.player import Latencies, Player
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.geometry import BoxXyxy
from foreseg.history.windows import RecentWindow
from foreseg.masks import rle_from_mask, rle_iou
from foreseg.media.filmstrip import (
    MAX_MOMENTS,
    MAX_WINDOW_CELLS,
    WIDTH,
    Filmstrip,
    chosen_indices,
    draw_filmstrip,
)
from foreseg.media.pen import Pen
from foreseg.media.sinks import write_image
from foreseg.pipeline.state import State
from foreseg.prompts import Point, PointLabel, SpatialPrompt
from foreseg.reasoner.base import AnswerStream

cv2 = pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")

HZ = 30
NS = 1_000_000_000


class Pointer:
    """Points at the red square on the first frame of its window, or says something else."""

    def __init__(self, *instead: AnswerPart, num_frames: int = 4) -> None:
        self.window_policy = RecentWindow(num_frames=num_frames)
        self.labels: list[dict[int, int]] = []  # index -> label, of each window
        self._instead = instead

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        del query
        self.labels.append({int(i): window.label_of(i) for i in window.indices})
        yield RationalePart(text="I look for red.")
        if self._instead:
            yield from self._instead
            return
        keyframe = window.frames[0].index
        prompt = SpatialPrompt(box=box_of("red", int(keyframe)))
        yield TargetsFound(keyframe_index=keyframe, prompts=(prompt,), text="the red one")
        yield RationalePart(text=" There it is.")
        yield AnswerDone(tokens=5)


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> list[Filmstrip]:
    """What is drawn, as it is drawn; the picture itself is left small."""
    drawn: list[Filmstrip] = []

    def draw(strip: Filmstrip) -> np.ndarray:
        drawn.append(strip)
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(filmstrips, "draw_filmstrip", draw)
    return drawn


def play(
    folder: Path,
    reasoner: Pointer,
    *,
    seconds: float = 4.0,
    reasoner_s: float = 0.5,
    config: Config | None = None,
    query: Query | None = None,
) -> RunFiles:
    config = config or Config()
    files = RunFiles(folder / "out", {}, video_hz=None, filmstrips=folder / "strips")
    executor = Executor(config, (DEFAULT_CAMERA,), ColourTracker)
    trace = files.open_trace(config, executor)
    player = Player(
        State.start(config, (DEFAULT_CAMERA,)),
        executor,
        files,
        reasoner=reasoner,
        latencies=Latencies(tracker_ns=10_000_000, reasoner_ns=round(reasoner_s * NS)),
        trace=trace,
    )
    player.ask(query or Query(id=QueryId("q"), text="which is red?", want_rationale=True))
    for number in range(round(seconds * HZ)):
        player.feed(DEFAULT_CAMERA, image_of(number), number * NS // HZ)
    player.settle(2.0)
    trace.close()
    files.close()
    return files


def test_a_late_answer_is_shown_from_its_hop_over_its_catch_up_to_later_frames(
    tmp_path: Path, strips: list[Filmstrip]
) -> None:
    files = play(tmp_path, Pointer(), seconds=6)
    strip = strips[-1]
    assert strip.answer.rationale == "I look for red. There it is."
    whats = [moment.what for moment in strip.moments]
    assert whats[:2] == ["first masks, by a hop", "caught up"]
    assert [what.split(" ")[0] for what in whats[2:]] == ["1.0", "2.0", "4.0", "the"]
    first = strip.moments[0]
    assert files.first_masks_ns == {0: first.stamp_ns}
    assert first.stamp_ns >= strip.answer.answered_stamp_ns > strip.answer.keyframe_stamp_ns
    assert (first.image == image_of(first.index)).all()
    x, y = map(int, box_of("red", first.index).centre_xy)
    assert first.label_map[y, x] == first.labels[0].index
    (name,) = [path.name for path in (tmp_path / "strips").iterdir()]
    assert name == f"0001_q_keyframe-{strip.answer.keyframe_index:06d}.png"


def test_frames_have_their_own_pixels_and_the_labels_that_the_reasoner_was_told(
    tmp_path: Path, strips: list[Filmstrip]
) -> None:
    short = HistoryConfig(max_frames=20, sparse_frames=2, sparse_hz=2.0)  # begins after frame 0
    reasoner = Pointer(num_frames=12)
    play(tmp_path, reasoner, config=Config(history=short))
    window = strips[-1].window
    assert window is not None
    assert window.origin_index != 0  # so that labels are no indices
    told = reasoner.labels[0]
    assert strips[-1].num_window_frames == len(told)
    assert len(window.frames) == MAX_WINDOW_CELLS < len(told)
    assert strips[-1].answer.keyframe_index in window.indices
    for frame in window.frames:
        assert window.label_of(frame.index) == told[int(frame.index)]
        assert (frame.image == image_of(int(frame.index))).all()


@pytest.mark.parametrize(
    ("part", "status"),
    [
        (NoTarget(reason="nothing is red"), AnswerStatus.NO_TARGET),
        (Abstained(reason="I cannot tell"), AnswerStatus.ABSTAINED),
        (AnswerFailed(reason="no sense in it"), AnswerStatus.FAILED),
    ],
)
def test_an_answer_without_objects_shows_what_was_seen(
    tmp_path: Path, strips: list[Filmstrip], part: AnswerPart, status: AnswerStatus
) -> None:
    play(tmp_path, Pointer(part, AnswerDone()), seconds=2)
    (strip,) = strips
    assert (strip.answer.status, strip.moments) == (status, ())
    assert strip.window is not None
    assert len(strip.window.frames) == 4
    assert [p.name for p in (tmp_path / "strips").iterdir()] == [
        f"0001_q_{status.name.lower()}.png"
    ]


def test_each_answer_of_a_standing_query_has_one_picture_and_little_is_kept(
    tmp_path: Path, strips: list[Filmstrip]
) -> None:
    standing = Query(id=QueryId("../../q"), text="which is red?", period_s=0.5)
    files = play(tmp_path, Pointer(), seconds=5, reasoner_s=0.2, query=standing)
    names = sorted(path.name for path in (tmp_path / "strips").iterdir())
    assert len(names) == len(files.answers) > 5
    assert [name[:4] for name in names] == [f"{i:04d}" for i in range(1, len(names) + 1)]
    assert all(len(strip.moments) <= MAX_MOMENTS for strip in strips)
    assert not (tmp_path.parent / "q").exists()


def test_an_even_choice_of_frames_has_the_ends_and_the_keyframe() -> None:
    indices = tuple(FrameIndex(3 * i) for i in range(30))
    for keyframe in (*indices, None):
        chosen = chosen_indices(indices, keyframe)
        assert len(set(chosen)) == MAX_WINDOW_CELLS
        assert (chosen[0], chosen[-1]) == (indices[0], indices[-1])
        assert keyframe is None or keyframe in chosen
        assert list(chosen) == sorted(chosen)
    assert chosen_indices(indices[:3], None) == indices[:3]


def frame_of(index: int, size_wh: tuple[int, int]) -> Frame:
    ref = FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(index),
        epoch=0,
        stamp_ns=index * NS // HZ,
        received_ns=0,
        size_wh=size_wh,
    )
    return Frame(ref=ref, image=np.full((size_wh[1] // 2, size_wh[0] // 2, 3), 90, np.uint8))


def strip_of(status: AnswerStatus, *, size_wh: tuple[int, int] = (640, 480)) -> Filmstrip:
    mask = np.zeros(size_wh[::-1], dtype=np.bool_)
    mask[10:60, 20:90] = True
    prompts = (
        SpatialPrompt(
            box=BoxXyxy(30, 30, 120, 90),
            points=(Point(60, 60), Point(20, 20, PointLabel.BACKGROUND)),
        ),
        SpatialPrompt(mask=rle_from_mask(mask)),
    )
    has_keyframe = status in (AnswerStatus.OK, AnswerStatus.EVICTED)
    answer = Answer(
        query_id=QueryId("q"),
        query_text="which of them falls first? 哪一个 " * 20,
        camera=DEFAULT_CAMERA,
        status=status,
        text="both",
        reason="" if status is AnswerStatus.OK else "a reason",
        rationale="word " * 4000,
        keyframe_index=FrameIndex(12) if has_keyframe else None,
        prompts=prompts if has_keyframe else (),
    )
    window = FrameWindow(
        frames=tuple(frame_of(i, size_wh) for i in (4, 8, 12)), origin_index=FrameIndex(4)
    )
    return Filmstrip(answer=answer, window=window, num_window_frames=3, moments=(), origin_ns=0)


@pytest.mark.parametrize("status", AnswerStatus)
@pytest.mark.parametrize("size_wh", [(640, 480), (1920, 1080), (480, 640), (9, 3000)])
def test_a_picture_is_bounded_whatever_the_answer(
    status: AnswerStatus, size_wh: tuple[int, int]
) -> None:
    strip = strip_of(status, size_wh=(max(size_wh[0], 160), max(size_wh[1], 120)))
    whole = draw_filmstrip(strip)
    bare = draw_filmstrip(replace(strip, window=None, num_window_frames=0))
    assert whole.shape[1] == bare.shape[1] == WIDTH
    assert bare.shape[0] < whole.shape[0] < 2400


def test_the_keyframe_shows_boxes_points_and_masks() -> None:
    strip = strip_of(AnswerStatus.OK)
    plain = replace(strip, answer=replace(strip.answer, prompts=()))
    changed = (draw_filmstrip(strip) != draw_filmstrip(plain)).any(axis=2)
    assert changed.sum() > 5000
    left = changed[:, : WIDTH // 2].sum()
    assert left == changed.sum(), "only the keyframe, at the left, has them"


def test_an_answer_is_told_in_full() -> None:
    answer = replace(
        strip_of(AnswerStatus.OK).answer,
        query_text="which?",
        confidence=0.875,
        keyframe_stamp_ns=NS,
        answered_stamp_ns=3 * NS,
        latency_s=1.9,
        rationale="because " * 30,
        object_ids=("object-1", "object-2"),
    )
    lines = describe_answer(answer, 3 * NS + NS // 2, has_rationale=False)
    times = "took 1.90 s by the clock; first masks 0.50 s after it"
    assert lines == [
        "'which?' (q): both",
        f"  OK; keyframe 12, 2.00 s old when answered; confidence 0.88; {times}",
        "  object-1: box 30, 30, 120, 90; foreground 60, 60; background 20, 20",
        "  object-2: a mask of 3500 pixels",
    ]
    more = describe_answer(answer, None, has_rationale=True)
    assert more[4].startswith("  rationale: because because")
    assert max(map(len, more)) < 110
    failed = replace(answer, status=AnswerStatus.EVICTED, reason="too late", object_ids=())
    said = describe_answer(failed, None, has_rationale=False)
    assert said[0] == "'which?' (q): evicted: too late"
    assert said[2].startswith("  an object without a track: box")


def test_the_times_of_a_strip_are_of_one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = Pen.text

    def noted(pen: Pen, xy: tuple[int, int], text: str, *rest: Any, **options: Any) -> int:
        written.append(text)
        return real(pen, xy, text, *rest, **options)

    monkeypatch.setattr(Pen, "text", noted)
    strip = strip_of(AnswerStatus.OK)
    answer = replace(
        strip.answer, asked_stamp_ns=NS, answered_stamp_ns=3 * NS, latency_s=7.25
    )  # a machine that was slower than the stream
    draw_filmstrip(replace(strip, answer=answer, origin_ns=0))
    (times,) = (text for text in written if text.startswith("asked at"))
    assert "asked at 1.00 s; answered at 3.00 s" in times
    assert "7.25" not in times
    assert any(text.startswith("7.25 s by the machine's own clock") for text in written)


def test_the_frames_show_the_observed_masks_where_they_were_asked_for(
    tmp_path: Path, strips: list[Filmstrip]
) -> None:
    query = Query(id=QueryId("q"), text="red?", horizon_s=2.0, want_observed_masks=True)
    files = play(tmp_path, Pointer(num_frames=12), query=query)
    assert not any(answer.observed for answer in files.answers), "little is kept"
    strip = strips[-1]
    assert strip.answer.reason, "it came again, with its outcome, after its masks"
    assert strip.window is not None
    assert len(strip.window.frames) == MAX_WINDOW_CELLS < strip.num_window_frames
    assert {observed.frame_index for observed in strip.observed} == set(strip.window.indices)
    for observed in strip.observed:
        truth = rle_from_mask(truth_of("red", int(observed.frame_index)))
        assert rle_iou(observed.mask, truth) > 0.9


def test_observed_masks_are_drawn_on_their_frames_alone() -> None:
    strip = strip_of(AnswerStatus.OK)
    assert strip.window is not None
    mask = np.zeros((480, 640), dtype=np.bool_)
    mask[200:400, 300:500] = True
    on_none, on_second = (
        draw_filmstrip(
            replace(
                strip,
                observed=(ObservedMask(frame_index=FrameIndex(i), mask=rle_from_mask(mask)),),
            )
        )
        for i in (9, 8)
    )
    columns = np.flatnonzero((on_none != on_second).any(axis=(0, 2)))
    assert columns.size, "the second of three frames, each a sixth wide, has it"
    assert WIDTH / 6 < columns[0] <= columns[-1] < 2 * WIDTH / 6


def test_a_folder_used_again_keeps_its_pictures_and_numbers_go_on(
    tmp_path: Path, strips: list[Filmstrip]
) -> None:
    folder = tmp_path / "strips"
    folder.mkdir()
    for name in ("0007_old_failed.png", "0009-notes.png", "0012_other.txt"):
        (folder / name).write_text("mine")
    play(tmp_path, Pointer(), seconds=2)
    assert strips
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "0007_old_failed.png"
    assert names[1].startswith("0008_q_keyframe-")
    assert len(names) == 4
    assert (folder / "0007_old_failed.png").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="give another --filmstrips"):
        filmstrips.Filmstrips(tmp_path / "file" / "strips")
    image = tmp_path / "a.png"
    write_image(image, image_of(0, SIZE_WH))
    arguments = ["run", str(image), "--query", "a", "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--filmstrips", str(tmp_path / "file")]) == cli.BAD_INPUT
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "--filmstrips" in said[0]
