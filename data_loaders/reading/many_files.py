"""Several files as one table of prices: folders, patterns, zip archives, partitioned Parquet."""

from __future__ import annotations

import glob
import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from data_loaders.machine import check_room
from data_loaders.reading.arrow_tables import SUFFIXES as TYPED
from data_loaders.reading.arrow_tables import read_arrow_file, read_partitioned
from data_loaders.reading.assembly import Frames, frame, read_frames
from data_loaders.reading.csv_tables import read_csv
from data_loaders.reading.options import Options
from data_loaders.reading.table import Table
from data_loaders.reading.text_layout import UNREADABLE, TextFile
from data_loaders.reading.unpacking import member
from data_loaders.validation import DataError

TEXTS = (".csv", ".txt", ".tsv", ".dat", ".prn")
PACKED = (".gz", ".bz2", ".xz")
SUFFIXES = (*TEXTS, *(text + pack for text in (".csv", ".txt", ".tsv") for pack in PACKED), *TYPED)
KNOWN = (*SUFFIXES, ".zip")
SHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


def is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def tables(path: Path, options: Options) -> Iterator[Table]:
    """The tables of a file, a folder, a pattern like ``data/*.csv``, or a zip archive."""
    path = path.expanduser()
    if is_pattern(str(path)) and not path.exists():
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not found:
            raise DataError(f"no file matches {path}")
        yield from _each(found, options)
    elif path.is_dir():
        parquet = [file for file in path.rglob("*.p*q*") if file.suffix in (".parquet", ".pq")]
        if parquet and all("=" in str(file.parent.relative_to(path)) for file in parquet):
            yield read_partitioned(path)
            return
        found = sorted(each for each in path.iterdir() if _is_table(each.name))
        if not found:
            raise DataError(f"{path} is a folder without a file that ends in {', '.join(KNOWN)}")
        yield from _each(found, options)
    elif not path.is_file():
        raise DataError(f"there is no file {path}")
    elif path.name.lower().endswith(".zip"):
        yield from _members(path, options)
    elif path.name.lower().endswith(SHEETS):
        raise DataError(f"{path} is a spreadsheet: save the sheet with the prices as CSV")
    elif path.name.lower().endswith(TYPED):
        yield read_arrow_file(path)
    else:
        yield read_csv(TextFile(path), options)


def _is_table(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.lower().endswith(KNOWN) and not base.startswith((".", "_"))


def _each(paths: Iterable[Path], options: Options) -> Iterator[Table]:
    for path in paths:
        if path.is_file():
            yield from tables(path, options)


def _members(path: Path, options: Options) -> Iterator[Table]:
    try:
        with zipfile.ZipFile(path) as archive:
            found = [
                name for name in sorted(archive.namelist())
                if _is_table(name) and "__MACOSX" not in name
            ]  # fmt: skip
            if not found:
                raise DataError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
            for name in found:
                if name.lower().endswith(TYPED):
                    yield read_arrow_file(Path(name), member(archive, name))
                elif name.lower().endswith(TEXTS):
                    yield read_csv(TextFile(path, name), options)
                else:
                    raise DataError(f"{path}/{name}: unpack this file first")
    except (zipfile.BadZipFile, OSError, io.UnsupportedOperation, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable zip archive: {error}") from error


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
    notes = [f"{len(parts)} files", *_common_notes(parts)]
    return Frames(parts[0].price, fields, notes, parts[0].chosen)


def _common_notes(parts: list[Frames]) -> list[str]:
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    notes = [note for note in notes if not note.startswith("one asset")]
    return notes if len(notes) <= 5 else [*notes[:4], f"and {len(notes) - 4} more notes like these"]
