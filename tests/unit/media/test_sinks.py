# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foreseg.dialogue import Abstained, Answer, AnswerStatus, Query, QueryId
from foreseg.errors import ConfigError, InputError, StreamError
from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameWindow
from foreseg.kinematic.reasoner import KinematicReasoner
from foreseg.media.captions import Banner, OverlayLabel, with_others
from foreseg.media.overlay import RED, Inset, colour_of, draw_overlay, inset_size
from foreseg.media.pen import Pen
from foreseg.media.sinks import (
    OverlayVideoWriter,
    contact_sheet,
    voc_palette,
    write_image,
    write_palette_png,
)
from foreseg.media.sources import SourceFrame, open_source
from foreseg.pipeline.tracks import TrackState

cv2 = pytest.importorskip("cv2")

SIZES_WH = [(320, 240), (641, 479), (1920, 1080), (40, 30), (3, 2)]
BANNER = Banner(query="which cup next? größer 物体", answer="the red one", age_s=1.25)


def _scene(size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    w, h = size_wh
    label_map = np.zeros((h, w), dtype=np.uint8)
    label_map[h // 3 : 2 * h // 3, w // 3 : 2 * w // 3] = 1
    return np.full((h, w, 3), 90, dtype=np.uint8), label_map


def test_colours_are_stable_and_distinct() -> None:
    colours = [colour_of(index) for index in range(1, 41)]
    assert len(set(colours)) == len(colours)
    assert colours == [colour_of(index) for index in range(1, 41)]
    assert colour_of(0) == (0, 0, 0)
    gaps = [
        max(abs(a - b) for a, b in zip(one, other, strict=True))
        for i, one in enumerate(colours[:10])
        for other in colours[:i]
    ]
    assert min(gaps) > 40


@pytest.mark.parametrize("size_wh", SIZES_WH)
def test_an_overlay_changes_a_copy_of_any_size(size_wh: tuple[int, int]) -> None:
    image, label_map = _scene(size_wh)
    before = image.copy()
    labels = tuple(
        OverlayLabel(index=i, name="object-" + "x" * 50 * i, state=state, detail="q1")
        for i, state in enumerate(TrackState, start=1)
    )
    drawn = draw_overlay(image, label_map, labels, BANNER)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (image == before).all()
    assert (drawn != image).any()


def test_a_mask_takes_its_colour_and_an_uncertain_one_is_fainter() -> None:
    image, label_map = _scene((320, 240))

    def middle(state: TrackState) -> np.ndarray:
        label = OverlayLabel(index=1, name="a", state=state)
        return draw_overlay(image, label_map, (label,))[120, 160].astype(int)

    colour = np.array(colour_of(1))
    sure, unsure = middle(TrackState.TRACKED), middle(TrackState.UNCERTAIN)
    assert np.abs(sure - colour).sum() < np.abs(unsure - colour).sum() < np.abs(90 - colour).sum()


def test_without_labels_only_the_mask_is_drawn() -> None:
    image, label_map = _scene((320, 240))
    drawn = draw_overlay(image, label_map)
    assert (drawn[:60] == image[:60]).all()
    assert (drawn[-60:] == image[-60:]).all()
    empty = draw_overlay(image, np.zeros_like(label_map))
    assert (empty == image).all()


def test_a_label_map_of_sixteen_bits_is_drawn_alike() -> None:
    image, label_map = _scene((64, 48))
    wide = label_map.astype(np.uint16)
    assert (draw_overlay(image, wide) == draw_overlay(image, label_map)).all()
    assert (draw_overlay(image, wide * 700) != image).any()


def test_a_label_map_of_another_size_is_refused() -> None:
    image, label_map = _scene((64, 48))
    with pytest.raises(InputError, match=r"\(48, 64\), got \(47, 64\)"):
        draw_overlay(image, label_map[:-1])


def test_a_query_of_any_length_and_script_fits_the_banner() -> None:
    image, label_map = _scene((320, 240))
    for query in ("a" * 100_000, "物体" * 500, "\x00\n\t%s{}", ""):
        assert draw_overlay(image, label_map, (), Banner(query=query)).shape == image.shape


def test_opencv_4_without_font_files_draws_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    image, label_map = _scene((320, 240))
    drawn = draw_overlay(image, label_map, (OverlayLabel(index=1, name="größer" * 9),), BANNER)
    assert (drawn[:60] != image[:60]).any()
    pen = Pen(np.zeros((40, 200, 3), np.uint8), text_px=14)
    assert pen.cut("größer · 物 → …", 190) == "gro?er - ? -> ..."


@pytest.mark.parametrize("size_wh", [(64, 48), (33, 25)])
def test_a_video_is_readable_again(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    path = tmp_path / "new" / "overlay.mp4"
    with OverlayVideoWriter(path, 25) as writer:
        for _ in range(7):
            writer.write(_scene(size_wh)[0])
        writer.write(_scene((50, 90))[0])  # fitted into the first frame's size
    assert writer.num_frames == 8
    with open_source(str(path)) as source:
        frames = [item for item in source if isinstance(item, SourceFrame)]
        assert source.rate_hz == pytest.approx(25)
    assert len(frames) == 8
    even = (size_wh[1] + size_wh[1] % 2, size_wh[0] + size_wh[0] % 2)
    assert {frame.image.shape[:2] for frame in frames} == {even}


def test_a_video_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got 0"):
        OverlayVideoWriter(tmp_path / "v.mp4", 0)
    writer = OverlayVideoWriter(tmp_path / "v.nonsense", 10)
    with pytest.raises(StreamError, match="cannot write a video"):
        writer.write(_scene((64, 48))[0])
    writer.close()


def test_a_palette_png_gives_back_its_labels_and_colours(tmp_path: Path) -> None:
    label_map = np.arange(256, dtype=np.uint8).reshape(8, 32)
    path = tmp_path / "labels.png"
    write_palette_png(path, label_map)
    colours = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert (colours == voc_palette()[label_map]).all()
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(path) as image:
        assert image.mode == "P"
        assert (np.asarray(image) == label_map).all()


def test_the_palette_is_that_of_voc() -> None:
    palette = [tuple(int(v) for v in colour) for colour in voc_palette()[:6]]
    assert palette == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
    ]
    assert tuple(voc_palette()[255]) == (224, 224, 192)


def test_labels_above_the_palette_are_refused(tmp_path: Path) -> None:
    wide = np.full((2, 2), 256, dtype=np.uint16)
    with pytest.raises(InputError, match="up to 256"):
        write_palette_png(tmp_path / "x.png", wide)
    assert not (tmp_path / "x.png").exists()
    write_palette_png(tmp_path / "x.png", wide - 1)


def test_a_long_caption_takes_a_second_line() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    short = contact_sheet([(image, "0.0 s")], cell_width=240)
    long = contact_sheet(
        [(image, "0.0 s, frame 0: the grey region will leave first, over the top")], cell_width=240
    )
    assert long.shape[0] > short.shape[0]
    longest = contact_sheet([(image, "word " * 300)], cell_width=240)
    assert longest.shape[0] == long.shape[0]


def test_a_contact_sheet_has_a_cell_a_frame() -> None:
    cells = [(np.full((24, 32, 3), 40 * i, dtype=np.uint8), f"frame {i}") for i in range(5)]
    sheet = contact_sheet(cells, columns=2, cell_width=96)
    assert sheet.shape[0] > 3 * 72
    assert 2 * 96 < sheet.shape[1] < 3 * 96
    for i in range(5):
        assert (sheet == 40 * i).all(axis=2).sum() >= 96 * 72, f"frame {i} is whole"


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(InputError, match="got 0 frames"):
        contact_sheet([])


def test_an_image_is_written_as_its_suffix_says(tmp_path: Path) -> None:
    image, _ = _scene((8, 6))
    write_image(tmp_path / "deep" / "a.png", image)
    assert (cv2.imread(str(tmp_path / "deep" / "a.png")) == image).all()
    with pytest.raises(StreamError, match="suffix"):
        write_image(tmp_path / "a.nonsense", image)


def test_a_rationale_lies_below_within_a_fifth_and_the_banner_above() -> None:
    image, label_map = _scene((640, 480))
    banner = Banner(query="which cup next?", answer="the red one", rationale="because 因为 " * 400)
    drawn = draw_overlay(image, np.zeros_like(label_map), (), banner)
    rows = np.flatnonzero((drawn != image).any(axis=(1, 2)))
    above, below = rows[rows < 240], rows[rows >= 240]
    assert (above[0], below[-1]) == (0, 479)
    assert above[-1] < 0.2 * 480
    assert 0.78 * 480 < below[0] < 0.9 * 480


def test_while_it_streams_a_rationale_shows_its_newest_words() -> None:
    pen = Pen(np.zeros((100, 300, 3), np.uint8), text_px=14)
    text = " ".join(f"word{i}" for i in range(3000))
    first = pen.wrapped(text, 280, 3)
    newest = pen.wrapped(text, 280, 3, from_end=True)
    assert (len(first), len(newest)) == (3, 3)
    assert first[0].startswith("word0 word1 ")
    assert newest[-1].endswith("word2999")
    assert newest[0].startswith(("…", "..."))  # as OpenCV's version can write it
    assert all(pen.width(line) <= 280 for line in (*first, *newest))
    assert " ".join(newest[1:]) in text


@pytest.mark.parametrize("text", ["物体将首先离开视野" * 9, "x" * 90, "one two three", ""])
def test_wrapping_loses_nothing_that_has_room(text: str) -> None:
    if not (text.isascii() or hasattr(cv2, "FontFace")):
        pytest.skip("OpenCV 4 writes ASCII only")
    pen = Pen(np.zeros((100, 300, 3), np.uint8), text_px=14)
    lines = pen.wrapped(text, 150, 50)
    assert "".join(lines) == text.replace(" ", "") or " ".join(lines) == text
    assert all(pen.width(line) <= 150 for line in lines)


def test_an_answer_is_not_cut_while_its_query_has_lines_to_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        Pen, "text", lambda _, xy, text, colour, **__: written.append(text) or len((xy, colour))
    )
    image, label_map = _scene((640, 480))
    answer = "the saw, because the order of hammer, saw and hammer repeats"
    banner = Banner(
        query="which tool " * 30, answer=answer, age_s=4.2, keyframe=12, confidence=0.8
    )
    draw_overlay(image, label_map, (), banner)
    assert answer in " ".join(written)
    assert any("4.2 s old" in text for text in written)


def test_every_standing_query_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(
        Pen, "text", lambda _, xy, text, colour, **__: written.append(text) or len((xy, colour))
    )
    image, label_map = _scene((640, 480))
    banner = with_others(
        Banner(query="what moves fastest?", answer="the red one"),
        [
            Answer(
                query_id=QueryId(text),
                query_text=text,
                camera=DEFAULT_CAMERA,
                status=AnswerStatus.ABSTAINED,
                reason="it cannot",
            )
            for text in ("what moves fastest?", "a?", "b?", "c?", "d?")
        ],
    )
    draw_overlay(image, label_map, (), banner)
    assert written[:2] == ["what moves fastest?", "the red one"]
    assert written[2:] == [
        "a?", "abstained: it cannot", "b?", "abstained: it cannot", "c?", "abstained: it cannot",
    ]  # fmt: skip


@pytest.mark.parametrize("size_wh", [(320, 240), (768, 432), (1280, 720)])
def test_the_reason_of_an_abstention_is_read_to_its_verb(
    monkeypatch: pytest.MonkeyPatch, size_wh: tuple[int, int]
) -> None:
    written: list[str] = []
    real = Pen.cut
    monkeypatch.setattr(
        Pen, "cut", lambda pen, *a, **k: written.append(real(pen, *a, **k)) or written[-1]
    )
    image, label_map = _scene(size_wh)
    question = Query(id=QueryId("q"), text="which tool will be used to open the box on the left?")
    window = FrameWindow(frames=(), origin_index=FrameIndex(0))
    (told,) = (p for p in KinematicReasoner().ask(question, window) if isinstance(p, Abstained))
    banner = Banner(query=question.text, answer=f"abstained: {told.reason}")
    draw_overlay(image, label_map, (), banner)
    said = " ".join(written)
    assert "cannot answer this query" in said
    if size_wh[0] > 320:
        assert question.text in said


def test_a_failure_is_told_apart_from_an_answer() -> None:
    image, label_map = _scene((640, 480))

    def reds(status: AnswerStatus) -> int:
        drawn = draw_overlay(
            image, label_map, (), Banner(query="q", answer="the cup", status=status)
        )
        distance = np.abs(drawn[:60].astype(int) - RED).max(axis=2)
        return int((distance < 30).sum())  # OpenCV 4 blends every pixel of a stroke

    assert reds(AnswerStatus.FAILED) > 20
    assert (
        reds(AnswerStatus.OK) == reds(AnswerStatus.NO_TARGET) == reds(AnswerStatus.ABSTAINED) == 0
    )


def test_the_legend_leaves_the_corner_in_which_an_object_is() -> None:
    image, label_map = _scene((640, 480))
    label_map[:] = 0
    label_map[:60, :120] = 1
    label = OverlayLabel(index=1, name="a")
    changed = (draw_overlay(image, label_map, (label,)) != image).any(axis=2)
    assert changed[5:60, -60:].any(), "legend at the right"
    label_map[:] = label_map[:, ::-1].copy()
    changed = (draw_overlay(image, label_map, (label,)) != image).any(axis=2)
    assert changed[5:60, :60].any(), "legend at the left"


def _inset(size_wh: tuple[int, int]) -> Inset:
    w, h = inset_size(size_wh, size_wh)
    return Inset(image=np.full((h, w, 3), (0, 255, 0), np.uint8), age_s=4.2)


def _place_of(drawn: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of what is purely green, as `_inset` is."""
    ys, xs = np.nonzero((drawn == (0, 255, 0)).all(axis=2))
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


@pytest.mark.parametrize("size_wh", [(320, 240), (640, 480), (1920, 1080), (480, 640)])
def test_an_inset_lies_whole_in_a_lower_corner_above_the_rationale(
    size_wh: tuple[int, int],
) -> None:
    image = np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)
    nothing = np.zeros(size_wh[::-1], np.uint8)
    banner = Banner(query="which?", answer="the red one", rationale="because " * 90)
    without = draw_overlay(image, nothing, (), banner)
    drawn = draw_overlay(image, nothing, (), banner, _inset(size_wh))
    x0, y0, x1, y1 = _place_of(drawn)
    w, h = inset_size(size_wh, size_wh)
    assert (x1 - x0, y1 - y0) == (w, h)
    assert 0.19 < w / size_wh[0] < 0.21
    assert x0 > size_wh[0] / 2
    assert y0 > size_wh[1] / 3
    changed = np.flatnonzero((drawn != without).any(axis=(1, 2)))
    rationale_top = np.flatnonzero((without[size_wh[1] // 2 :] != 90).any(axis=(1, 2)))[0]
    assert changed[-1] < rationale_top + size_wh[1] // 2, "the rationale is as it was"
    assert (drawn[y1 + 3 : changed[-1], x0:x1] > 150).any(), "its age stands below it"


def test_an_inset_goes_where_it_covers_least_of_the_masks() -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    label_map = np.zeros((480, 640), np.uint8)
    for left, right, is_left in ((0, 0, False), (5, 6, True), (6, 5, False), (0, 40, True)):
        label_map[:] = 0
        label_map[400 : 400 + left, 20:60] = 1
        label_map[400 : 400 + right, -60:-20] = 1
        x0 = _place_of(draw_overlay(image, label_map, (), None, _inset((640, 480))))[0]
        assert (x0 < 320) == is_left, (left, right)


@pytest.mark.parametrize("is_right", [False, True])
def test_an_inset_lies_beside_a_legend_that_leaves_no_room_below(*, is_right: bool) -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    label_map = np.zeros((120, 160), np.uint8)
    label_map[30:60, 10:40] = is_right  # where the legend would lie otherwise
    labels = [OverlayLabel(index=i, name="box") for i in (1, 2, 3)]
    banner = Banner(query="what moves?", answer="the red region and the grey region")
    drawn = draw_overlay(image, label_map, labels, banner, _inset((160, 120)))
    x0, y0, x1, y1 = _place_of(drawn)
    assert (x1 - x0, y1 - y0) == inset_size((160, 120), (160, 120))
    assert (x0 < 80) == is_right, "in the other corner"
    without = draw_overlay(image, label_map, labels, banner)
    beside = slice(80, 160) if is_right else slice(0, 80)
    assert (drawn[:, beside] == without[:, beside]).all(), "the legend is as it was"


def test_an_inset_without_room_is_left_out() -> None:
    for size_wh in ((40, 30), (3, 2)):
        image, label_map = _scene(size_wh)
        for banner in (BANNER, Banner(query="q" * 400, rationale="r " * 400)):
            without = draw_overlay(image, label_map, (), banner)
            assert (draw_overlay(image, label_map, (), banner, _inset(size_wh)) == without).all()


def test_no_name_is_written_over_an_inset() -> None:
    image = np.full((480, 640, 3), 90, np.uint8)
    label_map = np.zeros((480, 640), np.uint8)
    label_map[440:450, 500:600] = 1  # its name would lie in both corners
    label_map[440:450, 40:140] = 2
    labels = [OverlayLabel(index=i, name="object") for i in (1, 2)]
    drawn = draw_overlay(image, label_map, labels, None, _inset((640, 480)))
    x0, y0, x1, y1 = _place_of(drawn)
    assert (drawn[y0:y1, x0:x1] == (0, 255, 0)).all()
