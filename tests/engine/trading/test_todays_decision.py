import numpy as np
import pandas as pd
import pytest

from engine import WalkForward
from engine.planning.decision_dates import decision_rows
from engine.trading.account import OrderError
from engine.trading.todays_decision import schedule, sessions_after


def test_the_sessions_of_next_year_follow_from_those_of_the_last(stocks):
    """Holidays are those that the exchange kept: a year of them is foreseen to the day."""
    known = stocks.dates[stocks.dates <= "2004-06-30"]
    coming = sessions_after(known, pd.Timestamp("2005-06-30"))
    true = stocks.dates[(stocks.dates > "2004-06-30") & (stocks.dates <= "2005-06-30")]
    assert coming.equals(pd.DatetimeIndex(true))
    assert len(sessions_after(known, pd.Timestamp("2004-07-31"), ["2004-07-28"])) == 20


@pytest.mark.parametrize("rebalance", ["W-FRI", "ME", "MS", "last session of month", "QE", 7])
def test_what_is_decided_today_is_what_a_backtest_decides(stocks, rebalance):
    """Whether a day is a decision day is known at its close, without the days after it.

    In December and January there are the ends of a quarter and of two months, and closed Fridays.
    """
    plan = WalkForward(train=250, rebalance=rebalance)
    rows = decision_rows(stocks.dates, rebalance, None)
    decided = stocks.dates[rows[rows >= 300]]
    december, february = stocks.dates.searchsorted(["2004-12-01", "2005-02-03"])
    assert len(set(rows) & set(range(december, february))) >= 1
    for row in range(december, february):
        found = schedule(stocks.dates[: row + 1], plan, decided[decided < stocks.dates[row]])
        assert (row in found.rows) == (row in rows), stocks.dates[row]


def test_folds_are_those_of_the_walk_forward(stocks):
    plan = WalkForward(train="2Y", refit="6M", rebalance="ME")
    folds = plan.folds(stocks.dates, 30)
    decided = stocks.dates[np.concatenate([fold.test for fold in folds])]
    for fold in folds:
        for row in map(int, (fold.test[0], fold.test[-1])):
            found = schedule(stocks.dates[: row + 1], plan, decided)
            assert found.fold(row) == (fold.number, fold.refit)
    late = schedule(stocks.dates[900:], plan, decided)
    with pytest.raises(OrderError, match="after the run's first decision"):
        late.fold(10)


def test_bars_and_weeks_have_sessions_too():
    hours = pd.date_range("2024-01-01", "2024-02-01", freq="h")
    assert len(sessions_after(hours[:-10], pd.Timestamp("2024-02-03"))) > 24
    weeks = pd.date_range("2020-01-03", periods=80, freq="W-FRI")
    coming = sessions_after(weeks, weeks[-1] + pd.Timedelta("30D"))
    assert list(coming.day_of_week) == [4] * 4
