"""CSV that a spreadsheet can open: no text in it is taken for a formula."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

# What Excel, LibreOffice or Google Sheets takes for the beginning of a formula, behind blanks and
# quotation marks or not: the signs, their full-width forms, tab, carriage return and line feed.
FORMULA = re.compile("[\\s'\"\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20\\t\\r\\n]")


def safe_text(value: Any) -> Any:
    """A text that a spreadsheet shows as it is, with an apostrophe in front where it must; else
    the value."""
    if isinstance(value, str) and FORMULA.match(value) and not _is_number(value):
        return "'" + value
    return value


def as_written(text: str) -> str:
    """A text as it was before ``safe_text``."""
    return text[1:] if text[:1] == "'" and safe_text(text[1:]) == text else text


def safe_csv(frame: pd.DataFrame, index: bool = True, **rest: Any) -> str:
    """``frame.to_csv``, with all texts in cells, index and names of columns made safe."""
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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text == text.strip()
