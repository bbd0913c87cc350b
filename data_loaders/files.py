"""Prices, features and memberships from files, folders, patterns and archives."""

from __future__ import annotations

import glob
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from data_loaders.machine import check_room
from data_loaders.panel import Panel
from data_loaders.reading.arrow_tables import SUFFIXES as TYPED
from data_loaders.reading.arrow_tables import read_arrow_file, read_partitioned
from data_loaders.reading.assembly import Frames, frame, read_frames
from data_loaders.reading.csv_tables import read_csv
from data_loaders.reading.frames import WIDE
from data_loaders.reading.meaning import Table
from data_loaders.reading.options import Options
from data_loaders.reading.returns import prices_from, simple_returns
from data_loaders.reading.text_layout import UNREADABLE, TextFile
from data_loaders.validation import DataError

TEXTS = (".csv", ".txt", ".tsv", ".dat", ".prn")
PACKED = (".gz", ".bz2", ".xz")
SUFFIXES = (*TEXTS, *(text + pack for text in (".csv", ".txt", ".tsv") for pack in PACKED), *TYPED)
KNOWN = (*SUFFIXES, ".zip")
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")

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
        span = []
        for name in ("from", "to"):
            text = row[name]
            day = pd.to_datetime(text, format="%Y-%m-%d", errors="coerce")
            if (day is pd.NaT and text) or text in ("now", "today"):
                raise DataError(
                    f"{path}, line {number}, column {name!r}: {text!r} is not a date (expected "
                    "year-month-day, as 2020-01-31, or nothing)"
                )
            span.append(day if text else None)
        start, end = span
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


def is_file_name(name: str) -> bool:
    """Whether a source is a file, a folder, a pattern or an archive."""
    plain = name.lower().rstrip("/")
    return bool(name) and (
        plain.endswith((*KNOWN, ".xlsx", ".xls")) or Path(name).expanduser().exists()
        or ("*" in name and ":" not in name)
    )  # fmt: skip


def is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def tables(path: Path, options: Options) -> Iterator[Table]:
    """The tables of a file, a folder, a pattern like ``data/*.csv``, or a zip archive."""
    path = path.expanduser()
    if is_pattern(str(path)) and not path.exists():
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not found:
            raise DataError(f"no file matches {path}")
    elif path.is_dir():
        parquet = [file for file in path.rglob("*.p*q*") if file.suffix in (".parquet", ".pq")]
        if parquet and all("=" in str(file.parent.relative_to(path)) for file in parquet):
            yield read_partitioned(path)
            return
        found = sorted(each for each in path.iterdir() if _is_table(each.name))
        if not found:
            raise DataError(f"{path} is a folder without a file that ends in {', '.join(KNOWN)}")
    else:
        yield from _tables_of_file(path, options)
        return
    for file in found:
        if file.is_file():
            yield from _tables_of_file(file, options)


def _tables_of_file(path: Path, options: Options) -> Iterator[Table]:
    name = path.name.lower()
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if name.endswith(SHEETS):
        raise DataError(f"{path} is a spreadsheet: save the sheet with the prices as CSV")
    if name.endswith(TYPED):
        yield read_arrow_file(path)
    elif not name.endswith(".zip"):
        yield read_csv(TextFile(path), options)
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [
                    member for member in sorted(archive.namelist())
                    if _is_table(member) and "__MACOSX" not in member
                ]  # fmt: skip
            if not members:
                raise DataError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
            for member in members:
                file = TextFile(path, member)
                if member.lower().endswith(TYPED):
                    yield read_arrow_file(Path(member), file.bytes().read())
                elif member.lower().endswith(TEXTS):
                    yield read_csv(file, options)
                else:
                    raise DataError(f"{file.name}: unpack this file first")
        except (zipfile.BadZipFile, OSError, io.UnsupportedOperation, NotImplementedError) as error:
            raise DataError(f"{path} is not a readable zip archive: {error}") from error


def _is_table(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.lower().endswith(KNOWN) and not base.startswith((".", "_"))


def read_all(path: Path, options: Options) -> Frames:
    """The fields of all tables, by date and asset; each asset is in one table only."""
    parts = [read_frames(table, options) for table in tables(path, options)]
    return parts[0] if len(parts) == 1 else _joined(path, parts)


def _joined(path: Path, parts: list[Frames]) -> Frames:
    """One frame (T, N) of each field; NaN where a table does not have it."""
    prices = {part.price for part in parts}
    if len(prices) > 1:
        raise DataError(f"{path}: the files have different prices: {', '.join(sorted(prices))}")
    columns = [name for part in parts for name in part.fields[part.price].columns]
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise DataError(f"{path}: in several files: {', '.join(twice[:5])}", assets=twice)
    indices = [part.fields[part.price].index for part in parts]
    dates = pd.DatetimeIndex(np.unique(np.concatenate([index.values for index in indices])))
    rows = [dates.searchsorted(index) for index in indices]
    ends = np.cumsum([part.fields[part.price].shape[1] for part in parts])
    fields = {}
    for name in dict.fromkeys(name for part in parts for name in part.fields):
        check_room(str(path), len(dates), len(columns))
        values = np.full((len(dates), len(columns)), np.nan)
        for part, places, end in zip(parts, rows, ends, strict=True):
            if name in part.fields:
                own = part.fields[name].to_numpy()
                values[places, end - own.shape[1] : end] = own
        fields[name] = frame(values, dates.rename("date"), columns)
    said = [note for part in parts for note in part.notes if not note.startswith("one asset")]
    notes = list(dict.fromkeys(said))
    if len(notes) > 5:
        notes[4:] = [f"and {len(notes) - 4} more notes like these"]
    return Frames(parts[0].price, fields, [f"{len(parts)} files", *notes], parts[0].chosen)


def first_lines(path: Path) -> list[str]:
    """The first three lines of a text file as they stand, at most 100 characters of each."""
    path = path.expanduser()
    if not path.is_file() or path.name.lower().endswith((*TYPED, ".zip")):
        return []
    try:
        with TextFile(path).text() as stream:
            return [line.rstrip()[:100] for line in islice(stream, 3)]
    except UNREADABLE:
        return []
