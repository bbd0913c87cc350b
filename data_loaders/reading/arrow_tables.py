"""Typed tables: Parquet files and folders, Feather files, Arrow and Polars frames."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_loaders.machine import check_room
from data_loaders.reading import names
from data_loaders.reading.dates import are_mostly_dates
from data_loaders.reading.table import SAMPLE, Column, Kind, Table
from data_loaders.validation import DataError

BYTES = 32 << 20  # of columns converted at a time, at most
BLOCK = 128  # columns converted at a time: large enough to be fast, small beside the array
SUFFIXES = (".parquet", ".pq", ".feather", ".arrow")


def read_arrow_file(path: Path, content: Any = None) -> Table:
    """The table of a Parquet or Feather file, or of its ``content``."""
    source: Any = str(path) if content is None else pa.BufferReader(content)
    kind = "Parquet" if path.name.lower().endswith((".parquet", ".pq")) else "Feather"
    with _readable(str(path), kind):
        if kind == "Parquet":
            file = pq.ParquetFile(source)
            check_room(str(path), file.metadata.num_rows, file.metadata.num_columns)
            head = partial(_first_rows, file)
            return _table(
                str(path), file.schema_arrow, file.metadata.num_rows, head,
                lambda part: file.read(columns=part), path.name,
            )  # fmt: skip
        from pyarrow import feather

        whole = feather.read_table(source if content is not None else str(path))
        return _whole(str(path), whole, path.name)


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
        return _whole(str(folder), data.to_table(), folder.name)


def from_arrow(data: Any, source: str) -> Table:
    """The table of an object with Arrow's interface: a pyarrow Table, a Polars frame."""
    return _whole(source, pa.table(data), "")


def _whole(source: str, whole: pa.Table, stem: str) -> Table:
    head = whole.slice(0, SAMPLE).column
    return _table(source, whole.schema, whole.num_rows, head, whole.select, stem)


def _first_rows(file: pq.ParquetFile, name: str) -> pa.ChunkedArray:
    groups = range(min(1, file.num_row_groups))
    return file.read_row_groups(groups, columns=[name]).column(0).slice(0, SAMPLE)


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
        sample = _Sample(partial(head, name), source)
        columns.append(Column(names.levels(name), _kind(kind, sample), sample))

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


class _Sample(Sequence[str]):
    """The first texts of a column, made when they are looked at."""

    def __init__(self, head: Callable[[], pa.ChunkedArray], source: str):
        self._head, self._source = head, source

    @cached_property
    def _texts(self) -> list[str]:
        with _readable(self._source, "Parquet"):
            return ["" if value is None else str(value) for value in self._head().to_pylist()]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, row: Any) -> Any:
        return self._texts[row]


def _kind(kind: pa.DataType, sample: Sequence[str]) -> Kind:
    types = pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        return "date"
    if types.is_null(kind):
        return "empty"
    if _numeric(kind):
        return "number"
    if types.is_dictionary(kind):
        kind = kind.value_type
    texts = types.is_string(kind) or types.is_large_string(kind)
    return "date" if texts and are_mostly_dates([each for each in sample[:7] if each]) else "text"


def _numeric(kind: pa.DataType) -> bool:
    types = pa.types
    checks = (types.is_floating, types.is_integer, types.is_decimal, types.is_null)
    return any(check(kind) for check in checks)
