# SPDX-License-Identifier: Apache-2.0
"""The mean of a model's weights along its way, and of those that it began with.

What goes on from a trained model learns its new lessons at the cost of old ones; half-way between the two it keeps most of
both (WiSE-FT, Wortsman et al., 2022; model soups, likewise). Does not know: models' kinds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Averaged:
    """A sum of weights by name, in float32, and of how many models it is."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, model: nn.Module) -> None:
        """One model more, of the same weights."""
        for name, weight in model.state_dict().items():
            own = weight.detach().float()
            self._sums[name] = self._sums[name] + own if self.count else own.clone()
        self.count += 1

    def mixed(self, start: nn.Module, start_share: float) -> dict[str, Tensor]:
        """Weights: a share of the start, the rest of the mean.

        Args:
            start: a model of the same weights.
            start_share: 0..1.

        Raises:
            ValueError: nothing was added.
        """
        if not self.count:
            msg = "a mean of no models"
            raise ValueError(msg)
        begun = start.state_dict()
        return {
            name: torch.lerp(total / self.count, begun[name].float(), start_share)
            for name, total in self._sums.items()
        }

    def state(self) -> dict[str, Any]:
        """To be saved."""
        return {"sums": self._sums, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what was saved."""
        self._sums, self.count = state["sums"], state["count"]
