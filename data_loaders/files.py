"""Prices, features and memberships from files, and prices to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_loaders.panel import Panel
from data_loaders.reading.assembly import Frames, read_frames
from data_loaders.reading.frames import WIDE
from data_loaders.reading.many_files import KNOWN, read_all, tables
from data_loaders.reading.options import Options
from data_loaders.reading.returns import prices_from, simple_returns
from data_loaders.reading.text_layout import TextFile
from data_loaders.validation import DataError

SPELL = ("asset", "from", "to")


def read_panel(path: Path, options: Options, frames: Frames | None = None) -> Panel:
    """The panel of a file, a folder, a pattern or an archive.

    A wide table has one row per date and one column per asset. A long one has a column of assets
    (asset, ticker, symbol, ...), and one row per date and asset. A table of one asset has its
    fields as columns. Columns are matched by their names to fields: of the prices the adjusted
    close is taken, then close; the other fields become asset features. The panel's caveats say
    what was taken and what was left out.

    Args:
        frames: what ``read_all`` gave for the path, where it was read already.
    """
    frames = frames or read_all(path, options)
    prices = frames.fields.pop(frames.price)
    if options.layout == "wide":
        prices.attrs[WIDE] = True
    caveat = frames.caveat
    try:
        if options.kind == "returns":
            prices = prices_from(simple_returns(prices, options, str(path)))
            frames.fields = {k: v.reindex(prices.index) for k, v in frames.fields.items()}
        return Panel(prices, frames.fields, source=path.name, caveats=[caveat] if caveat else [])
    except DataError as error:
        known = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        known += _remedy(prices) if options.kind == "prices" else ""
        raise DataError(known, error.dates, error.assets) from error


def _remedy(prices: pd.DataFrame) -> str:
    """What to pass for prices of zero and below."""
    values = prices.to_numpy()
    negative = values < 0
    if negative.sum() > 0.2 * np.isfinite(values).sum():
        return ". Values on both sides of zero are usually returns: pass kind='returns'"
    if negative.any():
        lowest = sorted({f"{value:g}" for value in values[negative]}, key=float)
        marks = ",".join(lowest[:3])
        return (
            f". A negative price has no return: pass na='{marks}' to leave it out, or load a file "
            "of returns on the capital behind the position with kind='returns'"
        )
    if (values == 0).any():
        return (
            ". A price of zero is no trade: pass na='0' to leave it out, and "
            "delisting_return=-0.99 where it stands for a total loss"
        )
    return ""


def read_features(
    path: Path, dates: pd.DatetimeIndex, options: Options
) -> tuple[dict[str, pd.DataFrame], str]:
    """Features {column: (T, N)} of a long file, or {"": (T, columns)} of a wide one, on ``dates``.

    A date without a row takes the last row before it, never one after it; an empty cell stays NaN.
    Also a note if the file ends before the dates, else "".
    """
    table, *others = tables(path, options)
    if others:
        raise DataError(f"{path}: holds {1 + len(others)} tables, expected one")
    fields = read_frames(table, options, features=True).fields
    last = next(iter(fields.values())).index[-1]
    note = ""
    if last < dates[-1]:
        note = f"{path.name} ends on {last.date()}: its last row is used until {dates[-1].date()}."
    return {name: each.reindex(dates, method="ffill") for name, each in fields.items()}, note


def read_members(
    path: Path, dates: pd.DatetimeIndex, assets: pd.Index
) -> tuple[pd.DataFrame, list[str]]:
    """Membership (T, N) of bool from a CSV file with the columns asset, from and to.

    ``from`` and ``to`` are the first and the last day in the universe, both inclusive; an
    empty one is open. Also the names in the file that are not among ``assets``.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    rows = TextFile(path).lines(",")
    top, header = next(rows, (1, []))
    delimiter = next((each for each in ";\t|" if each in "".join(header)), None)
    if delimiter:
        rows = TextFile(path).lines(delimiter)
        top, header = next(rows)
    plain = [name.strip().lower() for name in header]
    if sorted(plain) != sorted(SPELL):
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
    """The day of a text like 2020-01-31; None for an empty one."""
    day = pd.to_datetime(text, format="%Y-%m-%d", errors="coerce")
    if (day is pd.NaT and text) or text in ("now", "today"):
        raise DataError(
            f"{path}, line {number}, column {column!r}: {text!r} is not a date (expected "
            "year-month-day, as 2020-01-31, or nothing)"
        )
    return day if text else None


def is_file_name(name: str) -> bool:
    """Whether a source is a file, a folder, a pattern or an archive."""
    plain = name.lower().rstrip("/")
    return bool(name) and (
        plain.endswith((*KNOWN, ".xlsx", ".xls")) or Path(name).expanduser().exists()
        or ("*" in name and ":" not in name)
    )  # fmt: skip
