"""Dollar-neutral, 130/30, leverage and cash, learned: they train, and find a planted signal."""

import pytest
import torch

from data_loaders.synthetic import planted
from engine import Costs, Training, WalkForward, backtest
from strategies import Constraints, DEQMeanVariance
from strategies.contract_types import stack

MANDATES = {
    "dollar-neutral": Constraints(lower=-0.2, upper=0.2, budget=0.0, gross_limit=1.0),
    "130/30": Constraints(lower=-0.3, upper=0.5, budget=1.0, gross_limit=1.6),
    "leverage": Constraints(upper=0.5, budget=(0.0, 2.0)),
    "cash": Constraints(upper=0.3, budget=(0.0, 1.0)),
}


@pytest.fixture(scope="module")
def market():
    return planted(1000, 8, 0, 0.1)


@pytest.mark.parametrize("mandate", MANDATES)
@pytest.mark.parametrize("inertia", [0.0, 1.0])
def test_a_mandate_trains_and_finds_the_planted_signal(market, mandate, inertia):
    """From a start at which every weight is zero, or at which no weight is short."""
    strategy = DEQMeanVariance(
        lookback=60, hidden=4, constraints=MANDATES[mandate], inertia=inertia
    )
    plan = WalkForward(train="2Y", refit="3Y", rebalance="W-FRI")
    training = Training(epochs=12, validation_blocks=1)  # the best epoch, however weak the evidence
    (result,) = backtest([strategy], market.panel, plan, Costs(), training=training).values()
    weights = result.targets
    signal = market.panel.asset_features["signal"].loc[weights.index]
    active = weights.sub(weights.mean(axis=1), axis=0)
    tilt = (active * signal.sub(signal.mean(axis=1), axis=0)).sum(axis=1)
    assert (tilt > 0).mean() > 0.8
    missed = MANDATES[mandate].missed(list(weights.columns), _tensor(weights))
    assert max(float(value.max()) for value in missed.values()) < 1e-9


def test_a_learned_proportional_cost_leaves_weights_exactly_where_they_are(market):
    """Orders of a few assets take the place of orders of all, and the cost has a gradient."""
    plan = WalkForward(train="2Y", refit="3Y", rebalance="W-FRI")
    limits = {"upper": 0.5}
    both = {
        d: DEQMeanVariance(lookback=60, hidden=4, constraints=limits, inertia=0.3, proportional=d)
        for d in (0.0, 0.1)
    }
    named = {f"d={d}": each for d, each in both.items()}
    found = backtest(named, market.panel, plan, Costs(), training=Training(epochs=2))
    without, banded = (each.orders.groupby("decided").size().mean() for each in found.values())
    assert without > 7.5  # of eight assets
    assert banded < 5
    rows = range(60, 120, 5)
    prepared = stack([both[0.1].prepare(market.panel.rows(row - 60, row)) for row in rows])
    module = both[0.1].build(prepared).double()
    drift = torch.full((12, 8), 1.0, dtype=torch.float64)
    drift[:, 0], drift[0] = 1.1, torch.nan  # one asset has risen: the others stay
    module(prepared | {"drift": drift})[:, 0].sum().backward()
    assert module.log_proportional.grad > 1e-3  # a higher cost keeps more of it
    replayed = found["d=0.1"].replay(market.panel).by_asset  # both costs, and nothing left over
    within = (replayed["weight"] > 1e-6) & (replayed["weight"] < 0.5 - 1e-6)
    assert replayed.loc[within, ["cap", "floor"]].abs().to_numpy().max() < 1e-9
    with pytest.raises(ValueError, match="goes with an inertia above 0"):
        DEQMeanVariance(inertia=0.0, proportional=0.1).check_parameters()


def _tensor(frame):
    return torch.from_numpy(frame.to_numpy())
