# SPDX-License-Identifier: Apache-2.0
"""Confidences against truth: the error, the fit, the file, and the reasoner that applies it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.reasoners import Scripted, query, saying

from foreseg.dialogue import (
    AnswerDone,
    AnswerFailed,
    FramesWanted,
    NoTarget,
    Query,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import ConfigError, InputError
from foreseg.frames import FrameIndex, FrameWindow
from foreseg.geometry import BoxXyxy
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import AnswerStream, ReasonerSpec
from foreseg.reasoner.calibration import (
    CalibratedReasoner,
    Calibration,
    read_calibration,
    sigmoid,
    write_calibration,
)
from foreseg.reasoner.load import build_reasoner
from foreseg_evaluation.calibration import answers_of, fit_calibration, reliability
from foreseg_evaluation.results import EpisodeResult

EMPTY = FrameWindow(frames=(), origin_index=FrameIndex(0))
DOUBTER = Calibration(
    slope=0.5, intercept=-1.0, answers=40, ece_before=0.3, ece_after=0.05, source="runs/x"
)
BOX = SpatialPrompt(box=BoxXyxy(1, 1, 5, 5))


def drawn(num: int, *, slope: float, intercept: float, seed: int) -> list[tuple[float, float]]:
    """Answers whose confidences are wrong by a known mapping."""
    rng = np.random.default_rng(seed)
    confidences = rng.uniform(0.02, 0.98, num)
    truths = [sigmoid(slope * math.log(c / (1 - c)) + intercept) for c in confidences]
    return [(float(c), float(rng.random() < t)) for c, t in zip(confidences, truths, strict=True)]


def test_the_error_is_the_mean_gap_weighted_by_answers() -> None:
    found = reliability([(0.95, 1.0), (0.95, 0.0), (1.0, 1.0), (0.05, 0.0)])
    high = found.bins[9]
    assert (high.answers, high.right) == (3, pytest.approx(2 / 3))
    gap = abs((0.95 + 0.95 + 1.0) / 3 - 2 / 3)
    assert found.ece == pytest.approx((3 * gap + 1 * 0.05) / 4)
    assert math.isnan(reliability([]).ece)


def test_a_known_mapping_is_found_again_and_its_error_falls_on_answers_left_out() -> None:
    fitted = fit_calibration(drawn(4000, slope=0.5, intercept=-1.0, seed=0), "drawn")
    assert fitted.slope == pytest.approx(0.5, abs=0.06)
    assert fitted.intercept == pytest.approx(-1.0, abs=0.1)
    assert fitted.ece_before > 0.15
    assert fitted.ece_after < 0.04


def test_confidences_that_say_nothing_become_the_share_that_is_right() -> None:
    rng = np.random.default_rng(1)
    answers = [(float(c), float(rng.random() < 0.3)) for c in rng.uniform(0, 1, 3000)]
    fitted = fit_calibration(answers, "noise")
    assert fitted.calibrated(0.9) == pytest.approx(0.3, abs=0.05)
    assert fitted.calibrated(0.1) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_answers_that_are_all_right_or_all_wrong_still_give_a_finite_mapping(right: float) -> None:
    fitted = fit_calibration([(0.01 * i, right) for i in range(100)], "one-sided")
    assert 0 < fitted.calibrated(0.5) < 1
    assert (fitted.calibrated(0.5) > 0.9) == bool(right)


def test_too_few_answers_are_refused_with_their_number() -> None:
    with pytest.raises(InputError, match=r"at least 20 .* runs/few has 19"):
        fit_calibration([(0.5, 1.0)] * 19, "runs/few")


@given(
    confidence=st.floats(0, 1),
    slope=st.floats(-50, 50),
    intercept=st.floats(-1e6, 1e6),
)
def test_a_mapped_confidence_is_one(confidence: float, slope: float, intercept: float) -> None:
    mapping = Calibration(
        slope=slope, intercept=intercept, answers=1, ece_before=0, ece_after=0, source=""
    )
    assert 0 <= mapping.calibrated(confidence) <= 1


def test_only_scored_answers_with_a_confidence_and_a_truth_count() -> None:
    def result(status: str, **scores: float) -> EpisodeResult:
        return EpisodeResult(id="e", video="v", status=status, scores=scores)

    results = [
        result("scored", confidence=0.7, right_target=1.0),
        result("scored", confidence=math.nan, right_target=1.0),
        result("scored", right_target=1.0),
        result("failed", confidence=0.7, right_target=1.0),
    ]
    assert answers_of(results) == [(0.7, 1.0)]


def test_a_calibration_file_reads_back_and_nonsense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "calibration.json"
    write_calibration(path, DOUBTER)
    assert read_calibration(path) == DOUBTER
    whole = json.loads(path.read_text("utf-8"))
    for broken in ({**whole, "slope": "steep"}, {**whole, "format_version": 2}, [], {}):
        path.write_text(json.dumps(broken), "utf-8")
        with pytest.raises(ConfigError, match=r"calibration\.json is no calibration"):
            read_calibration(path)
    path.write_text(json.dumps({**whole, "slope": float("inf")}), "utf-8")
    with pytest.raises(ConfigError, match="finite slope"):
        read_calibration(path)
    with pytest.raises(ConfigError, match="missing"):
        build_reasoner(ReasonerSpec(calibration=str(tmp_path / "missing")))


def test_a_calibrated_reasoner_changes_confidences_and_nothing_else() -> None:
    found = TargetsFound(keyframe_index=FrameIndex(3), prompts=(BOX,), confidence=0.9)
    parts = (RationalePart(text="so"), found, AnswerDone(tokens=4))
    told = list(CalibratedReasoner(saying(*parts), DOUBTER).ask(query("x"), EMPTY))
    assert told[0] == parts[0]
    assert told[2] == parts[2]
    assert isinstance(told[1], TargetsFound)
    assert told[1].confidence == pytest.approx(sigmoid(0.5 * math.log(9) - 1))
    assert told[1].keyframe_index == 3
    unknown = saying(NoTarget(reason="none"), AnswerDone())
    first = next(CalibratedReasoner(unknown, DOUBTER).ask(query("x"), EMPTY))
    assert isinstance(first, NoTarget)
    assert math.isnan(first.confidence)


def test_frames_reach_the_reasoner_inside_and_closing_closes_it() -> None:
    heard: list[object] = []

    def script(_query: Query, _window: FrameWindow) -> AnswerStream:
        try:
            heard.append((yield FramesWanted(indices=(FrameIndex(1),))))
            yield AnswerFailed(reason="enough")
        finally:
            heard.append("closed")

    stream = CalibratedReasoner(Scripted(script), DOUBTER).ask(query("x"), EMPTY)
    assert isinstance(next(stream), FramesWanted)
    assert stream.send(EMPTY) == AnswerFailed(reason="enough")
    stream.close()
    assert heard == [EMPTY, "closed"]
