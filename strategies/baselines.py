"""The baselines that every learned strategy has to beat."""

from __future__ import annotations

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
from strategies.strategy_constraints import FALLBACKS, count_fallback, kept, limits_of

ROUNDING = 1e-12  # of the returns of an asset that earns the same on each row


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
        volatility = history.returns.iloc[1:].std().where(history.trades_throughout)
        moves = volatility > ROUNDING
        if volatility.notna().any() and not moves.any():
            raise ValueError(
                f"{', '.join(volatility.dropna().index)}: prices did not move in the "
                f"{self.lookback} rows to {history.dates[-1].date()}, so volatility is zero"
            )
        return normalised(1 / volatility.where(moves))


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


def optimal(
    strategy: Any,
    mean: np.ndarray,
    covariance: np.ndarray,
    history: Panel,
    holdings: pd.Series,
) -> pd.Series:
    """Weights (N,) that solve  max mu'w - w'Sw / 2  under the constraints, or the holdings.

    What is held and misses prices is part of the problem, and left as it is (NaN), see ``kept``.

    Args:
        strategy: whose ``constraints``, ``cap`` and ``fallback`` hold, as of ``MinimumVariance``.
        mean: mu (N,). covariance: S (N, N).

    Raises:
        InfeasibleError: no weights satisfy them, and the fallback is not "hold".
    """
    try:
        weights = MeanVarianceLayer()(
            torch.tensor(covariance),
            torch.tensor(mean)[None],
            **limits_of(strategy, history, holdings),
        )
    except InfeasibleError:
        if strategy.fallback != "hold":
            raise
        count_fallback("hold")
        return holdings
    fixed = kept(history, holdings)
    return pd.Series(np.where(fixed, np.nan, weights[0].numpy()), history.assets)


def normalised(scores: pd.Series) -> pd.Series:
    """Scores (N,) scaled to sum to 1; a missing score is no weight."""
    values = scores.to_numpy(np.float64)
    values = np.where(np.isnan(values), 0.0, values)
    if not (total := values.sum()) > 0:
        raise ValueError("no asset trades throughout the lookback, so there is nothing to hold")
    return pd.Series(values / total, scores.index)
