"""Prices, features and memberships from files: wide or long, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_loaders.csv_tables import numbered_lines, read_csv
from data_loaders.panel import prices_from
from data_loaders.tables import Table
from data_loaders.validation import DataError

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".pq")
PRICE_NAMES = {
    "prices": ("price", "adjusted_close", "adj_close", "adj close", "close"),
    "returns": ("return", "returns", "ret"),
}
SPELLS = ("asset", "from", "to")


def read_table(path: Path, date_format: str | None = None) -> Table:
    """Read a .csv (or .csv.gz) or .parquet file.

    Args:
        date_format: of the dates as text, like "%d/%m/%Y"; by default it is found out.

    Raises:
        DataError: naming the file, and the line or column and value that cannot be read.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if not path.name.lower().endswith((".parquet", ".pq")):
        return read_csv(path, date_format)
    from data_loaders.parquet_tables import read_parquet

    return read_parquet(path, date_format)


def read_prices(
    path: Path, kind: str = "prices", date_format: str | None = None
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Prices (T, N), and features {name: (T, N)} where a long file has more columns.

    A wide file has one row a date and one column an asset. A long one has a column named asset,
    ticker, symbol or instrument, and one row a date and asset; the prices stand in its only
    other column, or in the one named price, adjusted_close or close (return, for returns).

    Args:
        kind: "prices", or "returns": simple returns from the row before, in fractions.

    Raises:
        DataError: naming the file, and the line or column and value.
    """
    if kind not in PRICE_NAMES:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(map(repr, PRICE_NAMES))}")
    table = read_table(path, date_format)
    if table.assets is None:
        _check_columns(path, table.names)
    frames = _frames(table)
    chosen = "" if table.assets is None else _price_column(table, kind)
    prices = frames.pop(chosen)
    if kind == "prices":
        return prices, frames
    try:
        prices = prices_from(prices)
    except DataError as error:
        raise DataError(f"{path}: {error}", error.dates, error.assets) from error
    return prices, {name: frame.reindex(prices.index) for name, frame in frames.items()}


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Refuse the bars of one asset: their open, high, low and close would pass for four assets."""
    plain = {name.strip().lower() for name in names}
    if {"open", "high", "low", "close"} <= plain:
        raise DataError(
            f"{path} has the columns {', '.join(names)} of one asset, where each column should be "
            "an asset: keep one of them and name it after the asset, or add a column asset"
        )


def read_features(
    path: Path, dates: pd.DatetimeIndex, date_format: str | None = None
) -> tuple[dict[str, pd.DataFrame], str]:
    """Features {column: (T, N)} of a long file, or {"": (T, columns)} of a wide one.

    Each row holds what was known at the close of its date. A date without a row takes the last
    row before it, never one after it; an empty cell stays NaN.

    Returns:
        The features on ``dates``, and a note if the file ends before them, else "".
    """
    table = read_table(path, date_format)
    frames = _frames(table)
    last = table.dates.max()
    note = ""
    if last < dates[-1]:
        note = f"{path.name} ends on {last.date()}: its last row is used until {dates[-1].date()}."
    return {name: frame.reindex(dates, method="ffill") for name, frame in frames.items()}, note


def read_members(
    path: Path, dates: pd.DatetimeIndex, assets: pd.Index
) -> tuple[pd.DataFrame, list[str]]:
    """Membership (T, N) of bool from a CSV file with the columns asset, from and to.

    ``from`` and ``to`` are the first and the last day in the universe, both inclusive; an
    empty one is open. An asset may have several rows.

    Returns:
        The membership, and the names in the file that are none of ``assets``.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    rows = numbered_lines(path)
    top, header = next(rows, (1, []))
    plain = [name.strip().lower() for name in header]
    if sorted(plain) != sorted(SPELLS):
        raise DataError(
            f"{path}, line {top}: has the columns {', '.join(header)}, expected asset, from, to"
        )
    inside = np.zeros((len(dates), len(assets)), dtype=bool)
    absent = set()
    for number, cells in rows:
        if len(cells) != len(plain):
            raise DataError(f"{path}, line {number}: has {len(cells)} columns, expected 3")
        row = {name: cell.strip() for name, cell in zip(plain, cells, strict=True)}
        start, end = (_day(path, number, name, row[name]) for name in ("from", "to"))
        if start is not None and end is not None and start > end:
            raise DataError(
                f"{path}, line {number}, column 'to': {row['to']!r} is before 'from', "
                f"{row['from']!r}"
            )
        if row["asset"] not in assets:
            absent.add(row["asset"])
            continue
        low = 0 if start is None else dates.searchsorted(start, side="left")
        high = len(dates) if end is None else dates.searchsorted(end, side="right")
        inside[low:high, assets.get_loc(row["asset"])] = True
    return pd.DataFrame(inside, index=dates, columns=assets), sorted(absent)


def _day(path: Path, number: int, column: str, text: str) -> pd.Timestamp | None:
    """The day that the text says; None for no text."""
    day = pd.to_datetime(text, format="%Y-%m-%d", errors="coerce")
    if (day is pd.NaT and text) or text in ("now", "today"):
        raise DataError(
            f"{path}, line {number}, column {column!r}: {text!r} is not a date (expected "
            "year-month-day, as 2020-01-31, or nothing)"
        )
    return day if text else None


def _frames(table: Table) -> dict[str, pd.DataFrame]:
    """{column: (T, N)} of a long table, {"": (T, C)} of a wide one, in order of the dates."""
    if table.assets is None:
        return {"": _ordered(table, table.dates, table.values, table.names)}
    nameless = [row for row, name in enumerate(table.assets) if not isinstance(name, str)]
    if nameless:
        raise DataError(f"{table.path}, {table.line(nameless[0])}: there is no asset")
    rows, dates = pd.factorize(table.dates, sort=True)
    columns, assets = pd.factorize(table.assets)
    cells = rows * len(assets) + columns
    twice = np.flatnonzero(pd.Series(cells).duplicated().to_numpy())
    if len(twice):
        row = int(twice[0])
        raise DataError(
            f"{table.path}, {table.line(row)}: {table.assets[row]} has a row for "
            f"{table.dates[row].date()} already",
            dates=[table.dates[row]],
            assets=[table.assets[row]],
        )
    frames = {}
    for at, name in enumerate(table.names):
        values = np.full((len(dates), len(assets)), np.nan)
        values.ravel()[cells] = table.values[:, at]
        frames[name] = _frame(values, pd.DatetimeIndex(dates, name="date"), list(assets))
    return frames


def _ordered(
    table: Table, dates: pd.DatetimeIndex, values: np.ndarray, names: Sequence[str]
) -> pd.DataFrame:
    """Newest first becomes oldest first; any other disorder is an error."""
    if len(dates) > 1 and dates.is_monotonic_decreasing:
        dates, values = dates[::-1], np.ascontiguousarray(values[::-1])
    wrong = np.flatnonzero(dates[1:] <= dates[:-1]) + 1
    if len(wrong):
        row = int(wrong[0])
        again = "a second time" if dates[row] in dates[:row] else "after a later date"
        raise DataError(
            f"{table.path}, {table.line(row)}, column {table.date!r}: {dates[row].date()} stands "
            f"{again}",
            dates=dates[wrong],
        )
    return _frame(values, dates, names)


def _frame(values: np.ndarray, dates: pd.DatetimeIndex, names: Sequence[str]) -> pd.DataFrame:
    """A frame over an array that nobody else holds: a panel takes it without a copy."""
    values.flags.writeable = False
    return pd.DataFrame(values, index=dates, columns=list(names), copy=False)


def _price_column(table: Table, kind: str) -> str:
    if len(table.names) == 1:
        return table.names[0]
    plain = {name.strip().lower(): name for name in table.names}
    chosen = next((plain[name] for name in PRICE_NAMES[kind] if name in plain), None)
    if chosen is None:
        raise DataError(
            f"{table.path}: which column holds the {kind}, {', '.join(table.names[:8])}? "
            f"Name it {PRICE_NAMES[kind][0]!r}"
        )
    return chosen


def write_prices(frame: pd.DataFrame, path: Path) -> None:
    """Write wide prices (T, N) to .csv, .csv.gz or .parquet, so that reading gives it back."""
    name = path.name.lower()
    if name.endswith((".parquet", ".pq")):
        frame.rename_axis("date").reset_index().to_parquet(path, index=False)
    elif name.endswith((".csv", ".csv.gz")):
        frame.rename_axis("date").to_csv(path, float_format="%.17g")
    else:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
