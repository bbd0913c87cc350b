"""Exposure, prediction and target, each from its formula; and what the strategy inside is told."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks

from data_loaders import Panel
from engine import AllocationError, Costs, WalkForward, backtest
from strategies import EqualWeight, InverseVolatility, NoTradeBand, Strategy, VolatilityManaged

PLAN = WalkForward(train="18M", refit="9M", rebalance="W-FRI")
YEAR = 252


@pytest.fixture(scope="module")
def panel():
    calm = random_walks(880, 4).returns.fillna(0)
    waves = 1 + 0.7 * np.sin(np.arange(880) / 40)
    return Panel(100 * (1 + calm.mul(waves, axis=0)).cumprod())


def run(strategy, panel, costs=Costs(0.0, financing=1e-12), plan=PLAN):
    (result,) = backtest(strategy, panel, plan, costs, ledger=False).values()
    return result


def predicted(panel, weights, row, half_life):
    """By pandas: the mean square of the portfolio's returns, with exponential weights."""
    returns = (panel.returns * weights).sum(axis=1).iloc[row + 1 - 8 * half_life : row + 1]
    mean_square = (returns**2).ewm(halflife=half_life).mean().iloc[-1]
    return np.sqrt(YEAR * mean_square)


@pytest.mark.parametrize("most", [1.0, 1.8, 0.5])
def test_exposure_is_target_over_predicted_volatility(panel, most):
    strategy = VolatilityManaged(InverseVolatility(64), 0.08, max_exposure=most, half_life=10)
    targets = run(strategy, panel).targets
    plain = run(InverseVolatility(64), panel, plan=PLAN).targets
    exposures = []
    for date, found in targets.iterrows():
        weights, row = plain.loc[date], panel.dates.get_loc(date)
        exposures.append(min(most, 0.08 / predicted(panel, weights, row, 10)))
        np.testing.assert_allclose(found, exposures[-1] * weights, rtol=1e-12)
    assert max(exposures) <= most
    assert most == 0.5 or min(exposures) < 0.9 * max(exposures)


def test_the_target_is_the_median_over_the_training_rows(panel):
    strategy = VolatilityManaged(EqualWeight(), half_life=10)
    train = panel.rows(0, 180)  # 100 rows have a whole window
    target = strategy.fit(train).target_
    weights = pd.Series(0.25, panel.assets)
    every = [predicted(panel, weights, row, 10) for row in range(80, 180)]
    assert target == pytest.approx(np.median(every), rel=1e-12)
    later = strategy.fit(panel.rows(0, 600)).target_  # 250 of 520
    every = [predicted(panel, weights, row, 10) for row in range(80, 600)]
    assert later == pytest.approx(np.median(every), rel=0.02)
    assert later != target


def test_an_order_of_nothing_stays_one_at_full_exposure(panel):
    strategy = VolatilityManaged(NoTradeBand(EqualWeight(), 0.05), target=10.0)
    targets = run(strategy, panel).targets
    assert (targets.iloc[1:].isna() | (targets.iloc[1:] == 0.25)).all(axis=None)
    assert targets.iloc[1:].isna().mean(axis=None) > 0.5


class Watches(Strategy):
    """Holds 60% in two assets, and remembers the holdings that it is told."""

    lookback = 1
    told: list  # one for all copies

    def __init__(self, leave=False):
        self.leave = leave

    def allocate(self, history, holdings):
        self.told.append(holdings.to_numpy())
        if self.leave and holdings.any():
            return None
        return pd.Series([0.4, 0.2, 0, 0], history.assets)


@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize(("target", "most"), [(0.02, 1.0), (0.1, 1.5)])
def test_the_strategy_is_told_what_its_own_portfolio_would_hold(panel, leave, target, most):
    plan = WalkForward(train="18M", refit="9M", rebalance="W-FRI", execution_lag=0)
    Watches.told = []
    result = run(VolatilityManaged(Watches(leave), target, max_exposure=most), panel, plan=plan)
    managed = Watches.told[-len(result.targets) :]
    assert result.targets.sum(axis=1).std() > 0.01
    Watches.told = []
    alone = run(Watches(leave), panel, plan=plan)
    expected = Watches.told[-len(alone.targets) :]
    np.testing.assert_allclose(managed, expected, atol=1e-12)


class KeepsSuspended(Strategy):
    """Equal weights; what has no price is left as it is."""

    lookback = 10

    def allocate(self, history, holdings):
        return pd.Series(0.25, history.assets).where(history.last_members, np.nan)


def test_what_cannot_be_sold_counts_in_the_exposure(panel):
    prices = panel.prices.iloc[-200:].copy()
    prices.iloc[-1, 0] = np.nan
    history = Panel(prices)
    held = pd.Series([0.2, 0.25, 0.25, 0.25], history.assets)
    found = VolatilityManaged(KeepsSuspended(), 0.05, half_life=10).allocate(history, held)
    own = held.where(~history.last_members, 0.25)  # all that is held is the strategy's
    exposure = 0.05 / predicted(history, own, 199, 10)
    assert np.isnan(found.iloc[0])
    assert 0.2 / own.sum() < exposure < 0.9
    assert found.iloc[1:].sum() + 0.2 == pytest.approx(exposure * own.sum(), rel=1e-9)
    np.testing.assert_allclose(found.iloc[1:], found.iloc[1])


def test_a_target_that_cannot_be_learned_is_an_error(panel):
    flat = Panel(panel.prices * 0 + 100.0)
    gone = panel.prices.iloc[:300].copy()
    gone.iloc[1:] = np.nan
    with pytest.raises(
        AllocationError, match="can learn no target, as its portfolios did not move"
    ):
        run(VolatilityManaged(EqualWeight()), flat)
    with pytest.raises(
        ValueError, match="in the 100 training rows: they are fewer than the lookback of 121"
    ):
        VolatilityManaged(EqualWeight()).fit(panel.rows(0, 100))
    with pytest.raises(ValueError, match="in the 300 training rows: no asset trades throughout"):
        VolatilityManaged(EqualWeight()).fit(Panel(gone))
    with pytest.raises(ValueError, match="has learned no target yet: call fit, or give one"):
        VolatilityManaged(EqualWeight()).allocate(panel, pd.Series(0.0, panel.assets))
    with pytest.raises(ValueError, match="target should be above 0, got 0"):
        run(VolatilityManaged(EqualWeight(), target=0), panel)
    with pytest.raises(ValueError, match="half_life should be above 0, got None"):
        run(VolatilityManaged(EqualWeight(), half_life=None), panel)
