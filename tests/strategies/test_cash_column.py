"""An asset with the constant price 1 is cash, and every strategy runs with it."""

import warnings
from inspect import signature

import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel
from engine import Training, WalkForward, backtest
from engine.training.fit_records import TrainingWarning
from strategies import DEQMeanVariance, EstimatorStrategy, HierarchicalRiskParity, InverseVolatility
from strategies.registry import OURS

NOTHING = pd.Series(0.0, index=[f"A{i}" for i in range(5)])


@pytest.fixture
def with_cash(walks):
    """Bars of four assets, and of cash."""
    prices = walks.prices.iloc[:280].assign(A4=1.0)
    return Panel(prices, {"open": prices, "high": prices, "low": prices})


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"Pretrained"}))  # it needs a file
def test_every_strategy_runs_with_cash(with_cash, name):
    cls, inner = OURS[name], InverseVolatility(lookback=64)
    given = {"lookback": 64, "cap": 1.0, "strategy": inner, "strategies": {"one": inner}}
    given = {key: value for key, value in given.items() if key in signature(cls).parameters}
    if name == "LargestPositions":
        given["count"] = 3
    if name == "Untrained":
        given["strategy"] = DEQMeanVariance(lookback=64, cap=1.0)
    plan = WalkForward(train=240, refit=40, rebalance="W-FRI")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TrainingWarning)
        results = backtest(
            {name: cls(**given)}, with_cash, plan, training=Training(epochs=1), ledger=False
        )
    weights = results[name].weights
    assert results[name].complete
    assert (weights > -1e-12).all(axis=None)
    assert weights.drop(columns="A4").sum(axis=1).max() > 0.3
    assert (weights.sum(axis=1) < 1 + 1e-9).all()


@pytest.mark.parametrize(
    "strategy",
    [
        InverseVolatility(lookback=64),
        HierarchicalRiskParity(lookback=64),
        EstimatorStrategy("skfolio.optimization:MeanRisk", lookback=64),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_what_needs_a_variance_is_as_without_cash(with_cash, strategy):
    weights = strategy.allocate(with_cash.last(64), NOTHING)
    without = Panel(with_cash.prices.drop(columns="A4")).last(64)
    assert weights["A4"] == 0
    np.testing.assert_allclose(
        weights[:4], strategy.allocate(without, NOTHING[:4]), rtol=0, atol=1e-12
    )


def test_an_estimator_that_takes_cash_is_given_it(with_cash):
    strategy = EstimatorStrategy("skfolio.optimization:EqualWeighted", lookback=64)
    assert strategy.allocate(with_cash.last(64), NOTHING)["A4"] == pytest.approx(0.2)


def test_an_asset_that_earns_the_same_on_each_row_has_no_volatility(with_cash):
    prices = with_cash.prices.assign(A4=1.0001 ** np.arange(280))
    weights = InverseVolatility(lookback=64).allocate(Panel(prices).last(64), NOTHING)
    assert weights["A4"] == 0
