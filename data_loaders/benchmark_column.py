"""A benchmark among the columns of a table of prices: taken out, since no strategy may hold it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from data_loaders.suggestions import did_you_mean
from data_loaders.validation import DataError, located


def take_out(
    name: str, prices: pd.DataFrame
) -> tuple[pd.Series, Callable[[pd.DataFrame], pd.DataFrame], str]:
    """The column ``name`` of prices (T, N), and what takes it out of any table of these rows.

    Rows on which nothing but the benchmark has a price are no sessions of the assets, and are
    left out, too, with a caveat (else "").
    """
    if name not in prices.columns:
        known = list(map(str, prices.columns))
        raise DataError(
            f"benchmark {name!r} is no column of the prices{did_you_mean(name, known)}; columns "
            f"are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
        )
    if len(prices.columns) == 1:
        raise DataError(f"benchmark {name!r} is the only column: there is no asset to hold")
    kept = prices.drop(columns=name).notna().any(axis=1).to_numpy() | prices[name].isna().to_numpy()

    def without(table: pd.DataFrame) -> pd.DataFrame:
        found = table.drop(columns=name, errors="ignore")
        return found[kept] if table.index.equals(prices.index) else found  # refused later

    if kept.all():
        return prices[name], lambda table: table.drop(columns=name, errors="ignore"), ""
    note = f"Left out: {(~kept).sum():,} rows on which only the benchmark {name} has a price."
    return prices.loc[kept, name], without, note


def checked(benchmark: pd.Series, dates: pd.DatetimeIndex) -> pd.Series:
    """Prices (T,) on the dates of a panel, NaN where there is none; read-only float64."""
    if not isinstance(benchmark, pd.Series):
        raise DataError(
            f"benchmark should name a column of the prices, or be a Series of prices, got "
            f"{type(benchmark).__name__}"
        )
    if not (isinstance(benchmark.name, str) and benchmark.name):
        raise DataError("the benchmark has no name: series.rename('NAME') names it")
    if not benchmark.index.equals(dates):
        raise DataError(
            f"benchmark {benchmark.name}: its dates are not those of the prices; "
            "series.reindex(prices.index) leaves gaps where it has none"
        )
    values = benchmark.to_numpy(dtype=np.float64, na_value=np.nan).copy()
    frame = pd.DataFrame({benchmark.name: values}, dates)
    wrong = (values <= 0) | np.isinf(values)
    if wrong.any():
        raise located("prices of a benchmark must be positive and finite", frame, wrong[:, None])
    if np.isnan(values).all():
        raise DataError(f"benchmark {benchmark.name} has no price")
    values.flags.writeable = False
    return pd.Series(values, dates, name=benchmark.name, copy=False)


def benchmark_returns(prices: pd.Series | None, dates: pd.DatetimeIndex) -> pd.Series:
    """Simple returns (T,) of a benchmark bought at the close of the first of consecutive dates.

    A row without a price is NaN, and the next one with a price has the return since the last. The
    first is 0, or NaN where there is no price until then. Empty without a benchmark, or dates.
    """
    if prices is None or not len(dates):
        return pd.Series(dtype=float, index=dates[:0], name="benchmark")
    known = prices.ffill()
    returns = (known / known.shift(1) - 1).where(prices.notna())[dates].rename("benchmark")
    returns.iloc[0] = 0.0 if np.isfinite(known[dates[0]]) else np.nan
    return returns
