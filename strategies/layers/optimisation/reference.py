"""The mean-variance problem by a textbook method: to read first, and to check the fast solver by.

A primal active-set method (Nocedal & Wright 2006, algorithm 16.3), for a problem in matrices

    min  1/2 x'Px - q'x   subject to   G x <= h,  A x = b

Some of the inequalities hold as equalities at the optimum: they are active. With C x = c all that
is active, the equalities among them, x and the multipliers y solve a linear system, and that
system, differentiated, gives the gradient:

    [P  C'] [x]   [q]
    [C  0 ] [y] = [c]

To find what is active, walk from a feasible x towards the solution of this system. An inequality
that is in the way becomes active. Where none is, one with a negative multiplier is dropped, for
without it the objective falls further; if there is none, x is the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor

from strategies.layers.optimisation.checks import check_problem, feasible_point, kkt_residual
from strategies.layers.optimisation.problem import InfeasibleError, Problem, Solution, status_of
from strategies.layers.optimisation.standard_form import (
    duals_by_row,
    first_point,
    scale_of,
    standard_form,
)

ROUNDING = 1e-10  # of a multiplier, relative to q; of a constraint's change in a step


@dataclass(frozen=True)
class Reference:
    """Solve one sample after the other in plain numpy; needs finite bounds.

    Args:
        tolerance: relative KKT residual above which a sample is not solved.
        max_steps: after which a sample is given up.
    """

    tolerance: float = 1e-8
    max_steps: int = 10_000

    def solve(self, problem: Problem, start: Tensor | None = None) -> Solution:
        """Solve; a start is not used. Errors as in ``Solver``."""
        check_problem(problem)
        form, found = standard_form(problem), []
        for sample in range(len(problem.expected_return)):
            point, missed = feasible_point(problem, sample)
            if missed:
                raise InfeasibleError(f"{missed}; {problem.name([sample])}", [sample])
            P, q, G, h, A, b = (tensor[sample] for tensor in form)
            kept = independent(A.detach().cpu().numpy())
            numbers = [tensor.detach().cpu().numpy() for tensor in (P, q, G, h, A[kept], b[kept])]
            numbers.append(first_point(problem, sample, point))
            active, steps = active_inequalities(*numbers, max_steps=self.max_steps)
            C, c = torch.cat([A[kept], G[active]]), torch.cat([b[kept], h[active]])
            corner = C.new_zeros(len(C), len(C))
            matrix = torch.cat([torch.cat([P, C.mT], dim=1), torch.cat([C, corner], dim=1)])
            solved = torch.linalg.solve(matrix, torch.cat([q, c]))  # autograd differentiates it
            duals = h.new_zeros(len(b) + len(h))
            duals[[*kept, *(len(b) + i for i in active)]] = solved[len(q) :].detach()
            found.append((solved[: len(point)], duals, torch.tensor(steps)))
        weights, duals, rounds = (torch.stack(parts) for parts in zip(*found, strict=True))
        duals = duals_by_row(problem, duals) * scale_of(problem).detach()
        residual = kkt_residual(problem, weights, duals)
        return Solution(weights, status_of(residual, self.tolerance), rounds, residual, duals)


def active_inequalities(
    P: np.ndarray, q: np.ndarray, G: np.ndarray, h: np.ndarray, A: np.ndarray, b: np.ndarray,
    x: np.ndarray, *, max_steps: int,
) -> tuple[list[int], int]:  # fmt: skip
    """Which rows of G are active at the optimum, from a feasible x on; and the steps taken."""
    active: list[int] = []
    for step in range(1, max_steps + 1):
        C, c = np.vstack([A, G[active]]), np.concatenate([b, h[active]])
        matrix = np.block([[P, C.T], [C, np.zeros((len(C), len(C)))]])
        solved = np.linalg.solve(matrix, np.concatenate([q, c]))
        target, multipliers = solved[: len(q)], solved[len(q) + len(A) :]
        move = target - x
        change = G @ move
        blocks = change > ROUNDING * (np.abs(x).max() + np.abs(move).max())
        blocks[active] = False
        room = np.maximum(h - G @ x, 0.0)
        lengths = np.full(len(h), np.inf)
        np.divide(room, change, out=lengths, where=blocks)
        if lengths.min(initial=np.inf) < 1:
            first = int(lengths.argmin())
            x = x + lengths[first] * move
            active.append(first)
            continue
        x = target
        wrong = multipliers < -ROUNDING * (1 + np.abs(q).max())
        if not wrong.any():
            return active, step
        active.remove(min(np.array(active)[wrong]))  # the first one: Bland's rule, no cycles
    return active, max_steps


def independent(rows: np.ndarray) -> list[int]:
    """Of the rows of a matrix, as many as do not depend on each other."""
    _, triangle, order = qr(rows.T, mode="economic", pivoting=True)
    size = np.abs(np.diagonal(triangle))
    return sorted(order[: len(size)][size > ROUNDING].tolist())
