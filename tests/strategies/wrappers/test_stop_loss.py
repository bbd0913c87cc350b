"""Stops around a strategy: worked out by hand, and honest."""

import numpy as np
import pandas as pd
import pytest
from random_brackets import market

from data_loaders import Panel
from engine import AllocationError, Costs, WalkForward, backtest, check_strategy
from strategies import Blend, Bracket, EqualWeight, StopLoss, Strategy

PLAN = WalkForward(train=2, rebalance=1, refit=50, execution_lag=0)


class Fixed(Strategy):
    lookback = 1

    def __init__(self, weights, short=False):
        self.weights = weights
        self.short = short

    def allocate(self, history, holdings):
        return pd.Series(self.weights, history.assets)


def run(bars, wrapper):
    """The orders in A with these bars (open, high, low, close) from row 2 on; B stands still."""
    rows = [(100.0,) * 4] * 2 + bars
    dates = pd.bdate_range("2020-01-01", periods=len(rows))
    a, b = np.array(rows), np.full((len(rows), 4), 100.0)
    frames = {
        name: pd.DataFrame({"A": a[:, k], "B": b[:, k]}, dates)
        for k, name in enumerate(("open", "high", "low", "close"))
    }
    panel = Panel(frames.pop("close"), frames)
    (result,) = backtest(wrapper, panel, PLAN, Costs(0.0), progress=False, ledger=False).values()
    orders = result.orders[result.orders["asset"] == "A"]
    return [
        (dates.get_loc(each.date), each.price, each.reason, each.side)
        for each in orders.itertuples()
    ]


def test_a_stop_stays_where_the_position_was_opened():
    bars = [
        (100, 101, 99, 100),  # bought at the close, stop at 90
        (96, 97, 94, 95),  # bought more: the stop stays
        (94, 95, 88, 93),  # out at 90, and in again at 93, stop at 83.7
        (80, 85, 79, 84),  # out at the open
    ]
    found = run(bars, StopLoss(Fixed([0.5, 0.5]), 0.1))
    assert found[1:] == [
        (3, 95.0, "decision", "buy"),
        (4, 90.0, "stop", "sell"),
        (4, 93.0, "decision", "buy"),
        (5, 80.0, "stop", "sell"),
        (5, 84.0, "decision", "buy"),
    ]


def test_a_stop_of_a_short_position_and_a_trailing_one():
    bars = [(100, 101, 99, 100), (100, 112, 99, 111)]
    found = run(bars, StopLoss(Fixed([-0.5, 0.5], short=True), 0.1))
    assert found[1] == (3, pytest.approx(110.0), "stop", "buy")
    bars = [(100, 101, 99, 100), (100, 120, 99, 119), (119, 119, 107, 110)]
    found = run(bars, StopLoss(Fixed([0.5, 0.5]), None, 0.1))
    assert found[2] == (4, 108.0, "trailing", "sell")


def test_beyond_the_stop_at_the_close_the_position_is_closed():
    plan = WalkForward(train=2, rebalance=1, refit=50)
    closes = [100.0, 100, 100, 85, 85, 85]
    frame = pd.DataFrame({"A": closes, "B": 100.0}, pd.bdate_range("2020-01-01", periods=6))
    panel = Panel(frame, {"open": frame, "high": frame, "low": frame})
    wrapper = StopLoss(Fixed([0.5, 0.5]), 0.1)
    (result,) = backtest(wrapper, panel, plan, Costs(0.0), progress=False, ledger=False).values()
    # Decided at 100 and filled at 85, which is beyond the stop of 90.
    assert result.targets["A"].iloc[0] == 0.5
    assert result.targets["A"].iloc[1] == 0


class Targeted(Fixed):
    """With a stop and a take-profit of its own in A, counted from the close."""

    def allocate(self, history, holdings):
        close = history.prices["A"].iloc[-1]
        levels = {"stop": {"A": 0.95 * close}, "take_profit": {"A": 1.1 * close}}
        return Bracket(super().allocate(history, holdings), **levels)


def test_the_nearer_of_two_stops_counts_and_a_target_inside_stays():
    bars = [
        (100, 101, 99, 100),  # bought at the close, stops at 95 and 90, target at 110
        (100, 101, 94, 96),  # out at 95, in again at 96
        (96, 106, 96, 105),  # out at 105.6
    ]
    found = run(bars, StopLoss(Targeted([0.5, 0.5]), 0.1))
    assert found[:4] == [
        (2, 100.0, "decision", "buy"),
        (3, 95.0, "stop", "sell"),
        (3, 96.0, "decision", "buy"),
        (4, pytest.approx(105.6), "take_profit", "sell"),
    ]
    found = run(bars, StopLoss(Targeted([0.5, 0.5]), 0.03))  # now the wrapper's is nearer
    assert found[1] == (3, 97.0, "stop", "sell")


def test_it_is_honest_and_stays_outside_of_parts():
    bars, _ = market(3, rows=120, assets=5)
    check_strategy(StopLoss(EqualWeight(), 0.02, 0.03), bars, WalkForward(20, 60, 10))
    with pytest.raises(AllocationError, match=r"StopLoss\(EqualWeight\) answers with a Bracket"):
        backtest(Blend({"a": StopLoss(EqualWeight())}), bars, PLAN, progress=False, ledger=False)
    with pytest.raises(ValueError, match="stop should be above 0"):
        backtest(StopLoss(EqualWeight(), 0.0), bars, PLAN, progress=False, ledger=False)
