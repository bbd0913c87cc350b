"""What is trained is what is decided is what is charged.

The same target weights on random markets with gaps and delistings: their turnover, costs, net
returns and holdings in training, in decisions and in the simulation are those of independent books
in shares and cash.
"""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from books import keep_books

from data_loaders import Panel
from engine import Costs
from engine.accounting.liquidity import illiquidity
from engine.accounting.simulation import simulate

CARRY = {"borrow": 0.3, "financing": 0.6, "cash_rate": 0.2}  # a year; large, so that they show
COSTS = {
    "free": Costs(0.0),
    "proportional": Costs(0.004, spread=0.002),
    "carry": Costs(0.002, **CARRY),
    "everything": Costs(
        0.001, 0.002, impact=0.5, fixed=2.0, minimum=7.0, **CARRY, capital=1e5
    ),
}  # fmt: skip
CASES = [(name, lag, seed) for name in COSTS for lag in range(3) for seed in range(2)]
cases = pytest.mark.parametrize(("kind", "lag", "seed"), CASES)


def market(seed, rows=90, assets=5):
    """Random walks on irregular dates; the second asset pauses twice, the third is delisted."""
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2020-01-01", periods=2 * rows)
    dates = dates[np.sort(rng.choice(2 * rows, rows, replace=False))]
    prices = 50 * np.exp(rng.normal(0, 0.03, (rows, assets)).cumsum(axis=0))
    prices[20:26, 1] = prices[50:52, 1] = prices[60:, 2] = np.nan
    names = list("ABCDE")[:assets]
    volume = pd.DataFrame(rng.uniform(1e4, 1e5, (rows, assets)), dates, names)
    return Panel(pd.DataFrame(prices, dates, names), {"volume": volume})


def decisions(seed, panel, lag):
    """Rows of decisions, one to seven rows apart."""
    rng = np.random.default_rng(seed)
    rows = 3 + rng.integers(1, 8, len(panel.dates)).cumsum()
    return rows[rows + lag < len(panel.dates) - 1]


def wanted(history):
    """Weights (N,) of a date: long and short, with cash or leverage, in what trades."""
    rng = np.random.default_rng(history.dates[-1].toordinal())
    return rng.normal(0.2, 0.3, len(history.assets)) * history.prices.iloc[-1].notna().to_numpy()


def books_of(panel, targets, lag, costs, **options):
    lack = illiquidity(panel, costs)
    lack = None if lack is None else lack.numpy()
    prices = panel.prices.to_numpy()
    return keep_books(prices, targets, lag, asdict(costs), panel.periods_per_year, lack, **options)


@cases
def test_the_simulation_is_the_books(kind, lag, seed):
    panel, costs = market(seed), COSTS[kind]
    targets = {row: wanted(panel.rows(0, row + 1)) for row in decisions(seed, panel, lag)}
    frame = pd.DataFrame(targets, panel.assets).T.set_axis(panel.dates[list(targets)])
    found, books = simulate(frame, panel, costs, lag), books_of(panel, targets, lag, costs)
    np.testing.assert_allclose(found.net_returns, books["net"], atol=1e-12)
    np.testing.assert_allclose(found.gross_returns, books["gross"], atol=1e-12)
    np.testing.assert_allclose(found.turnover, books["turnover"], atol=1e-12)
    np.testing.assert_allclose(found.costs, books["cost"], atol=1e-12)
    np.testing.assert_allclose(found.weights, books["after"], atol=1e-12)
