"""How much of a Sharpe ratio, and of a difference of two, could be luck: numbers and words.

``returns`` are (T, S) net simple returns, one column a strategy, without NaN; T the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from engine.accounting.performance import sharpe
from reports.relative import long_run_covariance

RESAMPLES = 2000
SEED = 0
FEWEST = 30  # periods; below, a resampled history says nothing
CHUNK = 200  # resamples at a time
LEVEL = 0.95


def sharpe_intervals(
    returns: pd.DataFrame,
    periods_per_year: float,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """95% interval of each Sharpe ratio by the stationary bootstrap.

    With s the ratio found and s* a resampled one the interval is s -+ the 95% quantile of
    |s* - s|. One row a strategy: low, high (annualised). NaN where T < 30 or without spread.

    Source: Politis and Romano (1994), The Stationary Bootstrap; block length by Politis and
    White (2004) with the 2009 correction.
    """
    table = pd.DataFrame(np.nan, index=returns.columns, columns=["low", "high"], dtype=float)
    ratios = returns.apply(sharpe, periods_per_year=periods_per_year)
    known = list(ratios.index[ratios.notna()])
    if len(returns) < FEWEST or not known:
        return table
    values = _scaled(returns[known])
    drawn = _resampled_sharpes(values, _block_length(_influence(values)), resamples, seed)
    found = ratios[known].to_numpy()
    distance = np.abs(drawn * np.sqrt(periods_per_year) - found)
    reach = _reach(distance)
    table.loc[known, "low"], table.loc[known, "high"] = found - reach, found + reach
    return table


def sharpe_differences(
    returns: pd.DataFrame,
    benchmark: str,
    periods_per_year: float,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> pd.DataFrame:
    """Sharpe ratio of each strategy less the benchmark's, and how likely it is by chance.

    The rows (all strategies at once) are resampled by the stationary bootstrap: blocks of
    random length, as one date's returns belong together and volatility comes in clusters.
    With d the difference found and d* a resampled one, the two-sided p-value of "no
    difference" is (1 + number of |d* - d| >= |d|) / (1 + resamples), and the 95% interval
    is d -+ the 95% quantile of |d* - d|, so that both always agree.

    Args:
        returns: (T, S) net simple returns, one column a strategy, without NaN.
        benchmark: the column to compare with.
        periods_per_year: rows a year.
        resamples: number of resampled histories.
        seed: seed of the resampling; the same seed gives the same numbers.

    Returns:
        One row a strategy but the benchmark: difference, error (its HAC standard error), low,
        high (annualised Sharpe), p, studentised (the p-value of ``ledoit_wolf``), block (mean
        block length, rows). NaN where a Sharpe ratio is not defined or T < 30.

    Source: Politis and Romano (1994), The Stationary Bootstrap; block length by Politis and
    White (2004) with the 2009 correction; the centred test as in Ledoit and Wolf (2008),
    Robust Performance Hypothesis Testing with the Sharpe Ratio, without their studentisation.
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
    influence = _influence(values)
    moves = influence[:, :-1] - influence[:, -1:]
    block = _block_length(moves)
    drawn = _resampled_sharpes(values, block, resamples, seed)
    gaps = (drawn[:, :-1] - drawn[:, -1:]) * np.sqrt(periods_per_year)

    found = table.loc[compared, "difference"].to_numpy()
    distance = np.abs(gaps - found)
    distance[~np.isfinite(distance)] = np.inf  # a resample without spread speaks for chance
    reach = _reach(distance)
    table.loc[compared, "error"] = _errors(moves) * np.sqrt(periods_per_year)
    table.loc[compared, "low"] = found - reach
    table.loc[compared, "high"] = found + reach
    hits = (distance >= np.abs(found) - 1e-12).sum(axis=0)
    table.loc[compared, "p"] = (1 + hits) / (1 + resamples)
    table.loc[compared, "studentised"] = ledoit_wolf(values, block, resamples, seed)
    table.loc[compared, "block"] = block
    return table


def ledoit_wolf(values: np.ndarray, block: int, resamples: int, seed: int) -> np.ndarray:
    """Two-sided p-values (S - 1,) of "the same Sharpe ratio as the last column".

    Rows are resampled in circular blocks of fixed length b; the difference of each resample,
    less the one found, is divided by its own standard error, which comes from the spread of
    its blocks; the one found is divided by its HAC standard error (Bartlett kernel).

    Source: Ledoit and Wolf (2008), Robust Performance Hypothesis Testing with the Sharpe
    Ratio, section 3.2.2 (there a quadratic spectral kernel, and blocks chosen by calibration).
    """
    rows, last = len(values), values.shape[1] - 1
    found, errors = _ratio_gaps(values), _errors(_gap_influence(values))
    moments = np.hstack([values, values**2])  # (T, 2S)
    padded = np.vstack([moments, moments[: block - 1]])
    total = np.vstack([np.zeros(2 * last + 2), padded.cumsum(axis=0)])
    sums = total[block:] - total[:-block]  # (T, 2S): of the block that starts in each row
    pairs = [(k, last, last + 1 + k, 2 * last + 1) for k in range(last)]
    products = np.hstack(  # (T, 16 (S - 1)): of the four moments of each pair
        [(sums[:, four, None] * sums[:, None, four]).reshape(rows, 16) for four in map(list, pairs)]
    )
    blocks = max(rows // block, 2)
    generator = np.random.default_rng(seed)
    hits, done = np.zeros(last), 0
    statistic = np.abs(found) / np.where(errors > 0, errors, np.inf)
    while done < resamples:
        size = min(CHUNK, resamples - done)
        picks = generator.integers(0, rows, (size, blocks)) + rows * np.arange(size)[:, None]
        counts = np.bincount(picks.ravel(), minlength=size * rows).reshape(size, rows) / blocks
        mean = counts @ sums / block  # (size, 2S)
        square = (counts @ products).reshape(size, last, 4, 4) / block
        for k, four in enumerate(pairs):
            v = mean[:, four]  # (size, 4): mean and mean square of ours, then theirs mixed
            ours, theirs = v[:, [0, 2]], v[:, [1, 3]]
            spread = square[:, k] - block * v[:, :, None] * v[:, None, :]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = [m[:, 0] / np.sqrt(m[:, 1] - m[:, 0] ** 2) for m in (ours, theirs)]
                slope = np.stack([*_gradient(ours).T, *(-_gradient(theirs)).T], axis=1)
                slope = slope[:, [0, 2, 1, 3]]
                error = np.sqrt(np.einsum("bi,bij,bj->b", slope, spread, slope) / rows)
                drawn = np.abs(ratio[0] - ratio[1] - found[k]) / error
            hits[k] += (~(drawn < statistic[k] - 1e-12)).sum()
        done += size
    return (1 + hits) / (1 + resamples)


def verdict(difference: float, p: float) -> str:
    """What a Sharpe difference with this two-sided p-value is evidence of, in plain words."""
    share = "less than 1%" if p < 0.01 else f"{p:.0%}"
    chance = f"a difference at least this large arises by chance in {share} of cases: "
    if p >= 0.1:
        return chance + f"this is not evidence of {'skill' if difference > 0 else 'a difference'}."
    if p >= 0.05:
        return chance + "this is weak evidence at best."
    if difference > 0:
        return (
            chance + "luck alone is an unlikely reason, unless many variants were tried before. A "
            "strategy that sees the future looks like this, too: deqfolio check tries it."
        )
    return chance + "it did worse, and luck alone is an unlikely reason."


def _gradient(moments: np.ndarray) -> np.ndarray:
    """(B, 2) derivative of mean / sqrt(square - mean**2) by (mean, square), both in (B, 2)."""
    mean, square = moments.T
    variance = square - mean**2
    return np.stack([square, -mean / 2], axis=1) / variance[:, None] ** 1.5


def _scaled(returns: pd.DataFrame) -> np.ndarray:
    """(T, S) with standard deviation 1: a Sharpe ratio does not see the scale."""
    return (returns / returns.std(ddof=1)).to_numpy(dtype=float)


def _influence(values: np.ndarray) -> np.ndarray:
    """(T, S) by how much each row moves the Sharpe ratio: z - SR / 2 (z**2 - 1), z standardised."""
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    z = (values - mean) / deviation
    return z - mean / deviation / 2 * (z**2 - 1)


def _gap_influence(values: np.ndarray) -> np.ndarray:
    influence = _influence(values)
    return influence[:, :-1] - influence[:, -1:]


def _ratio_gaps(values: np.ndarray) -> np.ndarray:
    ratio = values.mean(axis=0) / values.std(axis=0)
    return ratio[:-1] - ratio[-1]


def _errors(moves: np.ndarray) -> np.ndarray:
    """HAC standard error of the mean of each column."""
    spread = [long_run_covariance(column[:, None])[0, 0] for column in moves.T]
    return np.sqrt(np.maximum(spread, 0.0) / len(moves))


def _reach(distance: np.ndarray) -> np.ndarray:
    """The 95% quantile of each column of distances, NaN where it is not finite."""
    distance = np.where(np.isfinite(distance), distance, np.inf)
    reach = np.quantile(distance, LEVEL, axis=0, method="higher")
    return np.where(np.isfinite(reach), reach, np.nan)


def _block_length(moves: np.ndarray) -> int:
    """The longest of the best mean block lengths of the columns, between 1 and sqrt(T)."""
    from arch.bootstrap import optimal_block_length

    varying = moves[:, moves.std(axis=0) > 1e-10]
    if not varying.shape[1]:
        return 1
    best = optimal_block_length(varying)["stationary"].max()
    return int(np.ceil(np.clip(np.nan_to_num(best, nan=1.0), 1.0, np.sqrt(len(moves)))))


def _resampled_sharpes(values: np.ndarray, block: int, resamples: int, seed: int) -> np.ndarray:
    """(resamples, S) Sharpe ratios a period (ddof 1) of resampled histories."""
    rows = len(values)
    moments = np.hstack([values, values**2])  # (T, 2S): the Sharpe ratio needs no more
    ratios = np.empty((resamples, values.shape[1]))
    for number, counts in enumerate(_resampled_counts(rows, block, resamples, seed)):
        mean, square = np.split(counts @ moments / rows, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios[number] = mean / np.sqrt((square - mean**2) * rows / (rows - 1))
    return ratios


def _resampled_counts(rows: int, block: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row occurs in each resampled history, (T,) a resample."""
    from arch.bootstrap import StationaryBootstrap

    bootstrap = StationaryBootstrap(block, np.arange(rows), seed=seed)
    for (index,), _ in bootstrap.bootstrap(resamples):
        yield np.bincount(index, minlength=rows).astype(float)
