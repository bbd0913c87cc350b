"""Is the variance of one strategy lower than that of another, or is it luck?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.accounting.performance import constant
from reports.statistics.bootstrap import FEWEST, RESAMPLES, SEED, block_length
from reports.statistics.sharpe_tests import difference_errors, ledoit_wolf

COLUMNS = ["difference", "error", "p", "block"]


def variance_differences(
    returns: pd.DataFrame, benchmark: str, resamples: int = RESAMPLES, seed: int = SEED
) -> pd.DataFrame:
    """log(variance) of each strategy less the benchmark's, and how likely it is by chance.

    The test of ``sharpe_tests.ledoit_wolf`` with the log-variance in place of the Sharpe ratio:
    studentised, by a bootstrap of circular blocks.

    Args:
        returns: (T, S), one column a strategy, without NaN.
        benchmark: the column to compare with.

    Returns:
        One row a strategy except the benchmark: difference (.02 is a variance higher by 2%), error
        (its HAC standard error), p, block (rows). NaN below 30 rows, or without spread.

    Source: Ledoit and Wolf (2011), Robust Performances Hypothesis Testing With the Variance.
    """
    others = [name for name in returns.columns if name != benchmark]
    table = pd.DataFrame(np.nan, index=others, columns=COLUMNS, dtype=float)
    deviations = returns.std(ddof=0)
    varying = [name for name in others if not constant(returns[name])]
    if len(returns) < FEWEST or constant(returns[benchmark]) or not varying:
        return table
    values = (returns[[*varying, benchmark]] / deviations[benchmark]).to_numpy(float)
    values = values - values.mean(axis=0)  # not in place: pandas 3 owns the array
    block = block_length(values[:, :-1] ** 2 / (values[:, :-1] ** 2).mean(0) - values[:, -1:] ** 2)
    found = 2 * np.log(deviations[varying] / deviations[benchmark])
    errors = difference_errors(values, log_variance_and_slope)
    p = ledoit_wolf(values, block, resamples, seed, log_variance_and_slope)
    table.loc[varying] = np.column_stack([found, errors, p, np.full(len(varying), block)])
    return table


def log_variance_and_slope(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of (mean, mean square) (B, 2): the logarithm of the variance (B,), and its derivatives."""
    mean, square = moments.T
    variance = square - mean**2
    return np.log(variance), np.stack([-2 * mean, np.ones_like(mean)], axis=1) / variance[:, None]
