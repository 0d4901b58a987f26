# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the methods, at its smallest."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "methods.py"


@pytest.fixture(scope="module")
def main() -> Iterator[Callable[[Sequence[str]], int]]:
    threads = torch.get_num_threads()
    spec = importlib.util.spec_from_file_location("benchmark_of_methods", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its records look there for their names
    spec.loader.exec_module(module)
    yield module.main
    del sys.modules[spec.name]
    torch.set_num_threads(threads)


def test_every_method_is_timed_and_those_with_a_token_give_masks(
    main: Callable[[Sequence[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "methods.json"
    assert main(["--tokens", "4", "--side", "56", "--json", str(place)]) == 0
    found = json.loads(place.read_text("utf-8"))
    names = ["veason", "videoseg", "videoseg-fast", "visa", "visa-fast", "fevos", "sa2va"]
    assert list(found) == names
    # of two queries; in text, a random answer is cut short and asked for once more
    wanted = dict(zip(names, (4, 2 * (12 + 4 + 2), 2 * (1 + 1 + 2), 22, 4, 2, 2), strict=True))
    assert {name: row["completions"] for name, row in found.items()} == wanted
    for name, row in found.items():
        seconds, method = row["seconds"], name.removesuffix("-fast")
        assert all(took >= 0 for took in seconds.values())
        assert (seconds["sampling"] > 0) == (method in ("videoseg", "visa"))
        assert min(seconds["prefill"], seconds["generation"]) > 0
        if method in ("visa", "fevos", "sa2va"):
            assert row["answers"] == 2
            assert row["masks"] > 0
            assert min(seconds["segmentation"], seconds["tracking"]) > 0
    told = capsys.readouterr().out
    assert "visa: repair: '[SEG] was not said but forced'" in told
    assert "veason: no answer: " in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokens", "0"], "--tokens wants whole numbers from 1 to 512, got '0'"),
        (["--side", "9.5"], "--side wants whole numbers from 1 to 448, got '9.5'"),
        (["--json", "/no/such/folder/x.json"], "lies in a folder that does not exist"),
    ],
)
def test_wrong_words_end_in_a_sentence(
    main: Callable[[Sequence[str]], int],
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
