"""The mean-variance problem by qpth, the reference solver (Amos & Kolter 2017).

qpth is an interior-point method; its faults, measured, are handled here: arguments are expanded
to the batch (it averages the gradient of shared ones over the batch where it should sum), P and q
are divided by mean(diag P) (its accuracy falls with the scale of P; the weights stay the same),
its prints are off, and it runs under one torch thread, forward and backward, because torch's
batched LU, on which it relies, is wrong with more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from strategies.layers.kernel_calls import refuse_second_derivative
from strategies.layers.optimisation.checks import check_jointly, check_problem, kkt_residual
from strategies.layers.optimisation.problem import ONCE, Problem, Solution, status_of
from strategies.layers.optimisation.standard_form import duals_by_row, scale_of, standard_form

GRADIENT_LOST = 1e-3  # multiplier times slack, P of order 1; 2e-5 is usual with 50 weights


@dataclass(frozen=True)
class Qpth:
    """Solve by qpth.

    Bounds have to be finite. Weights are moved from the interior point onto the bounds and the
    budget by at most the residual; the gradient is qpth's own, at its interior point. Turnover and
    gross terms become further variables, which makes it slower and less exact.

    Args:
        tolerance: relative KKT residual above which a sample has not converged.
        max_steps: of the interior-point method.

    Raises:
        ImportError: qpth is not installed.
    """

    tolerance: float = 1e-6
    max_steps: int = 30

    def __post_init__(self) -> None:
        if not installed():
            raise ImportError("the solver qpth is not installed: pip install --no-deps qpth")

    def solve(self, problem: Problem, start: Tensor | None = None) -> Solution:
        """Solve; an interior-point method has no use for a start. Errors as in ``Solver``."""
        check_problem(problem)
        form = standard_form(problem)
        risk, linear, inequalities, limits, equalities, targets = form
        lifted, duals = _Solve.apply(
            risk, -linear, inequalities, limits, equalities, targets, self.max_steps
        )
        interior = lifted[:, : problem.lower.shape[1]]
        with torch.no_grad():
            exact = _onto_constraints(interior, problem)
            # Where the first guess of the weights is right, as between symmetric bounds, qpth may
            # stop before its multipliers are: its weights are then exact and its gradient lost.
            slack = limits - (inequalities @ lifted.unsqueeze(-1)).squeeze(-1)
            unfinished = (duals[:, equalities.shape[1] :] * slack).abs().amax(1)
            duals = duals_by_row(problem, duals) * scale_of(problem)
            residual = kkt_residual(problem, exact, duals)
            residual = torch.where(unfinished > GRADIENT_LOST, unfinished, residual)
        status = status_of(residual, self.tolerance)
        if status.any():
            check_jointly(problem, status.nonzero().flatten().tolist())
        return Solution(
            weights=interior + (exact - interior).detach(),
            status=status,
            rounds=torch.zeros(len(residual), dtype=torch.int64),
            residual=residual,
            duals=duals,
        )


def _onto_constraints(weights: Tensor, problem: Problem) -> Tensor:
    """Clip to the bounds and spread the rest of the budget over the room that is left."""
    for _ in range(3):  # once suffices except for rounding
        weights = weights.clamp(problem.lower, problem.upper)
        total = weights.sum(1, keepdim=True)
        gap = total.clamp(problem.row_lower[:, :1], problem.row_upper[:, :1]) - total
        room = torch.where(gap > 0, problem.upper - weights, weights - problem.lower)
        weights = weights + gap * room / room.sum(1, keepdim=True).clamp(min=1e-300)
    return weights.clamp(problem.lower, problem.upper)


def installed() -> bool:
    return find_spec("qpth") is not None


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Solve(torch.autograd.Function):
    """qpth with its own graph inside, so that its backward too runs under one thread."""

    @staticmethod
    def forward(ctx, *arguments):
        from qpth.qp import QPFunction

        *tensors, max_steps = arguments
        with torch.enable_grad(), _one_thread():
            ctx.inner = [tensor.detach().requires_grad_() for tensor in tensors]
            solve = QPFunction(verbose=-1, maxIter=max_steps, check_Q_spd=False)
            ctx.outer = solve(*ctx.inner)
        node = ctx.outer.grad_fn
        duals = node.lams if node.nus is None else torch.cat([node.nus, node.lams], dim=1)
        ctx.mark_non_differentiable(duals)
        return ctx.outer.detach(), duals

    @staticmethod
    def backward(ctx, gradient, _):
        refuse_second_derivative(*ONCE)
        with _one_thread():
            gradients = torch.autograd.grad(
                ctx.outer, ctx.inner, gradient, retain_graph=True, materialize_grads=True
            )  # without equalities there is none of theirs
        return *gradients, None
