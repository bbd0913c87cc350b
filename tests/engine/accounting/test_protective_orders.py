"""Stop, trailing, take-profit and limit orders: against a plain loop, order by order."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from bracket_books import NO_LEVELS, keep_bracket_books

from data_loaders import Panel
from engine import Costs
from engine.accounting.bookkeeping import keep_book
from engine.accounting.market import Market
from engine.accounting.positions import Positions
from engine.accounting.protective_orders import Levels
from engine.accounting.simulation import fills_of


def market(seed, rows=150, assets=4):
    """Random bars, with gaps from close to open."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.02, (rows, 4, assets))
    log = steps.reshape(-1, assets).cumsum(axis=0).reshape(rows, 4, assets)
    path = 50 * np.exp(log)  # open, two prices within the bar, close
    dates, names = pd.bdate_range("2020-01-01", periods=rows), list("ABCD")
    bars = path[:, 0], path.max(axis=1), path.min(axis=1), path[:, 3]
    frames = [pd.DataFrame(each, dates, names) for each in bars]
    features = dict(zip(("open", "high", "low"), frames[:3], strict=True))
    return Panel(frames[3], features), bars


def answer(seed, row, held, close, short):
    """Any weights, some of them NaN or held, with any levels on the right side of the price."""
    rng = np.random.default_rng([seed, row])
    count = len(held)
    weights = rng.normal(0.1, 0.3, count) if short else rng.dirichlet(np.ones(count)) * 0.9
    weights = np.where(rng.random(count) < 0.3, np.nan, weights)
    weights = np.where(rng.random(count) < 0.2, held, weights)
    levels = {}
    for asset in np.flatnonzero(rng.random(count) < 0.7):
        side = np.sign(held[asset] if np.isnan(weights[asset]) else weights[asset]) or 1.0
        drawn = {
            "stop": close[asset] * (1 - side * rng.uniform(0.005, 0.08)),
            "trailing": rng.uniform(0.01, 0.08),
            "take_profit": close[asset] * (1 + side * rng.uniform(0.005, 0.08)),
            "limit": close[asset] * (1 + rng.uniform(-0.04, 0.01)),
        }
        levels[int(asset)] = {k: v if rng.random() < 0.5 else np.nan for k, v in drawn.items()}
    return weights, levels


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
