"""The second line: what the rounds do not solve, exactly all the same.

An interior-point method (``interior_point.py``) comes near the optimum and tells what is active: a
constraint whose multiplier is larger than its slack. On that active set the optimality conditions
are linear. They are solved by orthogonal transformations, so that active rows may depend on each
other, as at a degenerate vertex; their multipliers are the interior point's, which are positive,
changed as little as makes them exact. The result counts if its residual is within the tolerance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import lstsq, qr, solve_triangular
from torch import Tensor

from strategies.layers.optimisation.active_set.batched_rounds import (
    Geometry,
    Round,
    let_go_of_weak,
)
from strategies.layers.optimisation.active_set.interior_point import iterates
from strategies.layers.optimisation.active_set.program import WeightsProgram
from strategies.layers.optimisation.active_set.tolerances import DEPENDENT_ROW, EXACT
from strategies.layers.optimisation.checks import kkt_residual
from strategies.layers.optimisation.problem import Problem

NEAR = 1e-4  # of the mean of slack times multiplier: from here on the active set may be right
GOOD = 1e-13  # residual at which there is nothing to gain by a further step


class Exact(NamedTuple):
    """The solution of one sample, without the batch dimension."""

    weights: np.ndarray  # (N,)
    duals: np.ndarray  # (R + 2,)
    states: np.ndarray  # (N + R + 2,) int8
    steps: int
    residual: float  # infinite where none was found


def solve_sample(problem: Problem) -> Exact:
    """Solve a problem of one sample."""
    problem = problem.each_tensor(Tensor.detach)
    geometry = Geometry.of(problem)
    unit = float(geometry.diagonal.mean())
    program = WeightsProgram(problem, geometry, unit)
    best = Exact(np.empty(0), np.empty(0), np.empty(0), 0, np.inf)
    steps = 0
    for steps, iterate in enumerate(iterates(program.scaled), 1):
        if iterate.gap > NEAR:
            continue
        found = _polish(problem, geometry, unit, *program.active(iterate), steps)
        if found.residual < best.residual:
            best = found
        if best.residual <= GOOD or (best.residual <= EXACT and found.residual >= best.residual):
            break
    return best._replace(steps=steps)


def _polish(
    problem: Problem,
    geometry: Geometry,
    unit: float,
    states: np.ndarray,
    row_states: np.ndarray,
    duals: np.ndarray,
    steps: int,
) -> Exact:
    """The optimum if this is the active set: exact weights, multipliers near the given ones."""
    given, active = torch.from_numpy(states)[None].long(), row_states != 0
    free = states % 2 == 1
    pinned = torch.where(given % 2 == 1, 0.0, geometry.at(given)[0])
    sides = geometry.sides(given)
    rows = geometry.rows(given)[0].numpy()
    least, most = (limit[0].numpy() for limit in geometry.limits)
    target = np.where(row_states > 0, most, np.where(active, least, 0.0))
    if active[-2]:
        target[-2] += rows[-2] @ geometry.holdings[0].numpy()
    gaps = (target - rows @ pinned[0].numpy())[active]
    right = problem.expected_return - problem.risk_times(pinned) - geometry.cost * sides[:, 0]
    right = right[0].numpy()[free] / unit
    C = rows[active][:, free]
    size = np.abs(C).max(axis=1, initial=0.0)
    size[size == 0] = 1.0  # of a row that holds no free weight
    C, gaps = C / size[:, None], gaps / size
    K = problem.dense_risk()[0].numpy()[np.ix_(free, free)] / unit
    x, y = _equality_constrained(K, right, C, gaps, duals[active] * size)
    z = pinned[0].numpy().copy()
    z[free] = x
    multipliers = np.zeros(len(active))
    multipliers[active] = y / size * unit
    z = np.clip(z, problem.lower[0].numpy(), geometry.breaks[0, :, -1].numpy())
    weights, prices = torch.from_numpy(z)[None], torch.from_numpy(multipliers)[None]
    residual = float(kkt_residual(problem, weights, prices))
    risky = problem.risk_times(weights)
    priced = problem.rows * prices[:, :-2].unsqueeze(2)
    scale = torch.stack([risky.abs().max(), problem.expected_return.abs().max()]).max()
    now = Round(
        weights, prices, torch.zeros_like(prices), risky - problem.expected_return + priced.sum(1),
        torch.maximum(scale, priced.abs().max()).view(1, 1), torch.ones(1, dtype=torch.bool),
    )  # fmt: skip
    let_go = let_go_of_weak(geometry, now, given, torch.from_numpy(row_states)[None].long())
    final = torch.cat(let_go, dim=1)[0].numpy().astype(np.int8)
    return Exact(z, multipliers, final, steps, residual if np.isfinite(residual) else np.inf)


def _equality_constrained(
    K: np.ndarray, right: np.ndarray, C: np.ndarray, gaps: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """x and y of ``K x + C'y = right, C x = gaps``; rows of C may depend on each other, and y is
    the one nearest to ``near``."""
    if not len(right):
        return right, near
    Q, triangle, order = qr(C.T, pivoting=True)
    diagonal = np.abs(np.diagonal(triangle))
    rank = int((diagonal > DEPENDENT_ROW * diagonal.max(initial=0.0)).sum())
    span, null = Q[:, :rank], Q[:, rank:]
    x = span @ solve_triangular(triangle[:rank, :rank].T, gaps[order[:rank]], lower=True)
    if null.shape[1]:
        x = x + null @ lstsq(null.T @ K @ null, null.T @ (right - K @ x), lapack_driver="gelsy")[0]
    y = near
    if len(C):
        y = near + lstsq(C.T, right - K @ x - C.T @ near, cond=DEPENDENT_ROW)[0]
    return x, y
