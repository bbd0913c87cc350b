"""Weights that know the holdings: a quadratic cost of trading inside the mean-variance layer.

    z = argmin  1/2 z'Pz - q'z + 1/2 c |z - h|^2

with h the holdings when z is decided. The weights move a part of the way from h to the portfolio
that they would otherwise be, at once exact and smooth, and stay within the constraints. Trading
at such a cost is to go part of the way towards an aim; Garleanu and Pedersen (2013), "Dynamic
trading with predictable returns and transaction costs", proposition 2. It is the same problem with
P + c I for P and q + c h for q.

On consecutive dates, h is what the weights of the date before have become, and gradients flow back
through all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from strategies.layers.drift import carry, drift
from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.active_set.calls import Dates
from strategies.layers.optimisation.mean_variance import MeanVarianceLayer
from strategies.layers.optimisation.problem import (
    FactorRisk,
    Problem,
    Solution,
    Solver,
    build_problem,
)
from strategies.layers.solve_record import open_record


def weights_from_holdings(
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
        holdings: h (B, N); where they are all zero, the first purchase is free.
        risk, expected_return, constraints: as of ``MeanVarianceLayer.forward``.
    """
    cost = (cost * holdings.any(-1)).unsqueeze(-1)  # (B, 1)
    pulled = expected_return + cost * holdings
    weights = layer(plus_diagonal(risk, cost.expand_as(pulled)), pulled, **constraints)
    if (record := open_record()) is not None and record.details:
        kind, solved = record.details[-1]
        record.details[-1] = kind, solved._replace(cost=cost, holdings=holdings)
    return weights


def weights_on_dates(
    layer: MeanVarianceLayer,
    risk: Tensor | FactorRisk,
    expected_return: Tensor,
    cost: Tensor,
    growth: Tensor,
    rates: Tensor | None = None,
    **constraints: Any,
) -> Tensor:
    """The weights (M, N) of consecutive dates, each traded from those of the date before.

    Nothing is held before the first date, and its trade is free.

    Args:
        cost: c, a scalar or (M,), in the unit of P.
        growth: (M, N) factors by which prices grew from the fill before each date to its close;
            NaN where a new chain of dates begins.
        rates: (M, 3) what cash earns, borrowed cash costs and short positions cost in that time,
            the last three arguments of ``drift.carry``; zero if not given.
        risk, expected_return, constraints: as of ``MeanVarianceLayer.forward``.
    """
    rates = growth.new_zeros(len(growth), 3) if rates is None else rates
    if isinstance(layer.solver, ActiveSet) and growth.device.type != "cpu":
        # Each date waits for the one before: a GPU would idle where the kernels take microseconds.
        here = {name: _on_cpu(value) for name, value in constraints.items()}
        given = (_on_cpu(value) for value in (risk, expected_return, cost, growth, rates))
        return weights_on_dates(layer, *given, **here).to(growth.device)
    begins = growth.isnan().any(-1)
    begins[0] = True
    cost = torch.where(begins, 0.0, cost)  # (M,)
    dates = Dates(begins, growth.nan_to_num(1.0), rates)
    risk = plus_diagonal(risk, cost.unsqueeze(-1).expand_as(expected_return))
    problem = build_problem(risk, expected_return, **constraints)
    if isinstance(layer.solver, ActiveSet):
        solution, pulled = layer.solver.solve_dates(problem, cost, dates)
    else:
        solution, pulled = _step_by_step(layer.solver, problem, cost, dates)
    return layer.reported(replace(problem, expected_return=pulled), solution)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, FactorRisk):
        return FactorRisk(value.loadings.cpu(), value.specific.cpu())
    return value.cpu() if isinstance(value, Tensor) else value


def _step_by_step(
    solver: Solver, problem: Problem, cost: Tensor, dates: Dates
) -> tuple[Solution, Tensor]:
    """By any solver, one date at a time; what was solved, and q + c h (M, N)."""
    solved: list[Solution] = []
    pulled: list[Tensor] = []
    for t, begins in enumerate(dates.begins.tolist()):
        one = slice(t, t + 1)
        now, state = problem.of_samples(torch.tensor([t])), None
        if not begins:
            before = solved[-1].weights
            earned = carry(before, *dates.rates[one].unbind(-1))
            holdings = drift(before, dates.growth[one], earned)
            now = replace(now, expected_return=now.expected_return + cost[one] * holdings)
            state = solved[-1].states
        pulled.append(now.expected_return)
        solved.append(solver.solve(now, state))
    names = ("weights", "status", "rounds", "residual", "duals")
    joined = (torch.cat([getattr(solution, name) for solution in solved]) for name in names)
    return Solution(*joined), torch.cat(pulled)


def plus_diagonal(risk: Tensor | FactorRisk, added: Tensor) -> Tensor | FactorRisk:
    """P + diag(added), added (B, N), in the form that P is given in."""
    if isinstance(risk, FactorRisk):
        return FactorRisk(risk.loadings, risk.specific + added)
    return risk + torch.diag_embed(added)
