# SPDX-License-Identifier: Apache-2.0
"""`make-cot` and `make-difficulty` over a real server on localhost, to samples that training takes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="the extra [server] is not installed")
pytest.importorskip("torch", reason="rows are for torch's trainers")
from tests.support.chat_server import ChatServer, fails
from tests.support.teacher import replies, reply_of

from foreseg.methods.veason import VeasonMethod
from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.datasets.sidecars import with_difficulties, with_rationales
from foreseg_simulation.generation import Command, generate
from foreseg_simulation.worlds import World
from foreseg_training.cli import main
from foreseg_training.samples import Filtered, SampleDrawer
from foreseg_training.teacher.ratings import NAMES
from foreseg_training.vlm.rows import completion_of


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teacher") / "worlds"
    command = Command(
        worlds=(World.SHAPES,), clips=4, streams=0, seed=5, split="train", size_wh=(160, 120)
    )
    generate(command, root)
    return root


def train(server: ChatServer, worlds: Path, out: Path, *words: str) -> int:
    out.parent.mkdir(parents=True, exist_ok=True)
    teacher = out.parent / "teacher.json"
    about = {"url": server.url, "model": "teacher-1", "num_retries": 0, "retry_wait_s": 0.01}
    teacher.write_text(json.dumps(about), "utf-8")
    command, *rest = words
    arguments = [
        command, "--teacher", str(teacher), "--dataset", str(worlds), "--out", str(out),
        "--image-side-px", "64", *rest,
    ]  # fmt: skip
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


def lines_of(path: Path) -> Sequence[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_chains_are_made_resumed_and_taken_by_training(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer([replies("I would rather not."), fails(400), replies(reply_of)]) as server:
        out = tmp_path / "cot"
        assert train(server, worlds, out, "make-cot", "--max-samples", "2", "--workers", "1") == 0
        journal = out / "asked.jsonl"
        kept = journal.read_bytes()
        journal.write_bytes(kept + b'{"id": "cut off in the mid')
        before = len(server.calls)
        assert train(server, worlds, out, "make-cot", "--price-in", "2", "--price-out", "8") == 0
        said = capsys.readouterr().out
        assert journal.read_bytes().startswith(kept)
        lines = lines_of(journal)
        assert len({line["id"] for line in lines[1:]}) == len(lines) - 1
        refused = [line for line in lines[1:] if line["status"] == "refused"]
        assert all("another number of objects" in str(line["reason"]) for line in refused)
        assert len(server.calls) - before == sum(int(str(n["num_asked"])) for n in lines[3:])
        assert "cost 0." in said
        tokens = sum(int(str(line["tokens_in"])) for line in lines[1:])
        assert f"tokens: {tokens} in" in said
        other = tmp_path / "again" / "cot"
        assert train(server, worlds, other, "make-cot", "--workers", "4") == 0
    chains = out / "reasoning_data.json"
    assert chains.read_bytes() == (other / "reasoning_data.json").read_bytes()
    dataset = with_rationales(read_dataset(worlds, "fevos", split="train"), chains)
    filtered = Filtered()
    taken = [e for e in dataset.episodes if e.question is not None and e.question.evidence]
    drawer = SampleDrawer(needs_rationale=True, num_frames=4)
    method = VeasonMethod()
    drawn = list(drawer.draw(taken, 1, filtered))
    pinned = 0
    for sample, episode in zip(drawn, taken, strict=True):
        text = completion_of(method, sample)
        evidence = episode.question.evidence if episode.question is not None else None
        if evidence is not None and evidence.is_about_keyframe:
            pinned += 1
            assert sample.keyframe is not None
            assert sample.positions[sample.keyframe] == evidence.keyframe
            assert "nothing hides it" in text
            assert not re.search(r"frame \d", text.partition("</think>")[0])
    assert pinned >= 4


def test_a_teacher_that_answers_nonsense_ends_in_one_sentence(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer([replies("7")]) as server:
        code = train(server, worlds, tmp_path / "cot", "make-cot", "--max-samples", "3")
        assert len(server.calls) == 9
    (last,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert code == 2
    assert "not one of 3 chains was accepted" in last
    assert not (tmp_path / "cot" / "reasoning_data.json").exists()


def test_ratings_by_a_teacher_become_difficulties(worlds: Path, tmp_path: Path) -> None:
    ratings = json.dumps({name: 2 + n for n, name in enumerate(NAMES)})
    with ChatServer([replies("very hard"), replies(ratings)]) as server:
        assert train(server, worlds, tmp_path / "rated", "make-difficulty") == 0
    dataset = read_dataset(worlds, "fevos", split="train")
    rated = with_difficulties(dataset, tmp_path / "rated" / "difficulty.json")
    assert {e.question.rating for e in rated.episodes if e.question is not None} == {4.0}


def test_ratings_from_the_scenes_spread(worlds: Path, tmp_path: Path) -> None:
    words = ["make-difficulty", "--from-scene", "--dataset", str(worlds), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 0
    content = json.loads((tmp_path / "difficulty.json").read_text("utf-8"))
    values = [record["difficulty"] for record in content["records"]]
    assert content["by"] == "scene-v1"
    assert 1 < min(values) < max(values) < 10


@pytest.mark.parametrize("both", [True, False])
def test_difficulties_come_from_one_source(
    worlds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, both: bool
) -> None:
    words = ["--from-scene", "--teacher", "x.json"] if both else []
    with pytest.raises(SystemExit) as leaving:
        main(["make-difficulty", "--dataset", str(worlds), "--out", str(tmp_path), *words])
    assert leaving.value.code == 2
    assert "one of --teacher FILE and --from-scene" in capsys.readouterr().err
