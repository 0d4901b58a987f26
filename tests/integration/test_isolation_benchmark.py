# SPDX-License-Identifier: Apache-2.0
"""The command line of the benchmark of isolation; a run takes minutes, and is none of the tests."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "isolation.py"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seconds", "-1"], "--seconds wants whole numbers from 1 to 600, got '-1'"),
        (["--rate", "nan"], "--rate wants whole numbers from 1 to 120, got 'nan'"),
        (["--hidden", "100"], "--hidden wants a multiple of 128, got 100"),
        (["--json", "/no/such/folder/x.json"], "lies in a folder that does not exist"),
    ],
)
def test_wrong_words_end_in_a_sentence(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
