"""What a replay says is what was traded, and satisfies the equations of the strategy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from markets import random_walks

from engine import BacktestResult, Costs, Training, WalkForward, backtest
from strategies import (
    Constraints,
    DEQMeanVariance,
    EqualWeight,
    LinearMeanVariance,
    MinimumVariance,
    NoTradeBand,
)

HALF = {"upper": 0.5}


class Decided(DEQMeanVariance):
    """Its network has views before it has learned any, and invests all."""

    def __init__(self, lookback=64, hidden=4, constraints=HALF):
        super().__init__(lookback, hidden, constraints=constraints)

    def build(self, inputs):
        network = super().build(inputs)
        torch.nn.init.normal_(network.heads.weight, std=0.5)
        return network


PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
TRAINING = Training(epochs=1, block=12, learning_rate=0.01, ensemble=2, validation=0.2)
LIMITS = Constraints(upper=0.5, lower=-0.2, gross_limit=1.2)
STRATEGIES = {
    "DEQ": Decided(),
    "short": Decided(constraints=LIMITS),
    "robust": LinearMeanVariance(64, delta=0.1, cap=0.6),
    "rule": MinimumVariance(64, cap=0.4),
    "band": NoTradeBand(Decided(), 0.02),
    "1/N": EqualWeight(),
}


@pytest.fixture(scope="module")
def panel():
    return random_walks(640, 4)


@pytest.fixture(scope="module")
def results(panel):
    return backtest(STRATEGIES, panel, PLAN, Costs(0.001), TRAINING, progress=False)


def replayed(results, panel, name):
    given = STRATEGIES[name] if name in ("short", "band") else None
    return results[name].replay(panel, given)


@pytest.mark.parametrize("name", ["DEQ", "short", "robust", "rule"])
def test_it_is_what_was_traded(results, panel, name):
    found, result = replayed(results, panel, name), results[name]
    weights = found.by_asset["weight"].unstack("asset")[list(panel.assets)]
    assert weights.groupby("seed").size().tolist() == [len(result.targets)] * (
        1 if name == "rule" else 2
    )
    np.testing.assert_allclose(weights.groupby("date").mean(), result.targets, atol=1e-9)
    assert found.solves["converged"].all()


def test_beside_cash_it_is_the_fully_invested_portfolio(panel):
    strategy = DEQMeanVariance(lookback=64, hidden=4, cap=0.5, target=0.07)
    (result,) = backtest(strategy, panel, PLAN, Costs(0.001), Training(epochs=0)).values()
    weights = result.replay(panel).by_asset["weight"].unstack("asset")[list(panel.assets)]
    exposure = result.targets.sum(axis=1)
    assert exposure.min() < 0.9
    np.testing.assert_allclose(weights.mul(exposure.to_numpy(), axis=0), result.targets, atol=1e-9)


@pytest.mark.parametrize("name", ["DEQ", "short"])
def test_the_weights_are_optimal_for_what_it_says(results, panel, name):
    """The conditions of Karush, Kuhn and Tucker, from q, P, h and the limits alone."""
    result, found = results[name], replayed(results, panel, name)
    low, high = (-0.2, 0.5) if name == "short" else (0.0, 0.5)
    seen = set()
    for each in found.explanations.values():
        for one in each:
            table, multipliers = one.by_asset, one.multipliers
            z, q, P = table["weight"], table["expected_return"], one.risk.to_numpy()
            assert abs(q).max() > 1e-3
            np.testing.assert_allclose(table["risk"], P @ z, atol=1e-12)
            np.testing.assert_allclose(P, P.T)
            terms = table[["risk", "trading", "gross", "rows", "cap"]].sum(axis=1)
            np.testing.assert_allclose(terms - table["floor"], q, atol=1e-12)
            np.testing.assert_allclose(table["rows"], multipliers["budget"])
            within = (z > low + 1e-6) & (z < high - 1e-6)
            assert abs(table.loc[within, ["cap", "floor"]]).to_numpy().max(initial=0) < 1e-9
            assert (table.loc[z > low + 1e-6, "floor"] < 1e-9).all()
            assert (table.loc[z < high - 1e-6, "cap"] < 1e-9).all()
            clear = abs(z) > 1e-6
            np.testing.assert_allclose(
                table["gross"][clear], (multipliers["gross"] * np.sign(z))[clear], atol=1e-12
            )
            seen |= {k for k in ("cap", "floor", "gross", "trading") if abs(table[k]).max() > 1e-6}
    assert {"trading", "gross" if name == "short" else "cap"} <= seen
    # The cost of trading pulls to the holdings: c (z - h), with one c for all assets of a date.
    date, own = list(found.explanations.items())[3]
    held = result.weights.loc[date]
    gap = own[0].by_asset["weight"] - held
    cost = own[0].by_asset["trading"] / gap
    assert cost.min() > 0
    np.testing.assert_allclose(cost, cost.iloc[0], rtol=1e-6)


def test_q_is_read_from_the_equilibrium(results, panel):
    found, result = replayed(results, panel, "DEQ"), results["DEQ"]
    last = max(fold for fold, _ in result.states)
    (one, two) = found.explanations[result.targets.index[-1]]
    for seed, each in enumerate((one, two)):
        state = {k: v.numpy() for k, v in result.states[last, seed].items()}
        z = each.equilibrium.to_numpy()
        assert z.shape == (4, 4)
        q = z @ state["heads.weight"][0] + state["heads.bias"][0]
        np.testing.assert_allclose(each.by_asset["expected_return"], q, atol=1e-12)
        assert each.solves.loc["fixed point", "residual"] < 1e-9
    assert not one.equilibrium.equals(two.equilibrium)


def test_a_wrapper_shows_the_network_inside(results, panel):
    found = replayed(results, panel, "band")
    assert len(found.explanations) == len(results["band"].targets)
    assert found.multipliers.index.names == ["date", "seed"]
    assert found.multipliers.columns.tolist() == ["budget", "turnover", "gross"]


def test_some_dates_of_a_saved_result(results, panel, tmp_path):
    loaded = BacktestResult.load(results["DEQ"].save(tmp_path / "run"))
    dates = loaded.targets.index[[2, 4]]
    some, whole = loaded.replay(panel, dates=dates), replayed(results, panel, "DEQ")
    assert list(some.explanations) == list(dates)
    assert some.by_asset.equals(whole.by_asset.loc[dates])


def test_what_cannot_be_replayed_says_why(results, panel):
    deq, changed = results["DEQ"], results["DEQ"].targets.copy()
    changed.iloc[5, 1] += 1e-6
    when = str(changed.index[5].date())
    with pytest.raises(ValueError, match=f"on {when} the replay holds .* of A1.* changed since"):
        replace(deq, targets=changed).replay(panel)
    with pytest.raises(ValueError, match="not the panel of the run"):
        deq.replay(random_walks(640, 4, seed=1))
    with pytest.raises(ValueError, match=r"result.replay\(panel, strategy\)"):
        results["short"].replay(panel)
    with pytest.raises(ValueError, match=r"result.replay\(panel, strategy\)"):
        deq.replay(panel, Decided(hidden=5))
    with pytest.raises(ValueError, match="solves no mean-variance problem"):
        results["1/N"].replay(panel)
    with pytest.raises(ValueError, match="1 of the dates are no decisions"):
        deq.replay(panel, dates=["2011-07-02"])
