"""Checks of prices and features, with errors that name dates, assets and values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


class DataError(ValueError):
    """Data that cannot be used; ``dates`` and ``assets`` say where, as far as that is known."""

    def __init__(self, message: str, dates: Sequence = (), assets: Sequence[str] = ()):
        super().__init__(message)
        self.dates = list(dates)
        self.assets = list(assets)


def check_dates(index: pd.DatetimeIndex) -> None:
    if not len(index):
        raise DataError("there is no row of prices")
    if index.hasnans:
        raise DataError(f"row {int(np.flatnonzero(index.isna())[0])} has no date")
    twice = index[index.duplicated()]
    if len(twice):
        raise DataError(
            f"dates occur more than once: {days(twice)}; keep one row of each, like the last: "
            "frame[~frame.index.duplicated(keep='last')]",
            dates=twice,
        )
    backwards = index[1:][index[1:] < index[:-1]]
    if len(backwards):
        raise DataError(
            f"dates are not in order: {days(backwards)} stands after a later date; "
            "frame.sort_index() sorts them",
            dates=backwards,
        )


def check_assets(columns: pd.Index) -> None:
    if not len(columns):
        raise DataError("there is no asset: prices have no column")
    if not all(isinstance(name, str) and name for name in columns):
        raise DataError(
            f"asset names must be non-empty text, got {list(columns)[:5]}: "
            "frame.set_axis(frame.columns.map(str), axis=1) makes text of numbers"
        )
    twice = list(columns[columns.duplicated()])
    if twice:
        raise DataError(f"assets occur more than once: {', '.join(twice[:5])}", assets=twice)


def check_prices(prices: pd.DataFrame) -> None:
    values = prices.to_numpy()
    wrong = (values <= 0) | np.isinf(values)
    if wrong.any():
        raise located("prices must be positive and finite", prices, wrong)
    empty = list(prices.columns[np.isnan(values).all(axis=0)])
    if empty:
        raise DataError(
            f"assets without a single price: {', '.join(empty[:5])}; leave them out", assets=empty
        )


def check_benchmark(benchmark: pd.Series, dates: pd.DatetimeIndex) -> pd.Series:
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


def frozen(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The frame as float64 in a read-only array, copied only where needed.

    Raises:
        DataError: naming the first value that is not a number.
    """
    try:
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        for name in frame.columns:
            numbers = pd.to_numeric(frame[name], errors="coerce")
            bad = frame.index[numbers.isna() & frame[name].notna()]
            if len(bad):
                raise DataError(
                    f"{what}: column {name!r} holds {frame[name].loc[bad[0]]!r} at {day(bad[0])}, "
                    "which is not a number",
                    dates=bad,
                    assets=[name],
                ) from None
        raise
    base: object = values  # frozen if no array that it is a view of can be written to
    while isinstance(base, np.ndarray) and not base.flags.writeable:
        base = base.base
    if base is not None or not values.flags.c_contiguous:
        values = np.array(values, order="C", copy=True)
    values.flags.writeable = False
    return pd.DataFrame(values, frame.index, frame.columns, copy=False)


def aligned(
    frame: pd.DataFrame, prices: pd.DataFrame, what: str, columns: bool = True
) -> pd.DataFrame:
    if not frame.index.equals(prices.index):
        odd = frame.index.symmetric_difference(prices.index)
        raise DataError(
            f"{what}: dates differ from the prices', first at {days(odd) or 'their order'} "
            f"({len(frame.index.intersection(prices.index))} of {len(prices)} dates in common)",
            dates=odd,
        )
    if columns and not frame.columns.equals(prices.columns):
        names = [str(name) for name in frame.columns.symmetric_difference(prices.columns)]
        raise DataError(
            f"{what}: columns differ from the assets: {', '.join(names[:5]) or 'their order'}",
            assets=names,
        )
    return frame


def located(message: str, frame: pd.DataFrame, wrong: np.ndarray | pd.DataFrame) -> DataError:
    rows, columns = np.nonzero(np.asarray(wrong))
    places = [
        f"{frame.columns[j]} {frame.iat[i, j]:g} on {day(frame.index[i])}"
        for i, j in zip(rows[:3], columns[:3], strict=True)
    ]
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return DataError(
        f"{message}: {'; '.join(places)}{more}",
        dates=frame.index[np.unique(rows)],
        assets=list(frame.columns[np.unique(columns)]),
    )


def day(date: pd.Timestamp) -> str:
    return date.strftime("%Y-%m-%d") if date == date.normalize() else str(date)


def days(dates: pd.Index) -> str:
    more = f" and {len(dates) - 3} more" if len(dates) > 3 else ""
    return ", ".join(day(date) for date in dates[:3]) + more
