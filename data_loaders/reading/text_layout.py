"""Text files, packed or not, and where the table is in them: delimiter, header, other lines."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import IO, TypeVar

from data_loaders.reading import names
from data_loaders.reading.dates import looks_like_date
from data_loaders.reading.numbers import is_number
from data_loaders.reading.options import Options
from data_loaders.validation import DataError

DELIMITERS = (",", ";", "\t", "|")
BLANKS = " "  # any number of them, where no other delimiter makes columns
HEADERS = 5  # header lines at most
TOP = 100  # lines in which the table must begin
SAMPLE = 200  # rows that are looked at to tell what a column holds
ALWAYS = 256 << 20  # bytes that may be unpacked, whatever the size of the file
RATIO = 200  # unpacked over packed bytes beyond that; tables of prices reach 20
T = TypeVar("T")
UNREADABLE = (UnicodeDecodeError, OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@dataclass(frozen=True)
class TextFile:
    """A text file, packed or not, or a member of a zip archive."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    def bytes(self) -> IO[bytes]:
        """The unpacked content."""
        if self.member is not None:
            with zipfile.ZipFile(self.path) as archive:
                about = archive.getinfo(self.member)  # no more is read than it says
                _check_unpacked(self.name, about.file_size, about.compress_size)
                return io.BytesIO(archive.read(about))
        openers = {".gz": gzip.GzipFile, ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}
        opener = openers.get(self.path.suffix.lower())
        if opener is None:
            return open(self.path, "rb")
        return io.BufferedReader(_Unpacked(self, opener(self.path)), 1 << 20)

    def encoding(self) -> str:
        with self.bytes() as stream:
            start = stream.read(4)
        return "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"

    def text(self) -> IO[str]:
        return io.TextIOWrapper(self.bytes(), encoding=self.encoding(), newline="")

    def lines(self, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """(number, cells) of the lines that are not empty; numbers start at 1."""
        number = 0
        try:
            with self.text() as stream:
                if delimiter == BLANKS:
                    yield from ((at, line.split()) for at, line in enumerate(stream, 1) if line)
                    return
                reader = csv.reader(stream, delimiter=delimiter)
                for cells in reader:
                    number = reader.line_num
                    if cells:
                        yield number, cells
        except (*UNREADABLE, csv.Error) as error:
            reason = f"after line {number}: {_reason(error)}"
            raise DataError(f"{self.name} is not a readable CSV file: {reason}") from error


class _Unpacked(io.RawIOBase):
    """An unpacked stream: a few kilobytes can hold terabytes of zeros, so it has a limit."""

    def __init__(self, file: TextFile, stream: IO[bytes]):
        self.file, self.stream, self.count = file, stream, 0
        self.packed = file.path.stat().st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self.stream.read(len(buffer))
        self.count += len(content)
        _check_unpacked(self.file.name, self.count, self.packed)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self.stream.close()
        super().close()


def _check_unpacked(name: str, unpacked: int, packed: int) -> None:
    if unpacked > max(ALWAYS, RATIO * packed):
        raise DataError(
            f"{name} unpacks to more than {ALWAYS >> 20} MB and {RATIO} times its own size, which "
            "no table of prices does; unpack it yourself if you know what is in it"
        )


@dataclass
class Layout:
    """What a text file looks like."""

    delimiter: str
    headers: list[tuple[int, list[str]]]  # (number, cells) of each line; none where names are given
    start: int  # number of the first line after them
    stop: int | None  # number of the first line that does not belong to the table
    width: int  # number of columns
    sample: list[list[str]]  # cells of the first rows
    names: str = ""  # of the columns, as the option gives them
    notes: list[str] = field(default_factory=list)  # what was left out
    chosen: dict[str, object] = field(default_factory=dict)  # what was detected, by option

    @property
    def levels(self) -> list[tuple[str, ...]]:
        """The levels of each column's name, by header lines."""
        rows = [cells for _, cells in self.headers]
        if not rows:
            given: list[tuple[str, ...]] = [(name.strip(),) for name in self.names.split(",")]
            return [*given, *[("",)] * self.width][: self.width]
        if len(rows) > 1 and not any(cell.strip() for cell in rows[-1][1:]):
            index, rows = rows[-1][0], rows[:-1]  # pandas' line with the name of the index
            rows = [[index, *cells[1:]] if at == 0 else ["", *cells[1:]]
                    for at, cells in enumerate(rows)]  # fmt: skip
        if len(rows) == 1:
            return [names.levels(cell) for cell in rows[0]]
        filled: list[
            Iterable[str]
        ] = [  # names of groups stand above the first of their columns only
            accumulate(cells, lambda left, cell: cell if cell.strip() else left)
            for cells in rows[:-1]
        ]
        found = []
        for column in zip(*filled, rows[-1], strict=False):
            parts = tuple(part.strip() for part in column if part.strip())
            found.append(parts or ("",))
        found[0] = (found[0][0],)
        return found


def find_layout(file: TextFile, options: Options) -> Layout:
    """Find the table in a text file."""
    delimiter, first = _delimiter(file, options)
    top = _head(_kept(file, delimiter, options, first))
    if not top:
        raise DataError(f"{file.name} is not a readable CSV file: it has no line")
    if options.table is not None:
        rows = list(_kept(file, delimiter, options, first))
        tables, number = _tables(rows), int(options.table)
        if number > len(tables):
            raise DataError(f"{file.name}: there are {len(tables)} tables, asked for {number}")
        start, stop = tables[number - 1]
        layout = _layout(file, delimiter, rows[start:stop], options)
        layout.stop = rows[stop][0] if stop < len(rows) else None
        span = f"{rows[start][0]} to {rows[stop - 1][0]}"
        layout.notes.append(f"table {number} of {len(tables)}, lines {span}")
        return layout
    tables = _tables(top)
    at = tables[0][0] if tables else 0
    if at and (header := _header_of_other_width(top[at - 1 :])) is not None:
        at -= 1
        top[at] = (top[at][0], header)
    layout = _layout(file, delimiter, top[at:], options)
    left = [number for number, _ in top[:at]]
    if left:
        layout.notes.append(_lines_left_out(left[0], left[-1]))
    return layout


def _header_of_other_width(rows: list[tuple[int, list[str]]]) -> list[str] | None:
    """A header with one cell less than its rows: of rows that end in a delimiter, or begin with
    dates that have no name."""
    header, body = rows[0][1], [cells for _, cells in rows[1:]]
    width = len(body[0])
    if len(header) != width - 1 or width < 3 or any(looks_like_date(cell) for cell in header):
        return None
    if not any(cells[-1].strip() for cells in body if len(cells) == width):
        return [*header, ""]
    return ["", *header] if 0 in _date_columns(body) else None


def _layout(
    file: TextFile, delimiter: str, rows: list[tuple[int, list[str]]], options: Options
) -> Layout:
    """The layout of a table whose header, or data, begins with the first of ``rows``."""
    count = _header_lines(rows, options)
    headers, data = rows[:count], rows[count:]
    if headers and not data:
        raise DataError(f"{file.name}, line {rows[-1][0]}: there is no row of prices after the "
                        "header")  # fmt: skip
    width = len((headers or data)[-1][1])
    if not headers and options.header is None:
        cells = data[0][1]
        shown = next((cell for cell in cells if looks_like_date(cell)), cells[0])
        raise DataError(
            f"{file.name}, line {data[0][0]}: {shown!r} is data; expected the names of the "
            f"columns: pass them as header={_likely_names([c for _, c in data])!r}, or as they are "
            "(columns with an empty name, or after the last, are left out)"
        )
    sample = [cells for _, cells in data[:SAMPLE] if len(cells) == width]
    given = "" if headers else str(options.header)
    layout = Layout(delimiter, headers, data[0][0], None, width, sample, given)
    layout.chosen["header"] = len(headers) if headers else given
    return layout


def _likely_names(rows: list[list[str]]) -> str:
    """Names for the columns of rows without a header: bars where the numbers are so."""
    found = []
    for cells in rows[:20]:
        try:
            opened, high, low, close = map(float, cells[1:5])
        except ValueError:
            continue
        found.append(low <= min(opened, close) and high >= max(opened, close) and low < high)
    if found and sum(found) > 0.9 * len(found):
        return "date,open,high,low,close,volume" if len(rows[0]) > 5 else "date,open,high,low,close"
    return ",".join(["date", *[f"ASSET{i}" for i in range(1, min(4, len(rows[0])))]])


def _header_lines(rows: list[tuple[int, list[str]]], options: Options) -> int:
    """How many of the first lines are no rows of data."""
    if isinstance(options.header, int):
        return options.header
    if options.header is not None or not rows:
        return 0
    body = [cells for _, cells in rows[HEADERS : HEADERS + 20]] or [c for _, c in rows[1:]]
    dated = _date_columns(body)
    if not dated:  # nothing is a date: one header line, and reading says what is wrong
        return 1
    if any(_is_date(rows[0][1], at) for at in dated):
        return 0
    count = 1
    for _, cells in rows[1:HEADERS]:
        if len(cells) != len(rows[0][1]) or any(_is_date(cells, at) for at in dated):
            break
        rest = [cell for cell in cells[1:] if cell.strip()]
        named = names.plain(cells[0]) in ("ticker", "price", "date", "datetime", "symbol", "dates")
        if not named and (any(map(is_number, rest)) or (cells[0].strip() and not rest)):
            break
        count += 1
    return count


def _date_columns(body: list[list[str]]) -> list[int]:
    """Positions of columns that hold dates in most rows, as text or as numbers of an epoch."""
    if not body:
        return []
    width = Counter(len(cells) for cells in body).most_common(1)[0][0]
    whole = [cells for cells in body if len(cells) == width]
    found = []
    for at in range(min(width, 12)):
        hits = sum(_is_date(cells, at) for cells in whole[:8])
        if hits * 2 > len(whole[:8]):
            found.append(at)
    return found


def _is_date(cells: list[str], at: int) -> bool:
    if at >= len(cells):
        return False
    text = cells[at].strip()
    if re.fullmatch(r"1\d{12}|1\d{15}|1\d{18}", text):
        return True  # an epoch in ms, us or ns
    if at == 0 and re.fullmatch(r"\d{10}(\d{3}){0,3}|(1[89]|20)\d\d(0[1-9]|1[0-2])?", text):
        return True  # an epoch, a month or a year; elsewhere such a number is a number
    return looks_like_date(text)


def _tables(rows: list[tuple[int, list[str]]]) -> list[tuple[int, int]]:
    """(first, last) positions of the blocks of lines with one number of cells and with dates."""
    blocks, start = [], 0
    for at in range(1, len(rows) + 1):
        if at < len(rows) and len(rows[at][1]) == len(rows[start][1]):
            continue
        body = [cells for _, cells in rows[start:at]]
        if len(body) >= 2 and len(body[0]) >= 2 and _date_columns(body[1:]):
            blocks.append((start, at))
        start = at
    return blocks


def after_table(file: TextFile, layout: Layout, options: Options) -> tuple[int, str] | None:
    """Where a table ends that does not go on to the end of its file, and a note.

    Only lines after the last row are left out, and only if none of them looks like a row.
    """
    rows = [row for row in _kept(file, layout.delimiter, options, 1) if row[0] >= layout.start]
    at = next((i for i, (_, cells) in enumerate(rows) if len(cells) != layout.width), len(rows))
    rest = rows[at:]
    if not at or not rest:
        return None
    dated = _date_columns([cells for _, cells in rows[max(0, at - 20) : at]])
    if _tables(rest):
        rows = list(_kept(file, layout.delimiter, options, 1))
        shown = [
            f"table={number} for lines {rows[start][0]} to {rows[stop - 1][0]}"
            for number, (start, stop) in enumerate(_tables(rows), 1)
        ]
        raise DataError(
            f"{file.name}, line {rest[0][0]}: another table follows; pass {' or '.join(shown[:6])}"
        )
    if any(_is_date(cells, column) for _, cells in rest for column in dated or [0]):
        return None
    return rest[0][0], _lines_left_out(rest[0][0], rest[-1][0])


def _head(lines: Iterable[T]) -> list[T]:
    """The first lines: enough to see where the table begins, few of a table of many columns."""
    found, size = [], 0
    for line in lines:
        found.append(line)
        size += len(line[1]) * 8 if isinstance(line, tuple) else len(str(line))
        if len(found) == TOP or (size > 100_000 and len(found) > HEADERS + 20):
            break
    return found


def _lines_left_out(first: int, last: int) -> str:
    return f"line {first} left out" if first == last else f"lines {first} to {last} left out"


def _kept(
    file: TextFile, delimiter: str, options: Options, first: int
) -> Iterator[tuple[int, list[str]]]:
    """The lines from ``first`` on that are not empty and not among those to skip."""
    for number, cells in file.lines(delimiter):
        skipped = any(low <= number <= high for low, high in options.skipped)
        if number >= first and not skipped and any(cell.strip() for cell in cells):
            yield number, cells


def _delimiter(file: TextFile, options: Options) -> tuple[str, int]:
    """The delimiter in which most lines have the same number of cells, and the first line to read.

    Excel writes a first line ``sep=;``.
    """
    try:
        with file.text() as stream:
            lines = [line for line in _head(stream) if line.strip()]
    except (*UNREADABLE, csv.Error) as error:
        raise DataError(f"{file.name} is not a readable CSV file: {_reason(error)}") from error
    if lines and (said := re.fullmatch(r'"?sep=(.)"?\s*', lines[0])):
        return said[1], 2
    scores = {}
    for delimiter in DELIMITERS:
        try:
            counts = Counter(len(cells) for cells in csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        width, rows = max(counts.items(), key=lambda pair: (pair[0] > 1, pair[1]), default=(0, 0))
        scores[delimiter] = (round(rows / max(1, len(lines)), 2), width) if width > 1 else (0.0, 0)
    best = max(scores, key=lambda each: scores[each], default=",")
    if scores.get(best, (0.0, 0))[1] < 2 and all(len(line.split()) > 1 for line in lines[-5:]):
        return BLANKS, 1
    return best, 1


def _reason(error: Exception) -> str:
    """Why a file cannot be read, with what to do where that is known."""
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return f"it is not text in UTF-8 (byte 0x{byte:02x}); save it as UTF-8"
    return str(error)
