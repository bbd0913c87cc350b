"""Numbers as people write them: decimal commas, thousands, units, and marks of the missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from data_loaders.reading.options import Options
from data_loaders.validation import DataError

SCALES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
NUMBER = re.compile(
    r"[$€£¥]?\s*[+-]?(\d[\d.,'\u2019\u00a0\u202f ]*|[.,]\d+)(e[+-]?\d+)?\s*[%KMBT$€£¥]?",
    re.IGNORECASE | re.ASCII,
)
JUMP = (500, 2000)  # ratio of two neighbours where a point may separate thousands


def is_number(text: str) -> bool:
    """Whether a text is a number, however its decimals and thousands are written."""
    return NUMBER.fullmatch(text.strip()) is not None


def without_marks(values: np.ndarray, options: Options) -> np.ndarray:
    """The numbers with NaN for those that ``na`` names."""
    for mark in options.missing:
        if is_number(mark) and (values == float(mark)).any():
            values = np.where(values == float(mark), np.nan, values)
    return values


def parse_numbers(
    columns: Sequence[pd.Series], options: Options, at: Callable[[int, int], str]
) -> tuple[np.ndarray, dict[str, str]]:
    """Numbers (rows, C) of columns of texts (rows,), and the separators, the same for all.

    ``at`` says where a cell (row, column) is, for messages.
    """
    texts = [column.astype(str).str.strip() for column in columns]
    texts = [column.mask(column.isin(options.marks), "") for column in texts]
    distinct = [text for column in texts for text in column.unique()]
    decimal, thousands = _convention(distinct, options, texts, at)
    out = np.empty((len(texts[0]) if texts else 0, len(texts)))
    for i, column in enumerate(texts):
        body = column.str.replace(r"[$€£¥\u00a0\u202f]|(?<=\d)[ '\u2019](?=\d{3})", "", regex=True)
        scale = body.str[-1:].str.upper().map(SCALES).fillna(1.0).to_numpy()
        body = body.str.replace(r"\s*[%KMBTkmbt]$", "", regex=True)
        for separator in thousands:
            body = body.str.replace(separator, "", regex=False)
        if decimal != ".":
            body = body.str.replace(decimal, ".", regex=False)
        numbers = pd.to_numeric(body.mask(body == ""), errors="coerce").to_numpy(dtype=np.float64)
        bad = np.isnan(numbers) & (column != "").to_numpy()
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"{at(row, i)}: {shown(column.iloc[row])} is not a number (expected digits and a "
                "decimal point, as 1234.5; pass na= with it if it stands for a missing value)"
            )
        out[:, i] = numbers * scale
    return out, {"decimal": decimal} | ({"thousands": thousands} if thousands else {})


def _convention(
    distinct: list[str], options: Options, texts: list[pd.Series], at: Callable[[int, int], str]
) -> tuple[str, str]:
    """The decimal separator, and the separators of thousands, of a file's numbers."""
    if options.decimal or options.thousands:
        decimal = options.decimal or ("," if options.thousands == "." else ".")
        return decimal, options.thousands or ""
    meanings = {
        separator: {_meaning(text, separator): text for text in reversed(distinct)}
        for separator in ",."
    }  # the first text of each
    evidence = {separator: {*found} - {"", "unclear"} for separator, found in meanings.items()}
    for separator, other in ((",", "."), (".", ",")):
        if evidence[separator] == {"decimal"} and "decimal" not in evidence[other]:
            return separator, other
        if evidence[separator] == {"thousands"} and "thousands" not in evidence[other]:
            return other, separator
    if not evidence[","] and not evidence["."]:
        for separator, found in meanings.items():
            if text := found.get("unclear"):
                same = np.array([(column == text).to_numpy() for column in texts])
                column, row = np.argwhere(same)[0].tolist()
                raise two_readings(at(row, column), text, separator)
    return ".", ""


def _meaning(text: str, separator: str) -> str:
    """What a separator means in a number: "decimal", "thousands", "unclear", or "" if absent."""
    if separator not in text:
        return ""
    other = "." if separator == "," else ","
    if other in text:
        return "decimal" if text.rfind(separator) > text.rfind(other) else "thousands"
    if text.count(separator) > 1:
        return "thousands"
    head, tail = (re.sub(r"\D", "", part) for part in text.split(separator))
    return "unclear" if len(tail) == 3 and 1 <= len(head) <= 3 and head != "0" else "decimal"


def two_readings(place: str, text: str, separator: str) -> DataError:
    plain = text.replace(separator, "")
    return DataError(
        f"{place}: {text!r} may be {plain} or {text.replace(separator, '.')}: pass "
        f"thousands={separator!r} or decimal={separator!r}"
    )


def thousands_jump(values: np.ndarray) -> tuple[int, int] | None:
    """The first cell (row, column) after which a point may have separated thousands: where whole
    numbers up to 999 are followed by 1.000, a fall to a thousandth.
    """
    if len(values) < 2:
        return None
    with np.errstate(all="ignore"):
        low, high = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
        for column in np.flatnonzero((high > JUMP[0] * low) & (low > 0) & (high < 1000)):
            series = values[:, column]
            rows = np.flatnonzero(~np.isnan(series))
            known = series[rows]
            whole = known == np.round(known)
            if not np.allclose(known[~whole] * 1000, np.round(known[~whole] * 1000), atol=1e-6):
                continue
            ratio = np.maximum(known[1:] / known[:-1], known[:-1] / known[1:])
            at = np.flatnonzero((ratio > JUMP[0]) & (ratio < JUMP[1]))
            if len(at) and known[known >= 100].size and whole[known >= 100].all():
                step = int(at[0])
                smaller = step if known[step] < known[step + 1] else step + 1
                return int(rows[smaller]), int(column)
    return None


def shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
