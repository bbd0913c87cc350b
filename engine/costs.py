"""Costs: what trading is charged, the same in the training loss and in the simulation.

A portfolio of value V is rebalanced to target fractions w of what is left after costs. With
w+ the drifted fractions before the trade and c the cost of a unit traded, the cost k V is

    k = c sum |w (1 - k) - w+|,

which says that the money for the costs comes out of the trade itself. ``charge`` solves it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Costs:
    """Proportional trading costs, as fractions of the value traded: 0.001 = 10 bp.

    Args:
        commission: paid on every trade.
        spread: the full bid-ask spread; a trade pays half of it.
    """

    commission: float = 0.001
    spread: float = 0.0

    def __post_init__(self) -> None:
        for name in ("commission", "spread"):
            value = getattr(self, name)
            if not 0 <= value < 0.1:
                raise ValueError(
                    f"{name}={value} is a fraction of the value traded and must be from 0 to below "
                    "0.1; 10 bp is 0.001"
                )

    @property
    def rate(self) -> float:
        """Cost of a unit of value traded."""
        return self.commission + self.spread / 2

    def times(self, factor: float) -> Costs:
        """The same costs, multiplied."""
        return replace(self, commission=self.commission * factor, spread=self.spread * factor)

    def charge(self, targets: Tensor, drifted: Tensor) -> Trade:
        """Trade from ``drifted`` to ``targets`` weights, both (..., N); differentiable.

        The equation above is a contraction with factor c sum |w| at most; it is solved by
        iteration without a graph, and one Newton step on top gives its exact gradient.
        """
        with torch.no_grad():
            cost = targets.new_zeros(targets.shape[:-1])
            for _ in range(200):
                previous, cost = cost, self._owed(cost, targets, drifted)
                if torch.equal(previous, cost) or (cost - previous).abs().max() < 1e-17:
                    break
            gap = targets * (1 - cost.unsqueeze(-1)) - drifted
            slope = -self.rate * (targets * gap.sign()).sum(-1)  # d owed / d cost
        cost = cost + (self._owed(cost, targets, drifted) - cost) / (1 - slope)
        turnover = (targets * (1 - cost.unsqueeze(-1)) - drifted).abs().sum(-1)
        return Trade(cost, turnover)

    def _owed(self, cost: Tensor, targets: Tensor, drifted: Tensor) -> Tensor:
        return self.rate * (targets * (1 - cost.unsqueeze(-1)) - drifted).abs().sum(-1)


class Trade(NamedTuple):
    """Fractions (...) of the portfolio's value before the trade."""

    cost: Tensor
    turnover: Tensor


def drift(weights: Tensor, growth: Tensor) -> Tensor:
    """Weights (..., N) after prices grew by the factors ``growth`` (..., N); cash does not grow."""
    held = weights * growth
    total = held.sum(-1, keepdim=True) + (1 - weights.sum(-1, keepdim=True))
    return held / total


class Account(NamedTuple):
    """What a sequence of S holding periods earned, each from one fill to the next."""

    gross_returns: Tensor  # (S,)
    net_returns: Tensor  # (S,)
    cost: Tensor  # (S,), at the start of each period
    turnover: Tensor  # (S,)


def account(weights: Tensor, growth: Tensor, costs: Costs, before: Tensor) -> Account:
    """Hold ``weights`` over S periods in a row, paying ``costs`` at each rebalance.

    Because the targets are fractions of the value after costs, the drifted weights before a
    trade depend on the last targets alone, and all periods are computed at once.

    Args:
        weights: (S, N) target weights at the start of each period.
        growth: (S, N) growth factors of prices over each period.
        before: (N,) drifted weights just before the first trade; zeros for cash.
    """
    drifted = torch.cat([before.unsqueeze(0), drift(weights[:-1], growth[:-1])])
    trade = costs.charge(weights, drifted)
    gross = (weights * (growth - 1)).sum(-1)
    return Account(gross, (1 - trade.cost) * (1 + gross) - 1, trade.cost, trade.turnover)
