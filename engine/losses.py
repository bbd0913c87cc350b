"""Losses on what a portfolio earned, net of costs. Lower is better; add and scale them freely.

loss = NegativeSharpe() + 0.1 * NegativeLogGrowth()
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.costs import Account


class Loss:
    """A function of an account of S holding periods in a row; gives a scalar tensor.

    ``__call__(account, periods_per_year)``: an Account with fields of shape (S,), and how
    many holding periods a year has, for annualisation.
    """

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        raise NotImplementedError

    def __add__(self, other: Loss) -> Loss:
        return _Sum(self, other)

    def __mul__(self, factor: float) -> Loss:
        return _Scaled(self, float(factor))

    __rmul__ = __mul__


@dataclass(frozen=True)
class NegativeSharpe(Loss):
    """-mean / std * sqrt(periods a year) of net returns, standard deviation with ddof 1.

    Sharpe (1994), at a risk-free rate of zero. Needs at least 3 periods.
    """

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        returns = account.net_returns
        if returns.numel() < 3:
            raise ValueError(f"a Sharpe ratio needs at least 3 periods, got {returns.numel()}")
        # The floor keeps the gradient finite where returns are constant (all cash).
        return -returns.mean() / returns.std().clamp_min(1e-8) * periods_per_year**0.5


@dataclass(frozen=True)
class NegativeMeanVariance(Loss):
    """-(mean - aversion / 2 * variance) of net returns, a year. Markowitz (1952)."""

    aversion: float = 5.0

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        returns = account.net_returns
        return -(returns.mean() - self.aversion / 2 * returns.var()) * periods_per_year


@dataclass(frozen=True)
class NegativeLogGrowth(Loss):
    """-mean log(1 + r) of net returns, a year: the Kelly criterion. Kelly (1956)."""

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return -torch.log1p(account.net_returns).mean() * periods_per_year


@dataclass(frozen=True)
class _Sum(Loss):
    left: Loss
    right: Loss

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return self.left(account, periods_per_year) + self.right(account, periods_per_year)


@dataclass(frozen=True)
class _Scaled(Loss):
    loss: Loss
    factor: float

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return self.factor * self.loss(account, periods_per_year)
