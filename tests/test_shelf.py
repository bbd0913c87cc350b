"""The shelf: every rule against a closed form, a hand-worked case or another's implementation."""

import numpy as np
import pandas as pd
import pytest
from conftest import random_walks
from scipy.optimize import minimize
from skfolio.optimization import HierarchicalRiskParity as Tree
from skfolio.optimization import InverseVolatility as Inverse
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge

from data_loaders import Panel
from engine import WalkForward, backtest, check_strategy
from strategies import (
    EstimatorStrategy,
    HierarchicalRiskParity,
    MaximumDiversification,
    MeanVariance,
    Momentum,
    PredictThenOptimize,
    RiskParity,
    create_strategy,
)
from strategies.allocation import equal_risk
from strategies.predict import bayes_stein

CASH = pd.Series(0.0, index=[f"A{i}" for i in range(5)])
SHELF = [
    RiskParity(lookback=64),
    MaximumDiversification(lookback=64),
    HierarchicalRiskParity(lookback=64),
    Momentum(lookback=64),
    MeanVariance(lookback=64, cap=0.5),
    EstimatorStrategy("skfolio.optimization:InverseVolatility", lookback=64),
    PredictThenOptimize(lookback=64, cap=0.5, parameters={"alpha": 2.0}),
]


@pytest.mark.parametrize("strategy", SHELF, ids=lambda s: type(s).__name__)
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


def test_two_assets_in_risk_parity_are_held_by_inverse_volatility():
    """Whatever their correlation; Maillard et al., equation 6."""
    covariance = np.array([[0.04, 0.9 * 0.2 * 0.5], [0.9 * 0.2 * 0.5, 0.25]])
    weights = equal_risk(covariance)
    np.testing.assert_allclose(weights / weights.sum(), [5 / 7, 2 / 7], rtol=1e-10)


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


def test_the_tree_is_skfolios(walks):
    history = walks.last(64)
    theirs = Tree().fit(history.returns.iloc[1:]).weights_
    found = HierarchicalRiskParity(lookback=64).allocate(history, CASH)
    np.testing.assert_allclose(found, theirs)


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
    with pytest.raises(ValueError, match="skip is from 0 to 4"):
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


class HandWritten(BaseEstimator):
    """Whatever has fit and weights_."""

    def __init__(self, first=0.5):
        self.first = first

    def fit(self, X):
        assert isinstance(X, pd.DataFrame)
        rest = (1 - self.first) / (X.shape[1] - 1)
        self.weights_ = [self.first, *[rest] * (X.shape[1] - 1)]
        return self


def test_any_estimator_is_a_strategy(walks):
    history = walks.last(64)
    theirs = Inverse().fit(history.returns.iloc[1:]).weights_
    named = EstimatorStrategy("skfolio.optimization:InverseVolatility", lookback=64)
    np.testing.assert_allclose(named.allocate(history, CASH), theirs)
    given = clone(EstimatorStrategy(HandWritten(0.6), lookback=64))
    assert given.allocate(history, CASH).tolist() == pytest.approx([0.6, 0.1, 0.1, 0.1, 0.1])
    words = {"estimator": "test_shelf:HandWritten", "parameters": {"first": 0.2}, "lookback": 64}
    made = create_strategy("EstimatorStrategy", words)
    assert made.allocate(history, CASH).tolist() == pytest.approx([0.2] * 5)


def test_what_does_not_trade_is_not_shown_to_an_estimator(walks):
    prices = walks.prices.copy()
    prices.iloc[-10, 1] = np.nan
    found = EstimatorStrategy(HandWritten(0.7), lookback=64).allocate(Panel(prices).last(64), CASH)
    assert found.tolist() == pytest.approx([0.7, 0.0, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("estimator", "parameters", "said"),
    [
        ("skfolio.optimization:MeanRsk", None, "nothing named 'MeanRsk'"),
        ("skfolio.optimization:MeanRisk", {"no": 1}, "unexpected keyword argument 'no'"),
        ("sklearn.linear_model:LinearRegression", None, "LinearRegression cannot be fitted"),
        ("sklearn.preprocessing:StandardScaler", None, "it is no portfolio estimator"),
    ],
)
def test_what_is_no_estimator_is_named(walks, estimator, parameters, said):
    strategy = EstimatorStrategy(estimator, parameters, lookback=64)
    with pytest.raises(ValueError, match=said):
        strategy.allocate(walks.last(64), CASH)


def test_labels_are_the_returns_after_the_fill(walks):
    strategy = PredictThenOptimize(lookback=10, horizon=3, delay=1, features=("lags:1",))
    history = walks.last(40)
    x, y = strategy.samples(history)
    logs = np.log(history.prices.to_numpy())
    first = (logs[13] - logs[10]) / (history.returns.iloc[1:10].std(ddof=0) * np.sqrt(3))
    np.testing.assert_allclose(y[:5], first)
    rows = range(9, 40 - 1 - 3, 3)  # the last label ends with the history
    assert len(x) == len(y) == 5 * len(rows)


def test_a_regressor_learns_from_nothing_after_its_refit(walks):
    strategy = PredictThenOptimize(lookback=30, horizon=5, features=("lags:3",))
    changed = walks.prices.copy()
    changed.iloc[600:] *= np.linspace(1, 3, len(changed) - 600)[:, None]
    models = [
        clone(strategy).fit(panel.rows(0, 600)).model_[-1].coef_
        for panel in (walks, Panel(changed))
    ]
    np.testing.assert_array_equal(*models)


def test_a_forest_and_a_signal(walks):
    """Tomorrow's return as a feature: the regressor must find it, and the optimiser hold it."""
    signal = walks.returns.shift(-1).fillna(0.0)
    panel = Panel(walks.prices, {"signal": signal})
    plan = WalkForward(train="2Y", refit="2Y", rebalance=1, execution_lag=0)
    common = {"lookback": 20, "horizon": 1, "delay": 0, "features": ("panel",), "cap": 1.0}
    forest = RandomForestRegressor(n_estimators=5, max_depth=4, random_state=0)
    strategies = {
        "ridge": PredictThenOptimize(Ridge(), aversion=0.1, **common),
        "forest": PredictThenOptimize(forest, aversion=0.1, **common),
    }
    results = backtest(strategies, panel, plan, ledger=False)
    best = panel.returns.loc[results["ridge"].gross_returns.index].max(axis=1).mean()
    for result in results.values():
        assert result.gross_returns.mean() > 0.8 * best


def test_a_regressor_must_be_fitted_and_have_rows(walks):
    with pytest.raises(NotFittedError):
        PredictThenOptimize(lookback=30).allocate(walks.last(30), CASH)
    with pytest.raises(ValueError, match="32 training rows leave 0 samples"):
        PredictThenOptimize(lookback=30).fit(random_walks(32, 3))


def test_aversion_and_fallback_are_checked(walks):
    with pytest.raises(ValueError, match="aversion must be positive"):
        MeanVariance(lookback=64, aversion=0.0, cap=0.5).allocate(walks.last(64), CASH)
    with pytest.raises(ValueError, match="'raise' or 'relax'"):
        MeanVariance(lookback=64, fallback="hold", cap=0.5).allocate(walks.last(64), CASH)
