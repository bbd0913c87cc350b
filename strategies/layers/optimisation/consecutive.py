"""Weights that know the holdings: a cost of trading inside the mean-variance layer.

    z = argmin  1/2 z'Pz - q'z + 1/2 c |z - h|^2 + d sum |z - h|

with h the holdings when z is decided. With the quadratic cost alone, the weights move a part of the
way from h to the portfolio that they would otherwise be, at once exact and smooth, and stay within
the constraints. Trading at such a cost is to go part of the way towards an aim; Garleanu and
Pedersen (2013), "Dynamic trading with predictable returns and transaction costs", proposition 2. It
is the same problem with P + c I for P and q + c h for q.

The proportional cost d has a kink at h: a weight whose advantage is below d stays exactly where it
is (no order), and any other moves to the edge of that no-trade region and no further; Davis and
Norman (1990), "Portfolio selection with transaction costs". The gradient of a weight that stays is
that of its holding, and none of q, P or d; at the edge itself it is that of a weight which moves.

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
from strategies.layers.optimisation.active_set.solver import Dates
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
    proportional: Tensor | None = None,
    **constraints: Any,
) -> Tensor:
    """The weights (B, N) of samples that do not depend on one another.

    Args:
        cost: c, a scalar or (B,), in the unit of P.
        holdings: h (B, N); where they are all zero, the first purchase is free.
        proportional: d, a scalar or (B,), in the unit of q.
        risk, expected_return, constraints: as of ``MeanVarianceLayer.forward``.
    """
    held = holdings.any(-1).to(holdings)  # numbers: a scalar times a bool is float32 in torch
    cost = (cost * held).unsqueeze(-1)  # (B, 1)
    if proportional is not None:
        paid = (proportional * held).unsqueeze(-1).expand_as(holdings)
        constraints |= {"holdings": holdings, "turnover_cost": paid}
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
    proportional: Tensor | None = None,
    **constraints: Any,
) -> Tensor:
    """The weights (M, N) of consecutive dates, each traded from those of the date before.

    Nothing is held before the first date, and its trade is free.

    Args:
        cost: c, a scalar or (M,), in the unit of P.
        proportional: d, a scalar or (M,), in the unit of q.
        growth: (M, N) factors by which prices grew from the fill before each date to its close;
            NaN where a new chain of dates begins.
        rates: (M, 3) what cash earns, borrowed cash costs and short positions cost in that time,
            the last three arguments of ``drift.carry``; zero if not given.
        risk, expected_return, constraints: as of ``MeanVarianceLayer.forward``.
    """
    rates = growth.new_zeros(len(growth), 3) if rates is None else rates
    begins = growth.isnan().any(-1)
    begins[0] = True
    cost = torch.where(begins, 0.0, cost)  # (M,)
    dates = Dates(begins, growth.nan_to_num(1.0), rates)
    risk = plus_diagonal(risk, cost.unsqueeze(-1).expand_as(expected_return))
    if proportional is not None:
        paid = torch.where(begins, 0.0, proportional).unsqueeze(-1).expand_as(growth)
        constraints |= {"holdings": torch.zeros_like(growth), "turnover_cost": paid}
    problem = build_problem(risk, expected_return, **constraints)
    if isinstance(layer.solver, ActiveSet):
        solution, pulled, held = layer.solver.solve_dates(problem, cost, dates)
    else:
        solution, pulled, held = _step_by_step(layer.solver, problem, cost, dates)
    problem = replace(problem, expected_return=pulled)
    if proportional is not None:
        problem = replace(problem, holdings=held)
    return layer.reported(problem, solution)


def _step_by_step(
    solver: Solver, problem: Problem, cost: Tensor, dates: Dates
) -> tuple[Solution, Tensor, Tensor]:
    """By any solver, one date at a time; what was solved, q + c h and h (M, N)."""
    solved: list[Solution] = []
    pulled: list[Tensor] = []
    held: list[Tensor] = []
    for t, begins in enumerate(dates.begins.tolist()):
        one = slice(t, t + 1)
        now, state = problem.of_samples(torch.tensor([t])), None
        holdings = torch.zeros_like(now.lower)
        if not begins:
            before = solved[-1].weights
            earned = carry(before, *dates.rates[one].unbind(-1))
            holdings = drift(before, dates.growth[one], earned)
            now = replace(now, expected_return=now.expected_return + cost[one] * holdings)
            if now.holdings is not None:
                now = replace(now, holdings=holdings)
            state = solved[-1].states
        pulled.append(now.expected_return)
        held.append(holdings)
        solved.append(solver.solve(now, state))
    names = ("weights", "status", "rounds", "residual", "duals")
    joined = (torch.cat([getattr(solution, name) for solution in solved]) for name in names)
    return Solution(*joined), torch.cat(pulled), torch.cat(held)


def plus_diagonal(risk: Tensor | FactorRisk, added: Tensor) -> Tensor | FactorRisk:
    """P + diag(added), added (B, N), in the form that P is given in."""
    if isinstance(risk, FactorRisk):
        return FactorRisk(risk.loadings, risk.specific + added)
    return risk + torch.diag_embed(added)
