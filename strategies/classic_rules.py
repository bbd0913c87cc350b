"""Classic rules without learning: risk parity, maximum diversification, momentum."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import Strategy
from strategies.baselines import WindowRule, normalised
from strategies.covariance import shrunk_covariance
from strategies.parameter_ranges import above, at_least

STEPS = 100  # of Newton's method, which needs about ten


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
        import torch

        from strategies.layers.optimisation.mean_variance import MeanVarianceLayer

        covariance = shrunk_covariance(history)
        volatility = np.sqrt(np.diag(covariance))
        found = MeanVarianceLayer()(
            torch.tensor(covariance / np.outer(volatility, volatility)),
            torch.zeros(1, len(volatility), dtype=torch.float64),
            upper=torch.tensor(history.trades_throughout.to_numpy().astype(float))[None],
        )
        return normalised(pd.Series(found[0].numpy() / volatility, index=history.assets))


class HierarchicalRiskParity(WindowRule):
    """Risk split along a tree of assets that move together; Lopez de Prado (2016), by skfolio.

    Args:
        lookback: rows of prices behind distances and covariance.
    """

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        from skfolio.optimization import HierarchicalRiskParity as Tree

        from strategies.estimators import estimated_weights

        return estimated_weights(Tree(), history)


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
