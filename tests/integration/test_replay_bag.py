# SPDX-License-Identifier: Apache-2.0
"""`foreseg replay BAG`: images of a recording through the whole loop, twice the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'foreseg[bags]'")
pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

from tests.support.bags import Given, write_bag

from foreseg import cli

RED = "which region is red?"


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = Given(query_id="watch", text=RED, asked_s=0.6)
    return write_bag(tmp_path_factory.mktemp("bags") / "bag", 40, answers=[given])


def replayed(bag: Path, out: Path, *words: str) -> list[str]:
    arguments = ["replay", str(bag), "--out", str(out), "--no-video", *words]
    assert cli.main([*arguments, "--set", "scheduler.warm_up_s=0.2"]) == 0
    return (out / "answers.jsonl").read_text().splitlines()


def test_what_was_asked_then_is_asked_again_at_its_time_and_answered_twice_the_same(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = []
    for out in (tmp_path / "one", tmp_path / "two"):
        (line,) = replayed(bag, out, "--reasoner-s", "0.3")
        answer = json.loads(line)
        assert (answer["query_id"], answer["query"], answer["status"]) == ("watch", RED, "OK")
        assert answer["asked_s"] == pytest.approx(0.6, abs=0.04)
        assert answer["answered_s"] == pytest.approx(0.9, abs=0.07)  # the newest frame then
        assert answer["latency_s"] == pytest.approx(0.3, abs=1e-6)
        said = capsys.readouterr().out
        assert "answered while it was recorded: 1" in said
        assert f"OK  {RED!r} -> 'the red region' (asked at 0.6 s)" in said
        digests.append(said.splitlines()[-1])
    assert digests[0].startswith("digest of answers, tracks and masks: ")
    assert digests[0] == digests[1]
    masks = [len(list((tmp_path / name / "masks").iterdir())) for name in ("one", "two")]
    assert masks == [40, 40]


def test_a_slower_reasoner_answers_later(bag: Path, tmp_path: Path) -> None:
    (line,) = replayed(bag, tmp_path / "out", "--query", RED, "--reasoner-s", "0.5")
    answer = json.loads(line)
    assert answer["query_id"] == "query-1"
    assert answer["answered_s"] - answer["asked_s"] == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reasoner-s", "0"], "--reasoner-s wants a number above 0 and at most 3600, got 0.0"),
        (["--tracker-ms", "nan"], "--tracker-ms wants a number above 0"),
        (["--max-frames", "0"], "--max-frames wants at least 1, got 0"),
        (["--topic", "/up"], "has no images on '/up'; it has /camera/image_raw (40)"),
        (["--set", "tracker.thread=2"], "tracker.thread"),
    ],
)
def test_a_mistake_is_one_sentence(
    bag: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["replay", str(bag), "--out", str(tmp_path / "out"), *words]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_bag_that_tells_no_question_wants_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "bag", 2)
    assert cli.main(["replay", str(bag), "--out", str(tmp_path / "out")]) == cli.BAD_INPUT
    assert "has no answers that tell what was asked: give --query TEXT" in capsys.readouterr().err
