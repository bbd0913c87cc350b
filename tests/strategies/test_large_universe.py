"""Large universes: risk in factor form is the dense one, and nothing of size N x N is made."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from markets import random_walks
from sklearn.covariance import ledoit_wolf, ledoit_wolf_shrinkage
from torch.utils._python_dispatch import TorchDispatchMode

from data_loaders import Panel
from data_loaders.machine import free_memory
from engine import WalkForward, backtest, check_strategy
from engine.walking.learner import check_memory
from strategies import DEQMeanVariance, EqualWeight, ExplicitMeanVariance, UnrolledMeanVariance
from strategies.contract_types import stack
from strategies.covariance import factor_risk, ledoit_wolf_intensity, shrunk_covariance
from strategies.deq_network import Standardise, scaled_risk
from strategies.features import feature_table
from strategies.layers import FactorRisk, MeanVarianceLayer

FACTORED = {"lookback": 30, "hidden": 4, "cap": 0.5, "risk": "factor", "factors": 3}
LEARNED = [
    DEQMeanVariance(**FACTORED),
    ExplicitMeanVariance(**FACTORED),
    UnrolledMeanVariance(steps=2, **FACTORED),
]


def named(strategy) -> str:
    return type(strategy).__name__


def dense(history: Panel, factors: int) -> np.ndarray:
    loadings, specific = factor_risk(history, factors)
    return loadings @ loadings.T + np.diag(specific)


@pytest.fixture(scope="module")
def broken() -> Panel:
    """8 walks, of which the third misses a price and the last begins late."""
    prices = random_walks(80, 8).prices.copy()
    prices.iloc[40, 2] = np.nan
    prices.iloc[:60, 7] = np.nan
    return Panel(prices)


@pytest.mark.parametrize(("rows", "assets"), [(80, 8), (12, 30)])  # and fewer rows than assets
def test_all_factors_are_the_dense_covariance(rows, assets):
    history = random_walks(rows, assets)
    np.testing.assert_allclose(dense(history, assets), shrunk_covariance(history), atol=1e-12)


def test_assets_that_do_not_trade_are_as_in_the_dense_covariance(broken):
    np.testing.assert_allclose(dense(broken, 8), shrunk_covariance(broken), atol=1e-12)
    loadings, specific = factor_risk(broken, 2)
    assert not loadings[[2, 7]].any()
    np.testing.assert_array_equal(specific[[2, 7]], 1.0)


def test_few_factors_are_the_largest_components_by_brute_force(broken):
    trades = broken.trades_throughout.to_numpy()
    returns = broken.returns.to_numpy()[1:, trades]
    sample = np.cov(returns.T, bias=True)
    sample /= sample.trace() / len(sample)
    shrink = ledoit_wolf_shrinkage(returns)
    values, vectors = np.linalg.eigh(sample)
    low = (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T  # of rank two
    wanted = (1 - shrink) * (low + np.diag((sample - low).diagonal())) + shrink * np.eye(len(low))
    np.testing.assert_allclose(dense(broken, 2)[np.ix_(trades, trades)], wanted, atol=1e-12)


@pytest.mark.parametrize(("rows", "assets"), [(60, 4), (20, 50), (5, 1), (3, 2)])
def test_the_intensity_is_scikit_learns(rows, assets):
    returns = np.random.default_rng(rows).standard_t(4, (rows, assets))
    centred = returns - returns.mean(axis=0)
    lengths = (centred**2).sum(axis=1) / rows
    for gram in (centred @ centred.T / rows, centred.T @ centred / rows):
        found = ledoit_wolf_intensity(lengths, (gram**2).sum(), assets)
        assert found == pytest.approx(ledoit_wolf_shrinkage(returns), abs=1e-12)


@pytest.mark.parametrize(("rows", "assets"), [(80, 8), (12, 30)])
def test_the_covariance_is_scikit_learns_over_its_mean_variance(rows, assets):
    history = random_walks(rows, assets)
    expected = ledoit_wolf(history.returns.to_numpy()[1:])[0]
    expected /= expected.trace() / assets
    np.testing.assert_allclose(shrunk_covariance(history), expected, rtol=0, atol=1e-12)


def test_where_nothing_trades_every_asset_is_its_own(broken):
    prices = broken.prices.copy()
    prices.iloc[5] = np.nan
    prices.iloc[5, 7] = 1.0
    loadings, specific = factor_risk(Panel(prices), 3)
    assert not loadings.any()
    assert (specific == 1).all()


@pytest.mark.parametrize("cls", [DEQMeanVariance, ExplicitMeanVariance], ids=lambda c: c.__name__)
def test_with_all_factors_the_network_is_the_dense_one(cls, broken):
    """Weights and every gradient, at parameters away from the start."""
    common = {"lookback": 60, "hidden": 4, "cap": 0.4, "ridge": 0.1}
    found = []
    for risk in ("covariance", "factor"):
        strategy = cls(**common, risk=risk, factors=99)
        inputs = stack([strategy.prepare(broken.rows(i, i + 60)) for i in range(12)])
        torch.manual_seed(0)
        network = strategy.build(inputs).double()
        torch.nn.init.normal_(network.heads.weight, std=0.5)
        torch.nn.init.normal_(network.heads.bias, std=0.5)
        weights = network(inputs)
        weights.square().sum().backward()
        found.append((weights, [p.grad for p in network.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-9, rtol=0)
    assert found[0][0].detach().max() > 0.15  # it is far from even
    for one, two in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-6)


def test_auto_is_dense_until_there_are_many():
    for assets, form in ((250, "covariance"), (251, "loadings")):
        history = random_walks(30, assets)
        assert form in DEQMeanVariance(lookback=30, cap=0.1).prepare(history)


def test_the_scaled_factors_are_the_scaled_covariance():
    rng = np.random.default_rng(0)
    loadings, specific = torch.tensor(rng.normal(size=(3, 6, 2))), torch.rand(3, 6).double() + 0.1
    scale, ridge = torch.rand(3, 6).double() + 0.5, torch.rand(3, 6).double()
    factored = scaled_risk({"loadings": loadings, "specific": specific}, scale, ridge)
    covariance = FactorRisk(loadings, specific).dense()
    assert isinstance(factored, FactorRisk)
    wanted = scaled_risk({"covariance": covariance}, scale, ridge)
    torch.testing.assert_close(factored.dense(), wanted)
    q = torch.tensor(rng.normal(size=(3, 6)))
    layer = MeanVarianceLayer()
    torch.testing.assert_close(layer(factored, q, upper=0.5), layer(wanted, q, upper=0.5))


@pytest.mark.parametrize("strategy", LEARNED, ids=named)
def test_it_learns_from_every_parameter(strategy, walks):
    inputs = stack([strategy.prepare(walks.rows(i, i + 30)) for i in range(6)])
    assert "covariance" not in inputs
    torch.manual_seed(0)
    network = strategy.build(inputs).double()
    torch.nn.init.normal_(network.heads.weight, std=0.3)
    torch.nn.init.normal_(getattr(network.encoder, "cell", network.encoder).inject.bias, std=0.3)
    aims = torch.randn(inputs["trades"].shape, dtype=torch.float64)
    (network(inputs | {"drift": torch.ones_like(aims)}) * aims).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_it_is_honest(walks):
    check_strategy(DEQMeanVariance(**FACTORED), walks)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"risk": "factors"},
            r"one of \['auto', .*'cleaned'\], got 'factors'; did you mean 'factor'",
        ),
        ({"factors": 0}, "whole number from 1 on, got 0"),
        ({"factors": 2.0}, "whole number from 1 on, got 2.0"),
    ],
)
def test_a_risk_that_cannot_be_had_is_named(walks, changed, said):
    with pytest.raises(ValueError, match=said):
        DEQMeanVariance(**{**FACTORED, **changed}).prepare(walks.last(30))


class Largest(TorchDispatchMode):
    """The most numbers in a tensor that any operation inside the block gave."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.untyped_storage().nbytes() // 8)
        return found


def test_two_thousand_assets_take_no_square_of_them():
    """Neither what a date is prepared to, nor a step of training on a batch of four."""
    rng = np.random.default_rng(0)
    returns = rng.normal(0, 0.01, (75, 2000)) + rng.normal(0, 0.01, (75, 1))
    days = pd.bdate_range("2010-01-04", periods=75)
    panel = Panel(pd.DataFrame(100 * np.exp(returns.cumsum(0)), days).add_prefix("S"))
    strategy = DEQMeanVariance(lookback=70, cap=0.01, risk="factor")
    tracemalloc.start()
    rows = [strategy.prepare(panel.rows(i, i + 70)) for i in range(4)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * 2000 * 8 / 2
    with Largest() as largest:
        inputs = stack(rows)
        network = strategy.build(inputs).double()
        network(inputs).square().sum().backward()
    assert 4 * 2000 * 10 <= largest.numbers < 2000 * 2000 / 4


# Memory


@pytest.mark.parametrize("chunk", [1, 3, 7, 8])
@pytest.mark.parametrize("features", ["prices", "lags:5"])
def test_features_are_those_of_the_whole_universe_bit_for_bit(broken, features, chunk, monkeypatch):
    """However many assets are looked at at a time; two of the eight do not trade throughout."""
    monkeypatch.setattr("strategies.features.CHUNK", 1000)
    whole = feature_table(broken, [features]).to_numpy()
    assert (whole[:2] != 0).any()
    assert not whole[7].any()
    monkeypatch.setattr("strategies.features.CHUNK", chunk)
    np.testing.assert_array_equal(feature_table(broken, [features]), whole, strict=True)


def test_inputs_of_a_date_take_one_copy_of_the_window():
    """The one that the factors are of; 1.35 windows in all, where features of 512 are a fifth."""
    panel = random_walks(260, 2500)
    strategy, window = DEQMeanVariance(lookback=253, cap=0.01), panel.rows(0, 253)
    strategy.prepare(window)  # what is computed once a panel
    tracemalloc.start()
    prepared = strategy.prepare(panel.rows(1, 254))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert prepared["loadings"].shape == (2500, 10)
    assert 1 < peak / (253 * 2500 * 8) < 1.4


def test_a_universe_that_does_not_fit_is_refused_with_the_mend(walks, monkeypatch):
    """5 assets take 1133 bytes a date: 154 of them and a step on 101 do not fit in 10 kB."""
    monkeypatch.setattr("engine.walking.learner.free_memory", lambda: 10_000)
    started = []
    monkeypatch.setattr("engine.walking.fitting.FitTask.run", lambda *_: started.append(1))
    plan = WalkForward(train="1Y", refit="1Y", rebalance="W-FRI")
    said = (
        r"DEQMeanVariance would keep 0.000635 GB .*'features' \(5 x 16\), for 154 dates .* 404 more"
    )
    with pytest.raises(ValueError, match=said):
        backtest(DEQMeanVariance(lookback=130, cap=0.5), walks, plan, ledger=False)
    assert not started


def test_rules_and_runs_that_would_not_fit_are_refused_first(monkeypatch):
    monkeypatch.setattr("data_loaders.machine.free_memory", lambda: 50_000_000)
    panel = random_walks(500, 4000)
    with pytest.raises(ValueError, match=r"covariance of 4,000 assets: 6 tables .*0\.768 GB"):
        shrunk_covariance(panel)
    with pytest.raises(
        ValueError, match=r"^a backtest: 8 tables of 500 rows of 4,000 .*fewer dates"
    ):
        backtest(EqualWeight(), panel, WalkForward(train=30, rebalance=10), ledger=False)


def test_the_estimate_is_of_all_dates_and_a_step():
    prepared = {"covariance": torch.zeros(500, 500, dtype=torch.float64), "trades": torch.zeros(8)}
    wanted = (500 * 500 * 8 + 8 * 4) * (500 + 250)
    assert check_memory("A", prepared, 500, 250, None) == wanted
    assert check_memory("A", prepared, 500, 250, wanted) == wanted
    said = (
        r"A would keep 1\.5 GB .* 2 MB a date, most of it 'covariance' \(500 x 500\).*risk=\"fact"
    )
    with pytest.raises(ValueError, match=said):
        check_memory("A", prepared, 500, 250, wanted - 1)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("data_loaders.machine.CGROUP", tmp_path)
    whole = free_memory()
    assert whole is None or whole > 1e6
    (tmp_path / "memory.max").write_text("50000\n")
    (tmp_path / "memory.stat").write_text("anon 20000\nfile 12345\n")
    assert free_memory() == 30_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() == pytest.approx(whole, rel=0.2)


def test_the_scaler_is_of_what_is_known():
    """Mean and deviation of each feature over what trades, as numpy has them; torch, to the bit."""
    features = torch.randn(40, 30, 3, dtype=torch.float64)
    features[::7, 4, 1] = torch.nan
    features[..., 2] = torch.nan  # never known
    trades = torch.rand(40, 30) > 0.2
    before = features.clone()
    scaler = Standardise(features, trades)
    seen = features[trades]
    mean = seen.nanmean(dim=0).nan_to_num(0.0)
    assert torch.equal(scaler.mean, mean)
    assert torch.equal(scaler.deviation[:2], (seen - mean).square().nanmean(dim=0).sqrt()[:2])
    np.testing.assert_allclose(scaler.deviation[:2], np.nanstd(seen.numpy()[:, :2], axis=0))
    assert (scaler.mean[2], scaler.deviation[2]) == (0, 1e-6)
    assert torch.equal(features.nan_to_num(9.0), before.nan_to_num(9.0))  # not written to
