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

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from strategies.layers.mean_variance import MeanVarianceLayer
from strategies.layers.problem import FactorRisk, Problem, Solution, build_problem


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
        cost: c, (B,), in the unit of P.
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
    sizes: Sequence[int] | None = None,
    **constraints: Any,
) -> Tensor:
    """The weights (M, N) of dates in a row, each traded from those of the date before.

    Nothing is held before the first date.

    Args:
        cost: c, (M,), in the unit of P.
        drift: (M, N) growth factors of prices from the fill before each date to its close; the
            first date's are not used.
        sizes: where there are several rows of dates, how many of the M are of each, in order.
        risk, expected_return, constraints: as of ``MeanVarianceLayer.forward``.
    """
    sizes = [len(drift)] if sizes is None else list(sizes)
    ends = torch.tensor(sizes).cumsum(0)
    starts = ends - torch.tensor(sizes)
    first = torch.zeros(len(drift), dtype=torch.bool, device=drift.device)
    first[starts] = True
    cost = cost.masked_fill(first, 0.0).unsqueeze(-1)  # (M, 1)
    risk = plus_diagonal(risk, cost.expand_as(expected_return))
    problem = build_problem(risk, expected_return, **constraints)

    lengths = ends - starts
    going = lengths > 0
    steps: list[tuple[Tensor, Tensor, Solution]] = []  # rows (S,), q + c h (S, N), what was solved
    for step in range(max(sizes)):
        still = (lengths > step)[going]
        going = lengths > step
        rows = (starts + step)[going]
        now, state = of_samples(problem, rows), None
        if steps:
            before = steps[-1][2]
            held = drift_of(before.weights[still], drift[rows])
            now = replace(now, expected_return=now.expected_return + cost[rows] * held)
            state = None if before.states is None else before.states[still]
        steps.append((rows, now.expected_return, layer.solver.solve(now, state)))
    order = torch.cat([rows for rows, _, _ in steps]).argsort()

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(solution, name) for _, _, solution in steps])[order]

    asked = replace(problem, expected_return=torch.cat([q for _, q, _ in steps])[order])
    names = ("weights", "status", "rounds", "residual", "duals")
    return layer.reported(asked, Solution(*map(joined, names)))


def plus_diagonal(risk: Tensor | FactorRisk, added: Tensor) -> Tensor | FactorRisk:
    """P + diag(added), added (B, N), in the form that P is given in."""
    if isinstance(risk, FactorRisk):
        return FactorRisk(risk.loadings, risk.specific + added)
    return risk + torch.diag_embed(added)


def drift_of(weights: Tensor, growth: Tensor) -> Tensor:
    """What weights (B, N) become as prices grow by ``growth`` (B, N); cash does not grow."""
    grown = weights * growth
    return grown / (grown.sum(-1, keepdim=True) + 1 - weights.sum(-1, keepdim=True))


def of_samples(problem: Problem, rows: Tensor) -> Problem:
    """The problems of those samples, with their graph."""

    def take(value: Any) -> Any:
        if isinstance(value, FactorRisk):
            return FactorRisk(take(value.loadings), take(value.specific))
        shared = not isinstance(value, Tensor) or value.shape[0] == 1
        return value if shared else value[rows]

    return Problem(**{name: take(value) for name, value in vars(problem).items()})
