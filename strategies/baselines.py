"""Rules that are not trained, from 1/N to Markowitz: what a learned strategy has to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from data_loaders import Panel
from strategies.base import Strategy
from strategies.constraints import Constraints
from strategies.covariance import shrunk_covariance
from strategies.layers.optimisation.mean_variance import InfeasibleError, MeanVarianceLayer
from strategies.parameter_ranges import above, at_least, one_of
from strategies.strategy_constraints import FALLBACKS, count, kept, limits_of

ROUNDING = 1e-12  # of the returns of an asset that earns the same on each row
STEPS = 100  # of Newton's method, which needs about ten


class EqualWeight(Strategy):
    """1/N over the assets that trade. DeMiguel, Garlappi & Uppal (2009): hard to beat."""

    lookback = 1
    equivariant = True

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        return normalised(history.trades_throughout)


class WindowRule(Strategy):
    """A rule whose only parameter is its lookback."""

    ranges: ClassVar = {"lookback": at_least(3)}  # two returns have a deviation

    def __init__(self, lookback: int = 253):
        self.lookback = lookback


class InverseVolatility(WindowRule):
    """Weights in inverse proportion to the volatility of daily returns over the lookback.

    An asset without volatility, such as cash, gets no weight.
    """

    equivariant = True

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        trades, volatility = history.trades_throughout, history.returns.iloc[1:].std()
        moves = trades & (volatility > ROUNDING)
        if trades.any() and not moves.any():
            raise ValueError(
                f"{', '.join(trades.index[trades])}: prices did not move in the "
                f"{self.lookback} rows to {history.dates[-1].date()}, so volatility is zero"
            )
        return normalised(moves / volatility)


class MinimumVariance(Strategy):
    """Minimum variance under constraints, on the Ledoit-Wolf covariance.

    Args:
        lookback: rows of prices behind the covariance.
        cap: largest weight of an asset, a fraction; 0.2 = 20%. Long-only.
        constraints: all limits, in place of ``cap``; an object or plain values.
        fallback: where no weights satisfy them: "raise" an error, "hold" the current holdings,
            or "relax" the caps in proportion. The report counts how often.
    """

    equivariant = True
    ranges: ClassVar = {"lookback": at_least(3), "cap": above(0), "fallback": one_of(*FALLBACKS)}

    def __init__(
        self,
        lookback: int = 253,
        cap: float = 0.2,
        constraints: Constraints | Mapping[str, Any] | None = None,
        fallback: str = "raise",
    ):
        self.lookback = lookback
        self.cap = cap
        self.constraints = constraints
        self.fallback = fallback

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        nothing = np.zeros(len(history.assets))
        covariance = shrunk_covariance(history, kept(history, holdings))
        return optimal(self, nothing, covariance, history, holdings)


class MeanVariance(Strategy):
    """Mean and variance of the window, both shrunk, to the optimal portfolio; Markowitz (1952).

    The weights solve  max mu'w - a/2 w'Sw  under the constraints, with S of Ledoit & Wolf and mu
    the mean return, shrunk towards that of the minimum variance portfolio (Jorion 1986).

    Args:
        lookback: rows of prices behind both.
        aversion: a, to variance.
        cap: largest weight of an asset, a fraction. Long-only.
        constraints: all limits, in place of ``cap``; an object or plain values.
        fallback: where no weights satisfy them: "raise" an error, "hold" the current holdings,
            or "relax" the caps in proportion.
    """

    equivariant = True
    ranges: ClassVar = {
        "lookback": at_least(3),
        "aversion": above(0),
        "cap": above(0),
        "fallback": one_of(*FALLBACKS),
    }

    def __init__(
        self,
        lookback: int = 253,
        aversion: float = 5.0,
        cap: float = 0.2,
        constraints: Constraints | Mapping[str, Any] | None = None,
        fallback: str = "raise",
    ):
        self.lookback = lookback
        self.aversion = aversion
        self.cap = cap
        self.constraints = constraints
        self.fallback = fallback

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        self.check_parameters()
        trades = history.trades_throughout.to_numpy()
        returns = history.returns.to_numpy()[1:, trades]
        mean = np.zeros(len(trades))
        covariance = shrunk_covariance(history, kept(history, holdings))
        if trades.any():
            mean[trades] = bayes_stein(returns, covariance[np.ix_(trades, trades)])
        return optimal(self, mean, covariance, history, holdings, self.aversion)


class RiskParity(WindowRule):
    """Every asset adds the same risk: w_i (Sw)_i alike for all, on the Ledoit-Wolf covariance.

    Maillard, Roncalli & Teiletche (2010); the weights are the solution of the convex problem of
    Spinu (2013), scaled to sum to 1.

    Args:
        lookback: rows of prices behind the covariance.
    """

    equivariant = True

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        trades = history.trades_throughout
        covariance = shrunk_covariance(history)[np.ix_(trades, trades)]
        weights = pd.Series(0.0, index=history.assets)
        weights[trades] = equal_risk(covariance) if trades.any() else []
        return normalised(weights)


class MaximumDiversification(WindowRule):
    """The highest ratio of the assets' mean volatility to the portfolio's; long-only.

    Choueifaty & Coignard (2008): the long-only minimum variance portfolio of the correlation
    matrix, each weight over its asset's volatility.

    Args:
        lookback: rows of prices behind the covariance, Ledoit-Wolf's.
    """

    equivariant = True

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        covariance = shrunk_covariance(history)
        volatility = np.sqrt(np.diag(covariance))
        found = MeanVarianceLayer()(
            torch.tensor(covariance / np.outer(volatility, volatility)),
            torch.zeros(1, len(volatility), dtype=torch.float64),
            upper=torch.tensor(history.trades_throughout.to_numpy().astype(float))[None],
        )
        return normalised(pd.Series(found[0].numpy() / volatility, index=history.assets))


class Momentum(Strategy):
    """What rose most over the year up to a month ago, in equal parts.

    Jegadeesh & Titman (1993): the last month is left out, for it tends to turn.

    Args:
        lookback: rows behind the return.
        skip: last rows that are left out.
        share: of the assets that trade, how many are held; at least one.
    """

    equivariant = True
    ranges: ClassVar = {"lookback": at_least(2), "skip": at_least(0), "share": above(0, 1)}

    def __init__(self, lookback: int = 253, skip: int = 21, share: float = 0.3):
        self.lookback = lookback
        self.skip = skip
        self.share = share

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        self.check_parameters()
        if self.skip >= self.lookback - 1:
            raise ValueError(f"skip={self.skip} leaves no return in {self.lookback} rows")
        prices = history.prices
        growth = prices.iloc[-1 - self.skip] / prices.iloc[0]
        ranks = growth.where(history.trades_throughout).rank(ascending=False, method="first")
        held = math.ceil(self.share * history.trades_throughout.sum())
        return normalised((ranks <= held).astype(float))


def optimal(
    strategy: Any,
    mean: np.ndarray,
    covariance: np.ndarray,
    history: Panel,
    holdings: pd.Series,
    aversion: float | None = None,
) -> pd.Series:
    """Weights (N,) that solve  max mu'w - a/2 w'Sw  under the constraints, or the holdings.

    What is held and misses prices is part of the problem, and left as it is (NaN), see ``kept``.

    Args:
        strategy: whose ``constraints``, ``cap`` and ``fallback`` hold, as of ``MinimumVariance``.
        mean: mu (N,), of a row. covariance: S (N, N), over its mean variance.
        aversion: a; None where mu is zero.

    Raises:
        InfeasibleError: no weights satisfy them, and the fallback is not "hold".
    """
    trades = history.trades_throughout.to_numpy()
    if aversion is not None and trades.any():
        mean = mean / (aversion * np.square(window_volatility(history)[trades]).mean())
    try:
        weights = MeanVarianceLayer()(
            torch.tensor(covariance),
            torch.tensor(mean)[None],
            **limits_of(strategy, history, holdings),
        )
    except InfeasibleError:
        if strategy.fallback != "hold":
            raise
        count("fallback: hold")
        return holdings
    fixed = kept(history, holdings)
    return pd.Series(np.where(fixed, np.nan, weights[0].numpy()), history.assets)


def bayes_stein(returns: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Mean returns (N,) shrunk towards that of the minimum variance portfolio.

    By  lambda / (lambda + L),  lambda = (N + 2) / ((m - m0)' inv(S) (m - m0)).  Jorion (1986),
    "Bayes-Stein estimation for portfolio analysis", equation 17.

    Args:
        returns: (L, N). covariance: (N, N), of any scale.
    """
    mean = returns.mean(axis=0)
    covariance = covariance * (returns.var(axis=0).mean() / np.diag(covariance).mean())
    inverse = np.linalg.inv(covariance)
    common = (inverse.sum(axis=1) @ mean) / inverse.sum()
    apart = mean - common
    distance = apart @ inverse @ apart
    if not distance > 0:
        return mean
    strength = (len(mean) + 2) / distance
    return mean - apart * strength / (strength + len(returns))


def window_volatility(history: Panel) -> np.ndarray:
    """Of the returns in the window, (N,), a row; NaN where an asset does not trade throughout."""
    return history.returns.iloc[1:].std(ddof=0, skipna=False).to_numpy()


def equal_risk(covariance: np.ndarray) -> np.ndarray:
    """Weights (N,), positive, that each contribute alike to the variance; their sum is not 1.

    The minimum of  1/2 y'Cy - 1/N sum log y, by Newton's method: there y_i (Cy)_i = 1/N. C is
    scaled to a correlation matrix first, which changes y by the volatilities alone.

    Args:
        covariance: (N, N), positive definite.
    """
    volatility = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(volatility, volatility)
    share = 1 / len(volatility)
    y = np.full(len(volatility), np.sqrt(share / correlation.sum(axis=1).mean().clip(share)))

    def value(y: np.ndarray) -> float:
        return 0.5 * y @ correlation @ y - share * np.log(y).sum()

    for _ in range(STEPS):
        gradient = correlation @ y - share / y
        if np.abs(gradient * y).max() < 1e-14:
            break
        step = np.linalg.solve(correlation + np.diag(share / y**2), -gradient)
        falling = np.where(step < 0, -step / y, 0.0).max()
        length = min(1.0, 0.95 / falling) if falling else 1.0
        slope = gradient @ step
        if -slope > share / 16:  # nearer, full steps converge: the problem is self-concordant
            while value(y + length * step) > value(y) + 1e-4 * length * slope:
                length /= 2
        else:
            length = 1.0
        y = y + length * step
    return y / volatility


def normalised(scores: pd.Series) -> pd.Series:
    """Scores (N,) scaled to sum to 1; a missing score is no weight."""
    values = scores.to_numpy(np.float64)
    values = np.where(np.isnan(values), 0.0, values)
    if not (total := values.sum()) > 0:
        raise ValueError("no asset trades throughout the lookback, so there is nothing to hold")
    return pd.Series(values / total, scores.index)
