"""What is filled when: against a plain loop over shares and cash, on random markets."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from books import keep_books

from data_loaders import Panel
from engine import Costs
from engine.accounting.market import Market
from engine.accounting.positions import Positions
from engine.accounting.simulation import simulate

CARRY = {"borrow": 0.3, "financing": 0.6, "cash_rate": 0.2}  # a year; large, so that they show
COSTS = {
    "free": Costs(0.0),
    "proportional": Costs(0.004, spread=0.002),
    "carry": Costs(0.002, **CARRY),
    "everything": Costs(0.001, 0.002, impact=0.5, fixed=2.0, minimum=7.0, **CARRY, capital=1e5),
}


def market(seed, rows=90, assets=5):
    """Random walks on irregular dates with halts; the third asset is delisted."""
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2020-01-01", periods=2 * rows)
    dates = dates[np.sort(rng.choice(2 * rows, rows, replace=False))]
    prices = 50 * np.exp(rng.normal(0, 0.03, (rows, assets)).cumsum(axis=0))
    prices[rng.random((rows, assets)) < 0.05] = np.nan
    prices[:2] = 50.0
    prices[20:26, 1] = prices[50:52, 1] = prices[60:, 2] = np.nan
    names = list("ABCDE")[:assets]
    frame = pd.DataFrame(prices, dates, names)
    opens = frame.ffill().shift().bfill() * np.exp(rng.normal(0, 0.02, (rows, assets)))
    opens = opens.where(frame.notna() & (rng.random((rows, assets)) > 0.03))
    volume = pd.DataFrame(rng.uniform(1e4, 1e5, (rows, assets)), dates, names)
    return Panel(frame, {"volume": volume, "open": opens})


def answer(seed, row, held):
    """Any answer: all assets, some of them, the holdings, none at all; short and leveraged, too."""
    rng = np.random.default_rng([seed, row])
    kind = rng.integers(5)
    weights = rng.dirichlet(np.ones(len(held))) if rng.random() < 0.7 else rng.normal(
        0.2, 0.25, len(held)
    )  # fmt: skip
    if kind == 0:
        return np.full(len(held), np.nan)
    if kind == 1:
        return held.copy()
    if kind == 2:
        return weights
    return np.where(rng.random(len(held)) < 0.5, held if kind == 3 else np.nan, weights)


def decided(panel, costs, lag, seed, **rules):
    """Targets by decision date, made from the holdings that ``Positions`` gives."""
    rng = np.random.default_rng(seed)
    rows = 3 + rng.integers(1, 5, len(panel)).cumsum()
    positions = Positions(Market(panel, costs, rules.pop("fill", "close")), lag, **rules)
    holdings, targets = {}, {}
    for row in rows[rows + lag < len(panel)]:
        holdings[row] = positions.holdings(row)
        targets[row] = positions.order(row, answer(seed, row, holdings[row]))
    frame = pd.DataFrame(targets, panel.assets).T.set_axis(panel.dates[list(targets)])
    return frame, holdings, positions


CASES = [
    (lag, seed, fill)
    for lag, seed in ((0, 0), (1, 1), (1, 2), (2, 3), (3, 4))
    for fill in ("close", "open")[: 1 + (lag > 0)]
]


@pytest.mark.parametrize("unpriced", ["wait", "cancel"])
@pytest.mark.parametrize("kind", COSTS)
@pytest.mark.parametrize(("lag", "seed", "fill"), CASES)
def test_fills_are_those_of_the_books(kind, lag, seed, fill, unpriced):
    panel, costs = market(seed), COSTS[kind]
    frame, holdings, positions = decided(panel, costs, lag, seed, unpriced=unpriced, fill=fill)
    lack = Market(panel, costs).illiquidity
    books = keep_books(
        panel.prices,
        {row: (lambda held, row=row: answer(seed, row, held)) for row in holdings},
        lag,
        asdict(costs),
        None if lack is None else lack.numpy(),
        unpriced=unpriced,
        opens=panel.asset_features["open"].to_numpy() if fill == "open" else None,
    )
    for row, held in holdings.items():
        np.testing.assert_allclose(held, books["holdings"][row], atol=1e-11)
    found = simulate(frame, panel, costs, lag, unpriced=unpriced, fill=fill)
    np.testing.assert_allclose(found.net_returns, books["net"], atol=1e-11)
    np.testing.assert_allclose(found.gross_returns, books["gross"], atol=1e-11)
    np.testing.assert_allclose(found.weights, books["after"], atol=1e-11)
    assert list(found.turnover.index) == list(panel.dates[books["row"]])
    np.testing.assert_allclose(found.turnover, books["turnover"], atol=1e-11)
    np.testing.assert_allclose(found.costs, books["cost"], atol=1e-11)
    positions.advance(len(panel) - 1)
    assert len(positions.events) == len(books["row"])


@pytest.mark.parametrize("unpriced", ["wait", "cancel"])
def test_what_orders_nothing_is_no_delay(unpriced):
    """A sale in a halt waits under its own date, whatever answers without an order follow it."""
    prices = pd.DataFrame(50.0, pd.bdate_range("2020-01-01", periods=30), list("ABC"))
    prices.iloc[10:20, [0, 2]] = np.nan  # C is never held
    positions = Positions(Market(Panel(prices), Costs()), unpriced=unpriced)
    positions.order(2, np.array([0.5, 0.2, 0.0]))
    positions.order(10, np.array([0.0, np.nan, np.nan]))
    for row in (11, 12):
        positions.order(row, np.full(3, np.nan))
    positions.advance(29)
    (delay,) = positions.unfilled()
    sold, outcome = (20, "waited") if unpriced == "wait" else (-1, "cancelled")
    assert delay == (10, 11, 0, outcome, sold)
    if unpriced == "wait":
        assert positions.events[-1].decided[0] == 10
