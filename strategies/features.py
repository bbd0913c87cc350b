"""Features of each asset, computed inside one window: past rows only, by construction."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from data_loaders import Panel

HORIZONS = (5, 21, 63, 126, 252)  # a week, a month, a quarter, half a year, a year of sessions


def price_features(history: Panel) -> np.ndarray:
    """Features (N, F) of the assets at the last date of ``history``, all without unit.

    By asset: returns over each horizon in units of their own volatility; the logarithm of
    short over long volatility; ranks across assets of the shortest and longest return, from
    -1 to 1. The same for all assets: the mean of each over the assets that trade (the state
    of the market). Horizons longer than the window are left out. Assets that do not trade
    throughout the window get zeros.
    """
    trades = history.trades_throughout.to_numpy()
    returns = np.log1p(history.returns.to_numpy()[1:, trades])  # (L - 1, n), n that trade
    rows, count = returns.shape
    horizons = [h for h in HORIZONS if h <= rows]
    if not horizons:
        raise ValueError(
            f"features need at least {HORIZONS[0] + 1} rows of history, got {rows + 1}: "
            "raise the strategy's lookback"
        )
    if not count:
        return np.zeros((len(trades), feature_count(rows)))
    volatility = {h: _volatility(returns[-h:]) for h in horizons}
    longest = volatility[horizons[-1]]
    momentum = [returns[-h:].sum(axis=0) / (longest * np.sqrt(h)) for h in horizons]
    ratios = [np.log(volatility[short] / volatility[long]) for short, long in pairwise(horizons)]
    ranks = [_rank(momentum[0]), _rank(momentum[-1])]
    own = np.stack([*momentum, *ratios, *ranks], axis=1)  # (n, 2 horizons + 1)
    market = own[:, : len(momentum) + len(ratios)].mean(axis=0)
    features = np.zeros((len(trades), feature_count(rows)))
    features[trades] = np.hstack([own, np.broadcast_to(market, (count, market.size))])
    return features


def feature_count(rows: int) -> int:
    """F, the number of features from a window of ``rows`` returns."""
    horizons = sum(h <= rows for h in HORIZONS)
    return (2 * horizons + 1) + (2 * horizons - 1)


def feature_names(rows: int) -> list[str]:
    """What the F features from a window of ``rows`` returns are called, in their order."""
    horizons = [h for h in HORIZONS if h <= rows]
    momentum = [f"return over {h} rows" for h in horizons]
    ratios = [f"volatility, {short} over {long} rows" for short, long in pairwise(horizons)]
    ranks = [f"rank of the return over {h} rows" for h in (horizons[0], horizons[-1])]
    return [*momentum, *ratios, *ranks, *(f"mean {name}" for name in [*momentum, *ratios])]


def _volatility(returns: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum((returns**2).mean(axis=0), 1e-12))  # 1e-6 a day: a stale price


def _rank(values: np.ndarray) -> np.ndarray:
    if values.size < 2:
        return np.zeros_like(values)
    return 2 * values.argsort(kind="stable").argsort(kind="stable") / (values.size - 1) - 1
