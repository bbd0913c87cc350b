"""How much of a difference could be luck, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from reports.metrics import sharpe

RESAMPLES = 2000
SEED = 0
FEWEST = 30  # periods; below, a resampled history says nothing


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
        One row a strategy but the benchmark: difference, low, high (annualised Sharpe), p,
        block (mean block length, rows). NaN where a Sharpe ratio is not defined or T < 30.

    Source: Politis and Romano (1994), The Stationary Bootstrap; block length by Politis and
    White (2004) with the 2009 correction; the centred test as in Ledoit and Wolf (2008),
    Robust Performance Hypothesis Testing with the Sharpe Ratio, without their studentisation.
    """
    others = [name for name in returns.columns if name != benchmark]
    table = pd.DataFrame(
        np.nan, index=others, columns=["difference", "low", "high", "p", "block"], dtype=float
    )
    rows = len(returns)
    ratios = returns.apply(sharpe, periods_per_year=periods_per_year)
    table["difference"] = ratios[others] - ratios[benchmark]
    compared = list(table.index[table["difference"].notna()])
    if rows < FEWEST or not compared:
        return table

    columns = returns[[*compared, benchmark]]
    values = (columns / columns.std(ddof=1)).to_numpy(dtype=float)
    block = _block_length(values)
    moments = np.hstack([values, values**2])  # (T, 2S): the Sharpe ratio needs no more
    gaps = np.empty((resamples, len(compared)))
    for number, count in enumerate(_resampled_counts(rows, block, resamples, seed)):
        mean, square = np.split(count @ moments / rows, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = mean / np.sqrt((square - mean**2) * rows / (rows - 1))
        gaps[number] = ratio[:-1] - ratio[-1]
    gaps *= np.sqrt(periods_per_year)

    found = table.loc[compared, "difference"].to_numpy()
    distance = np.abs(gaps - found)
    distance[~np.isfinite(distance)] = np.inf  # a resample without spread speaks for chance
    reach = np.quantile(distance, 0.95, axis=0, method="higher")
    reach[~np.isfinite(reach)] = np.nan
    table.loc[compared, "low"] = found - reach
    table.loc[compared, "high"] = found + reach
    hits = (distance >= np.abs(found) - 1e-12).sum(axis=0)
    table.loc[compared, "p"] = (1 + hits) / (1 + resamples)
    table.loc[compared, "block"] = block
    return table


def verdict(difference: float, p: float) -> str:
    """What a Sharpe difference with this two-sided p-value is evidence of, in plain words."""
    share = "less than 1%" if p < 0.01 else f"{p:.0%}"
    chance = f"a difference at least this large arises by chance in {share} of cases: "
    if p >= 0.1:
        return chance + f"this is not evidence of {'skill' if difference > 0 else 'a difference'}."
    if p >= 0.05:
        return chance + "this is weak evidence at best."
    if difference > 0:
        return chance + "luck alone is an unlikely reason, unless many variants were tried before."
    return chance + "it did worse, and luck alone is an unlikely reason."


def _block_length(values: np.ndarray) -> int:
    """The longest of the best mean block lengths of the series that move the differences.

    By the delta method a Sharpe ratio moves by z - SR / 2 (z**2 - 1), z the standardised
    return. The last column is the benchmark. Between 1 and the square root of T.
    """
    from arch.bootstrap import optimal_block_length

    ratio = values.mean(axis=0)
    influence = values - ratio - ratio / 2 * ((values - ratio) ** 2 - 1)
    moves = influence[:, :-1] - influence[:, -1:]
    varying = moves[:, moves.std(axis=0) > 1e-10]
    if not varying.shape[1]:
        return 1
    best = optimal_block_length(varying)["stationary"].max()
    return int(np.ceil(np.clip(np.nan_to_num(best, nan=1.0), 1.0, np.sqrt(len(values)))))


def _resampled_counts(rows: int, block: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row occurs in each resampled history, (T,) a resample."""
    from arch.bootstrap import StationaryBootstrap

    bootstrap = StationaryBootstrap(block, np.arange(rows), seed=seed)
    for (index,), _ in bootstrap.bootstrap(resamples):
        yield np.bincount(index, minlength=rows).astype(float)
