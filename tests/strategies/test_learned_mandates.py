"""Dollar-neutral, 130/30, leverage and cash, learned: they train, and find a planted signal."""

import pytest

from data_loaders.synthetic import planted
from engine import Costs, Training, WalkForward, backtest
from strategies import Constraints, DEQMeanVariance

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


def _tensor(frame):
    import torch

    return torch.from_numpy(frame.to_numpy())
