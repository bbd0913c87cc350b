"""Rows per year of calendars whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from data_loaders import DataError, Panel, load
from data_loaders.calendars import elapsed_years, periods_per_year


def bars(days, first, count, step):
    return pd.DatetimeIndex(
        [day + pd.Timedelta(first) + i * pd.Timedelta(step) for day in days for i in range(count)]
    )


SESSIONS = pd.bdate_range("2020-01-01", periods=400)
DAILY = pd.date_range("2020-01-01", periods=500)
CALENDARS = {
    "sessions": (SESSIONS, 252),
    "sessions with holidays": (SESSIONS.delete(np.arange(10, 400, 29)), 252),
    "every day": (DAILY, 365),
    "every day but one": (DAILY.delete(200), 365),
    "weeks": (pd.date_range("2015-01-02", periods=200, freq="W-FRI"), 52),
    "every other week": (pd.date_range("2015-01-02", periods=100, freq="2W-FRI"), 26),
    "Tuesdays and Fridays": (DAILY[DAILY.day_of_week.isin([1, 4])], 104),
    "months": (pd.date_range("2000-01-31", periods=100, freq="ME"), 12),
    "quarters": (pd.date_range("1980-03-31", periods=120, freq="QE"), 4),
    "a few quarters": (pd.date_range("1980-03-31", periods=9, freq="QE"), 4),
    "years": (pd.date_range("1900-12-31", periods=100, freq="YE"), 1),
    "a few years": (pd.date_range("1990-12-31", periods=8, freq="YE"), 1),
    "hours, every day": (pd.date_range("2021-01-01", periods=5000, freq="h"), 24 * 365),
    "four hours, every day": (pd.date_range("2021-01-01", periods=5000, freq="4h"), 6 * 365),
    "hours of sessions": (bars(SESSIONS, "9h30min", 7, "1h"), 7 * 252),
    "five minutes of sessions": (bars(SESSIONS[:80], "9h30min", 78, "5min"), 78 * 252),
    "sessions with a hole of a year": (SESSIONS[:100].union(SESSIONS[360:]), 252),
    "six days a week": (DAILY[DAILY.day_of_week != 5], 313),
    "a few sessions": (SESSIONS[:4], 252),
    "one day": (SESSIONS[:1], 252),
}


@pytest.mark.parametrize("name", CALENDARS)
def test_rows_per_year(name):
    dates, expected = CALENDARS[name]
    assert periods_per_year(dates) == expected
    assert Panel(pd.DataFrame({"A": 1.0}, dates)).periods_per_year == expected


OTHERS = {
    "half days": (bars(SESSIONS, "12h", 2, "4h"), 2 * 252),
    "half days, every day": (pd.date_range("2021-01-01", periods=2000, freq="12h"), 2 * 365),
    "Mondays, Wednesdays and Fridays": (DAILY[DAILY.day_of_week.isin([0, 2, 4])], 157),
    "twice a month": (pd.date_range("2000-01-15", periods=200, freq="SME"), 24),
    "currencies from Sunday to Friday": (DAILY[DAILY.day_of_week != 5], 313),
    "hours of currencies, Sunday 22:00 to Friday 21:00": (
        pd.date_range("2021-01-01", periods=9000, freq="h")[
            [not 5 * 24 - 2 <= h < 7 * 24 - 2 for h in (np.arange(9000) + 4 * 24) % (7 * 24)]
        ],
        24 * 252,
    ),
    "hours of six days a week, half of Saturdays": (
        bars(DAILY[DAILY.day_of_week < 6], "9h", 8, "1h").difference(
            bars(DAILY[DAILY.day_of_week == 5], "13h", 4, "1h")
        ),
        round((8 * 5 + 4) * 365.25 / 7),
    ),
    "five minutes, every day": (pd.date_range("2021-01-01", periods=30_000, freq="5min"), 105_120),
    "hours with a missing day": (
        pd.date_range("2021-01-01", periods=5000, freq="h").delete(np.arange(2400, 2424)),
        8760,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_rows_per_year_of_other_calendars(name):
    dates, expected = OTHERS[name]
    assert periods_per_year(dates) == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            SESSIONS[:300],
            pd.date_range("2021-03-05", periods=100, freq="W-FRI"),
            "252 .* about 52 ",
        ),
        (
            pd.date_range("2010-01-01", periods=200, freq="W-FRI"),
            pd.date_range("2013-12-31", periods=40, freq="ME"),
            " 52 .* about 12 ",
        ),
        (
            pd.date_range("1990-12-31", periods=60, freq="QE"),
            pd.date_range("2005-12-31", periods=60, freq="ME"),
            " 4 .* about 12 ",
        ),
        (SESSIONS[:100], bars(SESSIONS[100:200], "10h", 7, "1h"), "252 .* about 1764 "),
    ],
)
def test_a_change_of_the_frequency_is_refused(first, second, said):
    dates = first.union(second)
    panel = Panel(pd.DataFrame({"A": 1.0}, dates))
    with pytest.raises(DataError, match=said) as raised:
        _ = panel.periods_per_year
    turn = raised.value.dates[0]
    assert abs(dates.searchsorted(turn) - len(first)) <= 2
    assert Panel(panel.prices, periods_per_year=60).periods_per_year == 60
    assert Panel(panel.prices.loc[: first[-1]]).periods_per_year == periods_per_year(first)


def test_bundled_data():
    for source in ("sp500", "sp500_index", "factors"):
        assert load(source).periods_per_year == 252


def test_elapsed_years_are_those_of_the_calendar():
    dates = pd.DatetimeIndex(["2023-01-06", "2023-01-09", "2024-01-09 06:00"])
    years = elapsed_years(dates)
    assert years == pytest.approx([0, 3 / 365.25, 365.25 / 365.25], rel=1e-15)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.3])
@pytest.mark.parametrize(
    "dates",
    [SESSIONS, pd.date_range("2000", "2020", freq="W-FRI"), CALENDARS["hours of sessions"][0]],
)
def test_rows_that_are_missing_at_random_are_no_change_of_the_frequency(dates, share):
    for seed in range(20):
        kept = dates[np.random.default_rng(seed).random(len(dates)) < share]
        counted = len(kept) / ((kept[-1] - kept[0]).days / 365.25)
        assert periods_per_year(kept) == pytest.approx(counted, rel=0.25)
