"""Typed tables: Parquet files and folders, Feather files, Arrow and Polars frames."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_loaders.machine import check_room
from data_loaders.reading import names
from data_loaders.reading.dates import are_mostly_dates
from data_loaders.reading.meaning import Column, Kind, Table
from data_loaders.reading.text_layout import SAMPLE
from data_loaders.validation import DataError

BYTES = 32 << 20  # of columns converted at a time, at most
BLOCK = 128  # columns converted at a time: large enough to be fast, small beside the array
SUFFIXES = (".parquet", ".pq", ".feather", ".arrow")


def read_arrow_file(path: Path, content: Any = None) -> Table:
    """The table of a Parquet or Feather file, or of its ``content``."""
    source: Any = str(path) if content is None else pa.BufferReader(content)
    if not path.name.lower().endswith((".parquet", ".pq")):
        from pyarrow import feather

        with _readable(str(path), "Feather"):
            return from_arrow(feather.read_table(source), str(path), path.name)
    with _readable(str(path), "Parquet"):
        file = pq.ParquetFile(source)
        about = file.metadata
        check_room(str(path), about.num_rows, about.num_columns)

        def head(name: str) -> pa.ChunkedArray:
            groups = range(min(1, about.num_row_groups))
            return file.read_row_groups(groups, columns=[name]).column(0).slice(0, SAMPLE)

        def read(names: list[str]) -> pa.Table:
            return file.read(columns=names)

        return _table(str(path), file.schema_arrow, about.num_rows, head, read, path.name)


@contextlib.contextmanager
def _readable(source: str, kind: str) -> Iterator[None]:
    """Errors of Arrow as ``DataError``."""
    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, OverflowError) as error:
        raise DataError(f"{source} is not a readable {kind} file: {error}") from error


def read_partitioned(folder: Path) -> Table:
    """The table of a folder of Parquet files, with what its folders say, as text: symbol=005930."""
    from pyarrow import dataset

    found = sorted(folder.rglob("*.parquet")) + sorted(folder.rglob("*.pq"))
    keys = [part.partition("=")[0] for part in found[0].relative_to(folder).parts if "=" in part]
    schema = pa.schema([(key, pa.string()) for key in keys])
    with _readable(str(folder), "folder of Parquet"):
        parts = dataset.partitioning(schema, flavor="hive")
        files = [str(file) for file in found]
        data = dataset.dataset(
            files, format="parquet", partitioning=parts, partition_base_dir=str(folder)
        )
        return from_arrow(data.to_table(), str(folder), folder.name)


def from_arrow(data: Any, source: str, stem: str = "") -> Table:
    """The table of an object with Arrow's interface: a pyarrow Table, a Polars frame."""
    whole = pa.table(data)
    head = whole.slice(0, SAMPLE).column
    return _table(source, whole.schema, whole.num_rows, head, whole.select, stem)


def _table(
    source: str, schema: pa.Schema, rows: int, head: Callable[[str], pa.ChunkedArray],
    read: Callable[[list[str]], pa.Table], stem: str,
) -> Table:  # fmt: skip
    twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if twice:
        raise DataError(f"{source}: columns occur more than once: {', '.join(twice[:5])}")
    labels, kinds = schema.names, schema.types  # each a new list
    columns = []
    for name, kind in zip(labels, kinds, strict=True):
        texts = cache(partial(_sample, head, name, source))
        columns.append(Column(names.levels(name), _kind(kind, texts), texts))

    @_readable(source, "Parquet")
    def values(keys: Sequence[int], numbers: Sequence[int]) -> tuple[list[pd.Series], np.ndarray]:
        for i in numbers:
            if not _numeric(kinds[i]):
                raise DataError(
                    f"{source}, column {columns[i].name!r}: holds {kinds[i]}, expected numbers"
                )
        out = np.empty((rows, len(numbers)))
        width = max(1, min(BLOCK, BYTES // (8 * max(1, rows))))
        for start in range(0, len(numbers), width):
            part = [labels[i] for i in numbers[start : start + width]]
            block = read(part)
            arrays = [block.column(name).cast(pa.float64()).to_numpy() for name in part]
            out[:, start : start + width] = np.stack(arrays, axis=1)
        texts = read([labels[i] for i in keys]).to_pandas(ignore_metadata=True)
        categories = texts.select_dtypes("category").columns
        texts = texts.astype(dict.fromkeys(categories, object))
        return [texts[labels[i]] for i in keys], out

    return Table(source, columns, values, stem=stem)


def _sample(head: Callable[[str], pa.ChunkedArray], name: str, source: str) -> list[str]:
    with _readable(source, "Parquet"):
        return ["" if value is None else str(value) for value in head(name).to_pylist()]


def _kind(kind: pa.DataType, texts: Callable[[], list[str]]) -> Kind:
    types = pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        return "date"
    if types.is_null(kind):
        return "empty"
    if _numeric(kind):
        return "number"
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind)):
        return "text"
    return "date" if are_mostly_dates([each for each in texts()[:7] if each]) else "text"


def _numeric(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (types.is_floating, types.is_integer, types.is_decimal, types.is_null)
    return any(check(kind) for check in checks)
