"""Bands worked out by hand, and over real prices against a loop over shares and cash."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from books import keep_books

from data_loaders import Panel, load
from engine import Costs, WalkForward, backtest
from strategies import EqualWeight, NoTradeBand, Strategy

ASSETS = list("ABCD")
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


NAN = np.nan


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
