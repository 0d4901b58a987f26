# SPDX-License-Identifier: Apache-2.0
"""Who answers unless somebody is named: it depends on what is there, and nothing is imported to see it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from foreseg.commands import default_reasoner


def shipped(folder: Path) -> Path:
    (folder / "manifest.json").write_text("{}", "utf-8")
    return folder


def test_without_the_bundle_kinematic_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_reasoner, "_BUNDLE", tmp_path)
    assert default_reasoner.default_kind() == "kinematic"


@pytest.mark.parametrize("absent", ["", "onnxruntime", "tokenizers", "cv2"])
def test_with_it_nano_answers_where_its_packages_are(
    absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_reasoner, "_BUNDLE", shipped(tmp_path))
    spec = object()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else spec)
    assert default_reasoner.default_kind() == ("kinematic" if absent else "nano")
