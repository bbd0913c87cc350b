"""Losses on the weights, against a benchmark, on forecasts, and on risk. Lower is better.

loss = NegativeInformationRatio(benchmark="1/N") + 0.1 * Concentration()
loss = RealizedVariance(log=True) + QLIKE()

Those on risk teach a covariance, whatever returns turn out to be. They are of the invested part,
the weights over their sum, so that holding cash lowers neither, and read its returns at each row
within the holding periods, which say far more of a variance than those of whole periods do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from data_loaders.suggestions import did_you_mean
from engine.accounting import performance
from engine.accounting.costs import Account
from engine.losses.returns import FLOOR, Loss

EQUAL_WEIGHT = "1/N"


@dataclass(frozen=True)
class _Relative(Loss):
    """A loss on net returns less those of a benchmark, which pays no costs; interest cancels.

    ``benchmark``: an asset of the panel (which may be an index), or "1/N": all assets in equal
    parts at the start of every period.
    """

    benchmark: str = ""
    column: int | None = None  # of the benchmark among the assets; set by ``bound``

    def bound(self, assets: Sequence[str]) -> Self:
        name = type(self).__name__
        if not self.benchmark:
            raise ValueError(
                f'{name} needs a benchmark: {name}(benchmark="1/N"), or an asset of the panel'
            )
        if self.benchmark == EQUAL_WEIGHT:
            return self
        if self.benchmark not in assets:
            hint = did_you_mean(self.benchmark, assets) or ";"
            raise ValueError(
                f"{name}: benchmark {self.benchmark!r} is no asset of the panel{hint} "
                f'it is one of its {len(assets)} assets, or "1/N"'
            )
        return replace(self, column=list(assets).index(self.benchmark))

    def active(self, account: Account) -> Tensor:
        """(S,) net returns less the benchmark's."""
        returns = account.asset_returns
        if self.benchmark == EQUAL_WEIGHT:
            return account.net_returns - returns.mean(-1)
        if self.column is None:
            raise ValueError(f"{type(self).__name__} does not know its benchmark: call bound first")
        return account.net_returns - returns[:, self.column]


@dataclass(frozen=True)
class TrackingError(_Relative):
    """Standard deviation (ddof 1) of active returns * sqrt(periods a year); positive."""

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return performance.volatility(self.active(account), periods_per_year, FLOOR)


@dataclass(frozen=True)
class NegativeInformationRatio(_Relative):
    """-mean / std (ddof 1) * sqrt(periods a year) of active returns. Grinold and Kahn (2000)."""

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return -performance.sharpe(self.active(account), periods_per_year, FLOOR)


@dataclass(frozen=True)
class Turnover(Loss):
    """Mean turnover of a rebalance times rebalances a year, as ``Account.turnover`` counts it."""

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return performance.yearly(account.turnover, len(account.turnover), periods_per_year)


@dataclass(frozen=True)
class Concentration(Loss):
    """Mean Herfindahl-Hirschman index, the sum of squared weights: 1/N to 1 if long-only."""

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        return account.weights.square().sum(-1).mean()


@dataclass(frozen=True)
class RiskParity(Loss):
    """Mean over periods of  sum_i (c_i - 1/N)^2,  with shares of risk c_i = w_i (S w)_i / w'Sw.

    S is the covariance of the assets' returns over the block. Zero where all assets contribute
    alike. Maillard, Roncalli and Teiletche (2010).
    """

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        weights, returns = account.weights, account.asset_returns  # (S, N)
        parts = weights * (weights @ torch.cov(returns.T).reshape(2 * returns.shape[-1:]))
        shares = parts / parts.sum(-1, keepdim=True).clamp_min(FLOOR**2)
        return (shares - 1 / weights.shape[-1]).square().sum(-1).mean()


@dataclass(frozen=True)
class PredictionError(Loss):
    """sum (r - scale * q)^2 / sum r^2  over assets and periods: 1 where nothing is predicted.

    For the network's expected returns q and the returns r of the holding periods; 1 minus the
    uncentred R^2. For modules that have ``weights_and_forecast(inputs) -> (weights, q)``, each
    (B, N), as DEQMeanVariance's has. Best added to another loss with a small factor.

    ``scale``: rows in a holding period, if q is the return of a row; 5 for weekly decisions.
    """

    scale: float = 1.0

    @property
    def forecasts(self) -> bool:
        return True

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        if account.expected_return is None:
            raise ValueError("PredictionError needs expected returns, which this account lacks")
        returns, forecast = account.asset_returns, self.scale * account.expected_return
        return (returns - forecast).square().sum() / returns.square().sum().clamp_min(FLOOR**2)


@dataclass(frozen=True)
class RealizedVariance(Loss):
    """Mean over periods of the sum of squared returns of the rows within, a year.

    Andersen, Bollerslev, Diebold and Labys (2003); the criterion by which Engle and Colacito (2006)
    compare covariances: the better one gives the minimum-variance portfolio that varies less.

    ``log``: the mean of their logarithms, in which calm and stormy periods weigh alike.
    """

    log: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.log, bool):
            raise ValueError(f"log is True or False, got {self.log!r}")

    @property
    def within(self) -> bool:
        return True

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        variance = _realized(account, periods_per_year, "RealizedVariance")
        return (variance.clamp_min(FLOOR**2).log() if self.log else variance).mean()


@dataclass(frozen=True)
class QLIKE(Loss):
    """Mean of  v / h - log(v / h) - 1,  v the realized and h the predicted variance: 0 at v = h.

    Patton (2011), equation 20: of the losses whose minimum is the expected variance, the one that
    does not depend on its scale. For modules whose ``weights_and_forecast(inputs)`` gives
    (weights, q, h) with h (B,) the predicted variance a year of the invested part, as
    DEQMeanVariance's does where it may hold cash.
    """

    @property
    def forecasts(self) -> bool:
        return True

    @property
    def within(self) -> bool:
        return True

    def __call__(self, account: Account, periods_per_year: float) -> Tensor:
        predicted = account.predicted_variance
        if predicted is None:
            raise ValueError(
                "QLIKE needs a predicted variance, which the strategy's weights_and_forecast does "
                "not give; DEQMeanVariance does with cash=True and constraints that allow cash"
            )
        ratio = _realized(account, periods_per_year, "QLIKE") / predicted
        return (ratio - ratio.clamp_min(FLOOR**2).log() - 1).mean()


def _realized(account: Account, periods_per_year: float, name: str) -> Tensor:
    """(S,) sums of squared returns, a year."""
    if account.row_returns is None:
        raise ValueError(f"{name} needs the returns of the rows within the holding periods")
    return account.row_returns.square().sum(-1) * periods_per_year
