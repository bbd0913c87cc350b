"""Decision dates: the rows of a calendar at which a strategy decides.

"W-FRI", "ME", "MS", "WOM-3FRI"          any pandas offset; the last row of each such day
"D", "4h"                                the last row of each day, or of each four hours
"16:00", "W-FRI 16:00"                   a time of day: the last row of the day up to then
"first session of month", "2nd last session of quarter"      of week, month, quarter, year
21                                       every 21st row
["2020-01-31", "2020-02-28"]             these dates
"my_rules.py:rows", or the function      of the dates (T,): row numbers, or a mask (T,) of bool
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset, BusinessHour, Day, Tick

from data_loaders.plugins import load_object
from data_loaders.validation import days as listed

Rows: TypeAlias = Callable[[pd.DatetimeIndex], Any]
Rebalance: TypeAlias = str | int | tuple[str, ...] | list | pd.DatetimeIndex | Rows

TIME = re.compile(r"(?:(.*\S)\s+)?([01]?\d|2[0-3]):([0-5]\d)")
NTH = re.compile(
    r"(first|last|([1-9]\d*)(?:st|nd|rd|th)( last)?) session of (?:the )?(week|month|quarter|year)"
)
FUNCTION = re.compile(r"\S+:[A-Za-z_]\w*")
PERIODS = {"week": "W", "month": "M", "quarter": "Q", "year": "Y"}
HOLIDAY = ("previous", "next")
DAY = pd.Timedelta("1D")


class When(NamedTuple):
    """What a text like "W-FRI 16:00" says."""

    offset: BaseOffset | None  # or else the nth session of a period
    nth: int = 0  # from 1 on, or from -1 down for those at the end
    period: str = ""  # of pandas: "W", "M", "Q", "Y"
    time: pd.Timedelta | None = None


def as_rebalance(given: Rebalance) -> str | int | tuple[str, ...] | Rows:
    """What was given for ``rebalance``, checked; dates as texts.

    Raises:
        ValueError: it is none of what the top of this file lists.
    """
    if callable(given):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise ValueError(f"rebalance is from 1 row on, got {given}")
        return given
    if isinstance(given, str):
        if not FUNCTION.fullmatch(given):
            read_when(given)
        return given
    if isinstance(given, Iterable) and len(texts := [_as_text(each) for each in given]):
        return tuple(sorted(set(texts)))
    raise _unreadable(given)


def read_when(text: str) -> When:
    """Read a text like "W-FRI", "16:00", "W-FRI 16:00" or "last session of month".

    Raises:
        ValueError: it is not of this form.
    """
    match, time, rest = TIME.fullmatch(text.strip()), None, text.strip()
    if match:
        time = pd.Timedelta(hours=int(match[2]), minutes=int(match[3]))
        rest = match[1] or "D"
    if nth := NTH.fullmatch(rest):
        number = {"first": 1, "last": -1}.get(nth[1]) or int(nth[2]) * (-1 if nth[3] else 1)
        return When(None, number, PERIODS[nth[4]], time)
    try:
        offset = to_offset(rest)
    except ValueError:
        raise _unreadable(text) from None
    if time is not None and isinstance(offset, Tick | Day | BusinessHour) and offset != Day(1):
        raise ValueError(f"rebalance={text!r}: a time of day goes with days, not with {rest!r}")
    return When(offset, time=time)


def decision_rows(
    dates: pd.DatetimeIndex, rebalance: str | int | tuple[str, ...] | Rows, holiday: str | None
) -> np.ndarray:
    """The rows of ascending dates (T,) at which decisions are made, increasing.

    A period counts only where the data show that it is over.

    Args:
        rebalance: as ``as_rebalance`` gives it.
        holiday: "previous" or "next": the session to which goes what falls on a day without one.
            By default the start of a period ("MS", "QS") goes to the next one, all else to the
            previous one, and dates of a list that are no sessions are refused.

    Raises:
        ValueError: dates of a list are no sessions, a time of day where dates have none, or a
            function that gives no rows.
    """
    if isinstance(rebalance, int):
        return np.arange(rebalance - 1, len(dates), rebalance)
    if isinstance(rebalance, tuple):
        return _listed_rows(dates, rebalance, holiday)
    if callable(rebalance):
        return _rows_of(rebalance, dates)
    if FUNCTION.fullmatch(rebalance):
        function = load_object(rebalance)
        if not callable(function):
            raise ValueError(f"rebalance={rebalance!r} names something that is not a function")
        return _rows_of(function, dates)
    when = read_when(rebalance)
    if isinstance(when.offset, Tick | BusinessHour) and not isinstance(when.offset, Day):
        return _last_of_spans(dates, when.offset)
    days = dates.normalize().unique()
    if when.offset is None:
        chosen = _nth_sessions(days, when.nth, when.period)
    elif isinstance(when.offset, Day):
        chosen = _last_of_spans(days, when.offset)
    else:
        nominal = pd.date_range(days[0], days[-1], freq=when.offset)
        start = type(when.offset).__name__.endswith("Begin")
        if (holiday or ("next" if start else "previous")) == "next":
            chosen = days.searchsorted(nominal, side="left")
        else:
            chosen = days.searchsorted(nominal, side="right") - 1
        chosen = np.unique(chosen[(chosen >= 0) & (chosen < len(days))])
    if when.time is None:
        return dates.searchsorted(days[chosen] + DAY) - 1
    if (dates == dates.normalize()).all():
        raise ValueError(f"rebalance={rebalance!r} names a time of day, and the dates have none")
    rows = dates.searchsorted(days[chosen] + when.time, side="right") - 1
    return rows[(rows >= 0) & (dates[rows] >= days[chosen])]


def _nth_sessions(days: pd.DatetimeIndex, nth: int, period: str) -> np.ndarray:
    """The nth of the days (D,) of each period that has as many.

    The first period counts from its start only where the data begin with its first day.
    """
    periods = days.to_period(period)
    starts = np.flatnonzero(np.append(True, periods[1:] != periods[:-1]))
    counts = np.diff(np.append(starts, len(days)))
    enough = counts >= abs(nth)
    if nth > 0:
        enough[0] &= days[0] == periods[0].start_time
        return (starts + nth - 1)[enough]
    enough[-1] &= days[-1] >= periods[-1].end_time.normalize()
    return (starts + counts + nth)[enough]


def _last_of_spans(dates: pd.DatetimeIndex, offset: BaseOffset) -> np.ndarray:
    """The last row in each span of so many hours or days, as ``resample`` cuts them."""
    if offset == Day(1):
        return np.arange(len(dates))
    numbers = pd.Series(np.arange(len(dates)), index=dates)
    if isinstance(offset, BusinessHour):
        marks = pd.date_range(dates[0], dates[-1], freq=offset)
        return np.unique(dates.searchsorted(marks, side="right") - 1)
    last = numbers.resample(offset, label="right").last().dropna().astype(int)
    step = pd.Timedelta(np.median(np.diff(dates.values))) if len(dates) > 1 else DAY
    return last[last.index <= dates[-1] + step].to_numpy()


def _listed_rows(
    dates: pd.DatetimeIndex, texts: tuple[str, ...], holiday: str | None
) -> np.ndarray:
    """Rows of the dates of a list that lie within the data; of one without a time its last row."""
    found, strange = [], []
    for text in texts:
        moment = pd.Timestamp(text)
        at = int(dates.searchsorted(moment, side="right")) - 1
        if ":" in text and at >= 0 and dates[at] == moment:
            found.append(at)
            continue
        whole_day = moment == moment.normalize()
        end = moment + DAY if whole_day else moment
        row = int(dates.searchsorted(end, side="left" if whole_day else "right")) - 1
        if whole_day and row >= 0 and dates[row] >= moment:
            found.append(row)
        elif 0 <= row < len(dates) - 1:  # between two rows, not before or after them all
            if holiday == "next":  # the last row of the day, where no time is named
                after = dates[row + 1].normalize() + DAY
                row = int(dates.searchsorted(after)) - 1 if whole_day else row + 1
            strange += [moment] if holiday is None else []
            found.append(row)
    if strange:
        raise ValueError(
            f"rebalance lists dates that are no sessions of the data: {listed(pd.Index(strange))}; "
            "holiday='previous' or holiday='next' moves each to the session before or after it"
        )
    return np.unique(np.array(found, dtype=int))


def _rows_of(function: Rows, dates: pd.DatetimeIndex) -> np.ndarray:
    """The rows that a user's function gives: numbers, or a mask (T,)."""
    rows = np.asarray(function(dates))
    if rows.dtype == bool and rows.shape == (len(dates),):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or (len(rows) and rows.max() >= len(dates)):
        raise ValueError(
            f"rebalance: the function gave {rows!r:.60}, expected row numbers below the number of "
            f"dates, {len(dates)}, or as many of True and False"
        )
    if (np.diff(rows) <= 0).any() or (rows < 0).any():
        raise ValueError("rebalance: the function's rows should increase, from 0 on")
    return rows.astype(int)


def _as_text(given: object) -> str:
    """A date as text: with its time, unless it is a text or a day without one."""
    try:
        moment = pd.Timestamp(given)  # refused below
    except (ValueError, TypeError):
        moment = pd.NaT
    if moment is pd.NaT or not re.match(r"\d{4}-?\d\d-?\d\d", str(given)):
        raise ValueError(f"rebalance lists {given!r}, which is not a date like '2020-01-31'")
    plain = isinstance(given, date) and not isinstance(given, datetime)
    if plain or (isinstance(given, str) and ":" not in given):
        return str(moment.date())
    return str(moment.tz_localize(None))


def _unreadable(given: object) -> ValueError:
    return ValueError(
        f"rebalance={given!r} is not a pandas frequency; write it like 'W-FRI', 'ME', 'QE', 'D', "
        "'W-FRI 16:00', 'first session of month', or as a number of rows, a list of dates, or a "
        "function of the dates"
    )
