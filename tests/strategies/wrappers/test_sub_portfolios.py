"""Portfolios inside a portfolio, against books that are kept of each apart."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from data_loaders import Panel
from engine import Costs, WalkForward, backtest
from strategies import Blend, EqualWeight, Momentum, NoTradeBand, Staggered, Strategy
from strategies.wrappers.sub_portfolios import SubPortfolios

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME", execution_lag=0)
FREE = Costs(0.0)


@pytest.mark.parametrize("seed", range(5))
def test_each_holds_what_it_would_hold_alone(seed):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(3))
    parts, money = SubPortfolios(shares, np.zeros(4)), shares.copy()
    held = np.zeros((3, 4))  # weights of each in its own money
    for _ in range(20):
        number = rng.integers(3)
        held[number] = rng.dirichlet(np.ones(5))[:4]
        parts.trade(number, held[number])
        growth = rng.uniform(0.8, 1.3, 4)
        grown = 1 + held @ (growth - 1)
        money, held = money * grown, held * growth / grown[:, None]
        parts.update(money @ held / money.sum())
        np.testing.assert_allclose(parts.values, money / money.sum(), atol=1e-12)
        for number in range(3):
            np.testing.assert_allclose(parts.holdings(number), held[number], atol=1e-12)


def test_what_was_not_foreseen_is_shared_by_value():
    parts = SubPortfolios(np.array([0.75, 0.25]), np.array([0.4, 0.0]))
    parts.update(np.array([0.0, 0.2]))  # the first was delisted, the second comes from elsewhere
    np.testing.assert_allclose(parts.assets, [[0, 0.15], [0, 0.05]])
    np.testing.assert_allclose(parts.values, [0.75, 0.25])
    assert parts.parts.sum() == pytest.approx(1)


def test_positions_that_offset_each_other_stay_finite():
    parts = SubPortfolios(np.array([0.5, 0.5]), np.zeros(1))
    parts.trade(0, np.array([0.3]))
    parts.trade(1, np.array([-0.3]))
    parts.update(np.array([0.01]))
    np.testing.assert_allclose(parts.assets[:, 0], [0.155, -0.145])


def test_cash_that_was_only_rounding_is_shared_by_value():
    parts = SubPortfolios(np.array([0.75, 0.25]), np.array([0.6]))
    parts.trade(0, np.array([1.0 - 2e-16]))
    parts.trade(1, np.array([1.0]))
    parts.update(np.array([0.9]))  # a purchase was scaled down
    np.testing.assert_allclose(parts.parts[:, -1], [0.075, 0.025], rtol=1e-12)


def run(strategy, panel, plan=PLAN):
    (result,) = backtest(strategy, panel, plan, FREE, ledger=False).values()
    return result


class BuyAndHold(Strategy):
    lookback = 1

    def __init__(self, weights):
        self.weights = weights

    def allocate(self, history, holdings):
        return holdings if holdings.any() else pd.Series(self.weights, history.assets)


def test_parts_that_answer_in_full_have_their_shares_restored():
    panel, shares = random_walks(880, 4), {"n": 0.5, "m": 0.3}
    blend = run(Blend({"n": EqualWeight(), "m": Momentum(64)}, shares), panel)
    momentum = run(Momentum(64), panel)
    common = blend.targets.index.intersection(momentum.targets.index)
    expected = 0.5 * 0.25 + 0.3 * momentum.targets.loc[common]
    np.testing.assert_allclose(blend.targets.loc[common], expected, atol=1e-12)


def test_parts_that_hold_grow_apart_and_place_no_order():
    panel = random_walks(880, 4)
    parts = {"a": BuyAndHold([0.5, 0.5, 0, 0]), "b": BuyAndHold([0, 0.2, 0.2, 0.2])}
    blend = run(Blend(parts), panel)
    assert blend.targets.iloc[1:].isna().all(axis=None)
    assert len(blend.turnover) == 1
    wealth = [(1 + run(part, panel).net_returns).cumprod() for part in parts.values()]
    np.testing.assert_allclose((1 + blend.net_returns).cumprod(), sum(wealth) / 2, rtol=1e-10)


def test_a_part_that_trades_does_so_with_the_money_that_it_has():
    panel = random_walks(880, 4)
    parts = {"keep": BuyAndHold([0.0, 0.5, 0.25, 0.25]), "band": NoTradeBand(EqualWeight(), 0.02)}
    blend = run(Blend(parts, {"keep": 0.7, "band": 0.3}), panel)
    keep, band = (
        (1 + run(parts[name], panel).net_returns).cumprod() * share
        for name, share in (("keep", 0.7), ("band", 0.3))
    )
    np.testing.assert_allclose((1 + blend.net_returns).cumprod(), keep + band, rtol=1e-10)
    assert 0 < blend.targets.iloc[1:].isna().mean(axis=None) < 1


def test_shares_are_checked():
    panel = random_walks(880, 4)
    for shares in ({"a": 0.5}, {"a": 0.7, "b": 0.4}, {"a": 0.5, "b": -0.1}):
        blend = Blend({"a": EqualWeight(), "b": Momentum(64)}, shares)
        with pytest.raises(ValueError, match="Blend: shares should have the names of the strateg"):
            run(blend, panel)
    with pytest.raises(ValueError, match="Blend wraps one strategy at least"):
        run(Blend({}), panel)


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
