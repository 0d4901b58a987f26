# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a training: what is asked for, or what is faster here."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("torch", reason="trains: pip install 'foreseg[train]'")

import torch

from foreseg_training import precision


@pytest.mark.parametrize("is_faster", [True, False])
def test_what_is_asked_for_is_taken_and_warned_of_where_it_is_slow(
    *, is_faster: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    took = {torch.bfloat16: 1e-3, torch.float32: 2e-3 if is_faster else 0.1e-3}
    monkeypatch.setattr(precision, "_product_s", took.__getitem__)
    assert not precision.is_bf16("fp32")
    assert not caplog.messages
    assert precision.is_bf16("bf16")
    said = [] if is_faster else ["this processor takes 10.0 times as long in bf16 as in fp32"]
    assert caplog.messages == said


@pytest.mark.parametrize("is_faster", [True, False])
def test_the_faster_one_is_taken_and_said(
    *, is_faster: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    took = {torch.bfloat16: 1e-3, torch.float32: 2e-3 if is_faster else 0.5e-3}
    monkeypatch.setattr(precision, "_product_s", took.__getitem__)
    with caplog.at_level(logging.INFO):
        assert precision.is_bf16("auto") is is_faster
    assert caplog.messages[0].endswith("bf16" if is_faster else "fp32")


def test_products_are_timed() -> None:
    assert 0 < precision._product_s(torch.float32) < 5
