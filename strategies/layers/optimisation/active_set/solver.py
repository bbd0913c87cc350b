"""ActiveSet: the active-set method as a differentiable solver.

On the CPU the rounds run in compiled kernels, elsewhere in batched torch. The rare sample whose
rounds cycle is solved by the kernels' dual method.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import torch
from torch import Tensor

from strategies.layers.optimisation.active_set.batched import differentiate_batched, solve_batched
from strategies.layers.optimisation.active_set.calls import (
    NAMES,
    Call,
    Dates,
    gradients_compiled,
    kernel_batch,
    kernel_chain,
    no_chain,
    solve_compiled,
)
from strategies.layers.optimisation.active_set.tolerances import EXACT
from strategies.layers.optimisation.checks import check_jointly, check_problem
from strategies.layers.optimisation.problem import ONCE, Problem, Solution, status_of
from strategies.layers.second_derivatives import refuse_second_derivative

CHECKS = ("used", "entries", "definite")


@dataclass(frozen=True)
class ActiveSet:
    """Solve by the active-set method.

    The method itself reads few rows of P. What is checked beyond them is ``check_risk``:

        "used"      what is read: every diagonal entry, and that the block of P that belongs to the
                    free weights is positive definite, in every round. Nothing else of P enters
                    the weights but products with weights that are not zero.
        "entries"   also that every entry is a number, and ``P_ij^2 <= P_ii P_jj``; the time of
                    reading P once (forward 1.1 times as long at 100 assets, 2.6 at 500).
        "definite"  also that P is symmetric and positive definite as a whole, by a Cholesky
                    factorisation, which takes several times as long as the solve.

    A negative direction between weights that are zero, which "definite" alone finds for certain,
    does not change the weights: they satisfy the optimality conditions all the same.

    Args:
        tolerance: relative KKT residual above which a sample is not solved.
        threads: over which the batch is spread on the CPU.
        check_risk: "used", "entries" or "definite".
    """

    tolerance: float = 1e-10
    threads: int = 1
    check_risk: Literal["used", "entries", "definite"] = "entries"

    def __post_init__(self) -> None:
        if self.check_risk not in CHECKS:
            raise ValueError(f"check_risk must be one of {CHECKS}, got {self.check_risk!r}")

    def solve(self, problem: Problem, start: Tensor | None = None) -> Solution:
        """Solve; errors as in ``Solver``."""
        compute = CompiledSolve if problem.lower.device.type == "cpu" else BatchedSolve
        call = Call(problem, start, self.threads, self.check_risk == "entries")
        return self._solved(call, compute, None)

    def solve_dates(
        self, problem: Problem, cost: Tensor, dates: Dates
    ) -> tuple[Solution, Tensor, Tensor]:
        """Solve consecutive dates, each with the linear term q + c h; on the CPU.

        Args:
            problem: where it has turnover terms, their holdings become h.
            cost: c (B,), zero where a chain of dates begins.

        Returns:
            The solution, q + c h (B, N), and h (B, N).
        """
        call = Call(problem, None, self.threads, self.check_risk == "entries", dates)
        return self._solved(call, CompiledSolve, cost), call.linear, call.holdings

    def _solved(self, call: Call, compute: Any, cost: Tensor | None) -> Solution:
        problem = call.problem
        if self.check_risk == "definite":
            check_problem(problem)
        weights = compute.apply(call, cost, *call.differentiable)
        residual = call.residual
        if ((residual.numpy() if residual.is_cpu else residual) <= self.tolerance).all():
            status = torch.zeros(len(residual), dtype=torch.int8, device=residual.device)
        else:
            status = status_of(residual, self.tolerance)
            check_problem(problem)  # raises where it finds the reason
            check_jointly(problem, status.nonzero().flatten().tolist())
        return Solution(weights, status, call.rounds, residual, call.duals, call.states)


class CompiledSolve(torch.autograd.Function):
    """Forward and backward by the compiled kernels."""

    @staticmethod
    def forward(ctx, call, cost, *differentiable):
        batch, chain = kernel_batch(*call.tensors), no_chain()
        if call.dates is not None:
            batch = batch._replace(linear=batch.linear.copy())  # c h is added to it
            chain = kernel_chain(call.dates, cost)
        arrays = solve_compiled(batch, chain, call)
        weights, call.duals, call.states, call.rounds, call.residual = map(torch.from_numpy, arrays)
        call.linear, call.holdings = map(torch.from_numpy, (batch.linear, chain.holdings))
        ctx.call, ctx.batch, ctx.chain, ctx.arrays = call, batch, chain, arrays
        ctx.save_for_backward(weights, cost, *differentiable)  # that changes in place are noticed
        return weights

    @staticmethod
    def backward(ctx, gradient):
        refuse_second_derivative(*ONCE)
        _ = ctx.saved_tensors
        call, chain = ctx.call, ctx.chain
        found = gradients_compiled(ctx.batch, chain, call, ctx.arrays, gradient)
        of_cost = None
        if ctx.needs_input_grad[1]:
            of_cost = torch.from_numpy((found[NAMES.index("linear")] * chain.holdings).sum(1))
        return None, of_cost, *map(torch.from_numpy, compress(found, call.needed))


class BatchedSolve(torch.autograd.Function):
    """Forward and backward in torch; what its rounds do not solve is left to the kernels."""

    @staticmethod
    def forward(ctx, call, cost, *differentiable):
        outputs = solve_batched(call.problem, call.start)
        for sample in (outputs[-1] > EXACT).nonzero().flatten().tolist():
            own = kernel_batch(*(_of_sample(tensor, sample) for tensor in call.tensors))
            solved = solve_compiled(own, no_chain(), Call(call.problem), [sample])
            for output, array in zip(outputs, solved, strict=True):
                output[sample] = torch.from_numpy(array[0]) if array.ndim > 1 else array[0].item()
        if call.entries and isinstance(call.problem.risk, Tensor):
            sound = entries_sound(call.problem.risk).expand(len(outputs[-1]))
            outputs[-1][~sound] = torch.nan
        weights, call.duals, call.states, call.rounds, call.residual = outputs
        ctx.call = call
        ctx.save_for_backward(weights, *differentiable)
        return weights

    @staticmethod
    def backward(ctx, gradient):
        refuse_second_derivative(*ONCE)
        call, weights = ctx.call, ctx.saved_tensors[0]
        found = differentiate_batched(call.problem, weights, call.duals, call.states, gradient)
        return None, None, *(found[name] for name in compress(NAMES, call.needed))


def entries_sound(risk: Tensor) -> Tensor:
    """Which samples of P (1|B, N, N) have ``P_ij^2 <= P_ii P_jj`` everywhere, (1|B,) bool."""
    diagonal = risk.diagonal(dim1=-2, dim2=-1) * (1 + 1e-8) ** 0.5
    return (risk.square() <= diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)).flatten(1).all(1)


def _of_sample(tensor: Tensor | None, sample: int) -> Tensor | None:
    if tensor is None:
        return None
    sample %= tensor.shape[0]
    return tensor[sample : sample + 1].cpu()
