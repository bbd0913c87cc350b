"""A mean-variance problem as a quadratic program in matrices, for general solvers.

    min  1/2 x'Px - q'x   subject to   G x <= h,  A x = b

P and q are divided by mean(diag P), which leaves the solution as it is. The first N variables are
the weights; turnover and gross terms bring further ones, which stand for a distance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from strategies.layers.optimisation.problem import Problem

RIDGE = 1e-10  # risk of the variables that stand for a distance


class StandardForm(NamedTuple):
    """All with the batch dimension; X variables, I inequalities, E equalities."""

    risk: Tensor  # P (B, X, X)
    linear: Tensor  # q (B, X)
    inequalities: Tensor  # G (B, I, X)
    limits: Tensor  # h (B, I)
    equalities: Tensor  # A (B, E, X)
    targets: Tensor  # b (B, E)


def standard_form(problem: Problem) -> StandardForm:
    """P, q, G, h, A, b; differentiable in all that the problem is made of.

    A weight with equal bounds leaves an interior-point method no interior. It is taken out of
    the problem (its terms move to q, h and b) and comes back as a weight of its own, whose
    unbounded optimum is its fixed value and whose bounds are one below and two above (qpth's
    step length is -inf for a weight that does not move at all, as between symmetric bounds).

    Raises:
        ValueError: a bound is infinite.
    """
    if not (problem.lower.isfinite().all() and problem.upper.isfinite().all()):
        raise ValueError("general solvers need finite bounds; give each weight a floor and a cap")
    batch, assets = problem.expected_return.shape
    scale = scale_of(problem)
    risk = (problem.dense_risk() / scale.unsqueeze(-1)).expand(batch, -1, -1)
    linear = problem.expected_return / scale
    rows = problem.rows.expand(batch, -1, -1)
    # An infinite limit of a row becomes one that cannot bind.
    reach = torch.maximum(problem.lower.abs(), problem.upper.abs()).detach().unsqueeze(-1)
    most = (problem.rows.detach().abs() @ reach).squeeze(-1) + 1
    row_upper = torch.where(problem.row_upper.isinf(), most, problem.row_upper)
    row_lower = torch.where(problem.row_lower.isinf(), -most, problem.row_lower)

    fixed = problem.lower == problem.upper  # (B, N)
    value = torch.where(fixed, problem.lower, 0.0)
    lower = torch.where(fixed, value - 1, problem.lower)
    upper = torch.where(fixed, value + 2, problem.upper)
    linear = torch.where(fixed, value, linear - (risk @ value.unsqueeze(-1)).squeeze(-1))
    taken = (rows @ value.unsqueeze(-1)).squeeze(-1)  # (B, R)
    free = (~fixed).to(risk.dtype)
    risk = risk * (free.unsqueeze(1) * free.unsqueeze(2)) + torch.diag_embed(1 - free)
    rows = rows * free.unsqueeze(1)

    equal = _equalities(problem)
    box = torch.eye(assets, dtype=risk.dtype, device=risk.device).expand(batch, -1, -1)
    above, below = (row_upper - taken)[:, ~equal], (taken - row_lower)[:, ~equal]
    form = StandardForm(
        risk,
        linear,
        torch.cat([-box, box, rows[:, ~equal], -rows[:, ~equal]], dim=1),
        torch.cat([-lower, upper, above, below], dim=1),
        rows[:, equal],
        (problem.row_upper - taken)[:, equal],
    )
    for kink in _kinks(problem):
        form = _with_distance(problem, form, *kink)
    return form


def _with_distance(
    problem: Problem, form: StandardForm, centre: Tensor, cost: Tensor, limit: Tensor | None
) -> StandardForm:
    """Add variables t >= |z - centre|, which cost and are limited in place of the distance.

    qpth needs a positive definite P, so t has the risk ``RIDGE`` (P has 1 on average): the
    optimality conditions are off by as much. Where the centre is at a bound, or beyond, the bound
    implies one side, which is left out: three constraints that meet in the two variables of a
    weight at its bound would leave its multipliers open, and the gradient.
    """
    batch, assets = problem.lower.shape
    size = form.risk.shape[1]
    unit = torch.eye(assets, dtype=form.risk.dtype, device=form.risk.device).expand(batch, -1, -1)
    inequalities, limits = [pad(form.inequalities, (0, assets))], [form.limits]
    for sign, needed in ((1, centre < problem.upper), (-1, centre > problem.lower)):
        side = sign * unit * needed.unsqueeze(-1)
        inequalities.append(torch.cat([pad(side, (0, size - assets)), -unit], dim=2))
        limits.append(torch.where(needed, sign * centre, 1.0))
    if limit is not None:
        inequalities.append(pad(torch.ones_like(unit[:, :1]), (size, 0)))
        limits.append(limit.unsqueeze(1))
    return StandardForm(
        pad(form.risk, (0, assets, 0, assets)) + pad(RIDGE * unit, (size, 0, size, 0)),
        torch.cat([form.linear, -cost / scale_of(problem)], dim=1),
        torch.cat(inequalities, dim=1),
        torch.cat(limits, dim=1),
        pad(form.equalities, (0, assets)),
        form.targets,
    )


def first_point(problem: Problem, sample: int, weights: np.ndarray) -> np.ndarray:
    """The variables (X,) of a sample whose weights (N,) are feasible."""
    centres = [centre[sample].detach().cpu().numpy() for centre, _, _ in _kinks(problem)]
    return np.concatenate([weights, *(np.abs(weights - centre) for centre in centres)])


def _kinks(problem: Problem) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Terms ``cost'|z - centre|`` and limits of ``sum |z - centre|``: centre, cost, limit."""
    found = []
    if problem.holdings is not None and problem.cost is not None:
        found.append((problem.holdings, problem.cost, problem.turnover_limit))
    if problem.gross_limit is not None:
        zero = torch.zeros_like(problem.lower)
        found.append((zero, zero, problem.gross_limit))
    return found


def scale_of(problem: Problem) -> Tensor:
    return problem.risk_diagonal().detach().mean(-1, keepdim=True)  # (1|B, 1)


def _equalities(problem: Problem) -> Tensor:
    """Which rows are equalities in every sample, (R,) bool."""
    return (problem.row_lower == problem.row_upper).all(dim=0)


def duals_by_row(problem: Problem, duals: Tensor) -> Tensor:
    """Multipliers by row, (B, R), from qpth's: equalities first, then inequalities."""
    batch, assets = problem.expected_return.shape
    equal = _equalities(problem)
    count = int(equal.sum())
    by_row = torch.zeros(batch, len(equal) + 2, dtype=duals.dtype, device=duals.device)
    equal = torch.cat([equal, equal.new_zeros(2)])  # no turnover and gross
    by_row[:, equal] = duals[:, :count]
    given = len(equal) - 2 - count  # rows that are no equalities
    upper, lower = duals[:, count + 2 * assets :][:, : 2 * given].chunk(2, dim=1)
    by_row[:, :-2][:, ~equal[:-2]] = upper - lower
    place = count + 2 * assets + 2 * given
    for row, limit in ((-2, problem.turnover_limit), (-1, problem.gross_limit)):
        if limit is not None:
            by_row[:, row] = duals[:, place + 2 * assets]
        if limit is not None or (row == -2 and problem.holdings is not None):
            place += 2 * assets + (limit is not None)
    return by_row
