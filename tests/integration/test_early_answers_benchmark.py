# SPDX-License-Identifier: Apache-2.0
"""The benchmark of early answers, at its smallest."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

for name in ("torch", "transformers", "onnxruntime", "onnxscript", "tokenizers", "cv2"):
    pytest.importorskip(name, reason="the bundle: pip install 'foreseg[export,train]'")

from tests.support.tiny_nano import tiny_nano_bundle  # noqa: E402

from foreseg_simulation.generation import Command, generate  # noqa: E402
from foreseg_simulation.worlds import World  # noqa: E402

pytestmark = pytest.mark.slow  # the bundle is exported

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "early_answers.py"


@pytest.fixture(scope="module")
def main() -> Iterator[Callable[[Sequence[str]], int]]:
    spec = importlib.util.spec_from_file_location("benchmark_of_early_answers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its records look there for their names
    spec.loader.exec_module(module)
    yield module.main
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("early") / "worlds"
    size_wh = (160, 120)
    generate(
        Command(worlds=(World.SHAPES,), clips=2, streams=1, seed=5, split="val", size_wh=size_wh),
        root,
    )
    return root


def percent_read(found: dict[str, str]) -> int:
    said = re.match(r"reads (\d+) % of its prompt", found["note"])
    assert said is not None
    return int(said[1])


def test_every_way_stands_beside_its_absence(
    main: Callable[[Sequence[str]], int],
    worlds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "early.json"
    words = ["--bundle", str(tiny_nano_bundle()), "--dataset", str(worlds), "--json", str(place)]
    assert main([*words, "--questions", "1", "--streams", "1", "--seconds", "4"]) == 0
    rows = json.loads(place.read_text("utf-8"))
    told = capsys.readouterr().out
    assert len([line for line in told.splitlines() if line.startswith("| ")]) == 2 + len(rows)
    by_name = {(row["what"], row["where"]): row for row in rows}
    assert len(by_name) == len(rows)
    wheres = {row["where"] for row in rows}
    assert {"offline", "asked again", "asked next", "streams, one core"} < wheres
    assert {f"streams, {name} (predicted)" for name in ("orin", "thor", "a100")} < wheres
    for row in rows:
        is_scored = row["where"] == "offline" or row["where"].startswith("streams")
        assert len(row["by"]["scores"]) == len(row["without"]["scores"]) == int(is_scored)
    grammar = by_name["grammar, answer first", "offline"]
    assert (grammar["without"]["num_failed"], grammar["by"]["num_failed"]) == (1, 0)
    orin = by_name["answer first", "streams, orin (predicted)"]
    assert orin["without"]["seconds"] == pytest.approx(5.1 + 0.08, abs=1e-3)
    assert orin["by"]["seconds"] == pytest.approx(3.0 + 0.08, abs=1e-2)
    waits = by_name["who waits: labels shared", "asked next"]
    assert percent_read(waits["by"]) < percent_read(waits["without"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--questions", "0"], "--questions wants whole numbers from 1 to 100000, got '0'"),
        (["--json", "/no/such/folder/x.json"], "lies in a folder that does not exist"),
    ],
)
def test_wrong_words_end_in_a_sentence(
    main: Callable[[Sequence[str]], int],
    worlds: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--bundle", str(tiny_nano_bundle()), "--dataset", str(worlds), *words]
    capsys.readouterr()  # what making the bundle told
    assert main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
