"""The mean-variance layer on qpth: known answers, gradients, and bad input in words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from strategies.layers.optimisation.mean_variance import (
    ActiveSet,
    FactorRisk,
    InfeasibleError,
    MeanVarianceLayer,
    SolveError,
)
from strategies.layers.optimisation.qpth_solver import Qpth
from strategies.layers.solve_record import record_solves

LAYER = MeanVarianceLayer()


def factor_problem(batch: int, assets: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Daily-scale P from three factors and noisy q: (B, N, N) and (B, N)."""
    draw = torch.Generator().manual_seed(seed)
    loadings = 0.01 * torch.randn(batch, assets, 3, generator=draw, dtype=torch.float64)
    specific = 1e-4 * (0.5 + torch.rand(batch, assets, generator=draw, dtype=torch.float64))
    risk = loadings @ loadings.mT + torch.diag_embed(specific)
    return risk, 1e-4 * torch.randn(batch, assets, generator=draw, dtype=torch.float64)


def brute_force(risk: np.ndarray, q: np.ndarray, lower: float, upper: float, budget: float):
    """The best feasible stationary point over all 3^N sets of active bounds."""
    assets = len(q)
    best, best_value = None, np.inf
    for states in itertools.product((-1, 0, 1), repeat=assets):
        state = np.array(states)
        free = np.flatnonzero(state == 0)
        z = np.where(state < 0, lower, upper).astype(float)
        z[free] = 0
        if len(free):
            kkt = np.ones((len(free) + 1, len(free) + 1))
            kkt[:-1, :-1] = risk[np.ix_(free, free)]
            kkt[-1, -1] = 0
            right = np.append(q[free] - risk[free] @ z, budget - z.sum())
            z[free] = np.linalg.solve(kkt, right)[:-1]
        feasible = abs(z.sum() - budget) < 1e-12 and (z > lower - 1e-12).all()
        value = 0.5 * z @ risk @ z - q @ z
        if feasible and (z < upper + 1e-12).all() and value < best_value:
            best, best_value = z, value
    return best


def test_only_a_budget_has_a_closed_form() -> None:
    risk, q = factor_problem(3, 5)
    weights = MeanVarianceLayer(Qpth())(risk, q, lower=-50.0, upper=50.0, budget=0.7)
    inverse = torch.linalg.inv(risk)
    ones = torch.ones(3, 5, 1, dtype=torch.float64)
    dual = (ones.mT @ inverse @ q.unsqueeze(-1) - 0.7) / (ones.mT @ inverse @ ones)
    expected = (inverse @ (q.unsqueeze(-1) - dual * ones)).squeeze(-1)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("lower", "upper", "budget"), [(0.0, 0.4, 1.0), (-0.3, 0.3, 0.0)])
def test_weights_equal_brute_force(lower: float, upper: float, budget: float) -> None:
    risk, q = factor_problem(4, 5)
    weights = MeanVarianceLayer(Qpth())(risk, q, lower=lower, upper=upper, budget=budget)
    for sample in range(4):
        expected = brute_force(risk[sample].numpy(), q[sample].numpy(), lower, upper, budget)
        np.testing.assert_allclose(weights[sample], expected, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e4])
def test_weights_equal_quadprog_at_any_scale(scale: float) -> None:
    quadprog = pytest.importorskip("quadprog")
    risk, q = factor_problem(8, 20)
    weights = MeanVarianceLayer(Qpth())(risk * scale, q * scale, upper=0.2)
    rows = np.vstack([np.ones(20), np.eye(20), -np.eye(20)])
    limits = np.concatenate([[1.0], np.zeros(20), np.full(20, -0.2)])
    for sample in range(8):
        expected = quadprog.solve_qp(
            risk[sample].numpy() * 1e4, q[sample].numpy() * 1e4, rows.T, limits, 1
        )[0]
        np.testing.assert_allclose(weights[sample], expected, atol=1e-8)


def test_constraints_hold_exactly() -> None:
    risk, q = factor_problem(16, 20)
    weights = MeanVarianceLayer(Qpth())(risk, q, upper=0.2)
    assert (weights >= 0).all()
    assert (weights <= 0.2).all()
    assert (weights.sum(1) - 1).abs().max() <= 4e-16


def test_gradients_of_shared_arguments_are_sums_over_the_batch() -> None:
    risk, q = factor_problem(3, 4)
    scale = 1e4  # finite differences need moderate numbers
    inputs = [
        (risk[0] * scale).requires_grad_(),  # shared by the batch
        (q[0] * scale).requires_grad_(),  # shared
        torch.tensor([0.0, 0.02, 0.0, 0.01], dtype=torch.float64, requires_grad=True),
        torch.full((3, 4), 0.5, dtype=torch.float64, requires_grad=True),
        torch.tensor([1.0, 0.9, 1.1], dtype=torch.float64, requires_grad=True),
    ]
    layer = MeanVarianceLayer(Qpth())

    def solve(risk: Tensor, q: Tensor, lower: Tensor, upper: Tensor, budget: Tensor) -> Tensor:
        symmetric = (risk + risk.T) / 2
        return layer(symmetric, q, lower=lower, upper=upper, budget=budget)

    assert torch.autograd.gradcheck(solve, inputs, eps=1e-5, atol=1e-5)


def test_factor_risk_is_the_dense_risk_it_stands_for() -> None:
    draw = torch.Generator().manual_seed(1)
    loadings = torch.randn(6, 2, generator=draw, dtype=torch.float64).requires_grad_()
    specific = torch.rand(3, 6, generator=draw, dtype=torch.float64).add(0.5).requires_grad_()
    q = torch.randn(3, 6, generator=draw, dtype=torch.float64)
    layer = MeanVarianceLayer(Qpth())
    factored = layer(FactorRisk(loadings, specific), q, upper=0.5)
    dense = layer(loadings @ loadings.T + torch.diag_embed(specific), q, upper=0.5)
    torch.testing.assert_close(factored, dense, rtol=0, atol=1e-9)
    factored.square().sum().backward()
    assert loadings.grad is not None
    assert specific.grad is not None
    assert loadings.grad.abs().max() > 0


def test_an_asset_with_equal_bounds_is_held_there() -> None:
    risk, q = factor_problem(4, 6)
    upper = torch.full((4, 6), 0.5, dtype=torch.float64)
    upper[0, 2] = upper[3, :2] = 0.0
    weights = MeanVarianceLayer(Qpth())(risk, q, upper=upper)
    assert (weights[upper == 0] == 0).all()
    kept = [0, 1, 3, 4, 5]
    without = MeanVarianceLayer(Qpth())(risk[:1, kept][:, :, kept], q[:1, kept], upper=0.5)
    torch.testing.assert_close(weights[:1, kept], without, rtol=0, atol=1e-8)


def test_float32_arguments_are_solved_in_float64() -> None:
    risk, q = factor_problem(2, 5)
    q32 = q.float().requires_grad_()
    weights = MeanVarianceLayer(Qpth())(risk.float(), q32, upper=0.5)
    weights[:, 0].sum().backward()
    assert weights.dtype == torch.float64
    assert q32.grad is not None
    assert q32.grad.dtype == torch.float32


def test_solves_report_to_the_open_record() -> None:
    risk, q = factor_problem(7, 5)
    with record_solves() as record:
        MeanVarianceLayer(Qpth())(risk, q, upper=0.5)
    tally = record.tallies["mean-variance"]
    assert (tally.samples, tally.failures) == (7, 0)
    assert tally.residual < 1e-8


def test_a_missed_tolerance_is_an_error_that_names_samples() -> None:
    risk, q = factor_problem(3, 5)
    layer = MeanVarianceLayer(Qpth(max_steps=1))
    with pytest.raises(SolveError, match=r"KKT residual of .* samples 0, 1, 2 \(mon, tue, wed\)"):
        layer(risk, q, upper=0.5, labels=["mon", "tue", "wed"])
    assert not layer.solve(risk, q, upper=0.5).converged.any()


def test_infeasible_caps_are_refused_in_words() -> None:
    risk, q = factor_problem(4, 5)
    upper = torch.full((4, 5), 0.5, dtype=torch.float64)
    upper[[1, 3]] = 0.16
    layer = MeanVarianceLayer(Qpth())
    with pytest.raises(InfeasibleError) as caught:
        layer(risk, q, upper=upper, labels=["a", "b", "c", "d"])
    assert str(caught.value) == "caps sum to 0.8, budget is 1; samples 1, 3 (b, d)"
    assert caught.value.samples == [1, 3]
    with pytest.raises(InfeasibleError, match=r"floors sum to 1.5, budget is 1; samples 0, 1"):
        layer(risk, q, lower=0.3)
    with pytest.raises(InfeasibleError, match="floor of 0.6 above its cap of 0.5"):
        layer(risk, q, lower=0.6, upper=0.5)
    group = torch.tensor([[1.0, 1, 0, 0, 0]])
    with pytest.raises(InfeasibleError, match="at most 0.4, row 0 is at least 0.5"):
        layer(risk, q, upper=0.2, budget=0.9, rows=group, row_lower=0.5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    risk, q = factor_problem(4, 5)
    layer = MeanVarianceLayer(Qpth())
    q[2, 1] = bad
    with pytest.raises(ValueError, match="expected return has a NaN or an infinity; sample 2"):
        layer(risk, q, upper=0.5)
    q[2, 1] = 0
    risk[1, 0, 3] = bad
    with pytest.raises(ValueError, match="risk has a NaN or an infinity; sample 1"):
        layer(risk, q, upper=0.5)


def test_a_risk_that_is_none_is_refused() -> None:
    risk, q = factor_problem(4, 5)
    layer = MeanVarianceLayer(Qpth())
    indefinite = risk.clone()
    indefinite[2, 0, 1] = indefinite[2, 1, 0] = 1.0
    with pytest.raises(
        ValueError, match="not positive definite: add a ridge to its diagonal; sample 2"
    ):
        layer(indefinite, q, upper=0.5)
    risk[3, 0, 1] += 1e-3
    with pytest.raises(ValueError, match=r"not symmetric: give \(P \+ P\.mT\) / 2; sample 3"):
        layer(risk, q, upper=0.5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    risk, q = factor_problem(4, 5)
    layer = MeanVarianceLayer(Qpth())
    with pytest.raises(ValueError, match=r"risk must have shape \(5, 5\)"):
        layer(risk[:, :4, :4], q)
    with pytest.raises(ValueError, match=r"upper must be a number, \(5,\) or \(4, 5\)"):
        layer(risk, q, upper=torch.ones(3))
    with pytest.raises(ValueError, match="different batch sizes"):
        layer(risk, q[:3])


P, Q = torch.eye(3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MeanVarianceLayer("anderson"), r"solver must be ActiveSet\(\), .* got 'anderson'"),
        (lambda: MeanVarianceLayer(ActiveSet), r"solver must be ActiveSet\(\), "),
        (lambda: LAYER(P, Q, rows=P[:, :2], row_upper=1), r"rows must have shape \(3, 3\) or"),
        (lambda: LAYER(P[0], Q), r"risk must have shape \(3, 3\) or \(B, 3, 3\) .*, got \(3,\)"),
        (lambda: LAYER(P, Q[0, 0]), r"risk must have shape \(1, 1\) or .* got \(1, 3, 3\)"),
        (lambda: LAYER(P, Q, upper=None), "upper is None: leave it out"),
        (lambda: LAYER(P, Q, budget=None), "budget should be a number"),
        (lambda: LAYER(P + P.roll(1, 1) / 3, Q + 1), r"not symmetric: give \(P \+ P.mT\) / 2;"),
    ],
)
def test_each_mistake_has_its_sentence(call, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_arrays_and_lists_and_mixed_precision_are_taken() -> None:
    weights = LAYER(P, Q + P[0], rows=P[:1], row_upper=0.5)
    assert LAYER(P.numpy(), (Q + P[0]).numpy(), rows=[[1.0, 0, 0]], row_upper=0.5).equal(weights)
    assert LAYER(P, Q + P[0], rows=P[0], row_upper=0.5).equal(weights)
    assert LAYER(P.float(), Q + P[0], rows=P[:1].float(), row_upper=0.5).equal(weights)


def test_groups_and_equalities_hold() -> None:
    risk, q = factor_problem(4, 6)
    rows = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0.5, 0.8, 1.0, 1.2, 1.4, 0.9]])
    solution = MeanVarianceLayer(Qpth()).solve(
        risk,
        q,
        upper=0.6,
        rows=rows,
        row_lower=torch.tensor([-torch.inf, 1.0], dtype=torch.float64),
        row_upper=torch.tensor([0.4, 1.0], dtype=torch.float64),
    )
    value = solution.weights @ rows.double().T
    assert solution.converged.all()
    assert (value[:, 0] <= 0.4 + 1e-9).all()
    torch.testing.assert_close(value[:, 1], torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-9)
