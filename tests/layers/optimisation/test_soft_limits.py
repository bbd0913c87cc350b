"""Soft limits, scenario risks and several periods: closed forms, Clarabel, finite differences."""

import numpy as np
import pytest
import torch

from strategies.layers.optimisation.consecutive import weights_from_holdings
from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.problem import InfeasibleError
from strategies.layers.optimisation.soft_limit_layers import (
    CVaRLayer,
    MeanAbsoluteDeviationLayer,
    MultiPeriodLayer,
    SoftLimitLayer,
)

cvxpy = pytest.importorskip("cvxpy")
CLARABEL = {"solver": "CLARABEL", "tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}


def market(batch=6, assets=8, seed=0, scenarios=60):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(batch, assets, assets, generator=g, dtype=torch.float64)
    risk = root @ root.mT / assets + 0.1 * torch.eye(assets)
    q = torch.randn(batch, assets, generator=g, dtype=torch.float64)
    return risk, q, torch.randn(batch, scenarios, assets, generator=g, dtype=torch.float64)


def check_slopes(function, inputs, step=1e-6):
    """The gradient along a random direction of each input is the difference quotient."""
    g = torch.Generator().manual_seed(5)
    found = function(*inputs)
    pull = torch.randn(found.shape, generator=g, dtype=torch.float64)
    for k, slope in enumerate(torch.autograd.grad((found * pull).sum(), inputs)):
        way = torch.randn(inputs[k].shape, generator=g, dtype=torch.float64)
        ends = []
        with torch.no_grad():
            for sign in (1, -1):
                moved = [x + sign * step * way if i == k else x for i, x in enumerate(inputs)]
                ends.append(float((function(*moved) * pull).sum()))
        along = float((slope * way).sum())
        assert abs(along) > 1e-3
        assert along == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-5)


def symmetric(risk):
    return (risk + risk.mT) / 2


def quadratic(risk, q, z):
    """1/2 z'Pz - q'z for cvxpy."""
    return 0.5 * cvxpy.quad_form(z, cvxpy.psd_wrap(risk.numpy())) - q.numpy() @ z


def cvar(returns, z, level=0.9):
    t, losses = cvxpy.Variable(), -returns.numpy() @ z
    return t + cvxpy.sum(cvxpy.pos(losses - t)) / ((1 - level) * len(returns))


def deviation(returns, z):
    return cvxpy.norm1((returns - returns.mean(0)).numpy() @ z) / len(returns)


def best(objective, *more):
    """Weights (8,) of the objective, a function of z, long-only up to 0.4."""
    z = cvxpy.Variable(8)
    cvxpy.Problem(cvxpy.Minimize(objective(z)), [cvxpy.sum(z) == 1, z >= 0, z <= 0.4]).solve(
        **CLARABEL
    )
    return z.value


def test_a_soft_limit_in_closed_form():
    """P = I and a price on z_1 above 0.2: held back by the price, or by the limit, or not."""
    risk, wide = torch.eye(2).double(), {"lower": -9.0, "upper": 9.0, "budget": (-9.0, 9.0)}
    q = torch.tensor([[1.0, 1.0], [0.4, 1.0], [0.1, 1.0]], dtype=torch.float64, requires_grad=True)
    limit = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    price = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    row = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = SoftLimitLayer()(risk, q, row, limit, price, **wide)
    expected = torch.tensor([[0.7, 1.0], [0.2, 1.0], [0.1, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    of_q, of_limit, of_price = torch.autograd.grad(found[:, 0].sum(), (q, limit, price))
    torch.testing.assert_close(of_q[:, 0], torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64))
    assert (of_limit.item(), of_price.item()) == (pytest.approx(1.0), pytest.approx(-1.0))


def test_soft_limits_are_what_clarabel_finds():
    risk, q, rows = market(scenarios=6)
    ends = 0.1 * rows[:, :, 0]
    prices = rows[:, :, 1].abs()
    found = SoftLimitLayer()(risk, q, rows, ends, prices, upper=0.4)
    for b in range(6):
        expected = best(
            lambda z, b=b: (
                quadratic(risk[b], q[b], z)
                + prices[b].numpy() @ cvxpy.pos(rows[b].numpy() @ z - ends[b].numpy())
            )
        )
        np.testing.assert_allclose(found[b], expected, atol=1e-6)
    # At a high price they hold; at none they are not there.
    room = {"lower": -9.0, "upper": 9.0}
    hard = MeanVarianceLayer()(risk, q, rows=rows, row_upper=ends, **room)
    soft = SoftLimitLayer()(risk, q, rows, ends, 1e4, **room)
    torch.testing.assert_close(soft, hard, rtol=0, atol=1e-9)
    free = SoftLimitLayer()(risk, q, rows, ends, 0.0, upper=0.4)
    torch.testing.assert_close(free, MeanVarianceLayer()(risk, q, upper=0.4), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("scale", "ties"), [(1e-3, False), (1.0, False), (1.0, True)])
def test_scenario_risks_are_what_clarabel_finds(scale, ties):
    risk, q, returns = market()
    risk, q = scale * risk, scale * q
    returns = returns.round() if ties else returns  # multipliers are not unique
    for layer, measure in (
        (CVaRLayer(0.9), cvar),
        (MeanAbsoluteDeviationLayer(), deviation),
    ):
        found = layer(risk, q, returns, 0.5, upper=0.4)
        for b in range(6):
            expected = best(
                lambda z, b=b, measure=measure: (
                    quadratic(risk[b], q[b], z) + 0.5 * measure(returns[b], z)
                )
            )
            np.testing.assert_allclose(found[b], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["soft", "cvar", "deviation"])
def test_gradients_are_finite_differences(kind):
    risk, q, returns = market(batch=3, assets=4, scenarios=12, seed=3)
    price = torch.tensor([0.4, 0.5, 0.6], dtype=torch.float64)
    if kind == "soft":
        layer, rows, ends = SoftLimitLayer(), returns[:, :3], 0.1 * returns[:, :3, 0]
        inputs = [risk, q, rows, ends, price.unsqueeze(1).expand(3, 3).contiguous()]
    else:
        layer = CVaRLayer(0.7) if kind == "cvar" else MeanAbsoluteDeviationLayer()
        inputs = [risk, q, returns, price]
    inputs = [each.clone().requires_grad_() for each in inputs]
    check_slopes(lambda risk, *rest: layer(symmetric(risk), *rest, upper=0.7, lower=-0.5), inputs)


def test_the_worst_scenario_and_the_mean():
    """A level of 0 is the mean loss, a linear term; near 1 it is the worst loss."""
    risk, q, returns = market(scenarios=20)
    mean = CVaRLayer(0.0)(risk, q, returns, 0.5, upper=0.4)
    plain = MeanVarianceLayer()(risk, q + 0.5 * returns.mean(1), upper=0.4)
    torch.testing.assert_close(mean, plain, rtol=0, atol=1e-9)
    worst = CVaRLayer(0.99)(risk, q, returns, 0.5, upper=0.4)
    expected = best(
        lambda z: quadratic(risk[0], q[0], z) + 0.5 * cvxpy.max(-returns[0].numpy() @ z)
    )
    np.testing.assert_allclose(worst[0], expected, atol=1e-6)


def test_a_plan_of_one_period_is_the_layer_that_knows_the_holdings():
    risk, q, _ = market()
    held = torch.full((6, 8), 0.125, dtype=torch.float64)
    c, d = torch.tensor([0.7, 0.2], dtype=torch.float64)
    plan = MultiPeriodLayer()(risk, q.unsqueeze(1), held, c, d, upper=0.4)
    one = weights_from_holdings(MeanVarianceLayer(), risk, q, c, held, d, upper=0.4)
    torch.testing.assert_close(plan[:, 0], one, rtol=0, atol=1e-10)
    assert ((plan[:, 0] - held).abs() < 1e-12).sum() > 3  # some stay where they are


@pytest.mark.parametrize("d", [0.0, 0.15])
def test_a_plan_of_several_periods_is_what_clarabel_finds(d):
    risk, q, _ = market(batch=2, assets=4, seed=1)
    expected_returns = torch.stack([q, -q, 0.5 * q], dim=1)  # (B, H, N)
    held = torch.full((2, 4), 0.25, dtype=torch.float64)
    layer = MultiPeriodLayer()
    plan = layer(risk, expected_returns, held, 0.3, d, upper=0.6)
    for b in range(2):
        z, before, value = cvxpy.Variable((3, 4)), held[b].numpy(), 0
        for h in range(3):
            move = z[h] - before
            value += quadratic(risk[b], expected_returns[b, h], z[h])
            value += 0.15 * cvxpy.sum_squares(move) + d * cvxpy.norm1(move)
            before = z[h]
        limits = [cvxpy.sum(z, axis=1) == 1, z >= 0, z <= 0.6]
        cvxpy.Problem(cvxpy.Minimize(value), limits).solve(**CLARABEL)
        np.testing.assert_allclose(plan[b], z.value, atol=1e-6)
    inputs = [each.clone().requires_grad_() for each in (risk, expected_returns, held)]
    costs = [torch.tensor(each, dtype=torch.float64).requires_grad_() for each in (0.3, d or 0.1)]
    check_slopes(lambda risk, *rest: layer(symmetric(risk), *rest, upper=0.6), [*inputs, *costs])


def test_what_is_wrong_is_said():
    risk, q, returns = market(batch=2)
    held = torch.full((2, 8), 0.125, dtype=torch.float64)
    for call, words in (
        (lambda: SoftLimitLayer()(risk, q, returns[:, :2, :5], 0.0, 1.0), r"shape \(S, 8\)"),
        (lambda: SoftLimitLayer()(risk, q, returns[:, :2], 0.0, -1.0), "must not be negative"),
        (lambda: SoftLimitLayer()(risk, q, returns[:, :2], torch.zeros(3), 1.0), "numbers"),
        (lambda: SoftLimitLayer()(risk, q, returns * torch.nan, 0.0, 1.0), "must be finite"),
        (lambda: CVaRLayer(1.0), "level must lie in"),
        (lambda: CVaRLayer()(risk, q, returns, 0.0), "price must be a number above 0"),
        (lambda: CVaRLayer()(risk, q, returns[:1]), "of 1 samples for expected returns of 2"),
        (
            lambda: CVaRLayer()(risk, q, returns, benchmark=held, tracking=1.0),
            "no tracking here",
        ),
        (lambda: MultiPeriodLayer()(risk, q, held), r"shape \(B, H, N\)"),
        (lambda: MultiPeriodLayer()(risk, q.unsqueeze(1), held, -1.0), "numbers from 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(InfeasibleError, match="budget of period 1"):
        MultiPeriodLayer()(risk, q.unsqueeze(1), held, upper=0.1)
