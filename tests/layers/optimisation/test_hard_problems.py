"""No solvable problem is refused: ten kinds that defeat active sets, exactly, with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.hard_problems import EXACT, KINDS, hard_problem, outcome, semi_infinite
from strategies.layers import ActiveSet, FactorRisk, MeanVarianceLayer
from strategies.layers.optimisation.active_set.arrays import PATIENCE
from strategies.layers.optimisation.checks import kkt_residual
from strategies.layers.optimisation.problem import build_problem
from strategies.layers.optimisation.reference import Reference

LAYER = MeanVarianceLayer()


@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_of_each_kind_are_solved(kind):
    for seed in range(20):
        refused, wrong, residual, _ = outcome(kind, 10, seed)
        assert (refused, wrong) == (0, 0), seed
        assert residual <= EXACT


def test_a_corner_where_twenty_exposures_meet():
    """Ten betas of zero, ten exposures at most zero, and an asset that has none of them."""
    n, draw = 30, torch.Generator().manual_seed(30002)
    root = torch.randn(n, n, generator=draw, dtype=torch.float64)
    risk = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    risk[:n, :n] = root @ root.mT / n + 0.1 * torch.eye(n)
    risk[n, n] = 1e-3
    rows = torch.zeros(20, n + 1, dtype=torch.float64)
    rows[:, :n] = torch.randn(20, n, generator=draw, dtype=torch.float64)
    rows[:, :n] *= torch.rand(20, n, generator=draw, dtype=torch.float64) < 0.3
    q = torch.zeros(1, n + 1, dtype=torch.float64)
    q[:, :n] = torch.randn(n, generator=draw, dtype=torch.float64) * 0.5
    low = torch.full((20,), -torch.inf)
    low[:10] = 0
    weights = LAYER(risk, q, rows=rows, row_lower=low, row_upper=0.0)
    value = float(0.5 * weights[0] @ risk @ weights[0] - q[0] @ weights[0])
    assert value == pytest.approx(0.0005, abs=1e-12)


def test_gradients_of_what_the_dual_method_solves():
    """Those of the reference solver: here the optimum is no degenerate vertex."""
    taken_over = 0
    for seed in range(4):
        risk, q, limits = hard_problem("many rows", 2, seed)
        pull = torch.randn(q.shape, generator=torch.Generator().manual_seed(seed)).double()
        found = []
        for solver in (ActiveSet(), Reference()):
            leaves = [risk.clone().requires_grad_(), q.clone().requires_grad_()]
            ends = limits["row_upper"].clone().requires_grad_()
            given = limits | {"row_upper": ends}
            solution = solver.solve(build_problem(*leaves, **given))
            slopes = torch.autograd.grad(solution.weights, [*leaves, ends], pull)
            if isinstance(solver, ActiveSet):  # rounds alone do not take as many
                taken_over += int((solution.rounds > 8 * PATIENCE).sum())
            found.append([solution.weights, (slopes[0] + slopes[0].mT) / 2, *slopes[1:]])
        for one, two in zip(*found, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)
    assert taken_over >= 6


@pytest.mark.parametrize("kind", ["exposures at zero", "twice the same rows", "kinks"])
def test_gradients_at_a_degenerate_vertex_are_those_of_a_side(kind):
    """The weights are piecewise linear in q: on one side they move by it, or by less on one and by
    more on the other."""
    checked = 0
    for seed in range(6):
        risk, q, limits = hard_problem(kind, 4, seed)
        q.requires_grad_()
        weights = LAYER(risk, q, **limits)
        draw = torch.Generator().manual_seed(seed)
        move = torch.randn(q.shape, generator=draw, dtype=torch.float64)
        pull = torch.randn(q.shape, generator=draw, dtype=torch.float64)
        (slope,) = torch.autograd.grad(weights, q, pull)
        step = 1e-7
        with torch.no_grad():
            up, down = (LAYER(risk, q + s * step * move, **limits) for s in (1, -1))
        wanted = (slope * move).sum(1)
        right = (pull * (up - weights)).sum(1) / step
        left = (pull * (weights - down)).sum(1) / step
        near = torch.minimum((wanted - right).abs(), (wanted - left).abs())
        between = (torch.minimum(right, left) - 1e-5 <= wanted) & (
            wanted <= torch.maximum(right, left) + 1e-5
        )
        assert ((near < 1e-5) | between).all()
        checked += int((near < 1e-5).sum())
    assert checked >= 18


def test_a_bad_start_is_forgotten():
    """Any start ends where the cold start does, also on problems where rounds cycle."""
    for kind in KINDS:
        risk, q, limits = hard_problem(kind, 6, 1)
        cold = LAYER.solve(risk, q, **limits)
        draw = torch.Generator().manual_seed(0)
        start = torch.randint(0, 6, cold.states.shape, generator=draw).to(torch.int8)
        warm = LAYER.solve(risk, q, start=start, **limits)
        assert warm.converged.all()
        tolerance = 1e-6 if kind == "nearly singular" else 1e-9
        torch.testing.assert_close(warm.weights, cold.weights, rtol=0, atol=tolerance)


def test_a_thousand_rows_on_twenty_variables():
    import quadprog

    risk, q, limits = semi_infinite()
    weights = LAYER(risk, q, **limits)[0].numpy()
    rows, least = limits["rows"].numpy(), limits["row_lower"].numpy()
    expected = quadprog.solve_qp(risk.numpy(), q[0].numpy(), rows.T.copy(), least)[0]
    np.testing.assert_allclose(weights, expected, atol=1e-10)


@pytest.mark.parametrize("ridge", [1e-9, 1e-12, 1e-15])
def test_risk_that_is_nearly_singular(ridge):
    """Ten factors on thirty assets and next to no variance of their own; and nearly no risk at all,
    with a corner of rows. The multipliers prove the optimum."""
    draw = torch.Generator().manual_seed(1)
    loadings = torch.randn(10, 30, 10, generator=draw, dtype=torch.float64)
    q = 0.1 * torch.randn(10, 30, generator=draw, dtype=torch.float64)
    rows = torch.randn(10, 30, generator=draw, dtype=torch.float64)
    dense = loadings @ loadings.mT
    corner = {"rows": rows, "row_lower": -torch.inf, "row_upper": rows.mean(1) + 0.2}
    for risk, limits in (
        (FactorRisk(loadings, torch.full((30,), ridge, dtype=torch.float64)), {}),
        (FactorRisk(loadings, torch.full((30,), ridge, dtype=torch.float64)), {"lower": -5.0}),
        (dense + max(ridge, 1e-12) * 30 * torch.eye(30), {"lower": -5.0}),
        (ridge * (dense + torch.eye(30)), corner),
    ):
        solution = LAYER.solve(risk, q, **{"upper": 0.3, **limits})
        problem = build_problem(risk, q, **{"upper": 0.3, **limits})
        assert solution.converged.all()
        assert kkt_residual(problem, solution.weights, solution.duals).max() <= EXACT
