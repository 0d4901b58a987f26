# SPDX-License-Identifier: Apache-2.0
"""Weights half-way between a start and the mean of what came of it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the nano reasoner's training needs torch")

from foreseg_training.nano.averaging import Averaged  # noqa: E402


def layer(weight: float, bias: float) -> torch.nn.Linear:
    made = torch.nn.Linear(1, 1)
    with torch.no_grad():
        made.weight.fill_(weight)
        made.bias.fill_(bias)
    return made


@pytest.mark.parametrize(
    ("start_share", "weight", "bias"), [(0.0, 3, 6), (0.5, 2, 5), (1.0, 1, 4)]
)
def test_it_is_a_share_of_the_start_and_the_mean_of_the_others(
    start_share: float, weight: float, bias: float
) -> None:
    averaged = Averaged()
    for of_one in (layer(2, 7), layer(4, 5)):
        averaged.add(of_one)
    mixed = layer(0, 0)
    mixed.load_state_dict(averaged.mixed(layer(1, 4), start_share))
    assert (mixed.weight.item(), mixed.bias.item()) == (weight, bias)


def test_what_is_added_stays_when_the_model_moves_on_and_is_read_again() -> None:
    moving, averaged, again = layer(2, 2), Averaged(), Averaged()
    averaged.add(moving)
    with torch.no_grad():
        moving.weight.fill_(9)
    again.load(averaged.state())
    again.add(layer(4, 4))
    assert again.mixed(layer(0, 0), 0.0)["weight"].item() == 3


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no models"):
        Averaged().mixed(layer(0, 0), 0.5)
