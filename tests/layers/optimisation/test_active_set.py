"""The active-set solver: exactness at any scale, every gradient, warm starts, hard problems."""

from __future__ import annotations

import runpy
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.checks import kkt_residual
from strategies.layers.optimisation.mean_variance import (
    FactorRisk,
    InfeasibleError,
    MeanVarianceLayer,
    Qpth,
)
from strategies.layers.optimisation.problem import Status, build_problem, status_of

BENCHMARK = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "mean_variance_layer.py"))
make_problem = BENCHMARK["make_problem"]
KINDS = BENCHMARK["PORTFOLIO"] + BENCHMARK["ADVERSARIAL"]
LAYER = MeanVarianceLayer(ActiveSet())


def factors(batch: int, assets: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings (B, N, 3), specific risk (B, N) and expected returns (B, N) of moderate size."""
    draw = torch.Generator().manual_seed(seed)
    loadings = 0.7 * torch.randn(batch, assets, 3, generator=draw, dtype=torch.float64)
    specific = 0.3 + torch.rand(batch, assets, generator=draw, dtype=torch.float64)
    return loadings, specific, torch.randn(batch, assets, generator=draw, dtype=torch.float64)


def dense(loadings: Tensor, specific: Tensor) -> Tensor:
    return loadings @ loadings.mT + torch.diag_embed(specific)


@pytest.mark.parametrize(
    "kind", ["factor", "sample", "wishart", "sector", "cost", "turnover", "gross", "everything"]
)
def test_weights_and_gradients_agree_with_qpth(kind: str) -> None:
    risk, q, constraints = make_problem(kind, 8, 15, seed=3)
    scale = risk.diagonal(dim1=1, dim2=2).mean()
    gradients = []
    weights = []
    for solver in (ActiveSet(), Qpth()):
        inputs = [(risk / scale).requires_grad_(), (q / scale).requires_grad_()]
        z = MeanVarianceLayer(solver)(*inputs, **constraints)
        weights.append(z.detach())
        gradients.append(torch.autograd.grad(z.square().sum(), inputs))
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e4])
def test_scale_of_the_problem_does_not_matter(scale: float) -> None:
    risk, q, constraints = make_problem("everything", 8, 20, seed=1)
    plain = LAYER(risk, q, **constraints)
    constraints["turnover_cost"] *= scale
    torch.testing.assert_close(
        LAYER(risk * scale, q * scale, **constraints), plain, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
def test_hard_problems_are_solved_exactly(kind: str) -> None:
    for size in (3, 8, 20, 40):
        risk, q, constraints = make_problem(kind, 12, size, seed=size)
        problem = build_problem(risk, q, **constraints)
        solution = LAYER.solve(risk, q, **constraints)
        residual = kkt_residual(problem, solution.weights, solution.duals)
        assert solution.converged.all()
        assert residual.max() < 1e-11
        assert (solution.weights >= problem.lower).all()
        assert (solution.weights <= problem.upper).all()
        gap = solution.weights.sum(1) - problem.row_upper[:, 0]
        assert gap.abs().max() < 1e-14 * size


@pytest.mark.parametrize("kind", KINDS)
def test_any_start_ends_at_the_same_weights(kind: str) -> None:
    risk, q, constraints = make_problem(kind, 12, 12, seed=6)
    expected = LAYER.solve(risk, q, **constraints)
    draw = torch.Generator().manual_seed(0)
    start = torch.randint(0, 6, expected.states.shape, generator=draw).to(torch.int8)
    found = LAYER.solve(risk, q, start=start, **constraints)
    torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=1e-10)


def test_factor_risk_gives_what_dense_risk_gives() -> None:
    for assets in (2, 6, 40):  # free sets smaller and larger than K
        parts = [part.requires_grad_() for part in factors(5, assets)]
        bounds = {"lower": -2.0, "upper": 2.0}
        factored = LAYER(FactorRisk(*parts[:2]), parts[2], **bounds)
        matrix = LAYER(dense(*parts[:2]), parts[2], **bounds)
        torch.testing.assert_close(factored, matrix, rtol=0, atol=1e-12)
        gradient = torch.randn_like(factored)
        for ours, expected in zip(
            torch.autograd.grad(factored, parts, gradient),
            torch.autograd.grad(matrix, parts, gradient),
            strict=True,
        ):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)


# name: constraints with strictly active and strictly slack parts, so that gradients exist
CASES: dict[str, dict[str, Any]] = {
    "bounds": {"lower": -0.2, "upper": 0.45},
    "neutral": {"lower": -0.5, "upper": 0.5, "budget": 0.0},
    "groups": {
        "lower": 0.0,
        "upper": 0.45,
        "rows": torch.tensor([[1.0, 1, 1, 0, 0, 0, 0], [0.0, 0, 0, 1, 1, 0, 0]]),
        "row_lower": -0.3,
        "row_upper": torch.tensor([0.25, 0.8]),
    },
    "beta": {
        "lower": -1.0,
        "upper": 1.0,
        "rows": torch.tensor([[0.5, 0.8, 1.0, 1.2, 1.4, 0.9, 0.7]]),
        "row_upper": 0.3,
        "row_lower": 0.3,
    },
    "cost": {"holdings": 1.0, "turnover_cost": 0.4, "upper": 0.6},
    "turnover": {"holdings": 1.0, "turnover_limit": 0.5, "upper": 0.6, "lower": -0.1},
    "gross": {"lower": -0.8, "upper": 0.8, "gross_limit": 1.9},
    "tracking": {"benchmark": 1.0, "tracking": 2.0, "upper": 0.6},
    "all": {
        "lower": -0.3,
        "upper": 0.7,
        "rows": torch.tensor([[1.0, 1, 1, 0, 0, 0, 0]]),
        "row_upper": 0.4,
        "holdings": 1.0,
        "turnover_cost": 0.05,
        "turnover_limit": 1.3,
        "gross_limit": 1.3,
        "benchmark": 1.0,
        "tracking": 0.5,
    },
}
WIDTHS = {"row_upper": "rows", "row_lower": "rows", "budget": "", "turnover_limit": ""}
WIDTHS |= {"gross_limit": "", "tracking": ""}


@pytest.mark.parametrize("form", ["dense", "factor"])
@pytest.mark.parametrize("case", CASES)
def test_every_gradient_agrees_with_finite_differences(case: str, form: str) -> None:
    batch, assets = 3, 7
    loadings, specific, q = factors(batch, assets, seed=5)
    amounts = torch.tensor([0.1, 0.15, 0.05, 0.25, 0.2, 0.13, 0.12], dtype=torch.float64)
    arguments: dict[str, Tensor] = {}
    for name, value in CASES[case].items():
        tensor = torch.as_tensor(value, dtype=torch.float64)
        if name in ("holdings", "benchmark"):
            tensor = amounts.flip(0) if name == "benchmark" else amounts
            tensor = tensor.expand(batch, assets)
        elif name == "rows":
            tensor = tensor.expand(batch, -1, -1)
        elif name in WIDTHS:
            rows = CASES[case].get("rows")
            width = (len(rows),) if WIDTHS[name] and rows is not None else ()
            tensor = tensor.expand(batch, *width)
        else:
            tensor = tensor.expand(batch, assets)
        arguments[name] = tensor.clone()
    equality = case == "beta"
    if equality:
        del arguments["row_lower"]  # it moves with row_upper
    names = list(arguments)
    risk = [loadings, specific] if form == "factor" else [dense(loadings, specific)]

    def solve(*inputs: Tensor) -> Tensor:
        given = dict(zip(names, inputs[len(risk) + 1 :], strict=True))
        if equality:
            given["row_lower"] = given["row_upper"]
        model: Tensor | FactorRisk
        if form == "factor":
            model = FactorRisk(inputs[0], inputs[1])
        else:
            model = (inputs[0] + inputs[0].mT) / 2
        return LAYER(model, inputs[len(risk)], **given)

    inputs = [part.clone().requires_grad_() for part in (*risk, q, *arguments.values())]
    assert torch.autograd.gradcheck(solve, inputs, eps=1e-6, atol=1e-6, rtol=1e-6)


WEAK: dict[str, dict[str, Any]] = {
    "bound": {"lower": 0.0},
    "group": {"lower": -1.0, "rows": torch.tensor([[1.0, 1, 0]]), "row_upper": 0.4},
    "kink of a slack gross limit": {"lower": -1.0, "gross_limit": 2.0},
    "reached gross limit": {"lower": -1.0, "gross_limit": 1.0},
    "reached turnover limit": {"holdings": torch.zeros(3), "turnover_limit": 1.0, "lower": -1.0},
}


@pytest.mark.parametrize("case", WEAK)
def test_the_gradient_at_a_weak_limit_is_as_though_it_was_not_there(case: str) -> None:
    """With P = I and q = (0, .4, .6) the budget alone gives z = q: every limit is just reached."""
    risk = torch.eye(3, dtype=torch.float64)
    incoming = torch.tensor([[1.0, 3.0, -1.0]], dtype=torch.float64)
    states = LAYER.solve(risk, torch.zeros(3).double(), **WEAK[case]).states
    assert states is not None
    width = states.shape[1]
    pinned = torch.zeros(1, width, dtype=torch.int8)
    pinned[0, 3:] = 1
    for start in (None, pinned, torch.ones(1, width, dtype=torch.int8)):
        q = torch.tensor([[0.0, 0.4, 0.6]], dtype=torch.float64, requires_grad=True)
        weights = LAYER(risk, q, start=start, **WEAK[case])
        torch.testing.assert_close(weights, q.detach(), rtol=0, atol=1e-14)
        (gradient,) = torch.autograd.grad(weights, q, incoming)
        torch.testing.assert_close(gradient, incoming - 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", [ActiveSet(), Qpth()])
def test_second_derivatives_are_refused_in_words(solver: Any) -> None:
    layer = MeanVarianceLayer(solver)
    loadings, specific, q = factors(2, 4)
    q.requires_grad_()
    weights = layer(dense(loadings, specific), q)
    with pytest.raises(RuntimeError, match=r"take the solver Reference\(\)"):
        torch.autograd.grad(weights.square().sum(), q, create_graph=True)


def test_gradients_of_what_the_batch_shares_are_sums_also_over_threads() -> None:
    loadings, specific, q = factors(5, 6)
    rows = torch.tensor([[1.0, 1, 1, 0, 0, 0]], dtype=torch.float64)
    results = []
    for threads in (1, 2):
        layer = MeanVarianceLayer(ActiveSet(threads=threads))
        shared = [dense(loadings, specific)[0].requires_grad_(), rows.clone().requires_grad_()]
        z = layer(shared[0], q, upper=0.4, rows=shared[1], row_upper=0.3)
        results.append([z, *torch.autograd.grad(z.square().sum(), shared)])
    apart = [dense(loadings, specific)[:1].repeat(5, 1, 1).requires_grad_()]
    z = LAYER(apart[0], q, upper=0.4, rows=rows, row_upper=0.3)
    summed = torch.autograd.grad(z.square().sum(), apart)[0].sum(0)
    torch.testing.assert_close(results[0][1], summed, rtol=0, atol=1e-13)
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-13)


def test_the_gradient_is_that_of_a_dense_kkt_solve() -> None:
    risk, q, constraints = make_problem("factor", 4, 12, seed=2)
    risk.requires_grad_()
    solution = LAYER.solve(risk, q.requires_grad_(), **constraints)
    incoming = torch.randn(4, 12, dtype=torch.float64)
    ours = torch.autograd.grad(solution.weights, q, incoming)[0]
    for sample in range(4):
        weights = solution.weights[sample].detach()
        free = (weights > 0) & (weights < constraints["upper"])
        count = int(free.sum())
        kkt = np.zeros((count + 1, count + 1))
        kkt[:count, :count] = risk[sample][free][:, free].detach()
        kkt[count, :count] = kkt[:count, count] = 1
        right = np.append(incoming[sample][free], 0.0)
        expected = np.linalg.solve(kkt, right)[:count]
        np.testing.assert_allclose(ours[sample][free], expected, rtol=1e-8)
        assert (ours[sample][~free] == 0).all()


@pytest.mark.parametrize("kind", ["factor", "sector", "cost", "turnover", "gross", "everything"])
def test_a_warm_start_changes_nothing_but_the_rounds(kind: str) -> None:
    risk, q, constraints = make_problem(kind, 16, 30, seed=7)
    first = LAYER.solve(risk, q, **constraints)
    again = LAYER.solve(risk, q, start=first.states, **constraints)
    assert (again.rounds == 1).all()
    torch.testing.assert_close(again.weights, first.weights, rtol=0, atol=1e-12)
    moved = q + 0.01 * q.abs().mean() * torch.randn_like(q)
    warm = LAYER.solve(risk, moved, start=again.states, **constraints)
    cold = LAYER.solve(risk, moved, **constraints)
    torch.testing.assert_close(warm.weights, cold.weights, rtol=0, atol=1e-12)
    assert warm.rounds.sum() < cold.rounds.sum()


@pytest.mark.parametrize("kind", ["factor", "sector", "everything"])
def test_any_start_leads_to_the_same_weights(kind: str) -> None:
    risk, q, constraints = make_problem(kind, 8, 20, seed=4)
    if kind == "factor":
        constraints["lower"] = -torch.inf
    cold = LAYER.solve(risk, q, **constraints)
    assert cold.states is not None
    draw = torch.Generator().manual_seed(0)
    garbage = torch.randint(-128, 128, cold.states.shape, generator=draw).to(torch.int8)
    garbage[:, 0] = 0
    for start in (garbage, torch.full_like(cold.states, -1)):
        weights = LAYER.solve(risk, q, start=start, **constraints).weights
        torch.testing.assert_close(weights, cold.weights, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="start must have shape"):
        LAYER.solve(risk, q, start=garbage[:, 1:], **constraints)


def test_an_asset_that_cannot_trade_stays_where_it_is() -> None:
    risk, q, constraints = make_problem("cost", 4, 10, seed=0)
    held = constraints["holdings"]
    upper = torch.full((4, 10), 0.5, dtype=torch.float64)
    lower = torch.zeros(4, 10, dtype=torch.float64)
    upper[:, 2] = lower[:, 2] = held[:, 2]
    upper[1, 3] = 0.0
    weights = LAYER(risk, q, **(constraints | {"lower": lower, "upper": upper}))
    assert (weights[:, 2] == held[:, 2]).all()
    assert weights[1, 3] == 0


def test_unbounded_weights_have_a_closed_form() -> None:
    loadings, specific, q = factors(3, 6)
    risk = dense(loadings, specific)
    weights = LAYER(risk, q, lower=-torch.inf, upper=torch.inf, budget=0.4)
    inverse = torch.linalg.inv(risk)
    ones = torch.ones(3, 6, 1, dtype=torch.float64)
    dual = (ones.mT @ inverse @ q.unsqueeze(-1) - 0.4) / (ones.mT @ inverse @ ones)
    expected = (inverse @ (q.unsqueeze(-1) - dual * ones)).squeeze(-1)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-12)


def test_tracking_is_the_objective_it_says() -> None:
    loadings, specific, q = factors(3, 6)
    risk = dense(loadings, specific)
    benchmark = torch.full((6,), 1 / 6, dtype=torch.float64)
    weights = LAYER(risk, q, benchmark=benchmark, tracking=3.0)
    pulled = q + 3 * (risk @ benchmark)
    torch.testing.assert_close(weights, LAYER(4 * risk, pulled), rtol=0, atol=1e-12)
    exact = LAYER(risk, q, benchmark=benchmark, tracking=1e9)
    torch.testing.assert_close(exact, benchmark.expand(3, 6), rtol=0, atol=1e-7)


def test_bad_problems_are_refused_in_words() -> None:
    loadings, specific, q = factors(4, 5)
    risk = dense(loadings, specific)
    with pytest.raises(InfeasibleError, match="caps sum to 0.8, budget is 1; samples 0, 1, 2, 3"):
        LAYER(risk, q, upper=0.16)
    for bad in (torch.nan, torch.inf):
        broken = q.clone()
        broken[2, 1] = bad
        with pytest.raises(ValueError, match="expected return has a NaN or an infinity; sample 2"):
            LAYER(risk, broken)
        broken = risk.clone()
        broken[1, 2, 2] = bad
        with pytest.raises(ValueError, match="risk has a NaN or an infinity; sample 1"):
            LAYER(broken, q)
    indefinite = risk.clone()
    indefinite[3] -= 2 * torch.eye(5)
    with pytest.raises(ValueError, match="not positive.*sample 3"):
        LAYER(indefinite, q)
    with pytest.raises(ValueError, match="specific risk is not positive; samples 0, 1"):
        LAYER(FactorRisk(loadings, specific - 1.0), q)
    with pytest.raises(ValueError, match="holdings go with a turnover_cost"):
        LAYER(risk, q, turnover_cost=0.1)
    with pytest.raises(ValueError, match="turnover cost is negative"):
        LAYER(risk, q, turnover_cost=-0.1, holdings=q)
    with pytest.raises(ValueError, match="tracking must not be negative"):
        LAYER(risk, q, tracking=-0.1, benchmark=q)


def test_what_the_weights_do_not_depend_on_is_checked_as_far_as_asked() -> None:
    q = torch.tensor([5.0, 5.0, -5.0, -5.0, -5.0], dtype=torch.float64)
    solvers = {
        check: MeanVarianceLayer(ActiveSet(check_risk=check))
        for check in ("used", "entries", "definite")
    }

    def verdicts(*changes: tuple[int, int, float]) -> list[str]:
        risk = torch.eye(5, dtype=torch.float64).repeat(2, 1, 1)
        for i, j, value in changes:
            risk[1, i, j] = value
        found = []
        for layer in solvers.values():
            try:
                layer(risk, q)
                said = ""
            except ValueError as error:
                said = str(error).removeprefix("the risk ").removesuffix("; sample 1")
            found.append(said)
        return found

    for bad in (torch.nan, torch.inf, -torch.inf):
        told = "has a NaN or an infinity"
        assert verdicts((3, 4, bad)) == ["", told, told]
        assert verdicts((0, 1, bad), (1, 0, bad)) == [told] * 3
    too_large = ((2, 3, 4.0), (3, 2, 4.0))  # beyond the root of the variances
    assert verdicts(*too_large) == [
        "",
        *["is not positive definite: add a ridge to its diagonal"] * 2,
    ]
    pairs = [(2, 3), (3, 4), (2, 4)]  # all pairs at -0.9: possible in twos, not in threes
    triangle = [(i, j, -0.9) for i, j in pairs] + [(j, i, -0.9) for i, j in pairs]
    assert verdicts(*triangle) == ["", "", "is not positive definite: add a ridge to its diagonal"]
    assert verdicts((2, 3, 0.5)) == ["", "", "is not symmetric: give (P + P.mT) / 2"]
    between_free = [(0, 1, 1.5), (1, 0, 1.5)]
    assert verdicts(*between_free) == ["is not positive definite: add a ridge to its diagonal"] * 3
    with pytest.raises(ValueError, match="check_risk must be one of"):
        ActiveSet(check_risk="all")  # type: ignore[arg-type]


def test_a_nan_in_a_shared_risk_is_found_in_every_sample() -> None:
    risk = torch.eye(4, dtype=torch.float64)
    risk[2, 3] = torch.nan
    q = torch.tensor([[5.0, 5, -5, -5], [5.0, 5, -5, -5]], dtype=torch.float64)
    with pytest.raises(ValueError, match="risk has a NaN or an infinity; samples 0, 1"):
        LAYER(risk, q)


def test_status_says_how_each_sample_ended() -> None:
    risk, q, constraints = make_problem("factor", 4, 12, seed=1)
    solved = LAYER.solve(risk, q, **constraints)
    assert solved.status.tolist() == [Status.SOLVED] * 4
    strict = MeanVarianceLayer(ActiveSet(tolerance=0.0)).solve(risk, q, **constraints)
    late = (strict.residual > 0).long()  # rounding, in most samples
    assert late.any()
    assert strict.status.tolist() == (late * Status.INACCURATE).tolist()
    assert strict.converged.tolist() == (late == 0).tolist()
    rough = MeanVarianceLayer(Qpth(tolerance=1e-30)).solve(risk, q, **constraints)
    assert rough.status.tolist() == [Status.INACCURATE] * 4
    residual = torch.tensor([0.0, 1.0, torch.inf, torch.nan])
    assert status_of(residual, 0.5).tolist() == [0, 1, 1, Status.STALLED]


def test_constraints_that_only_clash_together_are_refused_in_words() -> None:
    loadings, specific, q = factors(3, 6)
    risk = dense(loadings, specific)
    groups = torch.tensor([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1.0]])
    with pytest.raises(InfeasibleError, match="no weights meet all.*(tech|banks|budget) by 0.2"):
        LAYER(risk, q, rows=groups, row_upper=0.4, row_names=["tech", "banks"])
    held = torch.tensor([1.0, 0, 0, 0, 0, 0])
    with pytest.raises(InfeasibleError, match="the turnover limit by"):
        LAYER(risk, q, upper=0.3, holdings=held, turnover_limit=0.5)
    with pytest.raises(InfeasibleError, match=r"the gross limit by|budget by"):
        LAYER(risk, q, lower=-1.0, gross_limit=0.9)


def test_float32_arguments_are_solved_in_float64() -> None:
    loadings, specific, q = factors(2, 5)
    q32 = q.float().requires_grad_()
    weights = LAYER(dense(loadings, specific).float(), q32)
    weights[:, 0].sum().backward()
    assert weights.dtype == torch.float64
    assert q32.grad is not None
    assert q32.grad.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_starts_threads_of_its_own() -> None:
    risk, q, constraints = make_problem("factor", 8, 12, seed=3)
    layer = MeanVarianceLayer(ActiveSet(threads=3))
    expected = layer(risk, q, **constraints)
    context = get_context("fork")
    received, sent = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sent.send(layer(risk, q, **constraints).tolist()))
    child.start()
    try:
        assert received.poll(30), "the fork waits for threads that it does not have"
        assert received.recv() == expected.tolist()
    finally:
        child.kill()
        child.join()
