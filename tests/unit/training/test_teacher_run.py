# SPDX-License-Identifier: Apache-2.0
"""Runs over a teacher: the journal, what is asked again, what is counted, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foreseg.errors import ConfigError, InputError
from foreseg.language.base import Chunk, CompletionStream, LanguageModelError, LanguageRequest
from foreseg.language.openai_server import ServerSettings
from foreseg.work.base import SerialExecutor
from foreseg.work.threads import ThreadExecutor
from foreseg_training.samples import Filtered
from foreseg_training.teacher import errands as asking
from foreseg_training.teacher.errands import Checked, Errand, Status, do_errand
from foreseg_training.teacher.journal import Journal
from foreseg_training.teacher.run import Prices, Tally, Teacher, accepted, is_done, run_errands

SETTINGS = ServerSettings(url="http://localhost/v1", model="teacher")
ABOUT = {"what": "a test", "seed": 1}


class Script:
    """A server that says what a script says for each seed, or raises it."""

    def __init__(self, **said: str | Exception) -> None:
        self.said = said
        self.asked: list[LanguageRequest] = []

    def generate(self, request: LanguageRequest) -> CompletionStream:
        self.asked.append(request)
        said = self.said.get(f"seed_{request.seed}", self.said.get("else_", ""))
        yield Chunk(num_prompt_tokens=100)
        if isinstance(said, Exception):
            raise said
        yield Chunk(text=said, num_tokens=10)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    made = Script()
    monkeypatch.setattr(asking, "_server", lambda _settings: made)
    return made


def is_good(text: str) -> Checked:
    return Checked(found={"said": text}) if text == "good" else Checked(reason="is not good")


def errand(name: str = "a", seed: int = 0) -> Errand:
    request = LanguageRequest(messages=(), max_tokens=10, seed=seed)
    return Errand(id=name, request=request, check=is_good)


def teacher(**changes: object) -> Teacher:
    return Teacher(settings=SETTINGS, executor=SerialExecutor(), **changes)


def test_it_is_asked_again_with_another_seed_and_all_tokens_count(script: Script) -> None:
    script.said = {"seed_2": "<think>hm</think> good", "else_": "bad"}
    reply = do_errand(errand(), SETTINGS, 5)
    assert reply.status is Status.ACCEPTED
    assert (reply.num_asked, reply.tokens_in, reply.tokens_out) == (3, 300, 30)
    assert [request.seed for request in script.asked] == [0, 1, 2]
    assert reply.found == {"said": "good"}


def test_what_never_does_is_refused_with_its_last_words(script: Script) -> None:
    script.said = {"else_": "bad"}
    reply = do_errand(errand(), SETTINGS, 3)
    assert (reply.status, reply.reason, reply.num_asked) == (Status.REFUSED, "is not good", 3)
    assert reply.text == "bad"


def test_no_reply_is_a_failure_that_keeps_its_cost(script: Script) -> None:
    script.said = {"seed_0": "bad", "seed_1": LanguageModelError("it is busy")}
    reply = do_errand(errand(), SETTINGS, 3)
    assert (reply.status, reply.reason) == (Status.FAILED, "it is busy")
    assert (reply.num_asked, reply.tokens_in, reply.tokens_out) == (2, 200, 10)


def test_whoever_stops_the_run_hangs_up(script: Script) -> None:
    script.said = {"else_": "good"}
    reply = do_errand(errand(), SETTINGS, 3, is_stopping=lambda: True)
    assert reply.status is Status.FAILED
    assert len(script.asked) == 1


def test_a_run_goes_on_where_it_was(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    script.said = {"seed_1": "bad", "seed_2": LanguageModelError("busy"), "else_": "good"}
    with Journal(path, ABOUT) as journal:
        made = (errand(name, seed) for seed, name in enumerate("abc"))
        tally = run_errands(made, journal, teacher(tries=1))
    assert tally.statuses == {"accepted": 1, "refused": 1, "failed": 1}
    assert tally.refused == {"is not good": 1}
    assert (tally.tokens_in, tally.tokens_out, tally.num_asked) == (300, 20, 3)
    script.said = {"else_": "good"}
    with Journal(path, ABOUT) as journal:
        todo = [name for name in "abcd" if not is_done(journal, name)]
        assert todo == ["c", "d"]  # failed, and new; what was refused is not asked again
        tally = run_errands((errand(name) for name in todo), journal, teacher())
        assert [name for name, _ in accepted(journal, "dcba")] == ["d", "c", "a"]
    assert tally.statuses == {"accepted": 3, "refused": 1}


def test_many_at_once_are_all_in_the_journal(script: Script, tmp_path: Path) -> None:
    script.said = {"else_": "good"}
    several = Teacher(settings=SETTINGS, executor=ThreadExecutor(4))
    with Journal(tmp_path / "asked.jsonl", ABOUT) as journal:
        run_errands((errand(str(n)) for n in range(20)), journal, several)
    with Journal(tmp_path / "asked.jsonl", ABOUT) as journal:
        assert set(journal.lines) == {str(n) for n in range(20)}


def test_nobody_at_all_ends_the_run_and_says_what_was_said(script: Script, tmp_path: Path) -> None:
    script.said = {"else_": LanguageModelError("connection refused")}
    with (
        Journal(tmp_path / "asked.jsonl", ABOUT) as journal,
        pytest.raises(InputError, match="first 8 requests all failed: connection refused"),
    ):
        run_errands((errand(str(n)) for n in range(20)), journal, teacher())
    assert len(script.asked) == 8


def test_nothing_accepted_is_one_sentence() -> None:
    tally = Tally()
    with pytest.raises(InputError, match="no episode gives a sample: there is none"):
        tally.require("chains", Filtered())
    line = {"status": "refused", "reason": "is not good", "num_asked": 3}
    tally.add(line)
    tally.add(line)
    with pytest.raises(InputError, match="not one of 2 chains was accepted; 2 times: is not good"):
        tally.require("chains", Filtered())


@pytest.mark.parametrize("cut", ["", '{"id": "b", "sta', '{"id": "b"}'])
def test_a_last_line_that_was_cut_is_dropped(cut: str, tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    with Journal(path, ABOUT) as journal:
        journal.append({"id": "a", "status": "accepted"})
    whole = path.read_bytes()
    path.write_bytes(whole + cut.encode())
    with Journal(path, ABOUT) as journal:
        assert set(journal.lines) == {"a"}
        journal.append({"id": "c"})
    lines = path.read_text("utf-8").splitlines()
    assert [json.loads(line).get("id") for line in lines] == [None, "a", "c"]


def test_only_the_beginning_of_a_journal_may_be_cut_away(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text('{"about": {"wh', "utf-8")  # killed at its very first line
    with Journal(path, ABOUT) as journal:
        assert journal.lines == {}
    path.write_text(json.dumps({"about": ABOUT}) + "\nnonsense\n", "utf-8")
    with pytest.raises(InputError, match="line 2: expected a JSON object"):
        Journal(path, ABOUT)
    path.write_text(json.dumps({"about": ABOUT}) + '\n{"ids": 3}\n', "utf-8")
    with pytest.raises(InputError, match="line 2: expected an id"):
        Journal(path, ABOUT)


def test_the_journal_of_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    Journal(path, ABOUT)
    with pytest.raises(ConfigError, match="seed was 1, is 2"):
        Journal(path, {**ABOUT, "seed": 2})
    path.write_text("{}\n", "utf-8")
    with pytest.raises(ConfigError, match="what was None"):
        Journal(path, ABOUT)


def test_the_last_line_of_an_id_counts(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    with Journal(path, ABOUT) as journal:
        journal.append({"id": "a", "status": "failed"})
        journal.append({"id": "a", "status": "accepted"})
    assert Journal(path, ABOUT).lines["a"]["status"] == "accepted"


def test_costs_are_told_where_prices_are_known() -> None:
    assert Prices(tokens_in=2.0, tokens_out=10.0).words(1_500_000, 200_000) == "cost 5.0000"
    assert "unknown" in Prices(tokens_in=2.0).words(1, 1)
    with pytest.raises(ConfigError, match="price"):
        Prices(tokens_in=-1.0)
    tally = Tally()
    tally.add({"status": "accepted", "num_asked": 1, "tokens_out": 7})
    text = "\n".join(tally.lines(Prices()))
    assert "1 accepted, 0 refused, 0 failed; 1 requests" in text
    assert "does not tell" in text


@pytest.mark.parametrize("tries", [0, 21])
def test_tries_that_cannot_be_are_refused(tries: int) -> None:
    with pytest.raises(ConfigError, match="tries want 1 to 20"):
        teacher(tries=tries)
