"""The ablations of DEQMeanVariance: one part exchanged, all else the same."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

from data_loaders import Panel
from engine import Training, WalkForward, backtest, check_strategy
from strategies import (
    DEQMeanVariance,
    ExplicitMeanVariance,
    SoftmaxAllocation,
    UnrolledMeanVariance,
)
from strategies.ablations import UnrolledEncoder, capped_softmax
from strategies.contract_types import stack
from strategies.features import feature_table, lagged_returns

SMALL = {"lookback": 30, "hidden": 4, "cap": 0.5}
LEARNED = [
    ExplicitMeanVariance(**SMALL),
    UnrolledMeanVariance(steps=2, **SMALL),
    SoftmaxAllocation(**SMALL),
]


def named(strategy) -> str:
    return type(strategy).__name__


def prepared(strategy, panel, rows=6):
    ends = [panel.rows(0, len(panel) - i).last(strategy.lookback) for i in range(rows)]
    return stack([strategy.prepare(history) for history in ends])


@pytest.mark.parametrize("strategy", LEARNED, ids=named)
def test_a_sibling_is_honest(strategy, walks):
    check_strategy(strategy, walks.rows(0, 720))


@pytest.mark.parametrize("strategy", LEARNED, ids=named)
def test_a_sibling_learns_from_every_parameter(strategy, walks):
    inputs = prepared(strategy, walks)
    torch.manual_seed(0)
    network = strategy.build(inputs).double()
    head = network.head if hasattr(network, "head") else network.heads
    torch.nn.init.normal_(head.weight, std=0.3)
    torch.nn.init.normal_(getattr(network.encoder, "cell", network.encoder).inject.bias, std=0.3)
    aims = torch.randn(inputs["trades"].shape, dtype=torch.float64)
    (network(inputs | {"drift": torch.ones_like(aims)}) * aims).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_all_start_where_the_flagship_starts(walks):
    flagship = DEQMeanVariance(**SMALL)
    inputs = prepared(flagship, walks)
    start = flagship.build(inputs).double()(inputs)
    for strategy in LEARNED[:2]:
        torch.testing.assert_close(strategy.build(inputs).double()(inputs), start)
    even = LEARNED[2].build(inputs).double()(inputs)
    torch.testing.assert_close(even, torch.full_like(even, 0.2))


def test_the_explicit_network_has_as_many_parameters(walks):
    inputs = prepared(LEARNED[0], walks)
    counts = [
        sum(p.numel() for p in strategy.build(inputs).parameters())
        for strategy in (DEQMeanVariance(**SMALL), LEARNED[0])
    ]
    assert counts[0] == counts[1]


def test_many_steps_reach_the_equilibrium(walks):
    flagship = DEQMeanVariance(**SMALL)
    inputs = prepared(flagship, walks)
    implicit = flagship.build(inputs).double().encoder
    steps = UnrolledEncoder(inputs["features"].shape[-1], 4, "mean_field", 200).double()
    steps.cell.load_state_dict(implicit.cell.state_dict())
    x = inputs["features"].clamp(-3, 3)
    torch.testing.assert_close(steps(x, inputs["trades"]), implicit(x, inputs["trades"]))


def test_capped_softmax_is_the_nearest_under_the_cap():
    rng = np.random.default_rng(0)
    scores = torch.tensor(rng.normal(0, 2, (5, 6)))
    present = torch.ones(5, 6, dtype=torch.bool)
    present[0, 2] = present[3, 5] = False
    found = capped_softmax(scores, present, 0.3)
    for row, mask, weights in zip(scores.numpy(), present.numpy(), found.numpy(), strict=True):
        p = np.exp(row[mask]) / np.exp(row[mask]).sum()
        nearest = minimize(
            lambda w, p=p: (w * np.log(w / p)).sum(),
            np.full(len(p), 1 / len(p)),
            bounds=[(1e-9, 0.3)] * len(p),
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(weights[mask], nearest.x, atol=1e-5)
        assert (weights[~mask] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=0, atol=1e-15)
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: capped_softmax(s, present, 0.3), scores)


def test_a_cap_that_cannot_hold_is_named(walks):
    with pytest.raises(ValueError, match=r"5 assets trade, and a cap of 0.1 .* allows 0.50"):
        SoftmaxAllocation(lookback=30, cap=0.1).prepare(walks.last(30))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": 0}, "should be at least 1"),
        ({"cell": "monotone"}, "one of mean_field, graph"),
    ],
)
def test_steps_that_make_no_sense_are_refused(walks, changed, said):
    strategy = UnrolledMeanVariance(**{**SMALL, **changed})
    with pytest.raises(ValueError, match=said):
        strategy.build(prepared(strategy, walks))


# Features


@pytest.fixture
def informed(walks) -> Panel:
    """The walks with a feature of each asset, unknown at times, and one of the market."""
    signal = walks.returns.shift(-1)
    signal.iloc[::7] = np.nan
    market = walks.prices.mean(axis=1).to_frame("level")
    return Panel(walks.prices, {"signal": signal}, market)


def test_features_of_the_panel_are_those_of_its_last_row(informed):
    table = feature_table(informed.last(30), ("prices", "panel", "lags:2"))
    assert list(table.columns[-4:]) == ["signal", "market level", "return 0 back", "return 1 back"]
    known = informed.asset_features["signal"].iloc[-1]
    np.testing.assert_array_equal(table["signal"], known)
    assert table["market level"].nunique() == 1


def test_lags_are_the_last_returns_by_hand(walks):
    history = walks.last(30)
    logs = np.log(history.prices).diff().iloc[1:]
    scale = np.sqrt((logs**2).mean())
    np.testing.assert_allclose(lagged_returns(history, 2)["return 0 back"], logs.iloc[-1] / scale)
    np.testing.assert_allclose(lagged_returns(history, 2)["return 1 back"], logs.iloc[-2] / scale)


def test_a_signal_in_the_panel_reaches_the_network(informed):
    """It is tomorrow's return, so that a network that reads it earns what no other can."""
    plan = WalkForward(train="2Y", refit="2Y", rebalance="D", execution_lag=0)
    training = Training(epochs=4, learning_rate=0.02, block=50, cost_factor=0.0)
    results = backtest(
        {
            name: DEQMeanVariance(**SMALL, features=features)
            for name, features in {"blind": ("prices",), "sees": ("panel",)}.items()
        },
        informed,
        plan,
        training=training,
        ledger=False,
    )
    earned = {name: result.gross_returns.mean() for name, result in results.items()}
    assert earned["sees"] > 5 * abs(earned["blind"])


@pytest.mark.parametrize("rows", [6, 22, 64])
def test_short_windows_have_the_horizons_that_fit(walks, rows):
    table = feature_table(walks.last(rows), ("prices",))
    assert table.columns.is_unique
    assert table.notna().all(axis=None)


def own_features(history):
    return history.prices.iloc[-1:].T.set_axis(["price"], axis=1)


def lost_features(history):
    return own_features(history).iloc[1:]


def endless_features(history):
    return pd.DataFrame({"one": 1.0, "ratio": np.inf}, history.assets)


def worded_features(history):
    return own_features(history).astype(str) + "!"


def test_features_of_ones_own_plug_in_by_name(walks):
    table = feature_table(walks.last(30), ("test_ablations:own_features",))
    np.testing.assert_array_equal(table["price"], walks.prices.iloc[-1])


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("price",), "unknown features 'price'"),
        (("lags:0",), "lags need from 1"),
        (("lags:x",), "unknown features 'lags:x'"),
        (("prices", "prices"), "twice the features"),
        ((), "no feature"),
        (("panel",), "no feature"),
        (("test_ablations:lost_features",), "the assets for rows"),
        (("test_ablations:worded_features",), "not all numbers"),
        (("test_ablations:none",), "nothing named 'none'"),
        (("test_ablations:endless_features",), r"\['ratio'\] have infinite values on 20"),
    ],
)
def test_features_that_cannot_be_had_are_named(walks, sets, said):
    with pytest.raises(ValueError, match=said):
        feature_table(walks.last(30), sets)
