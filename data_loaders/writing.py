"""Write files: a file or folder whole or not at all, and CSV without formulas of a spreadsheet."""

from __future__ import annotations

import glob
import gzip
import os
import re
import shutil
import socket
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# What Excel, LibreOffice or Google Sheets takes for the beginning of a formula, behind blanks and
# quotation marks or not: the signs, their full-width forms, tab, carriage return and line feed.
FORMULA = re.compile("[\\s'\"\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20\\t\\r\\n]")


@contextmanager
def atomic(path: Path, durable: bool = False) -> Iterator[Path]:
    """A path beside ``path`` to write to, renamed to ``path`` when the block ends without an error.

    The block creates a file or a folder there. Until it has ended, whatever was at ``path`` stays
    as it was; a process that is killed leaves it so too, and a hidden file named ".NAME-*.part"
    (see ``remove_unfinished`` and ``remove_abandoned``). Several processes may write the same path:
    the last one wins.

    Args:
        durable: flush to the disk before the renaming and after it, to survive a power failure.
    """
    scratch = _scratch(path)
    try:
        yield scratch
        if durable:
            _flush(scratch)
        if path.is_dir():  # not removed first: a process that is killed leaves all of one
            old = _scratch(path)
            path.replace(old)
            scratch.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            scratch.replace(path)
        if durable:
            _flush(path.parent)
    except BaseException:
        _remove(scratch)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody else is writing to."""
    for scratch in folder.glob(".*.part"):
        _remove(scratch)


def remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine that were killed while writing ``path`` left beside it.

    For a folder that others may be writing to. Where it cannot be asked whether a process runs, it
    is taken to.
    """
    for scratch in path.parent.glob(f".{glob.escape(path.name)}-{_machine()}-*.part"):
        try:
            if os.name == "posix":
                os.kill(int(scratch.name.split("-")[-2]), 0)
        except ProcessLookupError:
            _remove(scratch)
        except PermissionError:  # another user's
            pass


def _scratch(path: Path) -> Path:
    """A path beside ``path`` that nobody else has, and that says who is writing."""
    unique = uuid.uuid4().hex[:8]
    return path.with_name(f".{path.name}-{_machine()}-{os.getpid()}-{unique}.part")


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def safe_text(value: Any) -> Any:
    """A text that a spreadsheet shows as it is, with an apostrophe in front where it must; else
    the value."""
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    try:
        float(value)
        is_number = value.isascii() and value == value.strip()
    except ValueError:
        is_number = False
    return value if is_number else "'" + value


def as_written(text: str) -> str:
    """A text as it was before ``safe_text``."""
    return text[1:] if text[:1] == "'" and safe_text(text[1:]) == text else text


def safe_csv(frame: pd.DataFrame, index: bool = True, **rest: Any) -> str:
    """``frame.to_csv``, with all texts in cells, index and names of columns made safe."""
    import pandas as pd

    frame = frame.copy(deep=False)
    for place in range(frame.shape[1]):
        column = frame.iloc[:, place]
        if column.dtype == object or pd.api.types.is_string_dtype(column):
            frame.isetitem(place, column.map(safe_text).astype(object))
    frame.columns = [safe_text(each) for each in frame.columns]
    if index:
        name = frame.index.name
        frame.index = pd.Index([safe_text(each) for each in frame.index], name=safe_text(name))
    text = frame.to_csv(index=index, **rest)
    if "\r" in text:  # which is quoted only where lines end with it
        text = frame.to_csv(index=index, lineterminator="\r\n", **rest)
    return text


def write_prices(frame: pd.DataFrame, path: Path) -> None:
    """Write wide prices (T, N) to .csv, .csv.gz or .parquet, so that reading gives it back."""
    name = path.name.lower()
    if name.endswith((".parquet", ".pq")):
        frame.rename_axis("date").reset_index().to_parquet(path, index=False)
    elif name.endswith((".csv", ".csv.gz")):
        text = safe_csv(frame.rename_axis("date"), float_format="%.17g")
        opened = gzip.open if name.endswith(".gz") else open
        with opened(path, "wt", encoding="utf-8", newline="") as file:
            file.write(text)
    else:
        raise ValueError(f"{path}: expected a name that ends in .csv, .csv.gz or .parquet")
