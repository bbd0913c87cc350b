import numpy as np
import pandas as pd
import pytest

from engine import WalkForward

DATES = pd.bdate_range("2010-01-04", "2015-12-30")


def test_weekly_decisions_are_on_the_last_session_of_the_week():
    dates = DATES.drop(pd.Timestamp("2010-04-02"))  # Good Friday
    days = dates[WalkForward().decisions(dates)]
    assert pd.Timestamp("2010-04-01") in days
    assert set(days.dayofweek) == {3, 4}
    assert days[-1] == pd.Timestamp("2015-12-25")  # the last week is not over


def test_a_decision_that_cannot_be_filled_is_left_out():
    dates = DATES[DATES <= "2015-12-25"]
    assert dates[WalkForward(execution_lag=0).decisions(dates)][-1] == pd.Timestamp("2015-12-25")
    assert dates[WalkForward(execution_lag=1).decisions(dates)][-1] == pd.Timestamp("2015-12-18")


@pytest.mark.parametrize("frequency", ["D", "W-WED", "ME", "QE", "MS"])
def test_decisions_increase(frequency):
    rows = WalkForward(rebalance=frequency).decisions(DATES)
    assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("window", ["expanding", "rolling"])
@pytest.mark.parametrize(("lag", "purge"), [(0, 0), (1, 0), (3, 0), (1, 10)])
def test_no_label_reaches_into_the_test_rows(window, lag, purge):
    plan = WalkForward(train="2Y", refit="6M", window=window, execution_lag=lag, purge=purge)
    folds = plan.folds(DATES, lookback=60)
    decisions = plan.decisions(DATES)
    assert len(folds) == 8
    for fold in folds:
        nexts = decisions[np.searchsorted(decisions, fold.train) + 1]
        assert (fold.ends == nexts + lag).all()
        assert fold.ends.max() <= fold.refit - purge
        assert fold.test.min() == fold.refit
        assert (fold.train - 59 >= fold.start).all()
    tested = np.concatenate([fold.test for fold in folds])
    assert (tested == decisions[DATES[decisions] >= "2012-01-04"]).all()
    spans = [DATES[fold.refit] - DATES[fold.start] for fold in folds]
    if window == "rolling":
        assert max(spans) <= pd.Timedelta("731D")
    else:
        assert all(fold.start == 0 for fold in folds)


def test_a_long_lookback_delays_the_first_decision():
    folds = WalkForward(train="1Y").folds(DATES, lookback=600)
    assert folds[0].refit >= 599


def test_bad_plans():
    with pytest.raises(ValueError, match="too short a history for the first fold: 9Y"):
        WalkForward(train="9Y").folds(DATES, 10)
    with pytest.raises(ValueError, match="train='5 years' is no span"):
        WalkForward(train="5 years")
    with pytest.raises(ValueError, match="refit='0Y'"):
        WalkForward(refit="0Y")
    with pytest.raises(ValueError, match="'weekly' is no pandas frequency"):
        WalkForward(rebalance="weekly")
    with pytest.raises(ValueError, match="'expanding' or 'rolling'"):
        WalkForward(window="sliding")
    with pytest.raises(ValueError, match="execution_lag is a whole number"):
        WalkForward(execution_lag=-1)
