"""Rows per year of a panel, from its dates: sessions, days, weeks, months, years, or bars."""

from __future__ import annotations

import numpy as np
import pandas as pd

USUAL = (252, 365, 52, 12, 4, 1)  # rows per year that a calendar is taken for where it is near
NEAR = 0.12  # relative distance; business days without holidays have 261
LONG = 10.0  # typical gaps between rows, above which a gap is a hole in the data
ENOUGH = 60  # rows from which on they are counted; below, the typical gap decides
YEAR = 365.25  # days


def periods_per_year(dates: pd.DatetimeIndex) -> int:
    """Rows per year of ascending dates (T,), at least 1.

    Rows are counted over the elapsed time without holes, and the number is set to 252, 365, 52, 12,
    4 or 1 where it is near one of them. Several rows a day are counted per day, times the days per
    year: 24 times 365 for hours of a market that never closes.
    """
    if len(dates) < 2:
        return USUAL[0]
    days = dates.normalize().unique()
    gaps = np.diff(days.values) / np.timedelta64(1, "D")
    if not len(gaps):
        return max(1, round(len(dates) * USUAL[0]))
    by_day = _days_per_year(days, gaps)
    starts = dates.searchsorted(days)  # the first and the last day may be parts of days
    bars = float(np.median(np.diff(np.append(starts, len(dates)))))
    return by_day if bars < 1.5 else max(1, round(bars)) * by_day


def elapsed_years(dates: pd.DatetimeIndex) -> np.ndarray:
    """Years (T,) from the row before to each row of ascending dates, of 365.25 days; first 0."""
    years = np.zeros(len(dates))
    years[1:] = np.diff(dates.values) / np.timedelta64(1, "s") / (YEAR * 86400)
    return years


def _days_per_year(days: pd.DatetimeIndex, gaps: np.ndarray) -> int:
    typical = float(np.median(gaps))
    if len(days) < ENOUGH:
        steps = ((300, 1), (75, 4), (20, 12), (5, 52))
        for least, count in steps:
            if typical >= least:
                return count
        return 365 if len(gaps) >= 7 and gaps.max() == 1 else 252
    kept = gaps[gaps <= max(LONG, LONG * typical)]
    counted = len(kept) / (kept.sum() / YEAR)
    nearest = min(USUAL, key=lambda each: abs(counted / each - 1))
    return nearest if abs(counted / nearest - 1) <= NEAR else max(1, round(counted))
