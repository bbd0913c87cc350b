"""What a series of returns amounts to: each number from its definition.

All functions are pure. ``returns`` are simple returns of equal periods as fractions (0.01 =
1%), oldest first; ``periods_per_year`` (P) is the number of such periods in a year (252
sessions, 52 weeks), T the number of periods; the risk-free rate is 0. A number that is not
defined is NaN, never infinite. Its neighbours: ``distribution``, ``drawdowns``, ``calendars``,
``relative`` (to a benchmark) and ``trading``; ``catalogue`` lists them all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.accounting.performance import ROUNDING, constant, sharpe


def check_returns(returns: pd.Series, name: str) -> pd.Series:
    """``returns`` themselves where there are some and all are finite; an error elsewhere."""
    bad = returns.index[~np.isfinite(returns.to_numpy(dtype=float))]
    if not len(returns) or len(bad):
        where = f"not finite on {', '.join(map(str, bad[:3]))}" if len(bad) else "empty"
        raise ValueError(f"the returns of {name!r} are {where}; every period needs a return")
    return returns


def sharpe_standard_error(returns: pd.Series, periods_per_year: float) -> float:
    """Standard error of ``sharpe``, in the same unit, for independent, not normal, returns:

    sqrt(P) * sqrt((1 - g3 SR + (g4 - 1) / 4 * SR**2) / (T - 1))

    with SR a period, skewness g3 and raw kurtosis g4 (3 for the normal distribution, where
    this is Lo's sqrt((1 + SR**2 / 2) / T) but for T - 1).

    Source: Lo (2002), The Statistics of Sharpe Ratios; Mertens (2002); the form with T - 1
    from Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.
    """
    if constant(returns):
        return np.nan
    centred = (returns - returns.mean()).to_numpy(dtype=float)
    variance = np.mean(centred**2)
    skewness = np.mean(centred**3) / variance**1.5
    kurtosis = np.mean(centred**4) / variance**2
    ratio = sharpe(returns, 1)
    spread = (1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / (len(returns) - 1)
    return float(np.sqrt(periods_per_year * max(spread, 0.0)))


def rolling_sharpe(returns: pd.Series, window: int, periods_per_year: float) -> pd.Series:
    """``sharpe`` of the last ``window`` periods, by date; starts when the first window is full."""
    windows = returns.astype(float).rolling(window)
    deviation, largest = windows.std(ddof=1), returns.abs().rolling(window).max()
    ratio = windows.mean() / deviation.where(deviation > ROUNDING * largest)
    return (ratio * np.sqrt(periods_per_year)).iloc[window - 1 :]


def rolling_volatility(returns: pd.Series, window: int, periods_per_year: float) -> pd.Series:
    """``volatility`` of the last ``window`` periods, by date, from the first full window on."""
    spread = returns.astype(float).rolling(window).std(ddof=1)
    return (spread * np.sqrt(periods_per_year)).iloc[window - 1 :]
