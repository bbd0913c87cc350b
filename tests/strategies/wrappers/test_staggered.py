"""Staggered portfolios against a loop that keeps the money of each apart."""

import numpy as np
import pandas as pd
from markets import random_walks

from data_loaders import Panel
from engine import Costs, WalkForward, backtest
from strategies import EqualWeight, Momentum, Staggered

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME", execution_lag=0)


def test_each_portfolio_keeps_its_own_holdings_until_its_turn():
    panel, n = random_walks(880, 5), 3
    strategies = {"staggered": Staggered(Momentum(64), n), "plain": Momentum(64)}
    results = backtest(strategies, panel, PLAN, Costs(0.0), ledger=False)
    found, decided = results["staggered"], results["plain"].targets
    prices = panel.prices
    money, shares = np.full(n, 1 / n), np.zeros((n, 5))
    wealth = []
    for date in prices.loc[decided.index[0] :].index:
        price = prices.loc[date].to_numpy()
        money = (shares @ price) if shares.any() else money
        if date in decided.index:
            turn = decided.index.get_loc(date)
            for number in range(n) if turn == 0 else [(turn - 1 + n) % n]:
                shares[number] = money[number] * decided.loc[date] / price
        wealth.append(money.sum())
    np.testing.assert_allclose((1 + found.net_returns).cumprod(), wealth, rtol=1e-10)
    assert found.turnover.sum() < 0.6 * results["plain"].turnover.sum()


def test_one_portfolio_is_the_strategy_itself():
    panel = random_walks(880, 4)
    strategies = {"staggered": Staggered(EqualWeight(), 1), "plain": EqualWeight()}
    results = backtest(strategies, panel, PLAN, ledger=False)
    np.testing.assert_allclose(*(each.net_returns for each in results.values()), atol=1e-14)


def test_prices_in_another_currency_decide_the_same_in_a_changing_universe():
    """Rounding of prices times a constant moves rounding alone."""
    rng, prices = np.random.default_rng(0), random_walks(600, 6).prices
    members = pd.DataFrame(rng.random((10, 6)) < 0.8, columns=prices.columns)
    members = members.loc[np.arange(600) // 60].set_axis(prices.index)
    found = [
        backtest(
            Staggered(Momentum(60), 3),
            Panel(prices * unit, members=members),
            WalkForward(train="1Y", refit="1Y", rebalance="W-FRI"),
            ledger=False,
        )["Staggered(Momentum)"]
        for unit in (1.0, 7.3)
    ]
    np.testing.assert_allclose(found[0].targets, found[1].targets, atol=1e-12)
    np.testing.assert_allclose(*(each.net_returns for each in found), atol=1e-12)
