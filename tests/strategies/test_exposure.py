"""The exposure of DEQMeanVariance: the untrained one in closed form, and what bounds it."""

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks

from data_loaders import Panel
from engine import Costs, Training, WalkForward, backtest
from strategies import Constraints, DEQMeanVariance, Group, Strategy, VolatilityManaged
from strategies.contract_types import stack
from strategies.layers import MeanVarianceLayer

PLAN = WalkForward(train="18M", refit="9M", rebalance="W-FRI")
SMALL = {"lookback": 130, "hidden": 4, "cap": 0.5}
CASH = pd.Series(0.0, [f"A{i}" for i in range(4)])


@pytest.fixture(scope="module")
def panel():
    calm = random_walks(700, 4).returns.fillna(0)
    waves = 1 + 0.7 * np.sin(np.arange(700) / 40)
    return Panel(100 * (1 + calm.mul(waves, axis=0)).cumprod())


def untrained(panel, **parameters):
    """The strategy before its first step, built on some of the first 300 rows, and its inputs."""
    strategy = DEQMeanVariance(**{**SMALL, **parameters})
    rows = range(strategy.lookback, 300, 5)
    seen = [panel.rows(row + 1 - strategy.lookback, row + 1) for row in rows]
    inputs = stack([strategy.prepare(each) for each in seen])
    torch.manual_seed(0)
    strategy.module_ = strategy.build(inputs).double()
    return strategy, inputs


class Untrained(Strategy):
    """A network without a training, as a rule."""

    lookback = SMALL["lookback"]

    def __init__(self, decide):
        self.decide = decide  # a method, so that a clone has the network's module, too

    def allocate(self, history, holdings):
        return self.decide(history, holdings)


@pytest.mark.parametrize("inertia", [0.0, 1.0])
def test_untrained_it_is_the_volatility_managed_portfolio_of_the_fully_invested_one(panel, inertia):
    found, _ = untrained(panel, inertia=inertia, target=0.07)
    invested, _ = untrained(panel, inertia=inertia, cash=False)
    strategies = {
        "network": Untrained(found.allocate),
        "rule": VolatilityManaged(Untrained(invested.allocate), target=0.07),
    }
    weights = [
        r.targets for r in backtest(strategies, panel, PLAN, Costs(0.001), ledger=False).values()
    ]
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-10)
    exposure = weights[0].sum(axis=1)
    assert exposure.min() < 0.8
    assert exposure.max() > 0.999


def by_pandas(panel, weights, row):
    """The volatility a year that weights would have had, with a half-life of 15 rows."""
    returns = (panel.returns * weights).sum(axis=1).iloc[row - 119 : row + 1]
    return np.sqrt(252 * (returns**2).ewm(halflife=15).mean().iloc[-1])


def test_the_target_is_the_median_volatility_of_the_untrained_portfolio(panel):
    strategy, inputs = untrained(panel)
    invested, _ = untrained(panel, cash=False)
    weights = invested.weights(inputs).numpy()
    rows = range(strategy.lookback, 300, 5)
    every = [by_pandas(panel, w, row) for w, row in zip(weights, rows, strict=True)]
    assert float(strategy.module_.exposure.target) == pytest.approx(np.median(every), rel=1e-12)


def test_the_exposure_is_the_budget_of_a_problem_with_scaled_limits(panel):
    group = Group("first two", ["A0", "A1"], upper=0.45)
    limits = Constraints(upper=0.5, budget=(0.3, 1), groups=[group])
    strategy, inputs = untrained(panel, constraints=limits)
    with torch.no_grad():
        for parameter in strategy.module_.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    risk, q = {}, {}
    layer = strategy.module_.optimiser

    class Seen(torch.nn.Module):
        def forward(self, P, expected, **rest):
            risk["P"], q["q"] = P, expected
            return layer(P, expected, **rest)

    strategy.module_.optimiser = Seen()
    weights = strategy.weights(inputs)
    e = weights.sum(-1, keepdim=True)  # (B, 1)
    assert e.min() >= 0.3 - 1e-12
    assert e.min() < 0.9
    rows = torch.tensor([[1.0, 1, 0, 0]], dtype=torch.float64)
    same = MeanVarianceLayer()(
        risk["P"], e * q["q"], lower=0.0, upper=0.5 * e, budget=e.squeeze(-1),
        rows=rows, row_upper=0.45 * e,
    )  # fmt: skip
    np.testing.assert_allclose(weights, same, atol=1e-10)


def test_gradients_through_the_exposure_are_exact(panel):
    strategy, inputs = untrained(panel, inertia=0.0, target=0.12)
    few = {name: values[:6] for name, values in inputs.items()}
    network = strategy.module_
    with torch.no_grad():
        network.heads.weight.normal_(0, 0.3)
        network.exposure.head.weight.normal_(0, 0.3)
    assert (network(few).sum(-1) < 1).any()

    def weights(head, heads):
        parameters = {"exposure.head.weight": head, "heads.weight": heads}
        return torch.func.functional_call(network, parameters, few)

    at = network.exposure.head.weight, network.heads.weight
    assert torch.autograd.gradcheck(weights, at, atol=1e-6)


def test_the_factor_form_has_the_same_volatility_with_all_its_components(panel):
    dense, inputs = untrained(panel, target=0.12)
    factor, factored = untrained(panel, target=0.12, risk="factor", factors=4)
    np.testing.assert_allclose(factor.weights(factored), dense.weights(inputs), atol=1e-9)
    few, approximate = untrained(panel, target=0.12, risk="factor", factors=1)
    total = approximate["recent"].square().sum(1) + approximate["recent_specific"]
    np.testing.assert_allclose(total, inputs["recent"].square().sum(1), rtol=1e-12)
    assert few.weights(approximate).sum(-1).min() < 1


def test_a_suspended_asset_is_kept_and_the_rest_scaled(panel):
    strategy, _ = untrained(panel, target=0.05)
    prices = panel.prices.copy()
    prices.iloc[-3:, 1] = np.nan
    held = pd.Series([0.2, 0.1, 0.1, 0.1], panel.assets)
    weights = strategy.allocate(Panel(prices).last(130), held)
    assert weights["A1"] == 0.1
    assert weights.sum() < 0.9
    whole = untrained(panel, cash=False)[0].allocate(Panel(prices).last(130), held / held.sum())
    others = ["A0", "A2", "A3"]
    np.testing.assert_allclose(
        weights[others] / weights[others].sum(), whole[others] / whole[others].sum(), atol=1e-9
    )


@pytest.mark.parametrize(
    "parameters", [{"cash": False}, {"constraints": Constraints(upper=0.5, lower=0.1)}]
)
def test_without_room_for_cash_it_is_fully_invested(panel, parameters):
    strategy, inputs = untrained(panel, **parameters)
    np.testing.assert_allclose(strategy.weights(inputs).sum(-1), 1, atol=1e-12)
    assert "recent" not in inputs


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(lower=0.1, budget=(0, 1)), "lower cannot be kept beside cash"),
        (Constraints(floors={"A0": 0.1}, budget=(0, 1)), "the floor of A0 cannot be kept"),
        (
            Constraints(budget=(0, 1), groups=[Group("two", ["A0", "A1"], lower=0.1)]),
            "two cannot be kept beside cash",
        ),
    ],
)
def test_limits_that_cash_would_break_are_refused(constraints, message):
    with pytest.raises(ValueError, match=message):
        DEQMeanVariance(constraints=constraints).check_parameters()


def test_a_target_out_of_reach_is_refused(panel):
    with pytest.raises(
        ValueError, match=r"a target volatility of 90% a year is out of reach: fully"
    ):
        untrained(panel, target=0.9)
    with pytest.raises(ValueError, match=r"90% .* with an exposure of 1\.5, the untrained"):
        untrained(panel, target=0.9, max_exposure=1.5)


def test_borrowed_money_is_the_rules(panel, monkeypatch):
    """With the same exposures above 1 as ``VolatilityManaged``, and interest in both."""
    found, _ = untrained(panel, inertia=0.0, target=0.12, max_exposure=1.5)
    invested, _ = untrained(panel, inertia=0.0, cash=False)
    strategies = {
        "network": Untrained(found.allocate),
        "rule": VolatilityManaged(Untrained(invested.allocate), target=0.12, max_exposure=1.5),
    }
    monkeypatch.setattr(Untrained, "leverage", 1.5)
    with pytest.raises(ValueError, match=r"rule: an exposure of 1\.5 borrows .* financing"):
        backtest(strategies, panel, PLAN, Costs(0.001), ledger=False)
    results = backtest(strategies, panel, PLAN, Costs(0.001, financing=0.05), ledger=False)
    weights = [result.targets for result in results.values()]
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-10)
    assert weights[0].sum(axis=1).max() == pytest.approx(1.5)
    assert DEQMeanVariance(max_exposure=1.5).room() == (False, 1.5)


def test_borrowed_money_is_within_the_cap_times_the_exposure(panel):
    strategy = DEQMeanVariance(**SMALL | {"cap": 0.3}, target=0.12, max_exposure=1.5)
    training = Training(epochs=0)
    costs = Costs(0.001, financing=0.05)
    result = backtest(strategy, panel, PLAN, costs, training, ledger=False)["DEQMeanVariance"]
    assert 0.4 < result.targets.max().max() <= 0.3 * 1.5 + 1e-9


def test_a_budget_up_to_a_part_bounds_the_exposure(panel):
    """Where the volatility is usual, it is invested; above, less: the rule of that target."""
    constraints = Constraints(upper=0.5, budget=(0.0, 0.6))
    found, inputs = untrained(panel, inertia=0.0, constraints=constraints)
    whole, _ = untrained(panel, inertia=0.0, constraints=Constraints(upper=0.5, budget=(0.0, 1.0)))
    with torch.no_grad():
        sums = [each.module_(inputs).sum(-1) for each in (found, whole)]
    assert sums[0].max() == pytest.approx(0.6)
    torch.testing.assert_close(sums[0], 0.6 * sums[1])


def test_an_exposure_that_is_not_possible_is_refused():
    for wrong in ("1.5", float("inf")):
        with pytest.raises(ValueError, match=r"max_exposure should be above 0 up to 10"):
            DEQMeanVariance(max_exposure=wrong).check_parameters()
    with pytest.raises(ValueError, match="max_exposure goes with cash=True and cap"):
        DEQMeanVariance(max_exposure=1.5, cash=False).check_parameters()
