"""Where axes are marked, and how: round numbers, powers, calendar dates."""

from __future__ import annotations

import numpy as np
import pandas as pd

STEPS = (1, 2, 2.5, 5, 10)
MINUS = "\N{MINUS SIGN}"

Ticks = list[tuple[float, str]]  # places and what is written there


def linear(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers from low to high, at most ``most``; of ``whole`` ones only."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** np.floor(np.log10(span / most))
    candidates = [step * scale for scale in (power, 10 * power) for step in STEPS]
    for step in candidates:
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


def dates(low: float, high: float) -> Ticks:
    """Starts of years, months or days between two days since 1970; at most nine."""
    start, end = (pd.Timestamp(0) + pd.Timedelta(days=float(day)) for day in (low, high))
    years = (high - low) / 365.25
    if years > 2.2:
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if years / s <= 9)
        first = -(-(start.year + (start > pd.Timestamp(start.year, 1, 1))) // step) * step
        stamps = [pd.Timestamp(year, 1, 1) for year in range(first, end.year + 1, step)]
        form = "%Y"
    elif high - low > 45:
        step = next(s for s in (1, 2, 3, 6) if 12 * years / s <= 5 or s == 6)
        stamps = list(pd.date_range(start.normalize(), end, freq="MS"))
        stamps = [stamp for stamp in stamps if (stamp.month - 1) % step == 0]
        form = "%Y-%m"
    elif high - low > 2:
        step = max(1, int(np.ceil((high - low) / 4)))
        stamps = list(pd.date_range(start.ceil("D"), end, freq=f"{step}D"))
        form = "%Y-%m-%d"
    else:
        step = next(h for h in (1, 2, 4, 6, 12, 24) if 24 * (high - low) / h <= 4 or h == 24)
        stamps = list(pd.date_range(start.ceil("h"), end, freq=f"{step}h"))
        form = "%m-%d %H:%M"
    return [((s - pd.Timestamp(0)) / pd.Timedelta(days=1), s.strftime(form)) for s in stamps]


def percent_text(value: float) -> str:
    return f"{100 * value:.3g}%".replace("-", MINUS)


def number_text(value: float) -> str:
    return f"{value:,.6g}".replace("-", MINUS)


def power_text(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)
