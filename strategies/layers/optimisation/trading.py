"""Weights that know what is held: a quadratic cost of trading inside the mean-variance layer.

    z = argmin  1/2 z'Pz - q'z + 1/2 c |z - h|^2

with h what is held when z is decided. The weights move a part of the way from h to the portfolio
that they would otherwise be, at once exact and smooth, and stay within the constraints. Trading
at such a cost is to go part of the way towards an aim; Garleanu and Pedersen (2013), "Dynamic
trading with predictable returns and transaction costs", proposition 2. It is the same problem with
P + c I for P and q + c h for q.

On dates in a row, h is what the weights of the date before have become, and gradients flow back
through all of them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from strategies.layers.optimisation.active_set import (
    NAMES,
    ActiveSet,
    Call,
    compiled,
    gradients_compiled,
    kernel_batch,
    solve_compiled,
)
from strategies.layers.optimisation.checks import check_jointly, check_problem
from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.problem import (
    FactorRisk,
    Problem,
    Solution,
    Solver,
    build_problem,
    status_of,
)


def with_holdings(
    layer: MeanVarianceLayer,
    risk: Tensor | FactorRisk,
    expected_return: Tensor,
    cost: Tensor,
    holdings: Tensor,
    **constraints: Any,
) -> Tensor:
    """The weights (B, N) of samples that do not depend on one another.

    Args:
        cost: c, a scalar or (B,), in the unit of P.
        holdings: h (B, N); where a row is zero nothing is held, and the first purchase is free.
        risk, expected_return, constraints: as of ``MeanVarianceLayer.forward``.
    """
    cost = (cost * holdings.any(-1)).unsqueeze(-1)  # (B, 1)
    pulled = expected_return + cost * holdings
    return layer(plus_diagonal(risk, cost.expand_as(pulled)), pulled, **constraints)


def in_a_row(
    layer: MeanVarianceLayer,
    risk: Tensor | FactorRisk,
    expected_return: Tensor,
    cost: Tensor,
    drift: Tensor,
    **constraints: Any,
) -> Tensor:
    """The weights (M, N) of dates in a row, each traded from those of the date before.

    Nothing is held before the first date, and its trade is free.

    Args:
        cost: c, a scalar or (M,), in the unit of P.
        drift: (M, N) growth factors of prices from the fill before each date to its close; NaN
            where a new row of dates begins.
        risk, expected_return, constraints: as of ``MeanVarianceLayer.forward``.
    """
    if isinstance(layer.solver, ActiveSet) and drift.device.type != "cpu":
        # Each date waits for the one before: a GPU would idle where the kernels take microseconds.
        here = {name: _on_cpu(value) for name, value in constraints.items()}
        q, c, growth = expected_return.cpu(), cost.cpu(), drift.cpu()
        return in_a_row(layer, _on_cpu(risk), q, c, growth, **here).to(drift.device)
    begins = drift.isnan().any(-1)
    begins[0] = True
    cost = torch.where(begins, 0.0, cost).unsqueeze(-1)  # (M, 1)
    drift = drift.nan_to_num(1.0)
    risk = plus_diagonal(risk, cost.expand_as(expected_return))
    problem = build_problem(risk, expected_return, **constraints)
    if isinstance(layer.solver, ActiveSet):
        solution, pulled = _compiled(layer.solver, problem, cost, drift, begins)
    else:
        solution, pulled = _step_by_step(layer.solver, problem, cost, drift, begins)
    return layer.reported(replace(problem, expected_return=pulled), solution)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, FactorRisk):
        return FactorRisk(value.loadings.cpu(), value.specific.cpu())
    return value.cpu() if isinstance(value, Tensor) else value


def _step_by_step(
    solver: Solver, problem: Problem, cost: Tensor, drift: Tensor, begins: Tensor
) -> tuple[Solution, Tensor]:
    """By any solver, one date at a time; what was solved, and q + c h (M, N)."""
    solved: list[Solution] = []
    pulled: list[Tensor] = []
    for t, begin in enumerate(begins.tolist()):
        one = slice(t, t + 1)
        now, state = of_samples(problem, one), None
        if not begin:
            held = drift_of(solved[-1].weights, drift[one])
            now = replace(now, expected_return=now.expected_return + cost[one] * held)
            state = solved[-1].states
        pulled.append(now.expected_return)
        solved.append(solver.solve(now, state))
    names = ("weights", "status", "rounds", "residual", "duals")
    joined = (torch.cat([getattr(solution, name) for solution in solved]) for name in names)
    return Solution(*joined), torch.cat(pulled)


def _compiled(
    solver: ActiveSet,
    problem: Problem,
    cost: Tensor,
    drift: Tensor,
    begins: Tensor,
) -> tuple[Solution, Tensor]:
    """The same by the kernels of the active-set method: no graph of single dates."""
    call = Call(problem, threads=solver.threads, entries=solver.check_risk == "entries")
    weights, pulled = _SolveRow.apply(call, drift, begins, cost.squeeze(-1), *call.differentiable)
    status = status_of(call.residual, solver.tolerance)
    if status.any():
        check_problem(problem)  # raises where it finds the reason
        check_jointly(problem, status.nonzero().flatten().tolist())
    return Solution(weights, status, call.rounds, call.residual, call.duals), pulled


class _SolveRow(torch.autograd.Function):
    """Weights, and q + c h without a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        drift: Tensor,
        begins: Tensor,
        cost: Tensor,
        *differentiable: Tensor,
    ) -> tuple[Tensor, Tensor]:
        batch = kernel_batch(*call.tensors)
        batch = batch._replace(linear=batch.linear.copy())
        given = [each.detach().contiguous().numpy() for each in (begins, cost, drift)]
        row = compiled().Row(*given, np.zeros_like(batch.linear))
        arrays = solve_compiled(batch, call, row=row)
        weights, call.duals, call.states, call.rounds, call.residual = map(torch.from_numpy, arrays)
        ctx.call, ctx.batch, ctx.row, ctx.arrays = call, batch, row, arrays
        ctx.save_for_backward(weights, cost, *differentiable)  # that changes in place are noticed
        pulled = torch.from_numpy(batch.linear)
        ctx.mark_non_differentiable(pulled)
        return weights, pulled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        _ = ctx.saved_tensors
        weights, duals, states = ctx.arrays[:3]
        call, row = ctx.call, ctx.row
        found = gradients_compiled(
            ctx.batch, states, weights, duals, call.threads, gradient, call.needed, row
        )
        of_cost = (found[NAMES.index("linear")] * row.held).sum(1)
        own = map(torch.from_numpy, compress(found, call.needed))
        return None, None, None, torch.from_numpy(of_cost), *own


def plus_diagonal(risk: Tensor | FactorRisk, added: Tensor) -> Tensor | FactorRisk:
    """P + diag(added), added (B, N), in the form that P is given in."""
    if isinstance(risk, FactorRisk):
        return FactorRisk(risk.loadings, risk.specific + added)
    return risk + torch.diag_embed(added)


def drift_of(weights: Tensor, growth: Tensor) -> Tensor:
    """What weights (B, N) become as prices grow by ``growth`` (B, N); cash does not grow."""
    grown = weights * growth
    return grown / (grown.sum(-1, keepdim=True) + 1 - weights.sum(-1, keepdim=True))


def of_samples(problem: Problem, rows: slice) -> Problem:
    """The problems of those samples, with their graph."""

    def take(value: Any) -> Any:
        if isinstance(value, FactorRisk):
            return FactorRisk(take(value.loadings), take(value.specific))
        shared = not isinstance(value, Tensor) or value.shape[0] == 1
        return value if shared else value[rows]

    return Problem(**{name: take(value) for name, value in vars(problem).items()})
