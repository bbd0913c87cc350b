"""load("sp500" | "prices.csv"): one call for every source of prices."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from data_loaders.panel import DateLike, Panel
from data_loaders.validation import DataError


def load(source: str | Path, start: DateLike | None = None, end: DateLike | None = None) -> Panel:
    """Load a panel of prices.

    Args:
        source: ``"sp500"`` (20 large US stocks, daily from 1990 to 2022, bundled with
            skfolio: nothing is fetched), or the path of a CSV file with one row a date and
            one column an asset; its dates stand in a column named "date", or in the first.
        start: first date to keep, inclusive.
        end: last date to keep, inclusive.

    Raises:
        DataError: an unknown source (with the nearest names), an unreadable file, an empty
            span, or anything that ``Panel`` refuses.
    """
    name = str(source)
    if name in SOURCES:
        panel = SOURCES[name]()
    elif name.lower().endswith((".csv", ".csv.gz")):
        panel = _csv(Path(source))
    else:
        near = difflib.get_close_matches(name.lower(), SOURCES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"unknown data source {name!r}: {hint}"
            f"known are {', '.join(map(repr, SOURCES))} and the path of a .csv file"
        )
    kept = panel
    if start is not None:
        kept = kept.since(_date(start, "start"))
    if end is not None:
        kept = kept.until(_date(end, "end"))
    if not len(kept):
        raise DataError(
            f"{name} has no row from {start or 'its start'} to {end or 'its end'}: "
            f"it spans {panel.dates[0].date()} to {panel.dates[-1].date()}"
        )
    return Panel(kept.prices, kept.asset_features, kept.market_features, kept.source, kept.caveats)


def _sp500() -> Panel:
    from skfolio.datasets import load_sp500_dataset

    return Panel(
        load_sp500_dataset(),
        source="20 S&P 500 stocks bundled with skfolio (adjusted daily closes)",
        caveats=(
            "The 20 stocks are hand-picked survivors: each was still large in 2022. Every "
            "long-only strategy, 1/N above all, looks far better on them than it could have been.",
            "Prices before 2000 are rounded after adjustment, so early returns are coarse.",
        ),
    )


def _csv(path: Path) -> Panel:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        table = pd.read_csv(path, float_precision="round_trip")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable CSV file: {error}") from error
    if table.shape[1] < 2:
        raise DataError(f"{path} needs a column of dates and at least one of prices")
    column = next((name for name in table if str(name).strip().lower() == "date"), table.columns[0])
    dates = pd.to_datetime(table[column], errors="coerce", format="ISO8601")
    if dates.isna().any():
        row = int(dates.isna().to_numpy().argmax())
        raise DataError(
            f"{path}, line {row + 2}, column {column!r}: {table[column].iloc[row]!r} is not a date "
            "(expected year-month-day, as 2020-01-31)"
        )
    prices = table.drop(columns=column).set_index(pd.DatetimeIndex(dates, name="date"))
    try:
        return Panel(prices, source=str(path.name))
    except DataError as error:
        raise DataError(f"{path}: {error}", error.dates, error.assets) from error


def _date(value: DateLike, name: str) -> pd.Timestamp:
    try:
        return pd.Timestamp(value)
    except ValueError:
        raise DataError(f"{name}={value!r} is not a date (expected year-month-day)") from None


SOURCES: dict[str, Callable[[], Panel]] = {"sp500": _sp500}
