"""Stop, trailing, take-profit and limit orders: against a plain loop, order by order."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from bracket_books import NO_LEVELS, keep_bracket_books
from random_brackets import answer, market

from data_loaders import Panel
from engine import Costs
from engine.accounting.bookkeeping import keep_book
from engine.accounting.market import Levels, Market
from engine.accounting.positions import Positions
from engine.accounting.simulation import fills_of, load_vectorbt, simulate

CASES = [(0, False), (1, False), (1, True), (2, False), (2, True)]


@pytest.mark.parametrize(("lag", "at_open"), CASES)
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_orders_are_those_of_the_loop(lag, at_open, short, seed):
    panel, bars = market(seed)
    costs = Costs(0.002)
    rows = np.random.default_rng(seed).integers(1, 7, 150).cumsum()
    rows = rows[rows + lag < len(panel)]
    positions = Positions(Market(panel, costs, "open" if at_open else "close"), lag)
    holdings = {}
    for row in map(int, rows):
        holdings[row] = positions.holdings(row)
        weights, named = answer(seed, row, holdings[row], bars[3][row], short)
        levels = Levels.none(4)
        for asset, each in named.items():
            for array, name in zip(levels, Levels._fields, strict=True):
                array[asset] = each[name]
        positions.order(row, weights, levels)
    positions.advance(len(panel) - 1)
    fills = fills_of(positions)
    book = keep_book(fills, costs)

    def asked(row):
        return lambda held: answer(seed, row, held, bars[3][row], short)

    value, orders, held = keep_bracket_books(
        bars, {int(row): asked(int(row)) for row in rows}, lag, asdict(costs), at_open
    )
    found = [
        (fills.rows[event] + len(panel) - len(fills.dates), asset,
         fills.prices[event, asset].item(), book.orders[event, asset].item())
        for event, asset in book.orders.nonzero().tolist()
    ]  # fmt: skip
    assert len(found) > 100
    assert [each[:2] for each in found] == [(row, asset) for row, asset, *_ in orders]
    np.testing.assert_allclose([e[2:] for e in found], [e[2:] for e in orders], rtol=1e-9)
    np.testing.assert_allclose(book.value, value[-len(book.value) :], rtol=1e-11)
    for row in holdings:
        np.testing.assert_allclose(holdings[row], held[row], atol=1e-11)
    reasons = {why for event in positions.events for why in event.reasons.values()}
    assert reasons == {"limit", "stop", "trailing", "take_profit"}


def test_no_levels_are_no_levels():
    assert set(NO_LEVELS) == set(Levels._fields)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(
    "fractions",
    [{"sl_stop": 0.03}, {"sl_stop": 0.03, "sl_trail": True}, {"tp_stop": 0.04},
     {"sl_stop": 0.03, "tp_stop": 0.05}],
    ids=["stop", "trailing", "take_profit", "stop and take_profit"],
)  # fmt: skip
def test_orders_are_those_of_vectorbt(fractions, side):
    """Of one position at a time, bought at a close. Where a bar opens beyond the take-profit and
    then reaches the stop, we take the profit at the open, which came first, and vectorbt stops:
    no such bar is drawn here. And it does not enter again in the bar of an exit."""
    found = 0
    for seed in range(6):
        panel, (opens, highs, lows, closes) = market(seed, rows=200, assets=1)
        entries = np.zeros((200, 1), bool)
        entries[::7] = True
        theirs = load_vectorbt().Portfolio.from_signals(
            pd.DataFrame(closes), entries, False, size=1.0, init_cash=1e6, fees=0.0,
            open=opens, high=highs, low=lows, freq="1D",
            direction="longonly" if side > 0 else "shortonly", **fractions,
        ).order_records  # fmt: skip
        entered = theirs["idx"][theirs["side"] == (0 if side > 0 else 1)]
        targets = pd.DataFrame(0.5 * side, panel.dates[entered], panel.assets)
        levels = {}
        for row in map(int, entered):
            level = levels[row] = Levels.none(1)
            if fractions.get("sl_trail"):
                level.trailing[0] = 0.03
            elif "sl_stop" in fractions:
                level.stop[0] = closes[row, 0] * (1 - side * 0.03)
            level.take_profit[0] = closes[row, 0] * (1 + side * fractions.get("tp_stop", np.nan))
        ours = simulate(targets, panel, Costs(0.0), lag=0, levels=levels).orders
        assert list(panel.dates.get_indexer(ours["date"])) == list(theirs["idx"])
        np.testing.assert_allclose(ours["price"], theirs["price"], rtol=1e-12)
        found += len(ours)
    assert found > 30


def test_a_bar_that_opens_beyond_the_profit_takes_it():
    """Even where the stop is reached later in the bar; vectorbt would stop at 95."""
    bars = {"open": [100, 111.0], "high": [100, 112.0], "low": [100, 94.0], "close": [100, 96.0]}
    dates = pd.bdate_range("2020-01-01", periods=2)
    frames = {name: pd.DataFrame({"A": each}, dates) for name, each in bars.items()}
    panel = Panel(frames.pop("close"), frames)
    levels = Levels.none(1)
    levels.stop[0], levels.take_profit[0] = 95.0, 110.0
    targets = pd.DataFrame({"A": [1.0]}, dates[:1])
    order = simulate(targets, panel, Costs(0.0), 0, levels={0: levels}).orders.iloc[-1]
    assert (order["price"], order["reason"]) == (111.0, "take_profit")


def test_a_trailing_stop_put_later_counts_from_where_the_position_was_opened():
    """Bought at 100 without a stop; after a high of 120 one of 10% is put, which 107 reaches."""
    dates = pd.bdate_range("2020-01-01", periods=7)
    closes = pd.DataFrame({"A": [100.0, 100, 118, 112, 110, 107, 107]}, dates)
    high, low = closes.copy(), closes.copy()
    high.iloc[2] = 120.0
    panel = Panel(closes, {"open": closes, "high": high, "low": low})
    positions = Positions(Market(panel, Costs(0.0)))
    positions.order(0, np.array([0.5]))
    positions.order(3, np.array([np.nan]), Levels.none(1)._replace(trailing=np.array([0.1])))
    positions.advance(6)
    assert [(event.row, event.prices[0]) for event in positions.events] == [(1, 100.0), (5, 107.0)]
    assert positions.weights[0] == 0
