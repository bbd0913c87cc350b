"""How numbers and dates are written, on the page and in the terminal alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

DASH = "\N{EN DASH}"  # stands for a number that is not defined
TIMES = "\N{MULTIPLICATION SIGN}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.123 -> "12.3%"; a dash where it is not defined."""
    return DASH if value is None or not math.isfinite(value) else number(100 * value, digits) + "%"


def chance(value: float | None) -> str:
    """A probability as a percentage; what is not certain is neither 0.0% nor 100.0%."""
    if value is not None and 0 <= value < 0.0005:
        return "<0.1%"
    return ">99.9%" if value is not None and 0.9995 <= value < 1 else percent(value)


def number(value: float | None, digits: int = 2) -> str:
    """With a true minus sign and no minus zero; a dash where it is not defined."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    negative = text.startswith("-") and text.strip("-0.,") != ""
    return ("\N{MINUS SIGN}" if negative else "") + text.lstrip("-")


def times(value: float | None) -> str:
    """A multiple: 1.93 -> "1.93x" with a true multiplication sign."""
    text = number(value)
    return text if text == DASH else text + TIMES


def money(value: float | None) -> str:
    """An amount to two digits, in words of thousands: 12,300,000 -> "12 million"."""
    if value is None or not np.isfinite(value):
        return DASH
    for size, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if abs(value) >= size:
            return f"{float(f'{value / size:.2g}'):,g}{word}"
    return f"{float(f'{value:.2g}'):,.0f}"


def count(value: float | None) -> str:
    """A whole number with separators, or a small one in powers of ten (residuals)."""
    if value is None or not np.isfinite(value):
        return DASH
    return f"{value:,.0f}" if value == int(value) else f"{value:.1e}".replace("-", "\N{MINUS SIGN}")


def day(date: Any) -> str:
    """2004-01-02, with the time of day where there is one; a dash for none."""
    if pd.isna(date):
        return DASH
    stamp = pd.Timestamp(date)
    return str(stamp.date()) if stamp == stamp.normalize() else f"{stamp:%Y-%m-%d %H:%M}"


FORMATS = {
    "percent": percent,
    "percent2": lambda value: percent(value, 2),
    "number": number,
    "times": times,
    "count": count,
    "periods": lambda value: number(value, 0),
}


def written(value: float | None, unit: str) -> str:
    """A number as its unit in ``FORMATS`` has it."""
    return FORMATS[unit](value)
