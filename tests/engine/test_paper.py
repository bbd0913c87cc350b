"""E2E-DRO (arXiv:2206.05134): the linear end-to-end models, and the paper's weekly returns."""

import importlib
import runpy
import sys
import warnings
from pathlib import Path

import cvxpy as cp
import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import Panel
from engine import Costs, Training, WalkForward, backtest, check_strategy
from strategies import EqualWeight
from strategies.contract_types import stack
from strategies.layers import MeanVarianceLayer, SolveError
from strategies.layers.optimisation.robust import RobustLayer, highest_radius
from strategies.linear_mean_variance import LinearMeanVariance

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "e2e_dro"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the paper's data are not here")


@pytest.fixture(scope="module")
def e2e():
    """The module benchmarks/e2e_dro.py, which is not installed."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("benchmarks.e2e_dro")
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def paper(e2e):
    return e2e.load_paper(DATA)


@pytest.fixture(scope="module")
def weekly() -> Panel:
    """4 assets and 2 factors, 260 weeks, seed 3; the factors say something about the next week."""
    rng = np.random.default_rng(3)
    factors = rng.normal(0, 0.02, (260, 2))
    returns = rng.normal(0.001, 0.02, (260, 4))
    returns[1:] += 0.3 * factors[:-1] @ rng.normal(size=(2, 4))
    dates = pd.date_range("2010-01-01", periods=260, freq="W-FRI")
    return Panel(
        pd.DataFrame(100 * (1 + returns).cumprod(axis=0), dates, list("ABCD")),
        market_features=pd.DataFrame(factors, dates, ["x", "y"]),
    )


def prepared(strategy, panel, rows):
    return stack(
        [strategy.prepare(panel.until(panel.dates[r]).last(strategy.lookback)) for r in rows]
    )


def allocations(model, panel, rows):
    """Weights (K, N) that a fitted model decides at some rows."""
    histories = [panel.until(panel.dates[row]).last(model.lookback) for row in rows]
    return np.array([model.allocate(history, pd.Series(dtype=float)) for history in histories])


# The model


def test_the_start_is_least_squares_and_the_risk_that_of_its_residuals(weekly):
    linear = LinearMeanVariance(lookback=53, gamma=0.07)
    inputs = prepared(linear, weekly, range(60, 200))
    network = linear.build(inputs)
    features, returns = weekly.market_features.to_numpy(), weekly.returns.to_numpy()
    design = np.column_stack([np.ones(140), features[59:199]])
    theta = np.linalg.lstsq(design, returns[60:200], rcond=None)[0].T
    np.testing.assert_allclose(network.theta.bias.detach(), theta[:, 0], atol=1e-14)
    np.testing.assert_allclose(network.theta.weight.detach(), theta[:, 1:], atol=1e-12)

    row = 199
    residuals = returns[row - 51 : row + 1] - features[row - 52 : row] @ theta[:, 1:].T
    covariance = np.cov(residuals.T, ddof=0)
    q = 0.07 * (theta[:, 0] + theta[:, 1:] @ features[row])
    expected = MeanVarianceLayer()(torch.tensor(2 * covariance), torch.tensor(q)[None])
    found = network(prepared(linear, weekly, [row]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("learn", "trained"),
    [
        ("all", {"theta.weight", "theta.bias", "gamma", "delta"}),
        ("theta", {"theta.weight", "theta.bias"}),
        ("gamma", {"gamma"}),
        ("delta", {"delta"}),
    ],
)
def test_only_what_is_asked_for_is_learned(weekly, learn, trained):
    linear = LinearMeanVariance(lookback=53, delta=0.2, learn=learn)
    network = linear.build(prepared(linear, weekly, range(60, 100)))
    weights = network(prepared(linear, weekly, [100, 101]))
    (weights * torch.arange(4)).sum().backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == trained


def test_it_trains_in_the_engine_on_any_panel_and_sees_no_future(weekly, walks):
    plan = WalkForward(train=120, refit=140, rebalance=4, execution_lag=0)
    strategy, training = LinearMeanVariance(lookback=53), Training(epochs=2, block=24)
    assert check_strategy(strategy, weekly, plan, training=training)["passed"].all()
    assert not walks.market_features.shape[1]
    plan = WalkForward(train=600, refit=290, rebalance=21)
    shelf = {
        name: LinearMeanVariance(lookback=64, delta=delta)
        for name, delta in (("nominal", 0.0), ("robust", 0.2))
    }
    for result in backtest(shelf, walks, plan, training=training).values():
        assert result.checks["weights"].max() < 1e-6  # solved by qpth as well
        np.testing.assert_allclose(result.targets.sum(axis=1), 1, atol=1e-9)


def test_an_asset_that_does_not_trade_is_not_held(walks):
    prices = walks.prices.copy()
    prices.iloc[-5, 1] = np.nan
    for delta in (0.0, 0.2):
        linear = LinearMeanVariance(lookback=64, delta=delta)
        network = linear.build(prepared(linear, walks, range(70, 120)))
        weights = network(stack([linear.prepare(Panel(prices).last(64))]))
        assert weights[0, 1] == 0
        assert weights.sum().item() == pytest.approx(1, abs=1e-9)


def test_a_covariance_without_an_inverse_is_named(walks):
    strategy = LinearMeanVariance(lookback=64)
    prices = walks.prices.copy()
    prices["A4"] = 2 * prices["A3"]
    with pytest.raises(
        ValueError, match=r"covariance of 5 assets over 63 returns has rank 4: take"
    ):
        strategy.build(prepared(strategy, Panel(prices), range(70, 120)))
    robust = LinearMeanVariance(lookback=64, delta=0.2)
    network = robust.build(prepared(robust, Panel(prices), range(70, 120)))
    weights = network(prepared(robust, Panel(prices), [130]))
    assert weights.sum().item() == pytest.approx(1, abs=1e-9)
    prices["A4"] = 1.0
    with pytest.raises(ValueError, match="A4: prices did not move in the 64 rows to"):
        prepared(robust, Panel(prices), [70])


def test_cash_is_held_as_a_riskless_asset(walks):
    panel = Panel(walks.prices.assign(A4=1.0))
    strategy = LinearMeanVariance(lookback=64)
    inputs = prepared(strategy, panel, range(70, 120))
    network = strategy.build(inputs)
    history = panel.until(panel.dates[70]).last(64)
    returns = np.nan_to_num(history.returns.to_numpy())
    features = np.stack([returns.mean(axis=1), returns.std(axis=1)], axis=1)
    weight, bias = (x.detach().numpy() for x in network.theta.parameters())
    residuals = returns[1:] - features[:-1] @ weight.T
    z = cp.Variable(5)
    loss = cp.sum_squares((residuals - residuals.mean(axis=0))[:, :4] @ z[:4] / 63**0.5)
    gain = 0.05 * (features[-1] @ weight.T + bias) @ z
    cp.Problem(cp.Minimize(1e4 * (loss - gain)), [cp.sum(z) == 1, z >= 0]).solve(
        solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    np.testing.assert_allclose(network(inputs)[0].detach(), z.value, atol=1e-5)
    with torch.no_grad():
        for parameter in network.theta.parameters():
            parameter.zero_()
    assert network(inputs)[:, 4].min() > 1 - 1e-4  # without a prediction, cash alone


def test_bad_input_is_named(weekly):
    inputs = prepared(LinearMeanVariance(lookback=53), weekly, range(60, 63))
    with pytest.raises(ValueError, match="3 training rows are too few for 2 features"):
        LinearMeanVariance(lookback=53).build(inputs)
    with pytest.raises(
        ValueError, match="learn should be one of all, theta, gamma, delta, got 'beta'"
    ):
        LinearMeanVariance(learn="beta").build(inputs)
    with pytest.raises(ValueError, match="gamma should be above 0, got"):
        LinearMeanVariance(gamma=-1.0).build(inputs)
    with pytest.raises(ValueError, match="needs a positive delta"):
        LinearMeanVariance(learn="delta").build(inputs)
    holes = weekly.market_features.copy()
    holes.iloc[-3] = np.nan
    broken = Panel(weekly.prices, market_features=holes)
    with pytest.raises(ValueError, match="miss values on 2014-12-05 and 0 more"):
        LinearMeanVariance(lookback=53).prepare(broken.last(53))


# The robust layer


def scenarios(batch=3, count=40, assets=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, count, assets, generator=generator, dtype=torch.float64)
    noise = noise * torch.linspace(0.01, 0.03, assets, dtype=torch.float64)
    q = 2e-4 * torch.rand(batch, assets, generator=generator, dtype=torch.float64)
    return noise + 0.003, q


def worst_case(residuals, weights, radius):
    """The largest variance over the Hellinger ball, from its definition, by cvxpy."""
    count = len(residuals)
    p = cp.Variable(count, nonneg=True)
    earned = residuals @ weights
    # var(p) = min_c sum p (e - c)^2 = sum p e^2 - (sum p e)^2, concave in p.
    variance = p @ earned**2 - cp.square(p @ earned)
    near = cp.sum(cp.sqrt(p)) / np.sqrt(count) >= 1 - radius / 2  # sum (sqrt p - sqrt q)^2 <= delta
    problem = cp.Problem(cp.Maximize(variance), [cp.sum(p) == 1, near])
    return solved(problem)


def solved(problem):
    """The optimal value, as near as cvxpy gets; it warns where that is not near enough for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-13)
        return problem.solve(solver=cp.CLARABEL, **tolerances)


@pytest.mark.parametrize("radius", [0.01, 0.3, 0.8])
def test_robust_weights_against_cvxpy(radius):
    noise, q = scenarios()
    weights = RobustLayer()(noise, q, radius).numpy()
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    for e, mu, found in zip(30 * noise.numpy(), 900 * q.numpy(), weights, strict=True):
        count = len(e)
        z, tau = cp.Variable(e.shape[1], nonneg=True), cp.Variable(count, nonneg=True)
        c, top, scale = cp.Variable(), cp.Variable(), cp.Variable(nonneg=True)
        penalty = sum(cp.quad_over_lin(scale, tau[t]) for t in range(count)) / count
        problem = cp.Problem(  # the cone programme of Ben-Tal et al. (2013), as the paper solves it
            cp.Minimize(top + (radius - 1) * scale + penalty - mu @ z),
            [cp.sum(z) == 1, top + scale >= cp.square(e @ z - c) + tau],
        )
        optimum = solved(problem)
        np.testing.assert_allclose(found, z.value, atol=1e-7)  # as near as cvxpy gets
        assert worst_case(e, found, radius) - mu @ found == pytest.approx(optimum, abs=1e-8)


def test_robust_gradients_against_finite_differences():
    noise, q = scenarios(batch=2, count=25, assets=4, seed=1)
    noise, q = 30 * noise, 900 * q
    radius = torch.tensor([0.2, 0.6], dtype=torch.float64)
    arguments = [x.requires_grad_() for x in (noise, q, radius)]
    layer = RobustLayer()
    assert torch.autograd.gradcheck(
        lambda e, mu, d: layer(e, mu, d, upper=0.6), arguments, eps=1e-6, atol=1e-6, fast_mode=True
    )


def test_robust_weights_near_a_radius_of_zero_are_mean_variance():
    noise, q = scenarios()
    centred = noise - noise.mean(dim=1, keepdim=True)
    nominal = MeanVarianceLayer()(2 * centred.mT @ centred / noise.shape[1], q)
    near, nearer = (
        (RobustLayer()(noise, q, radius) - nominal).abs().max() for radius in (1e-4, 1e-6)
    )
    assert nearer < 2e-3
    assert nearer / near == pytest.approx(0.1, rel=0.1)  # the worst case moves by sqrt(delta)


def test_robust_refuses_what_it_cannot_solve():
    noise, q = scenarios()
    with pytest.raises(ValueError, match=r"radius must be from 1e-06 to below .* = 0.8419"):
        RobustLayer()(noise, q, highest_radius(40))
    with pytest.raises(ValueError, match="radius must be from 1e-06"):
        RobustLayer()(noise, q, 0.0)
    with pytest.raises(ValueError, match="knows no holdings, turnover_limit"):
        RobustLayer()(noise, q, 0.1, holdings=q, turnover_limit=0.1)
    with pytest.raises(ValueError, match=r"expected scenarios \(B, T, N\)"):
        RobustLayer()(noise[0], q, 0.1)
    with pytest.raises(SolveError, match="in 2 steps on 3 samples"):
        RobustLayer(max_steps=2)(noise, q, 0.3)


# The paper


@needs_data
def test_the_walk_is_the_papers_and_looks_not_ahead(e2e, paper):
    panel, published = paper
    folds = e2e.PLAN.folds(panel.dates, 105)
    assert [fold.refit for fold in folds] == [680, 794, 907, 1021]
    assert [len(fold.test) for fold in folds] == [114, 113, 114, 113]
    assert all(fold.ends.max() <= fold.refit for fold in folds)
    assert panel.dates[681] == published.index[0]  # decided at the close before
    known = panel.until(panel.dates[200])
    samples = e2e.Samples(LinearMeanVariance(105), known, e2e.WINDOW)
    assert len(samples.ahead) == 201 - 14 - 104
    returns = known.returns.to_numpy()
    np.testing.assert_array_equal(samples.ahead[0], returns[105:119])
    np.testing.assert_array_equal(samples.ahead[-1], returns[187:201])
    np.testing.assert_array_equal(samples.inputs["features"][0], known.market_features.iloc[104])


@needs_data
def test_equal_weight_and_predict_then_optimise_are_the_papers(e2e, paper):
    panel, published = paper
    results = backtest(
        {"ew_net": EqualWeight(), "po_net": e2e.PaperModel("nothing")}, panel, e2e.PLAN, Costs(0)
    )
    for name, most in (("ew_net", 1e-12), ("po_net", 1e-5)):
        ours = results[name].net_returns.reindex(published.index)
        assert (ours - published[name]).abs().max() < most


@needs_data
def test_a_window_of_the_nominal_model(e2e, paper):
    panel, published = paper
    model = e2e.PaperModel("all", rate=0.02, epochs=50).fit(panel.until(panel.dates[680]))
    weights = allocations(model, panel, range(680, 794))
    ours = (weights * panel.returns.to_numpy()[681:795]).sum(axis=1)
    assert np.corrcoef(ours, published["nom_net"].iloc[:114])[0, 1] > 0.95
    start = e2e.PaperModel("nothing").fit(panel.until(panel.dates[680]))
    untrained = allocations(start, panel, range(680, 794))
    assert np.abs(weights - untrained).max() > 0.1


@needs_data
def test_the_robust_layer_is_the_papers(e2e, paper):
    panel, published = paper
    model = e2e.PaperModel("nothing", e2e.DELTA).fit(panel.until(panel.dates[680]))
    weights = allocations(model, panel, range(680, 720))
    ours = (weights * panel.returns.to_numpy()[681:721]).sum(axis=1)
    assert np.abs(ours - published["dr_po_net"].iloc[:40]).max() < 1e-5


@needs_data
def test_the_learning_rate_and_the_epochs_are_chosen_on_the_first_rows(e2e, paper, monkeypatch):
    panel, _ = paper
    monkeypatch.setattr(e2e, "RATES", (1e-9, 0.02))
    monkeypatch.setattr(e2e, "EPOCHS", (1, 3))
    known = panel.until(panel.dates[680])
    model, losses = e2e.cross_validated(e2e.PaperModel("theta"), known)
    assert losses.loc[model.rate, model.epochs] == losses.to_numpy().min()
    by_hand = []  # at next to no learning rate: the untrained model, on each later fifth
    for start, end in ((136, 272), (272, 408), (408, 544), (544, 680)):
        linear, network = model.untrained(panel.until(panel.dates[start]))
        rows = e2e.Samples(linear, panel.until(panel.dates[end]), start)
        by_hand.append(rows.loss(network).item())
    np.testing.assert_allclose(losses.loc[1e-9], np.mean(by_hand), atol=1e-6)
    assert np.ptp(losses.loc[0.02]) > 1e-4


def test_performance_by_hand(e2e):
    found = e2e.performance(pd.Series([0.1, -0.05] * 26))
    growth = (1.1 * 0.95) ** 26 - 1
    assert found["return"] == pytest.approx(growth, rel=1e-12)
    assert found["Sharpe"] == pytest.approx(growth / (0.075 * 52**0.5), rel=1e-12)


def test_the_example_says_where_the_data_go(monkeypatch, capsys):
    script = ROOT / "examples" / "replicate_e2e_dro.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(script), run_name="__main__")
    assert "--data DIR" in capsys.readouterr().out
