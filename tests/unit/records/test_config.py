# SPDX-License-Identifier: Apache-2.0
"""Settings: names, types, ranges, and messages that carry what was received."""

from __future__ import annotations

import math

import pytest

from foreseg.config import Config, Scalar, TrackerConfig, config_from_settings, settings_of
from foreseg.errors import ConfigError


def test_the_defaults_are_valid_and_every_setting_says_what_it_is() -> None:
    for name, value, item in settings_of(Config()):
        assert item.metadata["about"], name
        assert value == item.default
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        assert is_number == (item.metadata["low"] is not None), f"{name}: a number has a range"


def test_a_config_is_rebuilt_from_its_own_settings() -> None:
    config = Config(tracker=TrackerConfig(max_tracks=3, lost_after_s=1.5))
    values = {name: value for name, value, _ in settings_of(config)}
    assert config_from_settings(values) == config
    assert config_from_settings({}) == Config()


@pytest.mark.parametrize("edge", ["low", "high"])
def test_both_ends_of_every_range_are_allowed_and_nothing_beyond(edge: str) -> None:
    for name, default, item in settings_of(Config()):
        bound = item.metadata[edge]
        if bound is None:
            continue
        kind = type(default)
        config = config_from_settings({name: kind(bound)})
        values = {other: value for other, value, _ in settings_of(config)}
        assert values[name] == kind(bound)
        beyond = kind(bound) + (kind(1) if edge == "high" else kind(-1))
        with pytest.raises(ConfigError, match=rf"parameter {name} wants .* got "):
            config_from_settings({name: beyond})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tracker.maxtracks": 3}, "unknown parameter 'tracker.maxtracks'"),
        ({"max_tracks": 3}, "unknown parameter 'max_tracks'"),
        ({"tracker.max_tracks": 3.5}, "tracker.max_tracks wants int, got 3.5"),
        ({"tracker.max_tracks": "3"}, "tracker.max_tracks wants int, got '3'"),
        ({"tracker.max_tracks": True}, "tracker.max_tracks wants int, got True"),
        ({"tracker.lost_after_s": True}, "tracker.lost_after_s wants float, got True"),
        ({"tracker.lost_after_s": math.nan}, "tracker.lost_after_s wants 0 to 3600, got nan"),
        ({"tracker.lost_after_s": math.inf}, "tracker.lost_after_s wants 0 to 3600, got inf"),
        ({"reasoner.kind": 3}, "reasoner.kind wants str, got 3"),
        ({"tracker.max_tracks": 0}, "tracker.max_tracks wants 1 to 1000, got 0"),
        ({"scheduler.match_iou": 1.01}, "scheduler.match_iou wants 0 to 1, got 1.01"),
        (
            {"tracker.cores": "0-9000"},
            "tracker.cores wants cores such as 0, 1-3 or 0,2-3, got '0-9000'",
        ),
        (
            {"reasoner.cores": "all"},
            "reasoner.cores wants cores such as 0, 1-3 or 0,2-3, got 'all'",
        ),
    ],
)
def test_a_bad_setting_is_refused_with_its_value(values: dict[str, Scalar], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        config_from_settings(values)


def test_an_int_stands_for_a_float() -> None:
    assert config_from_settings({"tracker.lost_after_s": 2}).tracker.lost_after_s == 2.0


def test_a_part_built_by_hand_is_checked_with_the_whole() -> None:
    with pytest.raises(ConfigError, match=r"tracker\.max_tracks wants 1 to 1000, got -1"):
        Config(tracker=TrackerConfig(max_tracks=-1))
