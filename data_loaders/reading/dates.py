"""Read dates: text in many formats, numbers of epochs and Excel, times with zones."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from data_loaders.reading.options import Options
from data_loaders.validation import DataError

FORMATS = (
    "ISO8601", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
    "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%y", "%Y%m%d", "%Y%m%d %H:%M:%S",
    "%Y%m%d %H%M%S", "%Y.%m.%d %H:%M", "%Y.%m.%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S",
    "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%m/%d/%y", "%d/%m/%y", "%Y%m", "%Y",
)  # fmt: skip
PERIODS = {"%Y%m": "M", "%Y-%m": "M", "%Y": "Y", "quarter": "Q"}  # a row is known at their end
OFFSET = re.compile(r"(?<=:\d\d)(\.\d+)?\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$")
UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EPOCHS = {"s": 10, "ms": 13, "us": 16, "ns": 19}  # digits of times since 2001
EXCEL = (18264, 73051)  # days from 1950 to 2100
EXAMPLES = ("America/New_York", "Asia/Tokyo")
SHAPE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{4}-\d\d|\d{4}[- ]?q[1-4]"
    r"|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d\d)"
    r"|\d{1,2}[- ][a-z]{3}[- ](\d{4}|\d\d)|[a-z]{3,9}\.? \d{1,2}, \d{4}"
    r"|(1[89]|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]))"
    r"([t ]\s*\d{1,2}:?\d\d.*)?",
    re.IGNORECASE | re.ASCII,
)
Place = Callable[[int], str]


def looks_like_date(text: str) -> bool:
    """Whether a text has the shape of a date; short numbers have not."""
    return SHAPE.fullmatch(text.strip()) is not None


def are_mostly_dates(texts: Sequence[str]) -> bool:
    return sum(map(looks_like_date, texts)) * 2 > len(texts)


def numeric_format(numbers: np.ndarray | None) -> str | None:
    """The only format in which whole numbers are dates: "%Y%m%d", "epoch_ms", "excel"; or None."""
    if numbers is None or not len(numbers) or numbers.min() <= 0:
        return None
    low, high = int(numbers.min()), int(numbers.max())
    for unit, digits in EPOCHS.items():
        if len(str(high)) == digits and len(str(low)) >= digits - 1 and digits > 9:
            return f"epoch_{unit}"
    years, months, days = numbers // 10000, numbers // 100 % 100, numbers % 100
    if _within(years, 1800, 2100) and _within(months, 1, 12) and _within(days, 1, 31):
        return "%Y%m%d"
    if _within(numbers // 100, 1800, 2100) and _within(numbers % 100, 1, 12):
        return "%Y%m"
    if _within(numbers, 1800, 2100):
        return "%Y"
    return "excel" if _within(numbers, *EXCEL) else None


def _within(numbers: np.ndarray, low: int, high: int) -> bool:
    return bool((numbers >= low).all() and (numbers <= high).all())


def read_dates(
    keys: pd.Series, options: Options, place: Place, column: str, groups: np.ndarray | None
) -> tuple[pd.DatetimeIndex, list[str], str]:
    """Dates (rows,) without a zone, notes about what was decided, and the format of texts.

    ``keys`` are texts, numbers or timestamps, ``groups`` the asset of each row of a long table;
    ``place`` says where a row is, for messages.
    """
    if isinstance(keys.dtype, pd.PeriodDtype):
        keys = keys.dt.to_timestamp(how="end").dt.normalize()
    if isinstance(keys.dtype, pd.DatetimeTZDtype) or keys.dtype.kind == "M":
        stamps = pd.DatetimeIndex(keys).as_unit("ns")
        if stamps.hasnans:
            raise DataError(f"{place(int(stamps.isna().argmax()))}: there is no date")
        if stamps.tz is None:
            return stamps.rename("date"), [], ""
        dates, notes = _without_zone(
            stamps.tz_convert("UTC"), stamps.tz_localize(None), options, place, groups
        )
        return dates, notes, ""
    codes, unique = pd.factorize(keys, use_na_sentinel=True)
    if keys.dtype.kind in "iuf":
        unique = [str(int(x) if float(x).is_integer() else x) for x in unique.tolist()]
    texts = pd.Series(unique, dtype=object).astype(str).str.strip()
    empty = (texts == "").to_numpy()[codes] | (codes < 0) if len(texts) else codes < 0
    if empty.any():
        raise DataError(f"{place(int(np.argmax(empty)))}: there is no date")
    form, wall = _parsed(texts, codes, options, place)
    notes = []
    if form.startswith("epoch") or form == "excel":
        kind = "days of Excel" if form == "excel" else f"{UNITS[form[6:]]} since 1970 (UTC)"
        notes.append(f"column {column} read as {kind}")
    if form in PERIODS:
        wall = (wall.dt.to_period(PERIODS[form]).dt.to_timestamp(how="end")).dt.normalize()
        notes.append("dates set to the last day of their month or year")
    local = pd.DatetimeIndex(wall.dt.as_unit("ns").to_numpy()[codes])
    offsets = _offsets(texts)
    if form.startswith("epoch"):
        offsets = pd.Series(pd.Timedelta(0), index=texts.index)
    if offsets is None:
        return local.rename("date"), notes, form
    instants = pd.DatetimeIndex((wall - offsets).to_numpy()[codes]).as_unit("ns").tz_localize("UTC")
    dates, more = _without_zone(instants, local, options, place, groups)
    return dates, notes + more, form


def _parsed(
    texts: pd.Series, codes: np.ndarray, options: Options, place: Place
) -> tuple[str, pd.Series]:
    """The format and wall-clock dates of distinct texts; refused where two formats disagree."""
    formats: Sequence[str] = FORMATS
    if options.date_format:
        formats = [options.date_format]
    elif texts.str.fullmatch(r"[0-9]+(\.[0-9]+)?").all():
        numbers = pd.to_numeric(texts).to_numpy(dtype=np.float64)
        form = numeric_format(numbers.astype(np.int64)) if numbers.max() < 9e18 else None
        formats = [form] if form else []
    elif texts.str.fullmatch(r"[0-9]{4}-[0-9]{2}").all():
        formats = ["%Y-%m"]
    elif texts.str.fullmatch(r"[0-9]{4}[- ]?[qQ][1-4]").all():
        formats = ["quarter"]
    elif len(texts):  # a format has the separators of the texts
        marks = _separators(OFFSET.sub("", texts.iloc[0]))
        formats = [form for form in FORMATS if form == "ISO8601" or _separators(form) == marks]
    parsed = [(form, _parse(texts, form)) for form in formats]
    found = [(form, dates) for form, dates in parsed if not dates.isna().any()]
    if not found:
        expected = options.date_format or "year-month-day, as 2020-01-31"
        formats = [options.date_format] if options.date_format else FORMATS
        bad = min((_parse(texts, form).isna().to_numpy() for form in formats), key=np.sum)
        row = int(np.flatnonzero(bad[codes])[0])
        raise DataError(f"{place(row)}: {texts[codes[row]]!r} is not a date (expected {expected})")
    (first, dates), *others = found
    for form, other in others:
        if not other.equals(dates):
            row = int(np.flatnonzero((other != dates).to_numpy()[codes])[0])
            raise DataError(
                f"{place(row)}: {texts[codes[row]]!r} may be {dates[codes[row]].date()} or "
                f"{other[codes[row]].date()}: pass date_format={first!r} or {form!r}"
            )
    return first, dates


def _separators(text: str) -> str:
    """What is between the digits and names of a date, or of a format."""
    return re.sub(r"\s+", " ", re.sub(r"%.|\w", "", text.strip()))


def _parse(texts: pd.Series, form: str) -> pd.Series:
    """Wall-clock dates, NaT where the format does not fit."""
    texts = texts.str.strip()
    nothing = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[ns]")
    if form in ("excel", *(f"epoch_{unit}" for unit in EPOCHS)):
        unit, origin = ("D", "1899-12-30") if form == "excel" else (form[6:], "unix")
        numbers = pd.to_numeric(texts, errors="coerce").dropna()  # NaN would overflow by chance
        try:
            found = pd.to_datetime(numbers, unit=unit, origin=origin, errors="coerce")
            return found.dt.as_unit("ns").reindex(texts.index)
        except (ValueError, ArithmeticError):
            return nothing
    if form == "quarter":
        plain = texts.str.upper().str.replace(r"[- ]", "", regex=True)
        return pd.Series(pd.PeriodIndex(plain, freq="Q").to_timestamp(how="end"), texts.index)
    texts = texts.mask(texts.str.lower().isin(["now", "today"]))  # pandas reads them as the clock
    if form == "ISO8601" or ":" in form or "%H" in form:
        texts = texts.str.replace(OFFSET, r"\1", regex=True).str.replace(r"\s+", " ", regex=True)
    try:
        return pd.to_datetime(texts, format=form, errors="coerce").dt.as_unit("ns")
    except (ValueError, TypeError, OverflowError, AttributeError):
        return nothing


def _offsets(texts: pd.Series) -> pd.Series | None:
    """Offset from UTC of each text as a Timedelta; None if they do not all have one."""
    if not len(texts) or not OFFSET.search(texts.iloc[0]):
        return None
    zones = texts.str.extract(OFFSET)[1]
    if zones.isna().any():
        return None
    found = {}
    for zone in zones.unique():
        digits = "0000" if zone in ("Z", "UTC", "GMT") else zone[1:].replace(":", "")
        size = pd.Timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
        found[zone] = -size if zone[0] == "-" else size
    return zones.map(found)


def _without_zone(
    instants: pd.DatetimeIndex,
    wall: pd.DatetimeIndex,
    options: Options,
    place: Place,
    groups: np.ndarray | None,
) -> tuple[pd.DatetimeIndex, list[str]]:
    """Naive dates of instants: dates of sessions, or the clock for bars within a day."""
    notes = []
    if options.timezone:
        try:
            ZoneInfo(options.timezone)
        except (ValueError, OSError, KeyError):
            raise DataError(
                f"timezone={options.timezone!r} is not a time zone, like 'America/New_York'"
            ) from None
        wall = instants.tz_convert(options.timezone).tz_localize(None)
        notes.append(f"times converted to {options.timezone}")
    days = wall.normalize()
    if (wall == days).all():
        return wall.rename("date"), notes
    daily = _repeated(days, groups) is None
    if daily and options.timezone:
        return days.rename("date"), notes
    if daily and (instants.tz_localize(None) == wall).all():  # the clock is UTC
        early = wall - days < pd.Timedelta("11h")
        if early.all():  # the same date from Honolulu to Sydney
            return days.rename("date"), [*notes, "times of day in UTC cut to dates"]
        row = int(np.flatnonzero(~early)[0])
        dates = [
            f"timezone={zone!r} for {instants[row].tz_convert(zone).date()}" for zone in EXAMPLES
        ]
        raise DataError(
            f"{place(row)}: {instants[row]:%Y-%m-%d %H:%M} UTC, in which time zone is the "
            f"exchange? Pass {' or '.join(dates)}"
        )
    repeated = _repeated(wall, groups)
    if repeated is not None and not options.timezone:
        notes.append(f"times are in UTC, as the clock goes back at {wall[repeated]}")
        return instants.tz_localize(None).rename("date"), notes
    if repeated is not None:
        raise DataError(
            f"{place(repeated)}: {wall[repeated]} occurs twice in {options.timezone}, where the "
            "clock goes back: leave timezone out to read the times in UTC"
        )
    return wall.rename("date"), notes


def _repeated(wall: pd.DatetimeIndex, groups: np.ndarray | None) -> int | None:
    """The first row whose time its asset had before; None if there is none."""
    again = pd.DataFrame({"time": wall, "group": groups}).duplicated().to_numpy()
    return int(again.argmax()) if again.any() else None


def with_times(dates: pd.DatetimeIndex, times: pd.Series, place: Place) -> pd.DatetimeIndex:
    """Dates at the times of another column, like 93000, "0930" or "09:30"."""
    texts = times.astype(str).str.strip().str.replace(r"\.0$", "", regex=True)
    plain = texts.str.replace(":", "")
    long = plain.str.len().gt(4).any()
    plain = plain.str.zfill(6 if long else 4)
    parsed = pd.to_datetime(plain, format="%H%M%S" if long else "%H%M", errors="coerce")
    if parsed.isna().any():
        row = int(parsed.isna().to_numpy().argmax())
        raise DataError(f"{place(row)}: {texts.iloc[row]!r} is not a time of day, like 09:30")
    return (dates + (parsed - parsed.dt.normalize()).to_numpy()).rename("date")


def finished_sessions(dates: pd.DatetimeIndex) -> np.ndarray:
    """Which rows (T,) are of finished sessions.

    A last date with a time of day, among dates without, is of a session that was not finished.
    """
    last = dates.max()
    before = dates[dates != last]
    if len(before) > 1 and last != last.normalize() and (before == before.normalize()).all():
        return np.asarray(dates != last)
    return np.ones(len(dates), dtype=bool)
