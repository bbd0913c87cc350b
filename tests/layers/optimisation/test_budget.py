"""A budget between two ends: closed forms, both gradients, every solver and form of risk."""

import numpy as np
import pytest
import torch

from strategies.layers import ActiveSet, FactorRisk, InfeasibleError, MeanVarianceLayer, Qpth
from strategies.layers.optimisation.consecutive import weights_on_dates
from strategies.layers.optimisation.problem import build_problem
from strategies.layers.optimisation.reference import Reference

LAYER = MeanVarianceLayer()
WIDE = {"lower": -9.0, "upper": 9.0}


def drawn(batch, assets, seed=0):
    draw = torch.Generator().manual_seed(seed)
    loadings = 0.7 * torch.randn(batch, assets, 3, generator=draw, dtype=torch.float64)
    specific = 0.3 + torch.rand(batch, assets, generator=draw, dtype=torch.float64)
    q = 0.3 * torch.randn(batch, assets, generator=draw, dtype=torch.float64)
    return loadings, specific, q


def test_one_asset_is_held_by_its_price_of_risk_within_the_ends():
    """w = clip(q / p, 0, 1), whose slopes are 1 / p inside, and 1 of the end that binds."""
    q = torch.linspace(-1, 3, 9, dtype=torch.float64).unsqueeze(1).requires_grad_()
    ends = torch.tensor([[0.0, 1.0]], dtype=torch.float64).repeat(9, 1).requires_grad_()
    risk = torch.full((1, 1), 2.0, dtype=torch.float64)
    weights = LAYER(risk, q, lower=-torch.inf, upper=torch.inf, budget=ends)
    expected = (q / 2).clamp(0, 1)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-14)
    of_q, of_ends = torch.autograd.grad(weights.sum(), [q, ends])
    inside = (q > 0) & (q < 2)
    at = (q == 0) | (q == 2)  # just reached: as though the end was not there
    for one, two in (
        (of_q, 0.5 * (inside | at).double()),
        (of_ends, torch.cat([q < 0, q > 2], dim=1).double()),
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-14)


def test_a_budget_that_does_not_bind_leaves_the_unconstrained_optimum():
    loadings, specific, q = drawn(6, 8)
    risk = loadings @ loadings.mT + torch.diag_embed(specific)
    free = torch.linalg.solve_ex(risk, q.unsqueeze(2)).result.squeeze(2)
    total = free.sum(1)
    weights = LAYER(risk, q, **WIDE, budget=(total - 0.1, total + 0.1))
    torch.testing.assert_close(weights, free, rtol=0, atol=1e-11)
    for ends, binding in (((-9.0, total - 0.2), total - 0.2), ((total + 0.3, 9.0), total + 0.3)):
        held = LAYER(risk, q, **WIDE, budget=ends)
        torch.testing.assert_close(held, LAYER(risk, q, **WIDE, budget=binding))


@pytest.mark.parametrize("kind", ["plain", "gross", "turnover", "rows"])
@pytest.mark.parametrize("form", ["dense", "factor"])
def test_every_solver_gives_the_same_weights_and_gradients(form, kind):
    loadings, specific, q = drawn(7, 6, seed=3)
    options = {
        "plain": {},
        "gross": {"lower": -0.5, "gross_limit": 0.8},
        "turnover": {"holdings": torch.full((6,), 0.1).double(), "turnover_cost": 0.05},
        "rows": {"rows": torch.tensor([[1.0, 1, 0, 0, 0, 0]]), "row_upper": 0.1},
    }[kind]
    found = []
    for solver in (ActiveSet(), Qpth(), Reference()):
        inputs = [each.clone().requires_grad_() for each in (loadings, specific, q)]
        risk = FactorRisk(inputs[0], inputs[1])
        given = risk if form == "factor" else risk.dense()
        ends = torch.tensor([[0.05, 0.4]], dtype=torch.float64).repeat(7, 1).requires_grad_()
        solution = MeanVarianceLayer(solver).solve(
            given, inputs[2], **({"lower": 0.0, "upper": 0.5} | options), budget=ends
        )
        assert solution.converged.all()
        pull = torch.linspace(-1, 2, 42, dtype=torch.float64).view(7, 6)
        gradients = torch.autograd.grad(solution.weights, [*inputs, ends], pull)
        found.append([solution.weights.detach(), *gradients])
    total = found[0][0].sum(1)
    at = {"low" if t < 0.051 else "high" if t > 0.399 else "inside" for t in total.tolist()}
    assert len(at) > 1
    for other, tolerance in ((found[1], 1e-4), (found[2], 1e-6)):
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("form", ["dense", "factor"])
def test_gradients_of_both_ends_agree_with_finite_differences(form):
    loadings, specific, q = drawn(3, 5, seed=1)
    q = q + torch.tensor([[-1.0], [0.2], [2.0]])  # at the lower end, inside, at the upper one
    ends = torch.tensor([[0.1, 0.9]] * 3, dtype=torch.float64)
    dense = loadings @ loadings.mT + torch.diag_embed(specific)
    risk = [loadings, specific] if form == "factor" else [dense]

    def weights(q, ends, *risk):
        given = FactorRisk(*risk) if form == "factor" else (risk[0] + risk[0].mT) / 2
        return LAYER(given, q, **WIDE, budget=ends)

    total = weights(q, ends, *risk).sum(1)
    assert total[0] == pytest.approx(0.1)
    assert 0.11 < total[1] < 0.89
    assert total[2] == pytest.approx(0.9)
    inputs = [each.requires_grad_() for each in (q, ends, *risk)]
    assert torch.autograd.gradcheck(weights, inputs, eps=1e-6, atol=1e-6)


def test_a_number_and_an_interval_of_no_width_are_the_same():
    loadings, specific, q = drawn(4, 6)
    risk = FactorRisk(loadings, specific)
    assert LAYER(risk, q, budget=(0.7, 0.7)).equal(LAYER(risk, q, budget=0.7))


def test_warm_starts_and_batches_change_nothing():
    loadings, specific, q = drawn(8, 10, seed=2)
    states = None
    ends = torch.stack([torch.linspace(0, 0.5, 8), torch.linspace(0.5, 1, 8)], dim=1).double()
    for step in range(4):
        moved = q + 0.2 * step * torch.randn(8, 10, generator=torch.Generator().manual_seed(step))
        risk = FactorRisk(loadings, specific)
        solution = LAYER.solve(risk, moved, start=states, upper=0.3, budget=ends)
        warm, states = solution.weights, solution.states
        cold = LAYER(risk, moved, upper=0.3, budget=ends)
        torch.testing.assert_close(warm, cold, rtol=0, atol=1e-12)
        alone = LAYER(
            FactorRisk(loadings[3:4], specific[3:4]), moved[3:4], upper=0.3,
            budget=tuple(ends[3].tolist()),
        )  # fmt: skip
        torch.testing.assert_close(alone, cold[3:4], rtol=0, atol=1e-14)


def test_consecutive_dates_may_go_to_cash_and_come_back():
    """By the kernels as by the reference solver, one date after the other, with all gradients."""
    loadings, specific, q = drawn(6, 4, seed=5)
    q = q + torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0, -1.0]).unsqueeze(1)
    growth = 1 + 0.05 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    growth[4] = torch.nan  # a new chain
    found = []
    for solver in (ActiveSet(), Reference()):
        inputs = [loadings.clone().requires_grad_(), q.clone().requires_grad_()]
        ends = torch.tensor([[0.0, 1.0]], dtype=torch.float64).repeat(6, 1).requires_grad_()
        cost = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        weights = weights_on_dates(
            MeanVarianceLayer(solver), FactorRisk(inputs[0], specific), inputs[1], cost, growth,
            lower=-0.2, upper=0.6, budget=ends,
        )  # fmt: skip
        slopes = torch.autograd.grad(weights.square().sum(), [*inputs, cost, ends])
        found.append([weights.detach(), *slopes])
    total = found[0][0].sum(1)
    assert (total < 0.9).any()
    assert (total > 1 - 1e-9).any()
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-8)


def test_what_is_no_budget_is_refused_in_one_sentence():
    risk, q = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for budget in (None, "all", (0.0, 0.5, 1.0), True):
        with pytest.raises(ValueError, match=r"a pair such as \(0, 1\), with which cash"):
            LAYER(risk, q, budget=budget)
    with pytest.raises(InfeasibleError, match="caps sum to 0.9, budget is at least 1;"):
        LAYER(risk, q, upper=0.3, budget=(1.0, 1.5))
    with pytest.raises(InfeasibleError, match="lower limit of 1 above its upper limit of 0"):
        LAYER(risk, q, budget=(1.0, 0.0))
    with pytest.raises(ValueError, match="budget must be a number"):
        build_problem(risk, q, budget=torch.zeros(2, 3))


def test_weights_equal_quadprog():
    import quadprog

    loadings, specific, q = drawn(5, 6, seed=9)
    risk = loadings @ loadings.mT + torch.diag_embed(specific)
    weights = LAYER(risk, q, upper=0.4, budget=(0.2, 0.6)).numpy()
    normals = np.vstack([np.ones(6), -np.ones(6), np.eye(6), -np.eye(6)]).T
    bounds = np.concatenate([[0.2, -0.6], np.zeros(6), np.full(6, -0.4)])
    for b in range(5):
        expected = quadprog.solve_qp(risk[b].numpy(), q[b].numpy(), normals, bounds)[0]
        np.testing.assert_allclose(weights[b], expected, atol=1e-12)
