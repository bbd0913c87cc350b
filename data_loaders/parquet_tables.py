"""Parquet files, a block of columns at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_loaders.tables import Table, parse_dates, roles
from data_loaders.validation import DataError

BLOCK = 128  # columns converted at a time: large enough to be fast, small beside the array


def read_parquet(path: Path, date_format: str | None) -> Table:
    """Read a Parquet file; its types say what each column holds."""
    try:
        with pq.ParquetFile(path) as file:
            return _from_parquet(path, file, date_format)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def _from_parquet(path: Path, file: pq.ParquetFile, date_format: str | None) -> Table:
    schema = file.schema_arrow
    names, kinds = schema.names, schema.types
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"{path}: columns occur more than once: {', '.join(twice[:5])}")
    found = roles(
        path,
        names,
        dated=lambda i: pa.types.is_timestamp(kinds[i]) or pa.types.is_date(kinds[i]),
        text=lambda i: not _numeric(kinds[i]),
    )
    for i in found.numbers:
        if not _numeric(kinds[i]):
            raise DataError(f"{path}, column {names[i]!r}: holds {kinds[i]}, expected numbers")
    numbers = [names[i] for i in found.numbers]
    values = np.empty((file.metadata.num_rows, len(numbers)))
    for start in range(0, len(numbers), BLOCK):
        part = numbers[start : start + BLOCK]
        block = file.read(columns=part)
        columns = [block.column(name).cast(pa.float64()).to_numpy() for name in part]
        values[:, start : start + BLOCK] = np.stack(columns, axis=1)
    keys = [names[found.date]] + ([] if found.asset is None else [names[found.asset]])
    texts = file.read(columns=keys).to_pandas(ignore_metadata=True)

    def place(row: int) -> str:
        return f"{path}, row {row + 1}, column {keys[0]!r}"

    column = texts[keys[0]]
    if hasattr(column, "dt") and not isinstance(column.dtype, pd.PeriodDtype):
        dates = pd.DatetimeIndex(column, name="date").tz_localize(None).as_unit("ns")
        if dates.hasnans:
            raise DataError(f"{place(int(dates.isna().argmax()))}: there is no date")
    else:
        dates = parse_dates(column, date_format, place)
    assets = None if found.asset is None else texts[keys[1]].to_numpy(dtype=object)
    return Table(path, keys[0], dates, assets, numbers, values, lambda row: f"row {row + 1}")


def _numeric(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (types.is_floating, types.is_integer, types.is_decimal, types.is_null)
    return any(check(kind) for check in checks)
