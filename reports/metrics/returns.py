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

ROUNDING = 1e-10  # a spread below this share of the largest return is a rounding error


def check_returns(returns: pd.Series, name: str) -> pd.Series:
    """``returns`` themselves where there are some and all are finite; an error elsewhere."""
    bad = returns.index[~np.isfinite(returns.to_numpy(dtype=float))]
    if not len(returns) or len(bad):
        where = f"not finite on {', '.join(map(str, bad[:3]))}" if len(bad) else "empty"
        raise ValueError(f"the returns of {name!r} are {where}; every period needs a return")
    return returns


def constant(returns: pd.Series) -> bool:
    """Whether the returns have no spread, so that a ratio to it says nothing."""
    return len(returns) < 2 or not returns.std(ddof=1) > ROUNDING * returns.abs().max()


def wealth(returns: pd.Series) -> pd.Series:
    """Value after each period of 1 invested before the first: W_t = prod (1 + r_s), s <= t.

    A loss of 100% or more leaves 0, for good.
    """
    return (1 + returns).clip(lower=0).cumprod()


def cumulative_return(returns: pd.Series) -> float:
    """Return over the whole history, a fraction: W_T - 1; NaN where it is too large to tell."""
    value = float(wealth(returns).iloc[-1]) - 1 if len(returns) else np.nan
    return value if np.isfinite(value) else np.nan


def annual_return(returns: pd.Series, periods_per_year: float) -> float:
    """Geometric return a year, a fraction: W_T ** (P / T) - 1; -1 after a bankruptcy.

    Source: Bacon (2008), Practical Portfolio Performance Measurement and Attribution.
    """
    if not len(returns):
        return np.nan
    with np.errstate(over="ignore"):
        value = np.float_power(wealth(returns).iloc[-1], periods_per_year / len(returns)) - 1
    return float(value) if np.isfinite(value) else np.nan


def volatility(returns: pd.Series, periods_per_year: float) -> float:
    """Standard deviation (ddof 1) a year, a fraction: std * sqrt(P)."""
    return float(returns.std(ddof=1) * np.sqrt(periods_per_year)) if len(returns) > 1 else np.nan


def sharpe(returns: pd.Series, periods_per_year: float) -> float:
    """Mean over standard deviation (ddof 1) a year: mean / std * sqrt(P); NaN if constant.

    Source: Sharpe (1994), The Sharpe Ratio; annualised as if returns were uncorrelated.
    """
    if constant(returns):
        return np.nan
    return float(returns.mean() / returns.std(ddof=1) * np.sqrt(periods_per_year))


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
    ratio = float(returns.mean() / returns.std(ddof=1))
    spread = (1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / (len(returns) - 1)
    return float(np.sqrt(periods_per_year * max(spread, 0.0)))


def downside_deviation(returns: pd.Series, periods_per_year: float) -> float:
    """Root mean square of the losses a year, a fraction: sqrt(mean(min(r, 0)**2)) * sqrt(P).

    The squares are averaged over all periods, also those with a gain.
    Source: Sortino and Price (1994), Performance Measurement in a Downside Risk Framework.
    """
    if not len(returns):
        return np.nan
    losses = np.minimum(returns.to_numpy(dtype=float), 0)
    return float(np.sqrt(np.mean(losses**2) * periods_per_year))


def sortino(returns: pd.Series, periods_per_year: float) -> float:
    """Mean over ``downside_deviation``, both a year; NaN without a loss.

    Source: Sortino and Price (1994), Performance Measurement in a Downside Risk Framework.
    """
    downside = downside_deviation(returns, periods_per_year)
    return float(returns.mean() * periods_per_year / downside) if downside > 0 else np.nan


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
