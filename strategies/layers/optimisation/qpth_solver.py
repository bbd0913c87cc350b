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

import torch
from torch import Tensor
from torch.nn.functional import pad

from strategies.layers.optimisation.checks import check_jointly, check_problem, kkt_residual
from strategies.layers.optimisation.problem import Problem, Solution, status_of

GRADIENT_LOST = 1e-3  # multiplier times slack, P of order 1; 2e-5 is usual with 50 weights
RIDGE = 1e-10  # risk of the variables that stand for a distance


@dataclass(frozen=True)
class Qpth:
    """Solve by qpth.

    Bounds have to be finite. Weights are moved from the interior point onto the bounds and the
    budget by at most the residual; the gradient is qpth's own, at its interior point. Turnover and
    gross terms become further variables (``_with_kinks``), which makes it slower and less exact.

    Args:
        tolerance: relative KKT residual above which a sample has not converged.
        max_steps: of the interior-point method.
    """

    tolerance: float = 1e-6
    max_steps: int = 30

    def solve(self, problem: Problem, start: Tensor | None = None) -> Solution:
        """Solve; an interior-point method has no use for a start. Errors as in ``Solver``."""
        check_problem(problem)
        if not (problem.lower.isfinite().all() and problem.upper.isfinite().all()):
            raise ValueError("Qpth needs finite bounds; give each weight a floor and a cap")
        form = _with_kinks(problem, _standard_form(problem))
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
            duals = _row_duals(problem, duals) * _scale(problem)
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


def _scale(problem: Problem) -> Tensor:
    return problem.risk_diagonal().detach().mean(-1, keepdim=True)  # (1|B, 1)


def _standard_form(problem: Problem) -> tuple[Tensor, ...]:
    """P, q, G, h, A, b of ``1/2 z'Pz - q'z, Gz <= h, Az = b``, all with the batch dimension.

    A weight with equal bounds leaves an interior-point method no interior. It is taken out of
    the problem (its terms move to q, h and b) and comes back as a weight of its own, whose
    unbounded optimum is its fixed value and whose bounds are one below and two above (qpth's
    step length is -inf for a weight that does not move at all, as between symmetric bounds).
    """
    batch, assets = problem.expected_return.shape
    scale = _scale(problem)
    risk = (problem.dense_risk() / scale.unsqueeze(-1)).expand(batch, -1, -1)
    linear = problem.expected_return / scale
    rows = problem.rows.expand(batch, -1, -1)
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
    limit_upper, limit_lower = _finite_limits(problem)
    inequalities = torch.cat([-box, box, rows[:, ~equal], -rows[:, ~equal]], dim=1)
    limits = torch.cat(
        [
            -lower,
            upper,
            (limit_upper - taken)[:, ~equal],
            (taken - limit_lower)[:, ~equal],
        ],
        dim=1,
    )
    return (
        risk,
        linear,
        inequalities,
        limits,
        rows[:, equal],
        (problem.row_upper - taken)[:, equal],
    )


def _kinks(problem: Problem) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Terms ``cost'|z - centre|`` and limits of ``sum |z - centre|``: centre, cost, limit."""
    found = []
    if problem.holdings is not None and problem.cost is not None:
        found.append((problem.holdings, problem.cost, problem.turnover_limit))
    if problem.gross_limit is not None:
        zero = torch.zeros_like(problem.lower)
        found.append((zero, zero, problem.gross_limit))
    return found


def _with_kinks(problem: Problem, form: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Add variables t >= |z - centre|, which cost and are limited in place of the distance.

    qpth needs a positive definite P, so t has the risk ``RIDGE`` (P has 1 on average): the
    optimality conditions are off by as much.
    """
    risk, linear, inequalities, limits, equalities, targets = form
    batch, assets = problem.lower.shape
    unit = torch.eye(assets, dtype=risk.dtype, device=risk.device).expand(batch, -1, -1)
    for centre, cost, limit in _kinks(problem):
        before = risk.shape[1] - assets
        risk = pad(risk, (0, assets, 0, assets))
        risk = risk + pad(RIDGE * unit, (risk.shape[1] - assets, 0, risk.shape[1] - assets, 0))
        linear = torch.cat([linear, -cost / _scale(problem)], dim=1)
        sides = [torch.cat([sign * pad(unit, (0, before)), -unit], dim=2) for sign in (1, -1)]
        inequalities = torch.cat([pad(inequalities, (0, assets)), *sides], dim=1)
        limits = torch.cat([limits, centre, -centre], dim=1)
        if limit is not None:
            total = pad(torch.ones_like(unit[:, :1]), (risk.shape[1] - assets, 0))
            inequalities = torch.cat([inequalities, total], dim=1)
            limits = torch.cat([limits, limit.unsqueeze(1)], dim=1)
        equalities = pad(equalities, (0, assets))
    return risk, linear, inequalities, limits, equalities, targets


def _equalities(problem: Problem) -> Tensor:
    """Which rows are equalities in every sample, (R,) bool."""
    return (problem.row_lower == problem.row_upper).all(dim=0)


def _finite_limits(problem: Problem) -> tuple[Tensor, Tensor]:
    """Upper and lower row limits, (B, R); an infinite one becomes one that cannot bind."""
    reach = torch.maximum(problem.lower.abs(), problem.upper.abs()).detach().unsqueeze(-1)
    most = (problem.rows.detach().abs() @ reach).squeeze(-1) + 1
    return (
        torch.where(problem.row_upper.isinf(), most, problem.row_upper),
        torch.where(problem.row_lower.isinf(), -most, problem.row_lower),
    )


def _row_duals(problem: Problem, duals: Tensor) -> Tensor:
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


def _onto_constraints(weights: Tensor, problem: Problem) -> Tensor:
    """Clip to the bounds and spread what the budget then lacks over the room that is left."""
    for _ in range(3):  # once suffices but for rounding
        weights = weights.clamp(problem.lower, problem.upper)
        gap = problem.row_upper[:, :1] - weights.sum(1, keepdim=True)
        room = torch.where(gap > 0, problem.upper - weights, weights - problem.lower)
        weights = weights + gap * room / room.sum(1, keepdim=True).clamp(min=1e-300)
    return weights.clamp(problem.lower, problem.upper)


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
        duals = torch.cat([node.nus, node.lams], dim=1)
        ctx.mark_non_differentiable(duals)
        return ctx.outer.detach(), duals

    @staticmethod
    def backward(ctx, gradient, _):
        with _one_thread():
            gradients = torch.autograd.grad(ctx.outer, ctx.inner, gradient, retain_graph=True)
        return *gradients, None
