"""Losses on what a portfolio earned, net of costs. Lower is better; add and scale them freely.

loss = NegativeSharpe() + 0.1 * NegativeLogGrowth()

A measure of which more is better is negated, as its name says (NegativeSharpe); others are not.
Sharpe, Sortino and Omega ratios are of excess returns, as in the report; growth, drawdowns and
tails are of net returns, and in a mean the risk-free rate is a constant that moves no optimum.
Losses on the weights, against a benchmark, on forecasts and on risk are in ``portfolio.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from engine.accounting import performance
from engine.accounting.costs import Account

FLOOR = 1e-8  # of a denominator, so that returns without any spread have a finite gradient


class Loss:
    """A function of an account of S consecutive holding periods; gives a scalar tensor.

    ``__call__(account, periods_per_year)``: an Account with fields of shape (S,), and how
    many holding periods a year has, for annualisation.
    """

    @property
    def forecasts(self) -> bool:
        """Whether it reads ``account.expected_return``, (S, N), or ``predicted_variance``, (S,)."""
        return False

    @property
    def within(self) -> bool:
        """Whether it reads ``account.row_returns``, (S, D)."""
        return False

    def bound(self, assets: Sequence[str]) -> Loss:
        """The same loss, knowing which column of the account is which asset.

        Raises:
            ValueError: it needs an asset that is not there, or a benchmark that is not named.
        """
        return self

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        raise NotImplementedError

    def __add__(self, other: Loss) -> Loss:
        return _Sum(self, other) if isinstance(other, Loss) else NotImplemented

    def __radd__(self, other: int) -> Loss:
        return self if other == 0 else NotImplemented  # where sum() begins

    def __mul__(self, factor: float) -> Loss:
        return _Scaled(self, float(factor)) if isinstance(factor, Real) else NotImplemented

    __rmul__ = __mul__


@dataclass(frozen=True)
class NegativeSharpe(Loss):
    """-(Sharpe ratio a year) of excess returns, see ``performance.sharpe``. Sharpe (1994).

    Needs at least 3 periods.
    """

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        returns = account.excess_returns
        if returns.numel() < 3:
            raise ValueError(f"a Sharpe ratio needs at least 3 periods, got {returns.numel()}")
        return -performance.sharpe(returns, periods_per_year, FLOOR)


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
class NegativeSortino(Loss):
    """-(Sortino ratio a year) of excess returns, as ``performance.sortino``. Sortino, Price (1994).

    ``target``: a year, beyond the risk-free rate, a fraction; 0.02 = 2%.
    """

    target: float = 0.0

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return -performance.sortino(account.excess_returns, periods_per_year, self.target, FLOOR)


@dataclass(frozen=True)
class CVaR(Loss):
    """Conditional value at risk: the mean loss in the worst ``1 - level`` of periods.

    min over t of  t + mean(max(-r - t, 0)) / (1 - level),  at its exact minimiser, the
    ``level`` quantile of the losses. Positive is a loss; a holding period, not a year.
    Rockafellar and Uryasev (2000), equation 4.
    """

    level: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level is a share between 0 and 1, got {self.level!r}")

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        losses = -account.net_returns
        tail = losses.numel() * (1 - self.level)
        # The slack keeps 0.05 * 100 = 5.000000000000004 from counting a sixth loss.
        quantile = losses.topk(max(1, math.ceil(tail - 1e-9))).values[-1]
        return quantile + (losses - quantile).clamp_min(0).sum() / tail


@dataclass(frozen=True)
class MaxDrawdown(Loss):
    """The deepest fall from a peak of net wealth, a positive fraction; 0.2 = 20%.

    The start counts as a peak, so a loss in the first period is a drawdown.
    """

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return -performance.max_drawdown(account.net_returns)


@dataclass(frozen=True)
class NegativeOmega(Loss):
    """-(gains above the threshold) / (losses below it), sums of excess returns.

    Keating and Shadwick (2002). ``threshold``: a year, beyond the risk-free rate, a fraction. The
    ratio has no unit and is not annualised.
    """

    threshold: float = 0.0

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return -performance.omega(account.excess_returns, self.threshold / periods_per_year, FLOOR)


@dataclass(frozen=True)
class NegativeCalmar(Loss):
    """-(compound net growth a year) / (largest drawdown of the block). Young (1991).

    The drawdown counts as 1e-4 at least: an unbounded ratio has no useful gradient.
    """

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return -performance.calmar(account.net_returns, periods_per_year, floor=1e-4)


@dataclass(frozen=True, repr=False)
class _Sum(Loss):
    left: Loss
    right: Loss

    def __repr__(self) -> str:
        return f"{self.left!r} + {_bracketed(self.right)}"

    @property
    def forecasts(self) -> bool:
        return self.left.forecasts or self.right.forecasts

    @property
    def within(self) -> bool:
        return self.left.within or self.right.within

    def bound(self, assets: Sequence[str]) -> Loss:
        return _Sum(self.left.bound(assets), self.right.bound(assets))

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return self.left(account, periods_per_year) + self.right(account, periods_per_year)


@dataclass(frozen=True, repr=False)
class _Scaled(Loss):
    loss: Loss
    factor: float

    def __repr__(self) -> str:
        return f"{self.factor!r} * {_bracketed(self.loss)}"

    @property
    def forecasts(self) -> bool:
        return self.loss.forecasts

    @property
    def within(self) -> bool:
        return self.loss.within

    def bound(self, assets: Sequence[str]) -> Loss:
        return _Scaled(self.loss.bound(assets), self.factor)

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return self.factor * self.loss(account, periods_per_year)


def _bracketed(loss: Loss) -> str:
    return f"({loss!r})" if isinstance(loss, _Sum) else repr(loss)
