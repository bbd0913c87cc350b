import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks
from sklearn.base import clone
from sklearn.covariance import LedoitWolf
from sklearn.exceptions import NotFittedError

from data_loaders import Panel
from strategies import (
    Constraints,
    DEQMeanVariance,
    EqualWeight,
    Group,
    InverseVolatility,
    LearnedStrategy,
    LinearMeanVariance,
    MeanVariance,
    MinimumVariance,
    Strategy,
    load_strategy,
)
from strategies.contract_types import stack
from strategies.deq_network import within
from strategies.features import price_features
from strategies.layers.solve_record import record_solves

CASH = pd.Series(0.0, index=[f"A{i}" for i in range(5)])


def with_gap(panel, asset):
    """The panel with one price of ``asset`` missing, 30 rows before the end."""
    prices = panel.prices.copy()
    prices.iloc[-30, prices.columns.get_loc(asset)] = np.nan
    return Panel(prices)


def test_equal_weight(walks):
    assert EqualWeight().allocate(walks.last(1), CASH).tolist() == [0.2] * 5


def test_inverse_volatility_by_hand(walks):
    history = walks.last(253)
    inverse = 1 / history.returns.iloc[1:].std()
    weights = InverseVolatility().allocate(history, CASH)
    pd.testing.assert_series_equal(weights, inverse / inverse.sum(), check_names=False)


def test_minimum_variance_is_optimal(walks):
    history = walks.last(253)
    weights = MinimumVariance(cap=0.3).allocate(history, CASH)
    assert weights.sum() == pytest.approx(1, abs=1e-9)
    assert weights.between(-1e-9, 0.3 + 1e-9).all()
    covariance = LedoitWolf().fit(history.returns.iloc[1:]).covariance_
    gradient = covariance @ weights.to_numpy()
    free = weights.between(1e-6, 0.3 - 1e-6).to_numpy()
    assert free.any()
    level = gradient[free].mean()  # optimality: equal where free, above at 0, below at the cap
    np.testing.assert_allclose(gradient[free], level, rtol=1e-6)
    assert (gradient[weights.to_numpy() < 1e-6] >= level * (1 - 1e-6)).all()
    assert (gradient[weights.to_numpy() > 0.3 - 1e-6] <= level * (1 + 1e-6)).all()


@pytest.mark.parametrize("strategy", [InverseVolatility(), MinimumVariance(cap=0.5)])
def test_assets_that_do_not_trade_get_nothing(walks, strategy):
    weights = strategy.allocate(with_gap(walks, "A2").last(253), CASH)
    assert weights["A2"] == 0
    assert weights.sum() == pytest.approx(1)
    without = random_walks(900, 5).prices.drop(columns="A2")
    expected = strategy.allocate(Panel(without).last(253), CASH.drop("A2"))
    np.testing.assert_allclose(weights.drop("A2"), expected, atol=1e-7)


def network(panel, **parameters):
    """An untrained DEQMeanVariance and its prepared inputs on the last 40 dates."""
    strategy = DEQMeanVariance(**parameters)
    inputs = stack([strategy.prepare(panel.until(d).last(253)) for d in panel.dates[-40:]])
    torch.manual_seed(0)
    strategy.module_ = strategy.build(inputs).double()
    return strategy, inputs


def test_the_untrained_network_is_minimum_variance_with_a_ridge(walks):
    strategy, _ = network(walks, ridge=0.7, cap=0.4, cash=False)
    weights = strategy.allocate(walks, CASH)
    history = walks.last(253)
    covariance = LedoitWolf().fit(history.returns.iloc[1:]).covariance_
    risk = covariance / np.diag(covariance).mean() + 0.7 * np.eye(5)
    solved = np.linalg.solve(risk, np.ones(5))
    expected = solved / solved.sum()
    assert (expected > 0).all()  # so no bound is active, and this is the optimum
    assert (expected < 0.4).all()
    np.testing.assert_allclose(weights, expected, atol=1e-7)


def test_the_network_learns_from_every_parameter(walks):
    strategy, inputs = network(walks, cap=0.5)
    with torch.no_grad():
        strategy.module_.heads.weight.normal_(0, 0.1)
    drift = torch.ones(len(inputs["trades"]), 5, dtype=torch.float64)
    weights = strategy.module_(inputs | {"drift": drift})
    weights.pow(2).sum().backward()
    for name, parameter in strategy.module_.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_network_gives_nothing_to_assets_that_do_not_trade(walks):
    strategy, _ = network(walks, cap=0.5, cash=False)
    with torch.no_grad():
        strategy.module_.heads.weight.normal_(0, 1)
    weights = strategy.allocate(with_gap(walks, "A2"), CASH)
    assert weights["A2"] == 0
    assert weights.sum() == pytest.approx(1)


def test_permuting_assets_permutes_the_weights(walks):
    strategy, _ = network(walks, cap=0.5)
    with torch.no_grad():
        strategy.module_.heads.weight.normal_(0, 1)
    order = ["A3", "A0", "A4", "A2", "A1"]
    weights = strategy.allocate(walks, CASH)
    permuted = strategy.allocate(Panel(walks.prices[order]), CASH[order])
    np.testing.assert_allclose(permuted, weights[order], atol=1e-7)
    assert weights.std() > 1e-3


@pytest.mark.parametrize("solver", ["active_set", "qpth"])
def test_both_solvers_give_the_same_weights(walks, solver):
    strategy, _ = network(walks, solver=solver)
    reference, _ = network(walks, solver="qpth")
    np.testing.assert_allclose(
        strategy.allocate(walks, CASH), reference.allocate(walks, CASH), atol=1e-6
    )


GROUPED = Constraints(upper=0.5, groups=[Group("first two", ["A0", "A1"], upper=0.3)])


@pytest.mark.parametrize("constraints", [GROUPED, GROUPED.to_dict()], ids=["object", "plain"])
def test_constraints_hold_in_every_strategy_that_takes_them(walks, constraints):
    learned, _ = network(walks, constraints=constraints)
    with torch.no_grad():
        learned.module_.heads.weight.normal_(0, 1)
    for strategy in (MinimumVariance(constraints=constraints), learned):
        weights = strategy.allocate(walks.last(253), CASH)
        missed = GROUPED.missed(list(walks.assets), torch.tensor(weights.to_numpy()))
        assert max(float(value.max()) for value in missed.values()) < 1e-12
        assert weights["A0"] + weights["A1"] > 0.1


def test_cash_is_a_choice_of_every_optimiser(walks):
    """What loses on average is not bought; less of it than all where its risk is not worth it."""
    cash = Constraints(upper=0.5, budget=(0, 1))
    assert MinimumVariance(constraints=cash).allocate(walks.last(253), CASH).abs().sum() == 0
    bold = MeanVariance(aversion=0.5, constraints=cash).allocate(walks.last(253), CASH)
    timid = MeanVariance(aversion=500.0, constraints=cash).allocate(walks.last(253), CASH)
    assert 0 < timid.sum() < bold.sum() <= 1 + 1e-12
    for inertia in (0.0, 1.0):
        learned, inputs = network(walks, constraints=cash, inertia=inertia, cash=False)
        assert inputs["limit.budget"].shape == (40, 2)
        with torch.no_grad():
            learned.module_.heads.weight.normal_(0, 0.3)
        drift = torch.ones(40, 5, dtype=torch.float64)
        total = learned.module_(inputs | ({"drift": drift} if inertia else {})).sum(1)
        assert ((total > 0.01) & (total < 0.99)).any()
        assert (total > -1e-12).all()
        assert (total < 1 + 1e-12).all()
    for delta in (0.0, 0.1):
        linear = LinearMeanVariance(lookback=60, delta=delta, constraints=cash)
        inputs = stack([linear.prepare(walks.until(d).last(60)) for d in walks.dates[-40:]])
        total = linear.build(inputs).double()(inputs).sum(1)
        assert (total < 0.99).any()
        assert ((total > -1e-9) & (total < 1 + 1e-9)).all()


def test_turnover_is_limited_from_the_holdings(walks):
    strategy = MinimumVariance(constraints=Constraints(upper=0.6, turnover_limit=0.1))
    first = strategy.allocate(walks.last(253), CASH)  # the first purchase is free of it
    assert first.sum() == pytest.approx(1)
    held = pd.Series([0.0, 0.0, 0.2, 0.3, 0.5], CASH.index)
    traded = (strategy.allocate(walks.last(253), held) - held).abs().sum()
    assert traded == pytest.approx(0.1, abs=1e-9)


def test_fallbacks_are_counted(walks):
    held = pd.Series([0.4, 0.3, 0.2, 0.1, 0.0], CASH.index)
    with record_solves() as record:
        kept = MinimumVariance(cap=0.1, fallback="hold").allocate(walks.last(253), held)
        relaxed = MinimumVariance(cap=0.1, fallback="relax").allocate(walks.last(253), held)
        learned, _ = network(walks, cap=0.1, fallback="relax")
        learned.allocate(walks.last(253), held)
    pd.testing.assert_series_equal(kept, held)
    np.testing.assert_allclose(relaxed, 0.2)
    assert record.tallies["fallback: hold"].samples == 1
    assert record.tallies["fallback: relax"].samples >= 2
    with pytest.raises(ValueError, match="unknown fallback 'pray'"):
        MinimumVariance(fallback="pray").allocate(walks.last(253), held)


def test_a_learned_strategy_refuses_turnover_terms(walks):
    with pytest.raises(ValueError, match="the loss charges turnover, and inertia"):
        network(walks, constraints=Constraints(upper=0.5, turnover_limit=0.1))


@pytest.mark.parametrize("cell", ["mean_field", "graph", "monotone"])
@pytest.mark.parametrize("embedding", [0, 3])
def test_every_cell_and_embedding_runs(walks, cell, embedding):
    strategy, inputs = network(walks, cell=cell, embedding=embedding, cap=0.5)
    with torch.no_grad():
        strategy.module_.heads.weight.normal_(0, 1)
    drift = torch.ones(len(inputs["trades"]), 5, dtype=torch.float64)
    strategy.module_(inputs | {"drift": drift}).pow(2).sum().backward()
    grads = {name: p.grad for name, p in strategy.module_.named_parameters()}
    assert all(grad is not None for grad in grads.values())
    assert strategy.equivariant == (embedding == 0)


@pytest.mark.parametrize(
    ("fixed_point", "adjoint"),
    [("broyden", "implicit"), ("picard", "unrolled"), ("anderson", "phantom")],
)
def test_the_equilibrium_does_not_depend_on_how_it_is_found(walks, fixed_point, adjoint):
    found = []
    for options in ({}, {"fixed_point": fixed_point, "adjoint": adjoint}):
        strategy, inputs = network(walks, cap=0.5, **options)
        with torch.no_grad():
            strategy.module_.heads.weight.normal_(0, 1)
        strategy.module_(inputs).square().sum().backward()
        found.append(strategy.module_.encoder)
    usual, other = found
    assert type(other.adjoint).__name__.lower() == adjoint
    assert type(other.solver).__name__.lower() == fixed_point
    for one, two in zip(usual.parameters(), other.parameters(), strict=True):
        tolerance = 0.3 if adjoint == "phantom" else 1e-6  # an approximation, and said to be one
        assert (one.grad - two.grad).norm() <= tolerance * one.grad.norm()


def test_features_are_causal_and_scale_free(walks):
    history = walks.until(walks.dates[600]).last(253)
    features = price_features(history)
    assert features.shape == (5, 20)  # five returns, four ratios, two ranks, nine means
    assert np.isfinite(features).all(axis=None)
    np.testing.assert_allclose(
        price_features(Panel(history.prices * [1, 10, 0.1, 5, 3])), features, atol=1e-9
    )


def test_the_feature_of_the_longest_horizon_by_hand(walks):
    history = walks.last(253)
    logs = np.log(history.prices).diff().iloc[1:]
    expected = logs.sum() / (np.sqrt((logs**2).mean()) * np.sqrt(252))
    np.testing.assert_allclose(price_features(history).iloc[:, 4], expected, rtol=1e-10)


def test_a_short_window_has_fewer_features(walks):
    assert price_features(walks.last(64)).shape == (5, 12)
    with pytest.raises(ValueError, match="need a lookback of 6 or more"):
        price_features(walks.last(4))


def test_within_is_bounded_with_unit_slope_at_zero():
    raw = torch.tensor([-100.0, 0.0, 100.0], dtype=torch.float64, requires_grad=True)
    value = within(raw, 2.0)
    assert value.tolist() == pytest.approx([0.5, 1.0, 2.0])
    value[1].backward()
    assert raw.grad[1].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "strategy", [DEQMeanVariance(hidden=4), EqualWeight(), InverseVolatility(), MinimumVariance()]
)
def test_strategies_are_estimators(strategy):
    copy = clone(strategy)
    assert copy.get_params() == strategy.get_params()
    for name, value in strategy.get_params().items():
        assert getattr(copy.set_params(**{name: value}), name) == value


def test_strategies_by_name():
    assert load_strategy("EqualWeight") is EqualWeight
    assert load_strategy("strategies.deq:DEQMeanVariance") is DEQMeanVariance
    with pytest.raises(ValueError, match="did you mean 'MinimumVariance'"):
        load_strategy("minimumvarience")
    with pytest.raises(ValueError, match="cannot import nowhere"):
        load_strategy("nowhere:Thing")
    with pytest.raises(ValueError, match="has no Strategy named 'Panel'"):
        load_strategy("data_loaders.panel:Panel")


def test_errors_of_the_contract(walks):
    with pytest.raises(NotFittedError, match="not trained yet"):
        DEQMeanVariance().allocate(walks, CASH)
    with pytest.raises(TypeError, match="trained by the engine"):
        DEQMeanVariance().fit(walks)
    with pytest.raises(NotImplementedError, match="must define allocate"):
        Strategy().allocate(walks, CASH)
    with pytest.raises(NotImplementedError, match="must define build"):
        LearnedStrategy().build({})
    with pytest.raises(ValueError, match="caps sum to 0.5, budget is 1"):
        MinimumVariance(cap=0.1).allocate(walks.last(253), CASH)
    with pytest.raises(ValueError, match="solver should be one of active_set, qpth, got 'newton'"):
        network(walks, solver="newton")
    with pytest.raises(ValueError, match="ridge should be above 0, got"):
        network(walks, ridge=0.0)


def test_inputs_that_change_their_shape_are_named():
    rows = [{"features": torch.zeros(4, n)} for n in (2, 2, 3)]
    with pytest.raises(
        ValueError, match=r"'features' has the shape \(4, 2\) on one date and \(4, 3"
    ):
        stack(rows)


def test_a_fit_that_returns_nothing_is_the_fitted_strategy(walks):
    class Forgets(Strategy):
        def fit(self, history):
            self.mean = history.returns.mean()

    assert len(Forgets().refitted(walks).mean) == len(walks.assets)
