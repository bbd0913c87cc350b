import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel
from engine import WalkForward, backtest
from engine.planning.walk_forward import Fold
from strategies import EqualWeight

DATES = pd.bdate_range("2010-01-04", "2015-12-30")


def test_weekly_decisions_are_on_the_last_session_of_the_week():
    dates = DATES.drop(pd.Timestamp("2010-04-02"))  # Good Friday
    days = dates[WalkForward().decisions(dates)]
    assert pd.Timestamp("2010-04-01") in days
    assert set(days.day_of_week) == {3, 4}
    assert days[-1] == pd.Timestamp("2015-12-25")  # the last week is not over


def test_a_decision_that_cannot_be_filled_is_left_out():
    dates = DATES[DATES <= "2015-12-25"]
    assert dates[WalkForward(execution_lag=0).decisions(dates)][-1] == pd.Timestamp("2015-12-25")
    assert dates[WalkForward(execution_lag=1).decisions(dates)][-1] == pd.Timestamp("2015-12-18")


@pytest.mark.parametrize("frequency", ["D", "W-WED", "ME", "QE", "MS"])
def test_decisions_increase(frequency):
    rows = WalkForward(rebalance=frequency).decisions(DATES)
    assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("frequency", ["W", "W-WED", "ME", "BME", "QE-FEB", "YE-MAR", "2W-FRI"])
@pytest.mark.parametrize("end", ["2015-12-30", "2015-12-31", "2015-11-27"])
def test_periods_are_those_of_resample(frequency, end):
    dates = DATES[end >= DATES][np.random.default_rng(0).random(len(DATES[end >= DATES])) < 0.9]
    rows = WalkForward(rebalance=frequency, execution_lag=0).decisions(dates)
    last = pd.Series(np.arange(len(dates)), dates).resample(frequency).last().dropna()
    assert rows.tolist() == last[last.index <= dates[-1]].astype(int).tolist()


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


@pytest.mark.parametrize("wrong", [{"rebalance": "FOO"}, {"rebalance": None}, {"rebalance": True}])
def test_a_frequency_that_is_none_says_what_would_be_one(wrong):
    with pytest.raises(ValueError, match="is not a pandas frequency; write it like 'W-FRI', 'ME'"):
        WalkForward(**wrong)


@pytest.mark.parametrize("window", ["expanding", "rolling"])
def test_folds_by_rows(window):
    plan = WalkForward(train=500, refit=100, rebalance=10, window=window, execution_lag=2)
    decisions = plan.decisions(DATES)
    assert decisions[0] == 9
    assert (np.diff(decisions) == 10).all()
    folds = plan.folds(DATES, lookback=30)
    assert [fold.refit for fold in folds[:3]] == [509, 609, 709]
    assert all(len(fold.test) == 10 for fold in folds[:-1])
    for fold in folds:
        assert fold.start == (fold.refit - 500 if window == "rolling" else 0)
        assert fold.ends.max() == fold.refit - 8  # filled two rows after the decision before
    tested = np.concatenate([fold.test for fold in folds])
    assert (tested == decisions[decisions >= 509]).all()


def test_the_folds_as_a_table():
    panel = Panel(pd.DataFrame(1.0, index=DATES, columns=["A"]))
    table = WalkForward(train="2Y", refit="1Y", rebalance="ME").describe(panel, lookback=21)
    assert len(table) == 4
    assert table["decisions"].tolist() == [12, 12, 13, 10]  # from the 31st of January on
    assert (table["labels_end"] <= table["train_end"]).all()
    assert (table["test_start"] == table["train_end"]).all()
    assert (table["last_fill"] > table["test_end"]).all()
    assert table["training"].is_monotonic_increasing


def test_months_of_refits_do_not_creep():
    # Refits from the 31st on: every one counts from the first, not from the one before.
    dates = pd.date_range("2010-01-31", "2013-12-31", freq="D")
    table = WalkForward(train="1Y", refit="1M", rebalance="D").folds(dates, 1)
    days = [dates[fold.refit].day for fold in table]
    assert max(days) == 31
    assert min(days) == 28


def test_a_rebalance_calendar_without_a_session_is_refused():
    with pytest.raises(ValueError, match="'QE' has no session"):
        WalkForward(rebalance="QE").folds(DATES[:20], 1)
    with pytest.raises(ValueError, match="9999 has no session"):
        WalkForward(rebalance=9999).folds(DATES, 1)
    with pytest.raises(ValueError, match="rebalance is from 1 row on"):
        WalkForward(rebalance=0)


def test_a_lookback_longer_than_the_history_is_refused():
    with pytest.raises(ValueError, match="lookback of 5000 rows is longer than the history of"):
        WalkForward().folds(DATES, 5000)


def test_a_refit_without_a_decision_is_refused():
    with pytest.raises(ValueError, match="fold 1, from .* has no decision: refit='1W'"):
        WalkForward(train="1Y", refit="1W", rebalance="QE").folds(DATES, 1)


def test_folds_of_a_plan_of_ones_own_are_checked(walks):
    rows = np.arange

    def refused(message, *folds):
        class Own(WalkForward):
            def folds(self, dates, lookback):
                return list(folds)

        with pytest.raises(ValueError, match=message):
            backtest(EqualWeight(), walks, Own())

    none = rows(0)
    refused("no fold")
    refused("fold 0 has no decision", Fold(0, 0, none, none, 100, none))
    first = Fold(0, 0, none, none, 100, rows(100, 200, 5))
    refused("fold 1, .* overlaps", first, Fold(1, 0, none, none, 195, rows(195, 300, 5)))
    ahead = Fold(0, 0, rows(95, 105), rows(97, 107), 100, rows(100, 200, 5))
    refused("learns from a label that ends on 2010-06-01, after its refit", ahead)
    refused("does not go forward", Fold(0, 0, none, none, 100, rows(200, 100, -5)))


def test_bad_plans():
    with pytest.raises(ValueError, match="train=-5 is not a span"):
        WalkForward(train=-5)
    with pytest.raises(ValueError, match="too short a history for the first fold: 9Y"):
        WalkForward(train="9Y").folds(DATES, 10)
    with pytest.raises(ValueError, match="train='5 years' is not a span"):
        WalkForward(train="5 years")
    with pytest.raises(ValueError, match="refit='0Y'"):
        WalkForward(refit="0Y")
    with pytest.raises(ValueError, match="'weekly' is not a pandas frequency"):
        WalkForward(rebalance="weekly")
    with pytest.raises(ValueError, match="'expanding' or 'rolling'"):
        WalkForward(window="sliding")
    with pytest.raises(ValueError, match="execution_lag is a whole number"):
        WalkForward(execution_lag=-1)
