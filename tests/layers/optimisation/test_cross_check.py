import sys

import pytest
import torch

from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.cross_check import SolverMismatch, cross_check
from strategies.layers.optimisation.mean_variance import MeanVarianceLayer, Qpth


def problem(B=6, N=5, seed=0):
    torch.manual_seed(seed)
    root = torch.randn(B, N, N, dtype=torch.float64)
    return root @ root.mT + torch.eye(N), torch.randn(B, N, dtype=torch.float64)


def test_solvers_that_agree_are_counted():
    layer = MeanVarianceLayer()
    with cross_check() as check:
        weights = layer(*problem(), upper=0.5)
    assert check.samples == 4
    assert 0 < check.weights < 1e-6
    assert check.gradients < 1e-3
    assert torch.equal(weights, layer(*problem(), upper=0.5))


def test_large_problems_are_not_compared():
    for assets, compared in ((100, 4), (101, 0)):
        with cross_check() as check:
            MeanVarianceLayer()(*problem(N=assets), upper=0.5)
        assert check.samples == compared


def test_nothing_is_compared_outside_of_the_block():
    with cross_check() as check:
        pass
    MeanVarianceLayer()(*problem())
    assert check.samples == 0


@pytest.mark.parametrize("part", [0, 1])
def test_a_wrong_solver_stops_the_run(part):
    class Wrong(ActiveSet):
        def solve(self, problem, start=None):
            solution = super().solve(problem, start)
            weights = solution.weights
            wrong = (
                weights + 1e-3
                if part == 0
                else weights.detach() + 0.9 * (weights - weights.detach())
            )
            return type(solution)(wrong, *list(vars(solution).values())[1:])

    with pytest.raises(SolverMismatch, match="differ by"), cross_check():
        MeanVarianceLayer(Wrong())(*problem(), upper=0.5)


def test_a_problem_that_qpth_does_not_solve_is_not_counted():
    # Between symmetric bounds qpth stops at once, with the right weights and a wrong gradient.
    risk, q = torch.eye(4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    assert not MeanVarianceLayer(Qpth()).solve(risk, q, upper=0.5).converged.any()
    with cross_check() as check:
        MeanVarianceLayer()(risk, q, upper=0.5)
    assert check.samples == 0


def test_qpth_is_held_against_our_solver():
    with cross_check() as check:
        MeanVarianceLayer(Qpth())(*problem(), upper=0.5)
    assert check.samples == 4
    assert check.weights > 0


def at_a_kink():
    """Weights (.5, .5, 0): the third stands at zero and is worth 1e-6 less than it would need."""
    q = torch.tensor([[0.5, 0.5, -1e-6]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64), q


def test_a_kink_is_told_from_a_fault():
    """qpth mixes the derivatives of both sides; each of ours is that of one."""
    with cross_check() as check:
        MeanVarianceLayer()(*at_a_kink())
    assert (check.samples, check.kinks) == (1, 1)
    assert check.weights < 1e-5
    assert check.gradients < 1e-3  # beside the kink; at it they differ
    with cross_check() as check:
        MeanVarianceLayer()(*problem(), upper=0.5)
    assert check.kinks == 0


def test_a_kink_is_told_where_a_weight_hardly_matters():
    """The optimum as it is without bounds, the second weight .0005 above its own; variances of
    days, and beside them an asset that may not be held, of variance 2."""
    risk = torch.diag(torch.tensor([3e-4, 3e-4, 2.0], dtype=torch.float64))
    weights = torch.tensor([0.9995, 0.0005, 0.0], dtype=torch.float64)
    with cross_check() as check:
        found = MeanVarianceLayer()(
            risk, (risk @ weights)[None], upper=torch.tensor([1.0, 1.0, 0.0]).double()
        )
    assert torch.allclose(found[0], weights, atol=1e-12)
    assert (check.samples, check.kinks) == (1, 1)
    assert check.gradients < 1e-2


VERTICES = {
    "all in cash": {"budget": (0.0, 1.0), "upper": 0.5},
    "leverage": {"budget": (0.0, 2.0)},
    "dollar-neutral": {"budget": 0.0, "lower": -0.3, "upper": 0.3, "gross_limit": 1.0},
    "nothing traded": {
        "holdings": torch.full((6,), 1 / 6, dtype=torch.float64),
        "turnover_limit": 0.0,
    },
}


@pytest.mark.parametrize("kind", VERTICES)
@pytest.mark.parametrize("tilt", [0.0, 1e-9])
def test_a_degenerate_vertex_is_told_from_a_fault(kind, tilt):
    """Where up to 2^N sides meet, as at an untrained start; a wrong gradient there is found."""
    torch.manual_seed(0)
    root = torch.randn(4, 6, 6, dtype=torch.float64)
    risk = root @ root.mT / 6 + 0.2 * torch.eye(6)
    q = tilt * torch.randn(4, 6, dtype=torch.float64)
    with cross_check() as check:
        MeanVarianceLayer()(risk, q, **VERTICES[kind])
    assert check.gradients < 1e-2
    if kind == "nothing traded":
        return  # one portfolio: its gradient is zero for both

    class Halved(ActiveSet):
        def solve(self, problem, start=None):
            solution = super().solve(problem, start)
            weights = solution.weights
            if problem.expected_return.abs().max() > 1e-8:
                return solution  # right beside the vertex
            halved = weights.detach() + 0.5 * (weights - weights.detach())
            return type(solution)(halved, *list(vars(solution).values())[1:])

    with pytest.raises(SolverMismatch, match="in a gradient"), cross_check():
        MeanVarianceLayer(Halved())(risk, q, **VERTICES[kind])


@pytest.mark.parametrize("centre", [0.0, 0.5])
@pytest.mark.parametrize("limited", [False, True])
def test_holdings_at_a_bound_leave_qpth_its_gradient(centre, limited):
    """Of nothing held the price at which it would be sold says nothing, nor at a cap that of buying
    more; many such weights stay where they are."""
    risk, q = problem(N=10, seed=3)
    holdings = torch.tensor([centre] * 6 + [0.1] * 4, dtype=torch.float64)
    limit = 0.9 + 4 * centre if limited else None
    with cross_check() as check:
        MeanVarianceLayer()(
            risk / 10, q, holdings=holdings, turnover_cost=0.3, upper=0.5, turnover_limit=limit
        )
    assert (check.samples, check.kinks) == (4, 0)
    assert check.weights < 1e-6
    assert check.gradients < 1e-2


def test_a_gradient_of_neither_side_is_a_fault():
    """Wrong at the kink alone, and right beside it."""

    class Mixed(ActiveSet):
        def solve(self, problem, start=None):
            solution = super().solve(problem, start)
            if (problem.expected_return[:, 2] + 1e-6).abs().max() > 1e-12:
                return solution
            q = problem.expected_return
            other = q - q.mean(1, keepdim=True)  # the derivative as if nothing held the third
            mixed = (solution.weights + other) / 2
            weights = solution.weights.detach() + mixed - mixed.detach()
            return type(solution)(weights, *list(vars(solution).values())[1:])

    with pytest.raises(SolverMismatch, match="in a gradient"), cross_check():
        MeanVarianceLayer(Mixed())(*at_a_kink())


def test_without_qpth_the_reference_solver_is_the_peer(monkeypatch):
    with cross_check() as check:
        MeanVarianceLayer()(*problem(), upper=0.5)
    assert check.peer == "qpth"
    monkeypatch.setitem(sys.modules, "qpth", None)
    with cross_check() as check:
        MeanVarianceLayer()(*problem(), upper=0.5)
    assert check.peer == "reference"
    assert check.samples == 4
    assert check.weights < 1e-9
    assert check.gradients < 1e-7


def test_without_qpth_its_solver_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "qpth", None)
    with pytest.raises(ImportError, match="not installed: pip install --no-deps qpth$"):
        Qpth()
