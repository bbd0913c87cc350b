"""Blends against the money of each part, kept apart."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from engine import Costs, WalkForward, backtest
from strategies import Blend, EqualWeight, Momentum, NoTradeBand, Strategy

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME", execution_lag=0)
FREE = Costs(0.0)


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
