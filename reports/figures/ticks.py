"""Where an axis is marked, and with which text: round numbers, powers, calendar dates."""

from __future__ import annotations

import numpy as np
import pandas as pd

STEPS = (1, 2, 2.5, 5, 10)
MINUS = "\N{MINUS SIGN}"


def linear(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers from low to high, at most ``most``; of ``whole`` ones only."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** np.floor(np.log10(span / most))
    for step in (step * scale for scale in (power, 10 * power) for step in STEPS):
        if whole and step != round(step):
            continue
        first = np.ceil(low / step - 1e-9)
        count = int(np.floor(high / step + 1e-9) - first) + 1
        if count <= most:
            return [float(f"{(first + k) * step:.12g}") for k in range(count)]
    return [low, high]


def logarithmic(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or the powers alone, or plain ticks over a short span."""
    if high / low < 4:
        return linear(low, high, 5)
    parts = (1, 2, 5) if high / low < 200 else (1,)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    found = [part * 10.0**power for power in powers for part in parts]
    found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return found[:: max(1, -(-len(found) // 7))]


def days(index: pd.Index) -> np.ndarray:
    """Dates as days since 1970."""
    return ((pd.DatetimeIndex(index) - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy()


def dates(low: float, high: float) -> list[tuple[float, str]]:
    """(place, text) of starts of years, months, days or hours between two ``days``; at most 9."""
    start, end = (pd.Timestamp(0) + pd.Timedelta(days=float(day)) for day in (low, high))
    years, span = (high - low) / 365.25, high - low
    if years > 2.2:
        step = _step((1, 2, 5, 10, 20, 50, 100), years, 9)
        first = -(-(start.year + (start > pd.Timestamp(start.year, 1, 1))) // step) * step
        stamps = [pd.Timestamp(year, 1, 1) for year in range(first, end.year + 1, step)]
        form = "%Y"
    elif span > 45:
        step = _step((1, 2, 3, 6), 12 * years, 5)
        months = pd.date_range(start.normalize(), end, freq="MS")
        stamps = [month for month in months if (month.month - 1) % step == 0]
        form = "%Y-%m"
    elif span > 2:
        step = max(1, int(np.ceil(span / 4)))
        stamps = list(pd.date_range(start.ceil("D"), end, freq=f"{step}D"))
        form = "%Y-%m-%d"
    else:
        step = _step((1, 2, 4, 6, 12, 24), 24 * span, 4)
        stamps = list(pd.date_range(start.ceil("h"), end, freq=f"{step}h"))
        form = "%m-%d %H:%M"
    index = pd.DatetimeIndex(stamps)
    return list(zip(days(index).tolist(), index.strftime(form), strict=True))


def _step(steps: tuple[int, ...], span: float, most: int) -> int:
    """The smallest step that divides the span into at most ``most`` parts, or the largest."""
    return next((step for step in steps if span / step <= most), steps[-1])


def percent_text(value: float) -> str:
    return f"{100 * value:.3g}%".replace("-", MINUS)


def number_text(value: float) -> str:
    return f"{value:,.6g}".replace("-", MINUS)


def power_text(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)
