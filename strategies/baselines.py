"""The baselines that every learned strategy has to beat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from data_loaders import Panel
from strategies.base import Strategy
from strategies.layers.mean_variance import MeanVarianceLayer
from strategies.risk import shrunk_covariance


class EqualWeight(Strategy):
    """1/N over the assets that trade. DeMiguel, Garlappi & Uppal (2009): hard to beat."""

    lookback = 1
    equivariant = True

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        return normalised(history.prices.iloc[-1].notna().astype(float))


class InverseVolatility(Strategy):
    """Weights in inverse proportion to the volatility of daily returns over the lookback."""

    equivariant = True

    def __init__(self, lookback: int = 253):
        self.lookback = lookback

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        volatility = history.returns.iloc[1:].std().where(history.trades_throughout)
        if (volatility == 0).any():
            raise ValueError(
                f"{', '.join(volatility.index[volatility == 0])}: prices did not move in the "
                f"{self.lookback} rows to {history.dates[-1].date()}, so volatility is zero"
            )
        return normalised(1 / volatility)


class MinimumVariance(Strategy):
    """Long-only minimum variance with a cap per asset, on the Ledoit-Wolf covariance.

    Args:
        lookback: rows of prices behind the covariance.
        cap: largest weight of an asset, a fraction; 0.2 = 20%.
    """

    equivariant = True

    def __init__(self, lookback: int = 253, cap: float = 0.2):
        self.lookback = lookback
        self.cap = cap

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        trades = history.trades_throughout
        covariance = torch.from_numpy(shrunk_covariance(history))
        weights = MeanVarianceLayer()(
            covariance[None],
            torch.zeros(1, len(trades), dtype=torch.float64),
            upper=torch.from_numpy(np.where(trades, self.cap, 0.0))[None],
        )
        return pd.Series(weights[0].numpy(), index=history.assets)


def normalised(scores: pd.Series) -> pd.Series:
    """Scores (N,) scaled to sum to 1; a missing score is no weight."""
    scores = scores.fillna(0.0)
    if not scores.sum() > 0:
        raise ValueError("no asset trades throughout the lookback, so there is nothing to hold")
    return scores / scores.sum()
