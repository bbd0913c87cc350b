"""Metrics of a moving window, by date, from the first full window on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.accounting.performance import ROUNDING


def rolling_sharpe(returns: pd.Series, window: int, periods_per_year: float) -> pd.Series:
    """``sharpe`` of excess returns over the last ``window`` periods."""
    windows = returns.astype(float).rolling(window)
    deviation, largest = windows.std(ddof=1), returns.abs().rolling(window).max()
    ratio = windows.mean() / deviation.where(deviation > ROUNDING * largest)
    return (ratio * np.sqrt(periods_per_year)).iloc[window - 1 :]


def rolling_volatility(returns: pd.Series, window: int, periods_per_year: float) -> pd.Series:
    """``volatility`` of the last ``window`` periods."""
    spread = returns.astype(float).rolling(window).std(ddof=1)
    return (spread * np.sqrt(periods_per_year)).iloc[window - 1 :]


def rolling_beta(returns: pd.Series, benchmark: pd.Series, window: int) -> pd.Series:
    """``beta`` of excess returns to the benchmark's over the last ``window`` common periods."""
    common = returns.index.intersection(benchmark.index)
    ours, theirs = returns[common].astype(float), benchmark[common].astype(float)
    spread = theirs.rolling(window).var(ddof=1)
    tiny = (ROUNDING * theirs.abs().rolling(window).max()) ** 2
    joint = ours.rolling(window).cov(theirs, ddof=1)
    return (joint / spread.where(spread > tiny)).iloc[window - 1 :]


def rolling_alpha(
    returns: pd.Series, benchmark: pd.Series, window: int, periods_per_year: float
) -> pd.Series:
    """``alpha`` a year of excess returns against the benchmark's, over the same windows as
    ``rolling_beta``: what the mean has beyond beta times that of the benchmark."""
    beta = rolling_beta(returns, benchmark, window)
    common = returns.index.intersection(benchmark.index)
    lines = (line[common].astype(float) for line in (returns, benchmark))
    ours, theirs = (line.rolling(window).mean() for line in lines)
    return ((ours - beta * theirs) * periods_per_year)[beta.index]


def trailing_turnover(turnover: pd.Series) -> pd.Series:
    """Sum over the last 52 weeks, by fill date, from the first full year on if there is one."""
    year = pd.Timedelta("364D")  # a day more would count the same weekday 53 times
    total = turnover.rolling(year).sum()
    full = total[total.index >= total.index[0] + year]
    return full if len(full) > 1 else total
