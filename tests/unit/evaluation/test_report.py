# SPDX-License-Identifier: Apache-2.0
"""A run's figures, and the page that shows them: everything escaped, nothing hidden."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="reports need the extra [evaluation]")
pytest.importorskip("jinja2", reason="reports need the extra [evaluation]")
pytest.importorskip("matplotlib", reason="reports need the extra [evaluation]")

import cv2

from foreseg.errors import MissingExtraError
from foreseg.masks import rle_from_mask
from foreseg_evaluation.episode import Episode, Question, QuestionKind, TruthSpan
from foreseg_evaluation.problems import DatasetError, refuse
from foreseg_evaluation.report import (
    compare_results,
    episode_score,
    official_table,
    record_from_official,
    record_from_summary,
    summarise,
    write_report,
)
from foreseg_evaluation.report.filmstrip import ANSWER_RGB, MAX_FRAMES, TRUTH_RGB, make_filmstrip
from foreseg_evaluation.report.plots import plot_distribution
from foreseg_evaluation.results import (
    TARGET,
    EpisodeResult,
    ObjectResult,
    blank_result,
    words_over_time,
    write_result,
)

HOSTILE = "<script>alert(1)</script> $x^2$ \" ' & {{ 7 * 7 }} \ud800"
SIZE_HW = (60, 80)
NUM_FRAMES = 10


def result_of(number: int, j: float, f: float, **given: object) -> EpisodeResult:
    masks = tuple(rle_from_mask(answer(i)).counts for i in range(NUM_FRAMES))
    row = ObjectResult(object_id=TARGET, j=(j,) * NUM_FRAMES, f=(f,) * NUM_FRAMES, masks=masks)
    fields = {
        "id": f"video/{number}",
        "video": "video",
        "question": f"question {number}?",
        "size_hw": SIZE_HW,
        "positions": tuple(range(NUM_FRAMES)),
        "objects": (row,),
        **given,
    }
    return EpisodeResult(**fields)  # type: ignore[arg-type]


def failed(number: int, error: str, **given: object) -> EpisodeResult:
    return EpisodeResult(
        id=f"video/{number}", video="video", status="failed", error=error, **given
    )  # type: ignore[arg-type]


def truth(position: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[10:40, 5 + position : 30 + position] = True
    return mask


def answer(position: int) -> np.ndarray:
    return np.roll(truth(position), 30, axis=1)


class FakeMedia:
    """Grey frames; one position may be broken."""

    def __init__(self, broken: int = -1) -> None:
        self.broken = broken
        self.read: list[int] = []

    def image(self, position: int) -> np.ndarray:
        self.read.append(position)
        if position == self.broken:
            file = "00003.jpg"
            raise refuse(file, "", "not a <readable> image")
        return np.full((*SIZE_HW, 3), 128, dtype=np.uint8)

    def mask(self, object_id: str, position: int) -> np.ndarray:
        assert object_id == "1"
        return truth(position)

    def void(self, position: int) -> None:
        del position

    def foreground(self, position: int) -> None:
        del position


def episode_of(result: EpisodeResult, media: FakeMedia) -> Episode:
    return Episode(
        id=result.id,
        video=result.video,
        frame_names=tuple(f"{i:05d}" for i in range(NUM_FRAMES)),
        question=Question(text=result.question, kind=QuestionKind.FORESIGHT),
        object_ids=("1",),
        spans=(TruthSpan(first=0, end=NUM_FRAMES, object_ids=("1",)),),
        annotated=tuple(range(NUM_FRAMES)),
        scored=tuple(range(NUM_FRAMES)),
        size_wh=SIZE_HW[::-1],
        media=media,
    )


def write_run(folder: Path, results: list[EpisodeResult], **about: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if about:
        (folder / "run.json").write_text(json.dumps(about))
    for result in results:
        write_result(folder, result)
    return folder


class Page(HTMLParser):
    """Collects what a page would load or run, its text, and whether its tags are closed."""

    VOID = frozenset({"meta", "img", "br", "link", "path", "use"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.images = 0
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self._open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has the handler {name}"
            if name in ("src", "href", "xlink:href"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag == "img":
            assert dict(attrs)["alt"]
            self.images += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def test_an_episode_averages_positions_that_count_and_then_objects() -> None:
    one = ObjectResult(object_id="1", j=(None, 0.5, 1.0), f=(None, 0.5, 0.5), masks=(None, "", ""))
    two = ObjectResult(object_id="2", j=(0.25, 0.25, 0.25), f=(0.0, 0.0, 0.0), masks=("", "", ""))
    never = ObjectResult(object_id="3", j=(None,) * 3, f=(None,) * 3, masks=(None,) * 3)
    found = episode_score(result_of(0, 0, 0, positions=(0, 1, 2), objects=(one, two, never)))
    assert (found.j, found.f) == (50.0, 25.0)
    assert found.j_and_f == 37.5
    assert math.isnan(episode_score(result_of(0, 0, 0, objects=(never,))).j)


def test_failed_episodes_are_counted_and_never_scored() -> None:
    results = [
        result_of(0, 0.8, 0.6, kind="foresight", skill="rebound"),
        result_of(1, 0.6, 0.4, kind="reasoning"),
        failed(2, "broken", kind="foresight", skill="rebound"),
    ]
    summary = summarise(results)
    assert (summary.total.num_scored, summary.total.num_failed) == (2, 1)
    assert summary.total.j.mean == pytest.approx(70)
    assert summary.total.f.mean == pytest.approx(50)
    assert summary.total.j_and_f.mean == pytest.approx(60)
    assert summary.total.j_and_f.low < 60 < summary.total.j_and_f.high
    assert [(g.name, g.num_scored, g.num_failed) for g in summary.kinds] == [
        ("foresight", 1, 1),
        ("reasoning", 1, 0),
    ]
    assert [g.name for g in summary.skills] == ["not stated", "rebound"]
    assert summary.difficulties == ()  # nothing is stated: no table


def test_further_scores_average_where_they_apply() -> None:
    results = [
        result_of(0, 1, 1, scores={"time_to_first_mask_s": 2.0, "accuracy": math.nan}),
        result_of(1, 1, 1, scores={"time_to_first_mask_s": 4.0, "accuracy": math.nan}),
        result_of(2, 1, 1),
    ]
    scores = summarise(results).scores
    assert (scores["time_to_first_mask_s"].mean, scores["time_to_first_mask_s"].count) == (3, 2)
    assert scores["accuracy"].count == 0


def test_the_record_is_plain_json_without_nan() -> None:
    record = record_from_summary(summarise([result_of(0, 0.5, 0.7), failed(1, "x")]))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["j_and_f"] == pytest.approx(60)
    assert (record["scored"], record["failed"]) == (1, 1)
    assert record["intervals_95"]["j"] == [None, None]  # type: ignore[index]
    json.dumps(record_from_summary(summarise([failed(1, "x")])), allow_nan=False)


def test_runs_are_compared_by_episode() -> None:
    own = [result_of(0, 0.9, 0.9), result_of(1, 0.5, 0.5), result_of(2, 0.5, 0.5), failed(3, "")]
    other = [result_of(0, 0.4, 0.4), result_of(1, 0.7, 0.7), failed(2, ""), result_of(4, 1, 1)]
    found = compare_results(own, other)
    assert [pair.result.id for pair in found.pairs] == ["video/0", "video/1"]
    assert [pair.difference for pair in found.pairs] == pytest.approx([50, -20])
    assert found.difference.mean == pytest.approx(15)
    assert found.num_unpaired == 3  # 2 failed there, 3 here; 4 is only there


def test_revos_publishes_failures_as_zeros_and_no_targets_apart() -> None:
    half = {"accuracy": 0.9, "robustness": 0.5}
    silent = ObjectResult(object_id=TARGET, j=(1.0,), f=(1.0,), masks=("",))
    table = official_table(
        "revos",
        [
            result_of(0, 0.8, 0.6, kind="referring", scores=half),
            failed(1, "gone", kind="referring"),
            result_of(2, 0.2, 0.4, kind="reasoning", scores=half),
            result_of(3, 1.0, 1.0, kind="no_target", scores=half, objects=(silent,)),
            result_of(4, 0.0, 0.0, kind="no_target", scores=half),
        ],
    )
    assert table is not None
    rows = dict(table.rows)
    assert rows["referring"][:5] == pytest.approx([35, 40, 30, 45, 25])
    assert rows["reasoning"][:5] == pytest.approx([30, 20, 40, 90, 50])
    assert rows["overall"] == pytest.approx([32.5, 30, 35, 67.5, 37.5, 50])
    record = record_from_official(table)
    assert record["rows"]["reasoning"]["no-target accuracy"] is None  # type: ignore[index]
    json.dumps(record, allow_nan=False)


def test_abstaining_is_no_accuracy_where_nothing_fits() -> None:
    masks = {"said": ("",), "abstained": (None,)}
    for form, column in (("revos", -1), ("grefcoco", 2)):
        results = [
            result_of(
                i,
                0,
                0,
                kind="no_target",
                objects=(ObjectResult(object_id=TARGET, j=(0.0,), f=(0.0,), masks=masks[name]),),
            )
            for i, name in enumerate(("said", "abstained", "abstained", "abstained"))
        ]
        table = official_table(form, results)
        assert table is not None
        assert table.rows[-1][1][column] == 25.0


def test_questions_without_a_target_are_neither_easy_nor_hard() -> None:
    results = [
        result_of(0, 0.2, 0.2, kind="foresight", difficulty="hard"),
        result_of(1, 1.0, 1.0, kind="no_target", difficulty="hard"),
        result_of(2, 1.0, 1.0, kind="no_target", difficulty="easy"),
    ]
    summary = summarise(results)
    assert [(g.name, g.num_scored) for g in summary.difficulties] == [("hard", 1)]
    assert summary.difficulties[0].j.mean == pytest.approx(20)
    assert summary.total.num_scored == 3


def test_single_frames_and_objects_have_their_own_tables() -> None:
    pixels = [{"intersection_px": 50.0, "union_px": 100.0}, {"intersection_px": 9, "union_px": 9}]
    frames = [result_of(i, 0, 0, scores=scores) for i, scores in enumerate(pixels)]
    table = official_table("reason_seg", [*frames, failed(2, "")])
    assert table is not None
    giou, ciou, no_target, target = table.rows[0][1]
    assert (giou, ciou, target) == pytest.approx((75, 100 * 59 / 109, 100), abs=1e-3)
    assert math.isnan(no_target)
    one = ObjectResult(object_id="1", j=(1.0,) * 4, f=(1.0,) * 4, masks=(None,) * 4)
    two = ObjectResult(object_id="2", j=(0.8, 0.6, 0.4, None), f=(0.0,) * 4, masks=(None,) * 4)
    videos = [result_of(0, 0, 0, objects=(one, two)), result_of(1, 0, 0, objects=(one,))]
    table = official_table("davis2017", videos)
    assert table is not None
    assert table.rows[0][0] == "3 objects"  # each weighs alike, however many its video has
    assert table.rows[0][1][1:3] == pytest.approx([100 * 2.6 / 3, 100 * (2 / 3 + 2) / 3])
    assert official_table("mevis", videos) is None


def test_missing_packages_are_named_with_their_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", [result_of(0, 1.0, 1.0)])
    for package in ("matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"'{package}'.*\[evaluation\]"):
            write_report(run)


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    scores = {"<img src=x onerror=alert(1)>_s": 1.0}
    results = [
        result_of(0, 0.5, 0.5, question=HOSTILE, answer=HOSTILE, kind=HOSTILE, scores=scores)
    ]
    results += [result_of(1, 0.5, 0.5, answered={"answer": HOSTILE}, scores=scores)]
    results += [failed(2, HOSTILE, question=HOSTILE)]
    about = {"title": HOSTILE, "system": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    run = write_run(tmp_path / "run", results, **about, problems=[HOSTILE])
    path = write_report(run, compare=run)
    page = Page(path)
    assert "script" not in page.tags
    shown = HOSTILE.replace("\ud800", "?")  # no character: UTF-8 cannot hold it
    assert page.words.count(shown) > 10  # as it is: no markup, no template, no formula
    assert page.images == 0
    assert all(link.startswith("#") for link in page.loads)  # inside the plots


def test_the_page_shows_what_summarise_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    results = [
        result_of(i, *rng.random(2), kind=["foresight", "reasoning"][i % 2], skill="habit")
        for i in range(12)
    ]
    results.append(
        failed(
            12, "videos/bear.json: 3: expected 60 masks, got 59", kind="foresight", skill="habit"
        )
    )
    run = write_run(tmp_path / "run", results, system="nano", dataset="made", split="val")
    words = Page(write_report(run)).words
    summary = summarise(results)
    for group in (summary.total, *summary.kinds, *summary.skills):
        for interval in (group.j_and_f, group.j, group.f):
            assert f"{interval.mean:.1f}" in words
        assert f"{group.j_and_f.low:.1f} to {group.j_and_f.high:.1f}" in words
    assert "nano on made" in words
    assert "12 scored, 1 failed" in words
    assert "foresight" in words
    assert "Failed episodes: 1" in words
    assert "videos/bear.json: 3: expected 60 masks, got 59" in words


def test_filmstrips_show_best_and_worst_and_read_only_their_frames(tmp_path: Path) -> None:
    results = [result_of(i, i / 20, i / 20) for i in range(20)]
    media = {result.id: FakeMedia() for result in results}
    episodes = {result.id: episode_of(result, media[result.id]) for result in results}
    run = write_run(tmp_path / "run", results)
    page = Page(write_report(run, episodes=episodes))
    assert page.images == 8 * MAX_FRAMES
    read = [int(key.split("/")[1]) for key, value in media.items() if value.read]
    assert read == [0, 1, 2, 3, 16, 17, 18, 19]
    assert media["video/0"].read == [0, 2, 4, 5, 7, 9]
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.loads)
    assert page.words.index("question 0?") < page.words.index("question 19?")  # worst first
    assert len(page.ids) == len(set(page.ids))


def test_a_filmstrip_fills_the_answer_and_outlines_the_truth() -> None:
    result = result_of(0, 0.25, 0.75)
    frame = make_filmstrip(result, episode_of(result, FakeMedia()))[0]
    data = np.frombuffer(base64.b64decode(frame.jpeg_base64), dtype=np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    assert (frame.stem, frame.time_s, frame.j_and_f, frame.said) == ("00000", 0.0, 50.0, "answer")
    assert frame.size_wh == (80, 60)
    filled = (128 + np.array(ANSWER_RGB)) // 2
    assert np.abs(picture[25, 48] - filled).max() < 30  # inside the answer: 10:40, 35:60
    assert np.abs(picture[25, 5] - TRUTH_RGB).max() < 90  # on the truth's left edge
    assert np.abs(picture[25, 18] - 128).max() < 30  # inside the truth, not answered
    assert np.abs(picture[55, 70] - 128).max() < 10


def test_the_answer_shows_on_an_object_of_its_own_colour() -> None:
    class Orange(FakeMedia):
        def image(self, position: int) -> np.ndarray:
            del position
            return np.full((*SIZE_HW, 3), ANSWER_RGB, dtype=np.uint8)

    result = result_of(0, 0.25, 0.75)
    frame = make_filmstrip(result, episode_of(result, Orange()))[0]
    data = np.frombuffer(base64.b64decode(frame.jpeg_base64), dtype=np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    changed = np.abs(picture - ANSWER_RGB).max(axis=2) > 60
    assert 0.15 < changed[15:35, 40:58].mean() < 0.7  # stripes, not all of it
    assert not changed[50:, 5:30].any()


def test_a_truth_that_changes_is_told_with_its_times(tmp_path: Path) -> None:
    spans = (
        TruthSpan(first=0, end=4, object_ids=("1",), answer="the ball"),
        TruthSpan(first=4, end=6, object_ids=()),
        TruthSpan(first=7, end=NUM_FRAMES, object_ids=("1",), answer="the cup"),
    )
    plain = episode_of(result_of(0, 0.5, 0.5), FakeMedia())
    episode = replace(plain, spans=spans, rate_hz=2.0)
    told = "0.0 s: the ball; 2.0 s: nothing fits; 3.5 s: the cup"
    assert blank_result(episode).answer == told
    assert blank_result(plain).answer == ""
    said = "0.3 s: a cup; 2.2 s: abstained"
    answered = {"status": "ok", "answer": "a cup", "over_time": said}
    result = result_of(0, 0.5, 0.5, answer=told, answered=answered)
    frames = make_filmstrip(result, episode)
    assert [frame.truth for frame in frames] == [
        "the ball", "the ball", "nothing fits", "nothing fits", "the cup", "the cup",
    ]  # fmt: skip
    run = write_run(tmp_path / "run", [result])
    words = Page(write_report(run, episodes={episode.id: episode})).words
    assert f"true answer: {told}" in words
    assert f"answered: {said}" in words
    assert "true: the cup" in words


def test_words_over_time_are_bounded_and_said_once() -> None:
    said = words_over_time((i / 2, f"answer {i // 2}") for i in range(60))
    assert said.startswith("0.0 s: answer 0; 1.0 s: answer 1; ")
    assert said.endswith("; 18 more")


def test_a_filmstrip_tells_silence_from_an_empty_answer() -> None:
    empty = ObjectResult(object_id=TARGET, j=(0.0,) * 2, f=(0.0,) * 2, masks=("", None))
    result = result_of(0, 0, 0, positions=(0, 5), objects=(empty,))
    frames = make_filmstrip(result, episode_of(result, FakeMedia()))
    assert [frame.said for frame in frames] == ["answered empty", "nothing answered"]


def test_frames_that_cannot_be_read_are_told_and_cost_only_their_strip(tmp_path: Path) -> None:
    results = [result_of(i, i / 2, i / 2) for i in range(2)]
    episodes = {
        results[0].id: episode_of(results[0], FakeMedia(broken=0)),
        results[1].id: episode_of(results[1], FakeMedia()),
    }
    page = Page(write_report(write_run(tmp_path / "run", results), episodes=episodes))
    assert page.images == MAX_FRAMES
    assert "No pictures: 00003.jpg: not a <readable> image" in page.words


def test_a_report_says_how_another_run_differs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.random(10) * 0.5
    own = write_run(tmp_path / "a", [result_of(i, v + 0.3, v + 0.3) for i, v in enumerate(base)])
    other = [result_of(i, v + 0.1 * (i != 3), v) for i, v in enumerate(base)]
    words = Page(write_report(own, compare=write_run(tmp_path / "b", other, title="old"))).words
    assert "Against old" in words
    assert "+25.5" in words  # 9 of 25 points, one of 30
    assert "Biggest wins" in words
    assert "Biggest losses" not in words


@pytest.mark.parametrize(
    "results",
    [
        [failed(0, "nothing works")],
        [result_of(0, 1.0, 1.0)],
        [result_of(0, 0.5, 0.5, positions=(0,), objects=(ObjectResult(
            object_id=TARGET, j=(0.5,), f=(0.5,), masks=("",)),))],
        [result_of(0, 0, 0, objects=(ObjectResult(object_id="1", j=(None,) * NUM_FRAMES,
            f=(None,) * NUM_FRAMES, masks=(None,) * NUM_FRAMES),))],
    ],
    ids=["all failed", "one episode", "one frame", "nothing counts"],
)  # fmt: skip
def test_small_runs_have_a_page_too(tmp_path: Path, results: list[EpisodeResult]) -> None:
    run = write_run(tmp_path / "run", results)
    words = Page(write_report(run, compare=run)).words
    assert not re.search(r"\bnan\b", words)
    num_failed = sum(not result.is_scored for result in results)
    assert ("failed episode counts in no mean" in words) == (num_failed == 1)
    assert "0 failed" not in words


def test_an_axis_of_seconds_does_not_begin_below_zero() -> None:
    minus = "\N{MINUS SIGN}"
    svg = plot_distribution([0.1, 0.1], name="t", label="seconds", least=0.0)
    assert re.search(r">[\d.]+<", svg)
    assert minus not in svg
    assert minus in plot_distribution([-1.0, 1.0], name="t", label="points")


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no results, expected episodes/\*\.json"):
        write_report(tmp_path)
    run = write_run(tmp_path / "run", [result_of(0, 1.0, 1.0)])
    (run / "run.json").write_text("{")
    with pytest.raises(DatasetError, match=r"run\.json: no JSON"):
        write_report(run)
    (run / "run.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"run\.json: expected an object, got list"):
        write_report(run)
