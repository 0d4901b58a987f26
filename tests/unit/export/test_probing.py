# SPDX-License-Identifier: Apache-2.0
"""A probe that crashes, hangs or lies takes nothing with it."""

from __future__ import annotations

import signal

import pytest
from tests.support import failing_probes

from foreseg.engines.chosen import Candidate
from foreseg_export import probing
from foreseg_export.probe_child import Refused

FAST = Candidate(runner="openvino", device="CPU", precision="bf16")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGILL])
def test_a_crash_is_named_by_its_signal(number: signal.Signals) -> None:
    with probing._started(failing_probes.crash, int(number)) as child:
        assert child.answer() == Refused(reason=f"crashed: {number.name}")


def test_an_end_without_a_word_is_told_with_its_code() -> None:
    with probing._started(failing_probes.leave, 3) as child:
        assert child.answer() == Refused(reason="ended with exit code 3")
        assert child.ask(1) in (None, Refused(reason="ended with exit code 3"))


def test_no_answer_is_waited_for_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ANSWER_S", 0.0)
    with probing._started(failing_probes.hang, 0) as child:
        assert child.answer() == Refused(reason="gave no answer within 0 s")
    assert not child.process.is_alive()


def test_a_crash_while_it_is_timed_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Job:
        candidate = FAST

    monkeypatch.setattr(probing, "serve_piece", failing_probes.crash_when_timed)
    monkeypatch.setattr(probing, "_started", lambda serve, _: _REAL(serve, None))
    (tried,) = probing.try_piece([Job()])
    assert (tried.ms, tried.refusal) == (None, "crashed: SIGKILL")
    assert tried.worst_error == 0.001


_REAL = probing._started


@pytest.mark.parametrize(
    ("answer", "is_int8", "told"),
    [
        (0.01, False, ""),
        (0.06, False, "computes it wrongly: off by 0.06 of the reference, 0.05 is allowed"),
        (4e7, False, "off by 4e\\+07"),
        (float("inf"), False, "off by inf"),
        (0.06, True, ""),
        (Refused(reason="it does not load"), False, "it does not load"),
        (None, False, "said None"),
    ],
)
def test_what_is_too_far_off_is_not_timed(answer: object, told: str, *, is_int8: bool) -> None:
    candidate = Candidate(runner="openvino", device="CPU", precision="bf16", is_int8=is_int8)
    found = probing._refusal(candidate, answer)
    assert (told.replace("\\", "") in found) if told else found == ""
