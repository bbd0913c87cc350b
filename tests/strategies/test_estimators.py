"""Anyone's estimators: what they are shown, what they are taught, and what they hold."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks
from skfolio.optimization import HierarchicalRiskParity as Tree
from skfolio.optimization import InverseVolatility as Inverse
from skfolio.pre_selection import SelectKExtremes
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline

from data_loaders import Panel
from engine import WalkForward, backtest, check_strategy
from strategies import (
    EqualWeight,
    EstimatorStrategy,
    HierarchicalRiskParity,
    MeanVariance,
    PredictThenOptimize,
    create_strategy,
)
from strategies.base import fit_to_plan

CASH = pd.Series(0.0, index=[f"A{i}" for i in range(5)])
ESTIMATORS = [
    HierarchicalRiskParity(lookback=64),
    EstimatorStrategy("skfolio.optimization:InverseVolatility", lookback=64),
    PredictThenOptimize(lookback=64, cap=0.5, parameters={"alpha": 2.0}),
]


@pytest.mark.parametrize("strategy", ESTIMATORS, ids=lambda s: type(s).__name__)
def test_it_is_honest(strategy, walks):
    check_strategy(strategy, walks)


def test_the_tree_is_skfolios(walks):
    history = walks.last(64)
    theirs = Tree().fit(history.returns.iloc[1:]).weights_
    found = HierarchicalRiskParity(lookback=64).allocate(history, CASH)
    np.testing.assert_allclose(found, theirs)


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
    cls = "test_estimators:HandWritten"
    words = {"estimator": cls, "parameters": {"first": 0.2}, "lookback": 64}
    made = create_strategy("EstimatorStrategy", words)
    assert made.allocate(history, CASH).tolist() == pytest.approx([0.2] * 5)


def test_a_pipeline_may_leave_assets_out(walks):
    """skfolio's pipelines have no weights_, but predict a portfolio."""
    history = walks.last(64)
    steps = [("best", SelectKExtremes(k=2)), ("held", Inverse())]
    found = EstimatorStrategy(Pipeline(steps), lookback=64).allocate(history, CASH)
    returns = history.returns.iloc[1:]
    best = (returns.mean() / returns.std()).nlargest(2).index
    expected = (1 / returns[best].std()).reindex(CASH.index).fillna(0.0)
    np.testing.assert_allclose(found, expected / expected.sum())


class Plain:
    """Not scikit-learn's: no get_params. Short in the first asset."""

    def fit(self, X):
        self.weights_ = np.array([-0.5, 0.5, 0.5, 0.0, 0.0])


def test_an_estimator_may_sell_short_if_it_says_so(walks):
    plan = WalkForward(train="2Y", refit="2Y", rebalance="ME")
    given = Plain()
    with pytest.raises(ValueError, match="negative weights of A0"):
        backtest(EstimatorStrategy(given, lookback=64), walks, plan, ledger=False)
    both = EstimatorStrategy(given, lookback=64, short=True, leverage=1.5)
    (result,) = backtest(both, walks, plan, ledger=False).values()
    assert (result.targets == [-0.5, 0.5, 0.5, 0.0, 0.0]).all(axis=None)
    assert not hasattr(given, "weights_")  # a copy was fitted


def test_what_does_not_trade_is_not_shown_to_an_estimator(walks):
    prices = walks.prices.copy()
    prices.iloc[-10, 1] = np.nan
    found = EstimatorStrategy(HandWritten(0.7), lookback=64).allocate(Panel(prices).last(64), CASH)
    assert found.tolist() == pytest.approx([0.7, 0.0, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("estimator", "parameters", "said"),
    [
        ("skfolio.optimization:MeanRsk", None, "nothing named 'MeanRsk'; did you mean 'MeanRisk'?"),
        ("skfolio.optimization:MeanRisk", {"no": 1}, "unexpected keyword argument 'no'"),
        ("MeanRisk", None, "should name module and class"),
        ("skfolio.optimization:__name__", None, "is not a class"),
        (Inverse, None, "estimator should be an object with a method fit"),
        (None, None, "estimator should be an object with a method fit"),
        (Inverse(), {"no": 1}, "parameters are for the estimator given by the name"),
        ("test_estimators:HandWritten", {"first": np.nan}, "HandWritten leaves weights_ that are"),
        ("sklearn.linear_model:LinearRegression", None, "LinearRegression cannot be fitted"),
        ("sklearn.preprocessing:StandardScaler", None, "it is not a portfolio estimator"),
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


def test_a_regressor_learns_from_nothing_after_its_refit(walks, monkeypatch):
    """Through the engine: prices from the second refit on change no model that was fitted by then,
    and change the later ones."""
    plan = WalkForward(train="1Y", refit="1Y", rebalance=5)
    row = plan.folds(walks.dates, 30)[1].refit + 1
    changed = walks.prices.copy()
    changed.iloc[row:] *= np.linspace(1, 3, len(changed) - row)[:, None]
    learned: list[np.ndarray] = []
    fit = PredictThenOptimize.fit

    def kept(self, history, plan):
        fitted = fit(self, history, plan)
        learned.append(np.append(fitted.model_[-1].coef_, fitted.model_[0].mean_))
        return fitted

    monkeypatch.setattr(PredictThenOptimize, "fit", kept)
    strategy = PredictThenOptimize(lookback=30, cap=0.5, features=("lags:3",))
    for panel in (walks, Panel(changed)):
        backtest(strategy, panel, plan, ledger=False)
    honest, other = learned[: len(learned) // 2], learned[len(learned) // 2 :]
    np.testing.assert_array_equal(honest[:2], other[:2])
    assert not np.allclose(honest[2], other[2])


def test_no_label_reaches_past_what_is_known(walks):
    """Of samples drawn from a longer history, those whose labels end by row 599 are the same."""
    strategy = PredictThenOptimize(lookback=30, horizon=5, delay=2, features=("lags:3",))
    changed = walks.prices.copy()
    changed.iloc[600:] *= np.linspace(1, 3, len(changed) - 600)[:, None]
    ends = np.repeat(np.arange(29, 900 - 7, 5) + 2 + 5, 5)  # of the labels; 5 assets
    (x, y), (x_changed, y_changed) = strategy.samples(walks), strategy.samples(Panel(changed))
    assert len(y) == len(ends)
    np.testing.assert_array_equal(y[ends < 600], y_changed[ends < 600])
    np.testing.assert_array_equal(x[ends < 600], x_changed[ends < 600])
    assert (y[ends >= 600] != y_changed[ends >= 600]).all()
    known = strategy.samples(walks.rows(0, 600))[1]
    np.testing.assert_array_equal(known, y[ends < 600])


def test_a_price_that_stands_still_teaches_nothing(walks):
    prices = walks.prices.copy()
    prices["A2"] = 7.0
    asked = {"horizon": 5, "delay": 1, "features": ("lags:3",)}
    strategy = PredictThenOptimize(lookback=30, cap=0.5, **asked)
    samples = len(strategy.samples(walks)[1])
    assert len(strategy.samples(Panel(prices))[1]) == samples * 4 / 5
    found = strategy.fit(Panel(prices)).allocate(Panel(prices).last(30), CASH)
    assert found.sum() == pytest.approx(1)


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
        PredictThenOptimize(lookback=30, horizon=5, delay=1).fit(random_walks(32, 3))
    with pytest.raises(ValueError, match="fitted without one, give both"):
        PredictThenOptimize(lookback=30, horizon=5).fit(walks)
    with pytest.raises(ValueError, match="fewer than two decisions in 60 training rows"):
        PredictThenOptimize(lookback=30).fit(walks.rows(0, 60), WalkForward(rebalance=50))


@pytest.mark.parametrize("lag", [0, 2])
def test_horizon_and_delay_are_those_of_the_plan(walks, lag):
    """A month has 22 weekdays in the median; what is set by hand is used as it is set."""
    plan = WalkForward(train="18M", refit="1Y", rebalance="ME", execution_lag=lag)
    common = {"lookback": 30, "cap": 0.5, "features": ("lags:3",)}
    found = backtest(
        {
            "plan": PredictThenOptimize(**common),
            "hand": PredictThenOptimize(horizon=22, delay=lag, **common),
            "other": PredictThenOptimize(horizon=5, delay=lag, **common),
            "other delay": PredictThenOptimize(delay=lag + 1, **common),
        },
        walks, plan, progress=False, ledger=False,
    )  # fmt: skip
    targets = {name: result.targets for name, result in found.items()}
    pd.testing.assert_frame_equal(targets["plan"], targets["hand"], check_exact=True)
    assert not targets["plan"].equals(targets["other"])
    assert not targets["plan"].equals(targets["other delay"])
    assert PredictThenOptimize(**common).fit(walks, plan).delay_ == lag


def test_a_strategy_that_takes_no_plan_is_fitted_without(walks):
    seen = []

    class Plain(EqualWeight):
        def fit(self, history):
            seen.append(None)
            return self

    class Planned(EqualWeight):
        def fit(self, history, plan):
            seen.append(plan)
            return self

    plan = WalkForward(train="2Y", refit="2Y", rebalance="ME", execution_lag=2)
    backtest([Plain(), Planned()], walks, plan, progress=False, ledger=False)
    assert set(seen) == {None, plan}


@pytest.mark.parametrize("rule", [MeanVariance, PredictThenOptimize])
def test_what_is_held_may_stay_where_nothing_is_feasible(walks, rule):
    held = pd.Series(0.1, index=CASH.index)
    strategy = rule(lookback=64, cap=0.1, fallback="hold")
    fit_to_plan(strategy, walks, WalkForward())
    pd.testing.assert_series_equal(strategy.allocate(walks.last(64), held), held)


def test_aversion_fallback_and_horizon_are_checked(walks):
    with pytest.raises(ValueError, match="aversion should be above 0, got"):
        MeanVariance(lookback=64, aversion=0.0, cap=0.5).allocate(walks.last(64), CASH)
    with pytest.raises(ValueError, match="one of raise, hold, relax, got 'hope'"):
        MeanVariance(lookback=64, fallback="hope", cap=0.5).allocate(walks.last(64), CASH)
    with pytest.raises(ValueError, match="horizon is at least 1 row"):
        PredictThenOptimize(lookback=64, horizon=0, delay=1).fit(walks)
