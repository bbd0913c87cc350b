"""The reference solver: against quadprog, which shares no code with it, and against ours."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import quadprog
import torch

from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.problem import InfeasibleError, build_problem
from strategies.layers.optimisation.reference import Reference

make_problem = runpy.run_path(
    str(Path(__file__).parents[3] / "benchmarks" / "mean_variance_layer.py")
)["make_problem"]
KINDS = ["factor", "sample", "wishart", "sector", "cost", "turnover", "gross", "everything"]


def drawn(seed, assets=9, batch=5):
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(batch, assets, assets, generator=draw, dtype=torch.float64)
    q = torch.randn(batch, assets, generator=draw, dtype=torch.float64)
    rows = torch.randn(2, assets, generator=draw, dtype=torch.float64)
    risk = root @ root.mT / assets + 0.1 * torch.eye(assets)
    return risk, q, {"lower": -0.2, "upper": 0.5, "rows": rows, "row_lower": -0.1, "row_upper": 0.2}


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_those_of_quadprog(seed):
    risk, q, limits = drawn(seed)
    problem = build_problem(risk, q, **limits)
    found = Reference().solve(problem)
    assert found.converged.all()
    unit, rows = np.eye(9), limits["rows"].numpy()
    normals = np.vstack([np.ones(9), unit, -unit, rows, -rows]).T
    bounds = np.concatenate([[1.0], [-0.2] * 9, [-0.5] * 9, [-0.1] * 2, [-0.2] * 2])
    for sample in range(len(q)):
        weights = quadprog.solve_qp(risk[sample].numpy(), q[sample].numpy(), normals, bounds, 1)[0]
        np.testing.assert_allclose(found.weights[sample].numpy(), weights, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_our_solver_gives_its_weights_multipliers_and_gradients(kind):
    risk, q, constraints = make_problem(kind, 4, 12, seed=3)
    pull = torch.linspace(-1, 1, q.numel(), dtype=torch.float64).view_as(q)
    found = []
    for solver in (Reference(), ActiveSet()):
        inputs = [risk.clone().requires_grad_(), q.clone().requires_grad_()]
        solution = solver.solve(build_problem(*inputs, **constraints))
        assert solution.converged.all()
        found.append([solution.weights, *torch.autograd.grad(solution.weights, inputs, pull)])
    symmetric = [(part + part.mT) / 2 for part in (found[0][1], found[1][1])]
    scale = risk.diagonal(dim1=1, dim2=2).mean()
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=1e-7)
    torch.testing.assert_close(found[0][2] * scale, found[1][2] * scale, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*(part * scale for part in symmetric), rtol=1e-5, atol=1e-6)


def test_its_gradients_agree_with_finite_differences():
    risk, q, limits = drawn(1, assets=5, batch=2)
    cap = torch.tensor(0.5, dtype=torch.float64)

    def weights(risk, q, cap):
        symmetric = (risk + risk.mT) / 2
        return Reference().solve(build_problem(symmetric, q, **{**limits, "upper": cap})).weights

    inputs = [part.requires_grad_() for part in (risk, q, cap)]
    assert torch.autograd.gradcheck(weights, inputs, eps=1e-6, atol=1e-6)


def test_its_second_derivatives_agree_with_finite_differences():
    risk, q, constraints = make_problem("factor", 2, 5, seed=1)
    scale = risk.diagonal(dim1=1, dim2=2).mean()

    def weights(risk, q):
        problem = build_problem((risk + risk.mT) / 2, q, **constraints)
        return Reference().solve(problem).weights

    inputs = [(risk / scale).requires_grad_(), (q / scale).requires_grad_()]
    assert torch.autograd.gradgradcheck(weights, inputs, eps=1e-6, atol=1e-6)


def test_rows_that_say_the_same_twice_and_fixed_weights():
    risk, q, _ = drawn(2)
    lower = torch.zeros(9, dtype=torch.float64)
    upper = torch.full((9,), 0.4, dtype=torch.float64)
    lower[0] = upper[0] = 0.15
    limits = {
        "lower": lower,
        "upper": upper,
        "rows": torch.ones(1, 9),
        "row_lower": 1,
        "row_upper": 1,
    }
    problem = build_problem(risk, q, **limits)
    expected = ActiveSet().solve(problem).weights
    torch.testing.assert_close(Reference().solve(problem).weights, expected, rtol=0, atol=1e-9)


def test_constraints_that_clash_are_refused():
    risk, q, _ = drawn(3)
    with pytest.raises(InfeasibleError, match="nearest miss"):
        Reference().solve(build_problem(risk, q, rows=torch.eye(9)[:2], row_lower=0.9, upper=0.95))
