"""Decision dates on calendars where the right ones can be counted on a wall calendar."""

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel
from engine import Costs, WalkForward, backtest
from engine.runs.description import run_settings
from engine.runs.experiment import read_plan
from engine.training.settings import Training
from strategies import EqualWeight

# In 2023: Good Friday is the 7th of April, Juneteenth a Monday; the 1st of January is a Sunday,
# the 1st of April a Saturday, the 30th of April a Sunday.
HOLIDAYS = pd.DatetimeIndex(["2023-01-02", "2023-04-07", "2023-06-19", "2023-07-04"])
SESSIONS = pd.bdate_range("2022-12-28", "2023-07-07").difference(HOLIDAYS)
HOURS = pd.DatetimeIndex(
    [
        day + pd.Timedelta(hours=10 + i)
        for day in SESSIONS
        for i in range(4 if day.month == 3 else 7)
    ]
)
CRYPTO = pd.date_range("2023-01-01", "2023-02-03 05:00", freq="h")


def decided(dates, rebalance, **rest):
    """The dates of 2023 that are decided, as "MM-DD", with the hour where there is one."""
    rows = WalkForward(rebalance=rebalance, execution_lag=0, **rest).decisions(dates)
    assert (np.diff(rows) > 0).all()
    chosen = dates[rows]
    chosen = chosen[chosen >= "2023"]
    return " ".join(chosen.strftime("%m-%d" if (dates == dates.normalize()).all() else "%m-%d/%H"))


@pytest.mark.parametrize(
    ("rebalance", "holiday", "expected"),
    [
        ("WOM-3FRI", None, "01-20 02-17 03-17 04-21 05-19 06-16"),
        ("WOM-1FRI", None, "01-06 02-03 03-03 04-06 05-05 06-02 07-07"),
        ("WOM-1FRI", "next", "01-06 02-03 03-03 04-10 05-05 06-02 07-07"),
        ("MS", None, "01-03 02-01 03-01 04-03 05-01 06-01 07-03"),
        ("MS", "previous", "02-01 03-01 03-31 05-01 06-01 06-30"),
        ("QS", None, "01-03 04-03 07-03"),
        ("ME", None, "01-31 02-28 03-31 04-28 05-31 06-30"),
        ("ME", "next", "01-03 01-31 02-28 03-31 05-01 05-31 06-30"),
        ("BME", None, "01-31 02-28 03-31 04-28 05-31 06-30"),
        ("QE", None, "03-31 06-30"),
        (
            "SMS",
            None,
            "01-03 01-16 02-01 02-15 03-01 03-15 04-03 04-17 05-01 05-15 06-01 06-15 07-03",
        ),
        ("first session of month", None, "01-03 02-01 03-01 04-03 05-01 06-01 07-03"),
        ("3rd session of the month", None, "01-05 02-03 03-03 04-05 05-03 06-05 07-06"),
        ("last session of month", None, "01-31 02-28 03-31 04-28 05-31 06-30"),
        ("2nd last session of quarter", None, "03-30 06-29"),
        ("1st session of quarter", None, "01-03 04-03 07-03"),
        ("4W-FRI", None, "01-27 02-24 03-24 04-21 05-19 06-16"),
    ],
)  # fmt: skip
def test_days_of_sessions(rebalance, holiday, expected):
    assert decided(SESSIONS, rebalance, holiday=holiday) == expected


def test_weeks_with_a_holiday_at_their_end():
    fridays = decided(SESSIONS, "W-FRI")
    assert "03-31 04-06 04-14" in fridays
    assert "03-31 04-10 04-14" in decided(SESSIONS, "W-FRI", holiday="next")
    assert decided(SESSIONS, "last session of week") == fridays.removesuffix(" 07-07")
    assert "06-12 06-20 06-26" in decided(SESSIONS, "first session of week")


@pytest.mark.parametrize(
    ("rebalance", "expected"),
    [
        ("WOM-3FRI", "01-20/16 02-17/16 03-17/13 04-21/16 05-19/16 06-16/16"),
        ("WOM-3FRI 12:30", "01-20/12 02-17/12 03-17/12 04-21/12 05-19/12 06-16/12"),
        ("WOM-3FRI 15:00", "01-20/15 02-17/15 03-17/13 04-21/15 05-19/15 06-16/15"),
        ("last session of month 10:00", "01-31/10 02-28/10 03-31/10 04-28/10 05-31/10 06-30/10"),
        ("MS", "01-03/16 02-01/16 03-01/13 04-03/16 05-01/16 06-01/16 07-03/16"),
    ],
)
def test_bars_of_sessions(rebalance, expected):
    assert decided(HOURS, rebalance) == expected


def test_bars_of_a_market_that_never_closes():
    assert decided(CRYPTO, "W-SUN") == "01-01/23 01-08/23 01-15/23 01-22/23 01-29/23"
    days = CRYPTO.normalize().unique()
    last = " ".join(f"{each:%m-%d}/{23 if each < days[-1] else 5:02}" for each in days)
    assert decided(CRYPTO, "D") == last  # to the last row
    at_four = decided(CRYPTO, "16:00").split()
    assert at_four == [f"{each:%m-%d}/16" for each in days[:-1]] + ["02-03/05"]
    assert decided(CRYPTO, "8h").split()[:4] == ["01-01/07", "01-01/15", "01-01/23", "01-02/07"]
    assert decided(CRYPTO, "8h").split()[-1] == "02-02/23"  # eight hours later is not known
    assert decided(CRYPTO, 8).split() == decided(CRYPTO, "8h").split()


def test_lists_of_dates():
    listed = ["2023-03-31", "2023-01-31", date(2023, 2, 28), "2023-01-31", "2040-01-01"]
    assert decided(SESSIONS, listed) == "01-31 02-28 03-31"
    assert decided(HOURS, listed) == "01-31/16 02-28/16 03-31/13"
    assert decided(SESSIONS, SESSIONS[10:13]) == "01-12 01-13 01-16"
    assert decided(HOURS, HOURS[[40, 41]]) == " ".join(HOURS[[40, 41]].strftime("%m-%d/%H"))
    assert decided(CRYPTO, CRYPTO[[24, 30]]) == "01-02/00 01-02/06"
    assert decided(CRYPTO, ["2023-01-02", "2023-01-03 06:00"]) == "01-02/23 01-03/06"
    off = ["2023-01-31", "2023-04-07", "2023-04-09"]
    with pytest.raises(ValueError, match=r"no sessions of the data: 2023-04-07, 2023-04-09; holi"):
        decided(SESSIONS, off)
    assert decided(SESSIONS, off, holiday="previous") == "01-31 04-06"
    assert decided(SESSIONS, off, holiday="next") == "01-31 04-10"
    assert decided(HOURS, off, holiday="next") == "01-31/16 04-10/16"
    with pytest.raises(ValueError, match="2023-01-03 10:30"):
        decided(HOURS, ["2023-01-03 10:30"])
    assert decided(HOURS, ["2023-01-03 10:30"], holiday="next") == "01-03/11"


def thirds(dates):
    return np.arange(2, len(dates), 3)


@pytest.mark.parametrize(
    "function",
    [thirds, lambda dates: np.arange(len(dates)) % 3 == 2, f"{__file__}:thirds"],
    ids=["rows", "mask", "name"],
)
def test_functions_of_the_dates(function):
    plan = WalkForward(rebalance=function, train=30, refit=60)
    assert plan.decisions(SESSIONS).tolist() == list(range(2, len(SESSIONS) - 1, 3))
    panel = Panel(pd.DataFrame({"A": 1.0 + np.arange(len(SESSIONS))}, SESSIONS))
    settings = run_settings(panel, plan, Costs(), Training())
    assert json.loads(json.dumps(settings["plan"])) == settings["plan"]
    assert settings["plan"]["rebalance"].endswith((":thirds", ":<lambda>"))
    other = replace(plan, rebalance=lambda dates: thirds(dates)[1:])
    assert run_settings(panel, other, Costs(), Training())["decisions"] != settings["decisions"]


@pytest.mark.parametrize("rows", [[5, 4], [-1, 3], [500], [0.5], "ab", [True]])
def test_functions_that_give_no_rows(rows):
    with pytest.raises(ValueError, match="rebalance: the function"):
        decided(SESSIONS, lambda dates: rows)


@pytest.mark.parametrize("wrong", ["4h 16:00", "25:00", "zeroth session of month", "2D 10:00"])
def test_texts_that_say_no_date(wrong):
    with pytest.raises(ValueError, match="rebalance="):
        WalkForward(rebalance=wrong)


def test_other_bad_values():
    with pytest.raises(ValueError, match="names a time of day, and the dates have none"):
        decided(SESSIONS, "W-FRI 16:00")
    with pytest.raises(ValueError, match="holiday is 'previous' or 'next'"):
        WalkForward(holiday="skip")
    for wrong in ([3], ["today"], ["16:00"], ["soon"], [None]):
        with pytest.raises(ValueError, match="which is not a date like"):
            WalkForward(rebalance=wrong)
    for wrong in ([], (), 3.5, True, None):
        with pytest.raises(ValueError, match="is not a pandas frequency"):
            WalkForward(rebalance=wrong)
    with pytest.raises(ValueError, match="there is no file nowhere.py"):
        decided(SESSIONS, "nowhere.py:rows")


@pytest.mark.parametrize(
    "rebalance", ["W-FRI 16:00", ["2023-01-31", "2023-02-28"], "3rd session of month", 5]
)
def test_plans_come_back_from_their_settings(rebalance):
    plan = WalkForward(rebalance=rebalance, holiday="next")
    assert read_plan(json.loads(json.dumps(plan.described()))) == plan
    assert "holiday" not in WalkForward().described()  # as runs of older versions have it


def test_a_function_written_in_a_test_reaches_worker_processes():
    panel = Panel(pd.DataFrame({"A": 1.0 + np.arange(len(SESSIONS))}, SESSIONS))
    plan = WalkForward(rebalance=lambda dates: thirds(dates), train=30, refit=60)
    found = backtest([EqualWeight()], panel, plan, Costs(0.0), workers=2, progress=False)
    assert len(found["EqualWeight"].targets) == (plan.decisions(SESSIONS) >= 30).sum()
