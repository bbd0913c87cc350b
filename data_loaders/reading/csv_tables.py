"""Text files as tables: a fast way for well-formed ones, a slow one that finds what is wrong."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as arrow

from data_loaders.reading import names
from data_loaders.reading.dates import are_mostly_dates
from data_loaders.reading.meaning import Column, Kind, Table
from data_loaders.reading.numbers import (
    is_number,
    parse_numbers,
    shown,
    thousands_jump,
    two_readings,
)
from data_loaders.reading.options import Options
from data_loaders.reading.text_layout import BLANKS, Layout, TextFile, after_table, find_layout
from data_loaders.validation import DataError

CHUNK = 4 << 20  # bytes of text parsed at a time
UNPARSED = (pa.ArrowException, OSError, ValueError)


def read_csv(file: TextFile, options: Options) -> Table:
    """The table of a text file: UTF-8 or UTF-16, any of the usual delimiters."""
    layout = find_layout(file, options)
    marks = set(options.marks)
    columns = []
    samples = list(zip(*layout.sample, strict=True)) or [()] * layout.width
    for levels, cells in zip(layout.levels, samples, strict=False):
        texts = [cell.strip() for cell in cells]
        known = list(islice((text for text in texts if text not in marks), 7))
        kind: Kind = "text"
        if are_mostly_dates(known):
            kind = "date"
        elif known and sum(map(is_number, known)) * 2 >= len(known):
            kind = "number"
        elif not known and not (any(texts) and names.asset_rank(levels[0]) is not None):
            kind = "empty"  # and not assets called NA
        columns.append(Column(levels, kind, texts.copy))
    reader = _Reader(file, layout, options, columns)
    stem = (file.member or file.path.name).rpartition("/")[2]
    return Table(
        file.name, columns, reader.read, reader.place, layout.notes, stem=stem, chosen=layout.chosen
    )


class _Reader:
    """Reads the columns of one file."""

    def __init__(self, file: TextFile, layout: Layout, options: Options, columns: list[Column]):
        self.file, self.layout, self.options, self.columns = file, layout, options, columns

    @property
    def _delimiter(self) -> str:
        return "," if self.layout.delimiter == BLANKS else self.layout.delimiter

    def place(self, row: int) -> str:
        numbers = (number for number, _ in self._rows())
        return f"line {next(islice(numbers, row, None), self.layout.start + row)}"

    def read(
        self, keys: Sequence[int], numbers: Sequence[int]
    ) -> tuple[list[pd.Series], np.ndarray]:
        """Texts (rows,) of the keys, and numbers (rows, C)."""
        if self.options.decimal == "," or self.options.thousands:
            texts, values = self._slowly(keys, numbers, None)
        else:
            try:
                texts, values = self._parse(keys, numbers)
            except UNPARSED as error:
                texts, values = self._slowly(keys, numbers, error)
            else:
                if not self.options.decimal and (found := thousands_jump(values)) is not None:
                    row, position = found[0], numbers[found[1]]
                    cells = next(islice((cells for _, cells in self._rows()), row, None))
                    if "." in (text := cells[position].strip()):
                        name = self.columns[position].name
                        where = f"{self.file.name}, {self.place(row)}, column {name!r}"
                        raise two_readings(where, text, ".")
        if not len(values):
            header = self.layout.headers[-1][0] if self.layout.headers else self.layout.start
            raise DataError(
                f"{self.file.name}, line {header}: there is no row of prices after the header"
            )
        return texts, values

    def _parse(
        self, keys: Sequence[int], numbers: Sequence[int]
    ) -> tuple[list[pd.Series], np.ndarray]:
        """As ``read``, by pyarrow, a block at a time into one array."""
        columns = [str(i) for i in range(self.layout.width)]  # by position: names may occur twice
        types = {str(i): pa.string() for i in keys} | {str(i): pa.float64() for i in numbers}
        convert = arrow.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=self.options.marks,
            strings_can_be_null=False,
        )
        texts: list[list[np.ndarray]] = [[] for _ in keys]
        values = np.empty((1024, len(numbers)))
        rows = 0
        with self._stream() as (stream, skip):
            read = arrow.ReadOptions(column_names=columns, skip_rows=skip, block_size=CHUNK)
            parse = arrow.ParseOptions(delimiter=self._delimiter)
            for batch in arrow.open_csv(stream, read, parse, convert):
                stop = rows + batch.num_rows
                if stop > len(values):
                    values.resize((stop + stop // 8 + 1, values.shape[1]), refcheck=False)
                for at, text in enumerate(texts):  # the keys come first
                    text.append(batch.column(at).to_numpy(zero_copy_only=False))
                for at in range(len(numbers)):
                    column = batch.column(len(keys) + at)
                    values[rows:stop, at] = column.to_numpy(zero_copy_only=False)
                rows = stop
        values.resize((rows, values.shape[1]), refcheck=False)
        empty = np.empty(0, dtype=object)
        return [pd.Series(np.concatenate([empty, *text]), dtype=object) for text in texts], values

    def _slowly(
        self, keys: Sequence[int], numbers: Sequence[int], error: Exception | None
    ) -> tuple[list[pd.Series], np.ndarray]:
        """Lines after the table left out, and numbers in another convention than 1234.5."""
        if self.layout.stop is None and (end := after_table(self.file, self.layout, self.options)):
            self.layout.stop, note = end
            self.layout.notes.append(note)
            if error is not None:
                with contextlib.suppress(*UNPARSED):
                    return self._parse(keys, numbers)
        try:
            texts, _ = self._parse([*keys, *numbers], [])
        except UNPARSED as failed:
            width = self.layout.width
            for number, cells in self._rows():
                if len(cells) != width:
                    raise DataError(
                        f"{self.file.name}, line {number}: has {len(cells)} columns, expected "
                        f"{width} as in the header; the line starts {shown(','.join(cells))}. To "
                        f"leave it out, pass skip='{number}-{number}'"
                    ) from None
            reason = " ".join(str(failed).split())
            raise DataError(
                f"{self.file.name} is not a readable CSV file: {reason[:300]}"
            ) from None
        where = [self.columns[i].name for i in numbers]

        def at(row: int, column: int) -> str:
            return f"{self.file.name}, {self.place(row)}, column {where[column]!r}"

        values, convention = parse_numbers(texts[len(keys) :], self.options, at)
        self.layout.chosen.update(convention)
        return texts[: len(keys)], values

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """(number, cells) of the rows of data."""
        for number, cells in self.file.lines(self.layout.delimiter):
            if self.layout.stop is not None and number >= self.layout.stop:
                return
            skipped = any(low <= number <= high for low, high in self.options.skipped)
            if number >= self.layout.start and not skipped:
                yield number, cells

    @contextlib.contextmanager
    def _stream(self) -> Iterator[tuple[Any, int]]:
        """Bytes that pyarrow reads, and how many of their lines come before the data."""
        layout, file = self.layout, self.file
        cut = layout.stop is not None or any(top >= layout.start for _, top in self.options.skipped)
        if cut or layout.delimiter == BLANKS or file.encoding() == "utf-16":
            text = io.StringIO()
            csv.writer(text, delimiter=self._delimiter).writerows(
                cells for _, cells in self._rows() if any(cell.strip() for cell in cells)
            )
            yield io.BytesIO(text.getvalue().encode()), 0
            return
        skip = layout.headers[-1][0] if layout.headers else layout.start - 1
        suffix = file.path.suffix.lower()
        if file.member is None and suffix not in (".gz", ".bz2", ".xz"):
            with pa.input_stream(str(file.path), compression=None) as stream:
                yield stream, skip
        else:
            with file.bytes() as stream:
                yield stream, skip
