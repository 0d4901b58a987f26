# SPDX-License-Identifier: Apache-2.0
"""Who answers unless somebody is named: it depends on what is installed, and nothing is imported to see it."""

from __future__ import annotations

import importlib.util

import pytest

from foreseg.commands.default_reasoner import default_kind


@pytest.mark.parametrize("absent", ["", "onnxruntime", "tokenizers", "cv2"])
def test_nano_answers_where_its_packages_are(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = object()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else spec)
    assert default_kind() == ("kinematic" if absent else "nano")
