"""Intervals of Sharpe ratios, and tests of the difference of two strategies, by bootstrap.

``returns`` are (T, S), one column a strategy, without NaN; those of Sharpe ratios are in excess of
the risk-free rate. Histories are resampled in blocks of random length, as volatility comes in
clusters, and the rows of all strategies at once, as the returns of one date belong together.

Source of the stationary bootstrap: Politis and Romano (1994); of the block length Politis and White
(2004) with the 2009 correction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from engine.accounting.performance import constant, sharpe

CHUNK = 200  # resamples at a time
LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
FEWEST = 30  # periods; below, a resampled history says nothing


def block_length(moves: np.ndarray) -> int:
    """The longest of the best mean block lengths of the columns (T, S), between 1 and sqrt(T)."""
    from arch.bootstrap import optimal_block_length

    varying = moves[:, moves.std(axis=0) > 1e-10]
    if not varying.shape[1]:
        return 1
    best = optimal_block_length(varying)["stationary"].max()
    return int(np.ceil(np.clip(np.nan_to_num(best, nan=1.0), 1.0, np.sqrt(len(moves)))))


def draws(rows: int, block: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Of each resampled history, (rows,) how often each row is in it."""
    from arch.bootstrap import StationaryBootstrap

    bootstrap = StationaryBootstrap(block, np.arange(rows), seed=seed)
    for (index,), _ in bootstrap.bootstrap(resamples):
        yield np.bincount(index, minlength=rows).astype(float)


def resampled_sharpes(values: np.ndarray, block: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, S) Sharpe ratios a period (ddof 1) of resampled histories of values (T, S)."""
    rows = len(values)
    moments = np.hstack([values, values**2])  # (T, 2S): the Sharpe ratio needs no more
    ratios = np.empty((resamples, values.shape[1]))
    for number, counts in enumerate(draws(rows, block, resamples, seed)):
        mean, square = np.split(counts @ moments / rows, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios[number] = mean / np.sqrt((square - mean**2) * rows / (rows - 1))
    return ratios


def sharpe_standard_error(returns: pd.Series, periods_per_year: float) -> float:
    """Standard error of ``sharpe``, in the same unit, for independent, not normal, returns:

    sqrt(P) * sqrt((1 - g3 SR + (g4 - 1) / 4 * SR**2) / (T - 1))

    with SR per period, skewness g3 and raw kurtosis g4 (3 for the normal distribution, where
    this is Lo's sqrt((1 + SR**2 / 2) / T) except for T - 1).

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


def sharpe_intervals(returns: pd.DataFrame, periods_per_year: float) -> pd.DataFrame:
    """95% interval of each Sharpe ratio by the stationary bootstrap.

    With s the ratio found and s* a resampled one the interval is s -+ the 95% quantile of
    |s* - s|. One row a strategy: low, high (annualised). NaN where T < 30 or without spread.
    """
    table = pd.DataFrame(np.nan, index=returns.columns, columns=["low", "high"], dtype=float)
    ratios = returns.apply(sharpe, periods_per_year=periods_per_year)
    known = list(ratios.index[ratios.notna()])
    if len(returns) < FEWEST or not known:
        return table
    values = _scaled(returns[known])
    drawn = resampled_sharpes(values, block_length(influences(values)), RESAMPLES, SEED)
    found = ratios[known].to_numpy()
    reach = _reach(np.abs(drawn * np.sqrt(periods_per_year) - found))
    table.loc[known, "low"], table.loc[known, "high"] = found - reach, found + reach
    return table


def sharpe_differences(
    returns: pd.DataFrame, benchmark: str, periods_per_year: float, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Sharpe ratio of each strategy less the benchmark's, and how likely it is by chance.

    Rows are resampled by the stationary bootstrap. With d the difference
    found and d* a resampled one, the two-sided p-value of "no difference" is
    (1 + number of |d* - d| >= |d|) / (1 + resamples), and the 95% interval is d -+ the 95%
    quantile of |d* - d|, so that both always agree.

    Args:
        returns: (T, S) excess returns, one column a strategy, without NaN.
        benchmark: the column to compare with.

    Returns:
        One row a strategy except the benchmark: difference, error (its HAC standard error), low,
        high (annualised Sharpe), p, studentised (the p-value of ``ledoit_wolf``), block (mean
        block length, rows). NaN where a Sharpe ratio is not defined or T < 30.

    Source: the centred test as in Ledoit and Wolf (2008), Robust Performance Hypothesis Testing
    with the Sharpe Ratio, without their studentisation.
    """
    others = [name for name in returns.columns if name != benchmark]
    columns = ["difference", "error", "low", "high", "p", "studentised", "block"]
    table = pd.DataFrame(np.nan, index=others, columns=columns, dtype=float)
    ratios = returns.apply(sharpe, periods_per_year=periods_per_year)
    table["difference"] = ratios[others] - ratios[benchmark]
    compared = list(table.index[table["difference"].notna()])
    if len(returns) < FEWEST or not compared:
        return table

    values = _scaled(returns[[*compared, benchmark]])
    moves = less_last(influences(values))
    block = block_length(moves)
    gaps = less_last(resampled_sharpes(values, block, resamples, SEED))
    found = table.loc[compared, "difference"].to_numpy()
    distance = np.abs(gaps * np.sqrt(periods_per_year) - found)
    distance[~np.isfinite(distance)] = np.inf  # a resample without spread speaks for chance
    reach = _reach(distance)
    hits = (distance >= np.abs(found) - 1e-12).sum(axis=0)
    table.loc[compared, columns[1:]] = np.column_stack(
        [
            difference_errors(values) * np.sqrt(periods_per_year),
            found - reach,
            found + reach,
            (1 + hits) / (1 + resamples),
            ledoit_wolf(values, block, resamples, SEED),
            np.full(len(compared), block),
        ]
    )
    return table


def sharpe_and_slope(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ratios (B,) of (mean, mean square) (B, 2), and their derivatives (B, 2) by both."""
    mean, square = moments.T
    deviation = np.sqrt(square - mean**2)
    return mean / deviation, np.stack([square, -mean / 2], axis=1) / deviation[:, None] ** 3


def ledoit_wolf(
    values: np.ndarray,
    block: int,
    resamples: int,
    seed: int,
    measure: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = sharpe_and_slope,
) -> np.ndarray:
    """Two-sided p-values (S - 1,) of "the same Sharpe ratio as the last column".

    Rows are resampled in circular blocks of fixed length b; the difference of each resample,
    less the one found, is divided by its own standard error, which comes from the spread of
    its blocks; the one found is divided by its HAC standard error (Bartlett kernel).

    Args:
        measure: what is compared, of the mean and mean square of a column.

    Source: Ledoit and Wolf (2008), Robust Performance Hypothesis Testing with the Sharpe
    Ratio, section 3.2.2 (there a quadratic spectral kernel, and blocks chosen by calibration).
    """
    rows, last = len(values), values.shape[1] - 1
    found = less_last(measure(np.stack([values.mean(axis=0), (values**2).mean(axis=0)], 1))[0])
    errors = difference_errors(values, measure)
    statistic = np.abs(found) / np.where(errors > 0, errors, np.inf)

    moments = np.hstack([values, values**2])  # (T, 2S)
    padded = np.vstack([moments, moments[: block - 1]])
    total = np.vstack([np.zeros(2 * last + 2), padded.cumsum(axis=0)])
    sums = total[block:] - total[:-block]  # (T, 2S): of the block that starts in each row
    # of each pair: the mean and mean square of the strategy, then of the last column
    pairs = [[k, last + 1 + k, last, 2 * last + 1] for k in range(last)]
    products = np.hstack(  # (T, 16 (S - 1))
        [(sums[:, four, None] * sums[:, None, four]).reshape(rows, 16) for four in pairs]
    )
    blocks = max(rows // block, 2)
    generator = np.random.default_rng(seed)
    hits, done = np.zeros(last), 0
    while done < resamples:
        size = min(CHUNK, resamples - done)
        picks = generator.integers(0, rows, (size, blocks)) + rows * np.arange(size)[:, None]
        counts = np.bincount(picks.ravel(), minlength=size * rows).reshape(size, rows) / blocks
        mean = counts @ sums / block  # (size, 2S)
        square = (counts @ products).reshape(size, last, 4, 4) / block
        for k, four in enumerate(pairs):
            v = mean[:, four]  # (size, 4)
            spread = square[:, k] - block * v[:, :, None] * v[:, None, :]
            with np.errstate(divide="ignore", invalid="ignore"):
                (one, of_one), (two, of_two) = measure(v[:, :2]), measure(v[:, 2:])
                slope = np.hstack([of_one, -of_two])
                error = np.sqrt(np.einsum("bi,bij,bj->b", slope, spread, slope) / rows)
                drawn = np.abs(one - two - found[k]) / error
            hits[k] += (~(drawn < statistic[k] - 1e-12)).sum()
        done += size
    return (1 + hits) / (1 + resamples)


def difference_errors(
    values: np.ndarray,
    measure: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = sharpe_and_slope,
) -> np.ndarray:
    """HAC standard errors (S - 1,) of the measure of each column less the last column's, see
    ``relative.regression``."""
    from statsmodels.regression.linear_model import OLS

    fits = [
        OLS(column, np.ones(len(column))).fit(cov_type="HAC", cov_kwds={"maxlags": None})
        for column in less_last(influences(values, measure)).T
    ]
    return np.array([fit.bse[0] for fit in fits])


def _scaled(returns: pd.DataFrame) -> np.ndarray:
    """(T, S) with standard deviation 1: a Sharpe ratio does not see the scale."""
    return (returns / returns.std(ddof=1)).to_numpy(dtype=float)


def influences(
    values: np.ndarray,
    measure: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = sharpe_and_slope,
) -> np.ndarray:
    """(T, S) by how much each row moves the measure of its column; of a Sharpe ratio that is
    z - SR / 2 (z**2 - 1), z standardised."""
    mean, square = values.mean(axis=0), (values**2).mean(axis=0)
    _, slope = measure(np.stack([mean, square], axis=1))  # (S, 2)
    return slope[:, 0] * (values - mean) + slope[:, 1] * (values**2 - square)


def less_last(values: np.ndarray) -> np.ndarray:
    """All columns but the last, less the last."""
    return values[..., :-1] - values[..., -1:]


def _reach(distance: np.ndarray) -> np.ndarray:
    """The 95% quantile of each column of distances, NaN where it is not finite."""
    distance = np.where(np.isfinite(distance), distance, np.inf)
    reach = np.quantile(distance, LEVEL, axis=0, method="higher")
    return np.where(np.isfinite(reach), reach, np.nan)


def variance_differences(
    returns: pd.DataFrame, benchmark: str, resamples: int = RESAMPLES, seed: int = SEED
) -> pd.DataFrame:
    """log(variance) of each strategy less the benchmark's, and how likely it is by chance.

    The test of ``difference_tests.ledoit_wolf`` with the log-variance in place of the Sharpe ratio:
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
    table = pd.DataFrame(
        np.nan, index=others, columns=["difference", "error", "p", "block"], dtype=float
    )
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
