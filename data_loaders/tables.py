"""A file as a table: one column of dates, at most one of asset names, the rest numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_loaders.validation import DataError

DATE_NAMES = ("date", "datetime", "timestamp")
ASSET_NAMES = ("asset", "ticker", "symbol", "instrument")
DATE_FORMATS = (
    "ISO8601", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d-%b-%Y",
    "%d %b %Y", "%b %d, %Y",
)  # fmt: skip
OFFSET = r"(?<=:\d\d)(\.\d+)?\s*(Z|[+-]\d\d:?\d\d)$"  # of a time of day: 00:00:00-05:00


@dataclass(frozen=True)
class Table:
    """Columns of a file.

    Attributes:
        path: of the file, for messages.
        date: name of the column of dates.
        dates: (rows,) in the order of the file.
        assets: (rows,) names of a long file; None for a wide one.
        names: (C,) of the columns of numbers.
        values: (rows, C) float64.
        line: says where a row stands, for messages: "line 7".
    """

    path: Path
    date: str
    dates: pd.DatetimeIndex
    assets: np.ndarray | None
    names: list[str]
    values: np.ndarray
    line: Callable[[int], str]


@dataclass(frozen=True)
class Roles:
    """Positions of the columns of a file by what they hold."""

    date: int
    asset: int | None
    numbers: list[int]


def roles(
    path: Path, names: Sequence[str], dated: Callable[[int], bool], text: Callable[[int], bool]
) -> Roles:
    """Which column holds what; ``dated`` and ``text`` look at what a column holds."""
    plain = [name.strip().lower() for name in names]
    named = [i for i, name in enumerate(plain) if name in DATE_NAMES]
    date = next((i for i in named or range(len(plain)) if dated(i)), named[0] if named else 0)
    asset = next(
        (i for i, name in enumerate(plain) if name in ASSET_NAMES and i != date and text(i)), None
    )
    numbers = [i for i in range(len(plain)) if i not in (date, asset)]
    if not numbers:
        raise DataError(f"{path} needs a column of dates and at least one of prices")
    return Roles(date, asset, numbers)


def is_date(value: str) -> bool:
    """Whether the text is a date in one of the known formats; a short number is none."""
    if re.fullmatch(r"[+-]?\d{0,7}(\.\d*)?", value.strip()):
        return False
    return any(True for _ in _readings(pd.Series([value])))


def parse_dates(
    texts: pd.Series, date_format: str | None, place: Callable[[int], str]
) -> pd.DatetimeIndex:
    """Dates (rows,) of texts (rows,); ``place(row)`` says where a row stands.

    A time of day keeps its wall clock: its offset from UTC is dropped. Raises ``DataError`` for
    what is no date, and for dates that are different ones day first and month first.
    """
    codes, unique = pd.factorize(texts, use_na_sentinel=True)
    if (codes < 0).any():
        raise DataError(f"{place(int(np.argmin(codes)))}: there is no date")
    distinct = pd.Series(unique, dtype=object).astype(str)
    found = list(_readings(distinct, date_format))
    if not found:
        expected = date_format or "year-month-day, as 2020-01-31"
        formats = [date_format] if date_format else DATE_FORMATS
        bad = min((_parsed(distinct, form).isna().to_numpy() for form in formats), key=np.sum)
        row = int(np.flatnonzero(bad[codes])[0])
        raise DataError(f"{place(row)}: {texts.iloc[row]!r} is not a date (expected {expected})")
    (first, dates), *others = found
    for form, other in others:
        if not other.equals(dates):
            row = int(np.flatnonzero((other != dates).to_numpy()[codes])[0])
            raise DataError(
                f"{place(row)}: {texts.iloc[row]!r} may be {dates[codes[row]].date()} or "
                f"{other[codes[row]].date()}: pass date_format={first!r} or {form!r}"
            )
    return pd.DatetimeIndex(dates.to_numpy()[codes], name="date")


def _readings(texts: pd.Series, date_format: str | None = None) -> Iterator[tuple[str, pd.Series]]:
    """The formats that read every text, with what they read."""
    for form in [date_format] if date_format else DATE_FORMATS:
        parsed = _parsed(texts, form)
        if not parsed.isna().any():
            yield form, parsed


def _parsed(texts: pd.Series, form: str) -> pd.Series:
    """Dates in nanoseconds, NaT where the format does not fit."""
    texts = texts.str.strip()
    texts = texts.mask(texts.str.lower().isin(["now", "today"]))  # pandas takes the clock's
    if form == "ISO8601":
        texts = texts.str.replace(OFFSET, r"\1", regex=True)
    try:
        return pd.to_datetime(texts, format=form, errors="coerce").dt.as_unit("ns")
    except (ValueError, TypeError, OverflowError, AttributeError):
        return pd.Series(pd.NaT, index=texts.index)
