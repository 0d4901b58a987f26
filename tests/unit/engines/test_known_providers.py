# SPDX-License-Identifier: Apache-2.0
"""The table of ONNX Runtime's providers is whole, and the page and `foreseg doctor` say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreseg.commands import checks
from foreseg.commands.checks import Probe
from foreseg.engines.known_providers import BY_NAME, KNOWN, SUFFIX, unused
from foreseg.engines.load import Backend

PAGE = Path(__file__).resolve().parents[3] / "docs" / "backends.md"


def test_every_provider_that_onnx_runtime_knows_is_in_the_table() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    names = {name.removesuffix(SUFFIX) for name in onnxruntime.get_all_providers()}
    assert names <= BY_NAME.keys()
    assert len(BY_NAME) == len(KNOWN)
    assert {known.backend for known in KNOWN if known.backend} <= {one.value for one in Backend}


def test_the_page_has_the_same_rows() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("## ONNX Runtime's other providers")
    rows = [line.split(" | ") for line in rest.splitlines() if line.startswith("| `")]
    told = [
        (row[0].strip("| `"), row[1], row[2].strip("`"), row[3] == "yes")
        for row in rows[: len(KNOWN)]
    ]
    assert told == [
        (known.name, known.runs_on, known.backend or "none", known.is_tried) for known in KNOWN
    ]


def test_what_is_here_and_used_by_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unused(("AzureExecutionProvider", "CPUExecutionProvider")) == ""
    told = unused(("CoreMLExecutionProvider", "OpenVINOExecutionProvider", "NewExecutionProvider"))
    assert "CoreML (Apple's devices; never tried)" in told
    assert "OpenVINO (Intel and AMD processors, Intel GPUs; tried)" in told
    assert "New (not known here)" in told
    words = ("1.31.1", "CoreMLExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(checks, "probe", lambda _: Probe(words=words))
    check = checks._onnxruntime()
    assert (check.level, check.found) == (checks.Level.OK, "1.31.1 with CoreML, CPU")
    assert "no back-end of foreseg uses CoreML" in check.advice
