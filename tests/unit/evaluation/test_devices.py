# SPDX-License-Identifier: Apache-2.0
"""What a device's latency is made of."""

from __future__ import annotations

import pytest

from foreseg_evaluation.devices import ANSWER_TOKENS, DEVICES, SAID_TOKENS, device_profile


def test_an_answer_of_all_tokens_takes_as_long_as_the_profile_says() -> None:
    for profile in DEVICES.values():
        assert profile.answer_ms(SAID_TOKENS) == pytest.approx(profile.reasoner_ms)
        assert profile.answer_ms(0) > 0


def test_a_short_answer_and_a_kept_prefix_save_their_parts() -> None:
    orin = device_profile("orin")
    first = orin.answer_ms(ANSWER_TOKENS)
    assert first == pytest.approx(device_profile("orin-answer-first").reasoner_ms, rel=0.01)
    assert orin.answer_ms(ANSWER_TOKENS, 0.0) == pytest.approx(ANSWER_TOKENS * orin.token_ms)
    assert orin.answer_ms(0, 0.5) == pytest.approx(orin.answer_ms(0) / 2)
