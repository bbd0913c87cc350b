"""Trailing covariance of the assets that trade."""

from __future__ import annotations

import numpy as np

from data_loaders import Panel


def shrunk_covariance(history: Panel) -> np.ndarray:
    """Ledoit-Wolf covariance (N, N) of the returns in ``history``, over its mean variance.

    The scale is free in a mean-variance problem without expected returns; with them, they
    are in units of that variance. An asset that misses a price in ``history`` gets variance
    1 and no covariance: its bounds must hold it at zero. Ledoit & Wolf (2004), as
    implemented by scikit-learn.
    """
    from sklearn.covariance import ledoit_wolf

    trades = history.trades_throughout.to_numpy()
    covariance = np.eye(len(trades))
    if trades.any():
        part = ledoit_wolf(history.returns.to_numpy()[1:, trades])[0]
        covariance[np.ix_(trades, trades)] = part / part.trace() * trades.sum()
    return covariance
