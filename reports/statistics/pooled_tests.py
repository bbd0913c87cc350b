"""One difference over several markets, on dates of their own: is its mean more than luck?

Markets move together, so their errors are not independent. Weeks are resampled for all of them at
once, by the stationary bootstrap: what happened in one week stays together,
whatever the rows of a market are, hours or weeks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from engine.accounting.performance import sharpe
from reports.statistics.difference_tests import (
    FEWEST,
    LEVEL,
    RESAMPLES,
    SEED,
    block_length,
    draws,
    influences,
    less_last,
)


class PooledDifference(NamedTuple):
    """The mean over the markets of a difference in annual Sharpe ratios; NaN below 30 weeks."""

    difference: float
    error: float  # the deviation of the resampled differences
    low: float  # 95% interval
    high: float
    p: float  # two-sided, of "no difference"
    by_market: pd.Series  # the difference in each
    block: int  # mean length of a block, weeks


def pooled_difference(
    markets: Mapping[str, pd.DataFrame],
    strategy: str,
    benchmark: str,
    periods_per_year: Mapping[str, float],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> PooledDifference:
    """The mean of a strategy's Sharpe ratio less a benchmark's over several markets.

    With d the mean found and d* that of a resample, p = (1 + number of |d* - d| >= |d|) / (1 +
    resamples), and the interval is d -+ the 95% quantile of |d* - d|, as in
    ``sharpe_differences``. A market that has no row in the weeks of a resample is left out of it.

    Args:
        markets: {market: (T, S) excess returns by date, with both columns}.
        periods_per_year: of each market's rows.

    Raises:
        ValueError: there is no market, or one without the two columns.
    """
    if not markets:
        raise ValueError("there is no market to pool")
    for name, returns in markets.items():
        if lacking := [k for k in (strategy, benchmark) if k not in returns]:
            raise ValueError(f"{name} has no returns of {lacking[0]!r}, only {list(returns)}")
    pairs = {k: frame[[strategy, benchmark]].dropna() for k, frame in markets.items()}
    years = periods_per_year
    ratios = {k: pair.apply(sharpe, periods_per_year=years[k]) for k, pair in pairs.items()}
    by_market = pd.Series({k: each[strategy] - each[benchmark] for k, each in ratios.items()})
    found = float(by_market.mean())
    every = [pair.index.to_period("W").asi8 for pair in pairs.values()]
    first, last = min(map(np.min, every)), max(map(np.max, every))
    weeks = int(last - first + 1)
    if weeks < FEWEST or not np.isfinite(found):
        return PooledDifference(found, np.nan, np.nan, np.nan, np.nan, by_market, 0)
    sums = {}  # of each market's weeks, (W, 5): rows, then sums and squares of either column
    influence = np.zeros(weeks)  # of each week on the mean difference
    for (name, pair), numbers in zip(pairs.items(), every, strict=True):
        values = pair.to_numpy()
        rows = np.column_stack([np.ones(len(values)), values, values**2])
        sums[name] = np.zeros((weeks, 5))
        np.add.at(sums[name], numbers - first, rows)
        scale = np.sqrt(periods_per_year[name]) / len(values) / len(pairs)
        np.add.at(influence, numbers - first, scale * less_last(influences(values))[:, 0])
    block = block_length(influence[:, None] / influence.std())
    drawn = _resampled(sums, periods_per_year, np.array(list(draws(weeks, block, resamples, seed))))
    distance = np.abs(drawn - found)
    distance[~np.isfinite(distance)] = np.inf  # a resample without spread speaks for chance
    reach = float(np.quantile(distance, LEVEL, method="higher"))
    p = (1 + int((distance >= abs(found) - 1e-12).sum())) / (1 + resamples)
    error = float(np.nanstd(drawn, ddof=1))
    return PooledDifference(found, error, found - reach, found + reach, p, by_market, block)


def _resampled(
    sums: Mapping[str, np.ndarray], periods_per_year: Mapping[str, float], counts: np.ndarray
) -> np.ndarray:
    """(resamples,) mean differences over the markets that a resample has rows of."""
    differences = []
    for name, weekly in sums.items():
        total = counts @ weekly  # (resamples, 5)
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = total[:, :1]
            mean, square = total[:, 1:3] / rows, total[:, 3:] / rows
            ratios = mean / np.sqrt((square - mean**2) * rows / (rows - 1))
        differences.append((ratios[:, 0] - ratios[:, 1]) * np.sqrt(periods_per_year[name]))
    each = np.array(differences)
    present = np.isfinite(each)
    with np.errstate(invalid="ignore"):
        return np.where(present, each, 0.0).sum(axis=0) / present.sum(axis=0)
