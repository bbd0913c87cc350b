"""CSV files: a fast way in for what is well-formed, and a slow one that says what is not."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as arrow

from data_loaders.tables import Roles, Table, is_date, parse_dates, roles
from data_loaders.validation import DataError

DELIMITERS = (",", ";", "\t", "|")
MISSING = ["", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "-"]
DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
CHUNK = 4 << 20  # bytes of text parsed at a time
UNREADABLE = (UnicodeDecodeError, OSError, EOFError, zlib.error)


def read_csv(path: Path, date_format: str | None) -> Table:
    """Read a CSV file, packed or not: UTF-8, a header line, any of the usual delimiters."""
    rows = numbered_lines(path)
    top, header = next(rows, (0, []))
    example = next(rows, (0, []))[1]
    if not header:
        raise DataError(f"{path} is not a readable CSV file: it has no line")
    if is_date(header[0]) and len(header) > 1 and _is_number(header[1]):
        raise DataError(
            f"{path}, line {top}: {header[0]!r} is data; expected the names of the columns"
        )
    example += [""] * (len(header) - len(example))
    found = roles(path, header, lambda i: is_date(example[i]), lambda i: not _is_number(example[i]))

    def line(row: int) -> str:
        numbers = (number for number, _ in numbered_lines(path))
        return f"line {next(islice(numbers, row + 1, None), top + row + 1)}"

    keys, values = _parsed(path, top, header, found)
    name = header[found.date]
    if not len(values):
        raise DataError(f"{path}, line {top}: there is no row of prices after the header")
    texts = pd.Series(keys[0], dtype=object)
    dates = parse_dates(texts, date_format, lambda row: f"{path}, {line(row)}, column {name!r}")
    assets = None if found.asset is None else keys[1]
    return Table(path, name, dates, assets, [header[i] for i in found.numbers], values, line)


def _parsed(
    path: Path, top: int, header: list[str], found: Roles
) -> tuple[list[np.ndarray], np.ndarray]:
    """Texts (rows,) of the dates and assets, and the numbers (rows, C), below line ``top``."""
    columns = [str(i) for i in range(len(header))]  # by position: names may occur twice
    keys = [found.date] if found.asset is None else [found.date, found.asset]
    texts: list[list[np.ndarray]] = [[] for _ in keys]
    numbers = np.empty((1024, len(found.numbers)))
    rows = 0
    try:
        reader = arrow.open_csv(
            pa.input_stream(str(path), compression="gzip" if _packed(path) else None),
            arrow.ReadOptions(column_names=columns, skip_rows=top, block_size=CHUNK),
            arrow.ParseOptions(delimiter=_delimiter(path)),
            arrow.ConvertOptions(
                column_types={c: pa.string() for c in columns}
                | {columns[i]: pa.float64() for i in found.numbers},
                null_values=MISSING,
                strings_can_be_null=True,
            ),
        )
        for batch in reader:
            stop = rows + batch.num_rows
            if stop > len(numbers):
                numbers.resize((stop + stop // 8 + 1, numbers.shape[1]), refcheck=False)
            for at, i in enumerate(found.numbers):
                numbers[rows:stop, at] = batch.column(i).to_numpy(zero_copy_only=False)
            for text, i in zip(texts, keys, strict=True):
                text.append(batch.column(i).to_numpy(zero_copy_only=False))
            rows = stop
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _diagnosed(path, top, header, found, error) from None
    numbers.resize((rows, numbers.shape[1]), refcheck=False)
    empty = np.empty(0, dtype=object)
    return [np.concatenate([empty, *text]) for text in texts], numbers


def _diagnosed(
    path: Path, top: int, header: list[str], found: Roles, error: Exception
) -> DataError:
    """The error with the first line that cannot be read, and why; slow, and only used then."""
    for number, cells in numbered_lines(path):
        if len(cells) != len(header):
            return DataError(
                f"{path}, line {number}: has {len(cells)} columns, expected {len(header)} as in "
                f"the header; the line starts {_short(','.join(cells))}"
            )
        if number == top:
            continue
        for i in found.numbers:
            if cells[i] not in MISSING and not _is_number(cells[i]):
                comma = "; write its comma as a point" if DECIMAL_COMMA.fullmatch(cells[i]) else ""
                return DataError(
                    f"{path}, line {number}, column {header[i]!r}: {_short(cells[i])} is not a "
                    f"number (expected digits and a decimal point, as 1234.5{comma})",
                    assets=[header[i]],
                )
    reason = " ".join(str(error).split())
    return DataError(f"{path} is not a readable CSV file: {reason[:300]}")


def _is_number(text: str) -> bool:
    try:
        pa.scalar(text).cast(pa.float64())
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return False
    return True


def numbered_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of the lines that are not empty; numbers start at 1."""
    delimiter, number = _delimiter(path), 0
    with _opened(path) as stream:
        try:
            reader = csv.reader(stream, delimiter=delimiter)
            for cells in reader:
                number = reader.line_num
                if cells:
                    yield number, cells
        except (*UNREADABLE, csv.Error) as error:
            reason = f"after line {number}: {_reason(error)}"
            raise DataError(f"{path} is not a readable CSV file: {reason}") from error


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in words that say what to do where that is known."""
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return f"it is not text in UTF-8 (byte 0x{byte:02x}); save it as UTF-8"
    return str(error)


def _delimiter(path: Path) -> str:
    """The one that splits the header into the most columns."""
    with _opened(path) as stream:
        try:
            header = next((line for line in stream if line.strip()), "")
        except UNREADABLE as error:
            raise DataError(f"{path} is not a readable CSV file: {_reason(error)}") from error
    return max(DELIMITERS, key=header.count)


def _packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _opened(path: Path) -> IO[str]:
    if _packed(path):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
