"""Bands, largest weights and stops: worked out by hand, over real prices, and honest."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from books import keep_books
from markets import random_walks
from random_brackets import market

from data_loaders import Panel, load
from engine import AllocationError, Costs, WalkForward, backtest, check_strategy
from strategies import (
    Blend,
    Bracket,
    EqualWeight,
    LargestPositions,
    NoTradeBand,
    StopLoss,
    Strategy,
)

ASSETS = list("ABCD")
NAN = np.nan
CLOSES = pd.DataFrame(100.0, pd.bdate_range("2020-01-01", periods=3), ASSETS)


class Fixed(Strategy):
    """Always the same weights."""

    lookback = 1

    def __init__(self, weights, short=False, leverage=1.0):
        self.weights = weights
        self.short = short
        self.leverage = leverage

    def allocate(self, history, holdings):
        return pd.Series(self.weights, history.assets)


def banded(targets, held, trade="target", width=0.05, closes=CLOSES, **room):
    band = NoTradeBand(Fixed(targets, **room), width, trade)
    return band.allocate(Panel(closes), pd.Series(held, ASSETS))


@pytest.mark.parametrize(
    ("trade", "held", "expected"),
    [
        # A is 6 points too high, B 7 too low, C and D are inside the band
        ("target", [0.31, 0.18, 0.26, 0.25], [0.25, 0.24, NAN, NAN]),  # 25 + 26 + 25 leave 24
        ("edge", [0.31, 0.18, 0.26, 0.25], [0.30, 0.19, NAN, NAN]),  # sells a point: it buys one
        ("target", [0.31, 0.24, 0.23, 0.22], [0.25, NAN, NAN, NAN]),
        ("all", [0.31, 0.18, 0.26, 0.25], [0.25, 0.25, 0.25, NAN]),
        ("target", [0.25, 0.18, 0.30, 0.27], [NAN, NAN, NAN, NAN]),  # no cash to buy with
        ("target", [0.0, 0.0, 0.0, 0.0], [0.25] * 4),  # the first purchase
        ("edge", [0.0, 0.0, 0.0, 0.0], [0.25] * 4),
    ],
)
def test_what_is_outside_the_band_is_traded(trade, held, expected):
    found = banded([0.25] * 4, held, trade)
    wanted = pd.Series(expected, ASSETS)
    if held[2] == 0.30:  # left as it is, by its weight
        wanted["B"] = 0.18
    pd.testing.assert_series_equal(found, wanted, rtol=0, atol=1e-12)


def test_nothing_is_ordered_inside_the_band():
    held = [0.26, 0.24, 0.27, 0.23]
    assert banded([0.25] * 4, held, "all").isna().all()
    assert banded([0.25] * 4, held).isna().all()


def test_what_cannot_be_kept_is_sold_whatever_the_band():
    closes = CLOSES.copy()
    closes.iloc[-1, 3] = np.nan
    for trade in ("target", "edge"):
        found = banded([0.5, 0.5, 0, 0], [0.48, 0.48, 0.02, 0.02], trade, closes=closes)
        assert found["D"] == 0  # no longer quoted
        assert found.drop("D").isna().all()


def test_short_positions_have_bands_and_room_of_their_own():
    held = [0.9, 0.1, -0.31, -0.3]
    found = banded([0.7, 0.3, -0.31, -0.29], held, short=True, leverage=1.6)
    np.testing.assert_allclose(found, [0.7, 0.29, np.nan, np.nan], atol=1e-12)
    assert np.abs(found.fillna(pd.Series(held, ASSETS))).sum() == pytest.approx(1.6)


class HandWritten(Strategy):
    """The rule of anyone's first try: the holdings, while all of them are near 1/N."""

    lookback = 1

    def allocate(self, history, holdings):
        target = 1 / len(holdings)
        near = holdings.any() and ((holdings - target).abs() <= 0.02).all()
        return holdings if near else pd.Series(target, history.assets)


COSTS = {"proportional": Costs(0.001), "minimum": Costs(0.001, minimum=1.0, capital=1e5)}


@pytest.mark.parametrize("kind", COSTS)
def test_a_band_of_two_points_over_twenty_stocks_rarely_trades(kind):
    panel, costs = load("sp500", start="2009-01-01"), COSTS[kind]
    plan = WalkForward(train="5Y", rebalance="D")
    rules = {"by hand": HandWritten(), "wrapper": NoTradeBand(EqualWeight(), 0.02, "all")}
    if kind == "minimum":
        del rules["wrapper"]
    results = backtest(rules, panel, plan, costs, ledger=False)
    result = results["by hand"]
    rows = panel.dates.get_indexer(result.targets.index)

    def answer(held):
        near = held.any() and (abs(held - 0.05) <= 0.02).all()
        return held if near else np.full(20, 0.05)

    books = keep_books(panel.prices, dict.fromkeys(rows, answer), 1, asdict(costs))
    assert len(rows) == 2263  # decisions, in nine years
    assert len(books["row"]) == 30
    for found in results.values():
        np.testing.assert_allclose(found.net_returns, books["net"], atol=1e-10)
        np.testing.assert_allclose(found.turnover, books["turnover"], atol=1e-10)
        assert len(found.orders) == 20 * 30
        assert found.turnover.sum() == pytest.approx(4.004, abs=5e-4)
    earned = {"proportional": 2.9508, "minimum": 2.9451}[kind]
    assert (1 + result.net_returns).prod() - 1 == pytest.approx(earned, abs=5e-5)


@pytest.mark.parametrize(
    ("weights", "count", "least", "expected"),
    [
        ([0.4, 0.3, 0.2, 0.1], 2, 0.0, [4 / 7, 3 / 7, 0, 0]),
        ([0.4, 0.3, 0.2, 0.1], None, 0.25, [4 / 7, 3 / 7, 0, 0]),
        ([0.4, 0.3, 0.2, 0.1], None, 0.2, [4 / 9, 3 / 9, 2 / 9, 0]),
        ([0.4, 0.3, 0.2, 0.1], 3, 0.4, [4 / 7, 3 / 7, 0, 0]),
        ([0.2, -0.4, 0.1, 0.1], 2, 0.0, [0.8 / 3, -1.6 / 3, 0, 0]),
        ([0.4, NAN, 0.2, 0.1], 1, 0.0, [0.7, NAN, 0, 0]),  # left alone, and not counted
        ([0.2, 0.1, 0.1, 0.0], None, 0.5, [0, 0, 0, 0]),  # no position can be so large
        ([0.0, 0.0, 0.0, 0.0], 2, 0.1, [0, 0, 0, 0]),
    ],
)
def test_the_largest_are_kept_and_scaled(weights, count, least, expected):
    panel = random_walks(5, 4)
    held = pd.Series([0.01, 0.15, 0.05, 0.01], panel.assets)
    found = LargestPositions(Fixed(weights, True, 2.0), count, least).allocate(panel, held)
    np.testing.assert_allclose(found, expected, atol=1e-12)


PLAN = WalkForward(train=2, rebalance=1, refit=50, execution_lag=0)


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
