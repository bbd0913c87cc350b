"""The rules: each against a closed form, a case worked by hand or another's implementation."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf

from data_loaders import Panel
from engine import Training, WalkForward, backtest, check_strategy
from engine.training.fit_records import TrainingWarning
from strategies import (
    MaximumDiversification,
    MeanVariance,
    Momentum,
    RiskParity,
    Wrapper,
    create_strategy,
)
from strategies.baselines import bayes_stein, equal_risk
from strategies.registry import OURS, strategy_names

CASH = pd.Series(0.0, index=[f"A{i}" for i in range(5)])
RULES = [
    RiskParity(lookback=64),
    MaximumDiversification(lookback=64),
    Momentum(lookback=64),
    MeanVariance(lookback=64, cap=0.5),
]


@pytest.mark.parametrize("strategy", RULES, ids=lambda s: type(s).__name__)
def test_it_is_honest(strategy, walks):
    check_strategy(strategy, walks)


def a_covariance(assets: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(assets, 3 * assets))
    scale = np.geomspace(1e-3, 10, assets)
    return factors @ factors.T * np.outer(scale, scale)


@pytest.mark.parametrize("assets", [1, 2, 7, 60])
def test_every_asset_adds_the_same_risk(assets):
    covariance = a_covariance(assets, assets)
    weights = equal_risk(covariance)
    parts = weights * (covariance @ weights)
    np.testing.assert_allclose(parts, np.full(assets, 1 / assets), rtol=1e-10)
    assert (weights > 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_risk_is_equal_where_assets_are_nearly_collinear(seed):
    rng = np.random.default_rng(seed)
    assets = int(rng.integers(2, 60))
    factors = rng.normal(size=(assets, 2))
    covariance = factors @ factors.T + 0.01 * np.eye(assets)
    weights = equal_risk(covariance)
    np.testing.assert_allclose(weights * (covariance @ weights) * assets, 1.0, rtol=1e-10)


def test_two_assets_in_risk_parity_are_held_by_inverse_volatility():
    """Whatever their correlation; Maillard et al., equation 6."""
    covariance = np.array([[0.04, 0.9 * 0.2 * 0.5], [0.9 * 0.2 * 0.5, 0.25]])
    weights = equal_risk(covariance)
    np.testing.assert_allclose(weights / weights.sum(), [5 / 7, 2 / 7], rtol=1e-10)


def test_uncorrelated_assets_are_held_by_inverse_volatility():
    """The most diversified portfolio, and the one of equal risk; Choueifaty & Coignard, 2008."""
    signs = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).T[:, 1:]
    returns = np.tile(signs * [0.01, 0.02, 0.04], (500, 1))
    prices = 100 * np.vstack([np.ones(3), (1 + returns).cumprod(axis=0)])
    history = Panel(pd.DataFrame(prices, pd.bdate_range("2010-01-01", periods=2001), list("ABC")))
    for rule in (MaximumDiversification, RiskParity):
        found = rule(lookback=2001).allocate(history, CASH)
        np.testing.assert_allclose(found, np.array([4, 2, 1]) / 7, atol=2e-3)  # shrunk a little


def test_no_long_only_portfolio_is_more_diversified(walks):
    history = walks.last(64)
    found = MaximumDiversification(lookback=64).allocate(history, CASH)
    covariance = LedoitWolf().fit(history.returns.iloc[1:]).covariance_
    volatility = np.sqrt(np.diag(covariance))

    def ratio(weights):
        return weights @ volatility / np.sqrt(weights @ covariance @ weights)

    best = minimize(
        lambda w: -ratio(w),
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-15},
    )
    assert ratio(found.to_numpy()) == pytest.approx(-best.fun, rel=1e-7)
    assert found.sum() == pytest.approx(1)


def test_momentum_by_hand():
    """D rose most but only in the rows that are left out."""
    dates = pd.bdate_range("2020-01-01", periods=6)
    prices = pd.DataFrame(
        {
            "A": [10, 10, 10, 12.0, 12, 12],
            "B": [10, 10, 10, 15.0, 1, 1],
            "C": [10, 9, 8, 7.0, 7, 7],
            "D": [10, 10, 10, 10.0, 90, 99],
        },
        dates,
    )
    found = Momentum(lookback=6, skip=2, share=0.5).allocate(Panel(prices), CASH)
    assert found.to_dict() == {"A": 0.5, "B": 0.5, "C": 0.0, "D": 0.0}
    with pytest.raises(ValueError, match="skip=5 leaves no return in 6 rows"):
        Momentum(lookback=6, skip=5).allocate(Panel(prices), CASH)


def test_bayes_stein_by_its_formula():
    rng = np.random.default_rng(0)
    returns = rng.normal([0.001, 0.002, 0.004], [0.01, 0.02, 0.03], (200, 3))
    covariance = np.cov(returns.T, ddof=0)
    found = bayes_stein(returns, 7.0 * covariance)  # of any scale
    inverse, mean, ones = np.linalg.inv(covariance), returns.mean(axis=0), np.ones(3)
    common = ones @ inverse @ mean / (ones @ inverse @ ones)
    strength = 5 / ((mean - common) @ inverse @ (mean - common))
    share = strength / (strength + 200)
    np.testing.assert_allclose(found, (1 - share) * mean + share * common, rtol=1e-10)


def test_mean_variance_is_optimal(walks):
    history = walks.last(200)
    strategy = MeanVariance(lookback=200, aversion=3.0, cap=0.6)
    found = strategy.allocate(history, CASH).to_numpy()
    returns = history.returns.iloc[1:].to_numpy()
    covariance = LedoitWolf().fit(returns).covariance_
    mean = bayes_stein(returns, covariance)

    def utility(w):
        return w @ mean - 1.5 * w @ covariance @ w

    best = minimize(
        lambda w: -1e4 * utility(w),
        np.full(5, 0.2),
        bounds=[(0, 0.6)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    np.testing.assert_allclose(found, best.x, atol=1e-4)
    assert utility(found) >= utility(best.x) - 1e-9


HELD_STILL = ("EqualWeight", "Momentum", "SoftmaxAllocation")
WRAPPERS = {name for name, cls in OURS.items() if issubclass(cls, Wrapper)}  # have own tests


def on_still_prices(name, walks):
    """What a strategy, by name, holds on prices that never move."""
    still = Panel(pd.DataFrame(100.0, walks.prices.index, walks.prices.columns))
    strategy = create_strategy(name, {})
    if "cap" in strategy.get_params():
        strategy.set_params(cap=0.5)
    plan, training = WalkForward(train="18M", rebalance="W-FRI"), Training(epochs=1, block=20)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TrainingWarning)
        return backtest(strategy, still, plan, training=training, ledger=False)[name].weights


@pytest.mark.parametrize("name", sorted(set(strategy_names()) - {*HELD_STILL, *WRAPPERS}))
def test_prices_that_stand_still_are_no_risk_to_weigh_and_that_is_said(walks, name):
    said = "did not move|no price moved|and move throughout|non positive variance"
    with pytest.raises((ValueError, RuntimeError), match=said):
        on_still_prices(name, walks)


@pytest.mark.parametrize("name", HELD_STILL)
def test_what_weighs_no_risk_holds_prices_that_stand_still(walks, name):
    weights = on_still_prices(name, walks)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    assert (weights >= 0).all(axis=None)
