"""Rows per year of a panel, from its dates: sessions, days, weeks, months, years, or bars."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from data_loaders.validation import DataError, day

USUAL = (252, 365, 52, 12, 4, 1)  # rows per year that a calendar is taken for where it is near
DAYS = (252, 365)  # likewise of days, where there are several rows a day
NEAR = 0.12  # relative distance; business days without holidays have 261
LONG = 10.0  # typical gaps between rows, above which a gap is a hole in the data
ENOUGH = 60  # rows from which on they are counted; below, the typical gap decides
YEAR = 365.25  # days
DAY = np.timedelta64(1, "D")
DAILY = 5.0  # typical days between rows, below which a calendar is not of weeks or longer
LEAST_DAYS, LEAST_WEEKS = 31, 7  # rows of days, and of longer periods, that show a frequency
CHANGE = 2.5  # factor between two parts of a calendar that is a change of its frequency
SIGMAS = 6.0  # standard errors that the difference must have as well


def periods_per_year(dates: pd.DatetimeIndex) -> int:
    """Rows per year of ascending dates (T,), at least 1.

    Rows are counted over the elapsed time without holes, and the number is set to 252, 365, 52, 12,
    4 or 1 where it is near one of them; that of several rows a day to the rows of a typical day
    times 252 or 365: 24 times 365 for hours of a market that never closes.

    Raises:
        DataError: the dates change their frequency, from days to weeks for example.
    """
    if len(dates) < 2:
        return USUAL[0]
    days, bars = _bars(dates)
    gaps = np.diff(days.values) / DAY
    if not len(gaps):
        return max(1, round(len(dates) * USUAL[0]))
    _check_one_frequency(days, gaps, bars)
    within_days = bars_per_day(dates)
    days_per_year = _days_per_year(days, gaps, within_days > 1)
    if within_days == 1:
        return days_per_year
    counted = float(bars.mean()) * days_per_year  # hours of currencies: few of them on Sundays
    return _snapped(counted, [within_days * each for each in DAYS])


def bars_per_day(dates: pd.DatetimeIndex) -> int:
    """Rows on a typical day that has any: 7 for hours of sessions, 1 for days, weeks, months."""
    return max(1, math.floor(np.median(_bars(dates)[1]) + 0.5)) if len(dates) else 1


def elapsed_years(dates: pd.DatetimeIndex) -> np.ndarray:
    """Years (T,) from the row before to each row of ascending dates, of 365.25 days; first 0."""
    years = np.zeros(len(dates))
    years[1:] = np.diff(dates.values) / np.timedelta64(1, "s") / (YEAR * 86400)
    return years


def rows_until(dates: pd.DatetimeIndex, date: str | pd.Timestamp) -> int:
    """How many of the rows are up to a date, the whole of it where it is a text without a time."""
    moment = pd.Timestamp(date)
    if isinstance(date, str) and moment == moment.normalize() and ":" not in date:
        return int(dates.searchsorted(moment + pd.Timedelta("1D"), side="left"))
    return int(dates.searchsorted(moment, side="right"))


def check_periods_per_year(given: float | None) -> float | None:
    """The number of rows per year that a user gave; None where there is none."""
    if given is None:
        return None
    number = isinstance(given, int | float | np.number) and not isinstance(given, bool)
    if not number or not 1 <= given < math.inf:
        raise DataError(
            f"periods_per_year={given!r} should be a number of rows per year from 1 on, like 252 "
            "for sessions or 8760 for hours; leave it out to have it counted from the dates"
        )
    return int(given) if given == int(given) else float(given)


def _bars(dates: pd.DatetimeIndex) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The days (D,) that have rows, and how many each has (D,)."""
    days = dates.normalize().unique()
    starts = dates.searchsorted(days)
    return days, np.diff(np.append(starts, len(dates)))


def _days_per_year(days: pd.DatetimeIndex, gaps: np.ndarray, has_times: bool) -> int:
    typical = float(np.median(gaps))
    if len(days) < ENOUGH:
        for least, count in ((300, 1), (75, 4), (20, 12), (5, 52)):
            if typical >= least:
                return count
        enough = len(gaps) >= 7 or (has_times and (days.day_of_week >= 5).any())
        return 365 if enough and gaps.max() == 1 else 252
    kept = gaps[gaps <= max(LONG, LONG * typical)]
    return _snapped(len(kept) / (kept.sum() / YEAR), USUAL)


def _snapped(counted: float, usual: Iterable[int]) -> int:
    """The nearest of the usual numbers, or the rounded one where it is near none."""
    nearest = min(usual, key=lambda each: abs(counted / each - 1))
    return nearest if abs(counted / nearest - 1) <= NEAR else max(1, round(counted))


def _check_one_frequency(days: pd.DatetimeIndex, gaps: np.ndarray, bars: np.ndarray) -> None:
    """Refuse days (D,) that have many times the rows per year on one side of some day: that where
    the logarithms of the frequency differ most, by least squares, beyond what rows missing at
    random bring about.
    """
    least = LEAST_DAYS if np.quantile(gaps, 0.25) < DAILY else LEAST_WEEKS
    frequency = np.log(bars[1:] / gaps)
    cuts = np.arange(least, len(gaps) - least + 1)
    if not len(cuts):
        return
    sums = frequency.cumsum()
    before, after = sums[cuts - 1] / cuts, (sums[-1] - sums[cuts - 1]) / (len(gaps) - cuts)
    explained = cuts * (len(gaps) - cuts) / len(gaps) * (before - after) ** 2
    best = int(np.argmax(explained))
    cut, noise = int(cuts[best]), frequency.var() * len(gaps) - explained[best]
    large = abs(before[best] - after[best]) > np.log(CHANGE)
    if large and explained[best] * (len(gaps) - 2) > SIGMAS**2 * noise:
        first, second = (
            round(np.median(bars[part]))
            * _days_per_year(days[part], np.diff(days[part].values) / DAY, False)
            for part in (slice(cut + 1), slice(cut, None))
        )
        raise DataError(
            f"the dates have about {first} rows a year until {day(days[cut])} and about {second} "
            "after it: take one of the two parts (start= or end=, or frame.loc), or pass "
            "periods_per_year=, the number of rows that a year has",
            dates=[days[cut]],
        )
