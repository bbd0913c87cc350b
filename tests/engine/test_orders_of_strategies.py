"""Strategies that keep what they hold, from their answers to their orders."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from data_loaders import Panel
from engine import Costs, WalkForward, backtest
from strategies import Strategy

PLAN = WalkForward(train=60, refit=1000, rebalance="D")
FEES = Costs(0.0, minimum=1.2, capital=1e5)


class Answers(Strategy):
    """1/N at first, then what ``later`` makes of the date and of the holdings."""

    lookback = 2
    short = True
    leverage = 2.0

    def __init__(self, later=None):
        self.later = later

    def allocate(self, history, holdings):
        if not holdings.any():
            return pd.Series(1 / len(holdings), history.assets)
        return self.later(history, holdings)


def run(later, panel, plan=PLAN, costs=FEES):
    return backtest(Answers(later), panel, plan, costs, ledger=False, progress=False)["Answers"]


@pytest.mark.parametrize("lag", [0, 1, 3])
@pytest.mark.parametrize(
    "later",
    [
        lambda history, holdings: holdings,
        lambda history, holdings: None,
        lambda history, holdings: holdings * np.nan,
    ],
)
def test_what_is_kept_is_not_traded(later, lag):
    panel = random_walks(120, 20)
    result = run(later, panel, WalkForward(train=60, refit=30, rebalance="D", execution_lag=lag))
    assert len(result.orders) == 20
    bought = result.weights.iloc[0] / panel.prices.loc[result.weights.index[0]]
    worth = panel.prices.loc[result.weights.index] * bought
    cash = 1 - result.weights.iloc[0].sum()
    kept = worth.div(worth.sum(axis=1) + cash, axis=0)
    np.testing.assert_allclose(result.weights, kept, rtol=1e-10)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_selling_one_of_twenty_positions_is_one_order_and_one_fee(lag):
    panel = random_walks(100, 20)
    sold = panel.dates[80]

    def later(history, holdings):
        return holdings.where(holdings.index != "A3", 0.0) if history.dates[-1] == sold else None

    result = run(later, panel, WalkForward(train=60, refit=100, rebalance="D", execution_lag=lag))
    last = result.orders.iloc[-1]
    assert len(result.orders) == 21
    assert (last["asset"], last["side"], last["fees"]) == ("A3", "sell", 1.2)
    assert last["date"] == panel.dates[80 + lag]
    assert last["decided"] == sold


def test_a_suspended_position_can_be_kept():
    prices = random_walks(100, 3).prices.copy()
    prices.iloc[70:80, 1] = np.nan
    panel = Panel(prices)

    def later(history, holdings):
        target = pd.Series([0.5, np.nan, 0.2], history.assets)
        return holdings if len(history) % 2 else target.fillna(holdings)

    result = run(later, panel)
    assert result.failure is None
    held = result.orders[result.orders["asset"] == "A1"]
    assert len(held) == 1


def test_buys_are_scaled_down_where_what_is_kept_has_risen():
    """Half of A is kept; it doubles before B is bought for the other half of what was there."""
    dates = pd.bdate_range("2020-01-01", periods=6)
    panel = Panel(pd.DataFrame({"A": [1, 1, 1, 1, 2, 2.0], "B": 1.0}, dates))

    class Two(Strategy):
        lookback = 1

        def allocate(self, history, holdings):
            if not holdings.any():
                return pd.Series([0.5, 0.0], history.assets)
            return pd.Series([np.nan, 0.5], history.assets) if len(holdings) else None

    plan = WalkForward(train=1, refit=10, rebalance=[dates[1], dates[3]])
    result = backtest(Two(), panel, plan, Costs(0.0), ledger=False, progress=False)["Two"]
    np.testing.assert_allclose(result.weights.iloc[-1], [2 / 3, 1 / 3], rtol=1e-12)
    assert result.net_returns.iloc[-1] == 0
    assert result.targets.iloc[-1].isna().tolist() == [True, False]


def test_leverage_that_drift_alone_has_broken_is_not_an_error():
    dates = pd.bdate_range("2020-01-01", periods=8)
    panel = Panel(pd.DataFrame({"A": [1, 1, 1, 0.7, 0.7, 0.7, 0.7, 0.7], "B": 1.0}, dates))

    class Levered(Strategy):
        lookback = 1
        leverage = 1.5

        def allocate(self, history, holdings):
            if not holdings.any():
                return pd.Series([1.4, 0.1], history.assets)
            return pd.Series([np.nan, 0.0], history.assets)

    plan = WalkForward(train=1, refit=10, rebalance=1)
    result = backtest(Levered(), panel, plan, Costs(0.0), ledger=False, progress=False)["Levered"]
    assert result.weights["A"].iloc[-1] == pytest.approx(0.98 / 0.58, rel=1e-12)
    assert result.failure is None
