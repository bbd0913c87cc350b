"""ActiveSet: the active-set method as a differentiable solver.

From a problem's tensors to the arrays of the compiled kernels, and back. They run on the CPU: a
problem on another device is copied there, and its solution back.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cache
from itertools import compress
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from strategies.layers.kernel_calls import in_parts, refuse_second_derivative, run_kernel
from strategies.layers.optimisation.checks import check_jointly, check_problem, kkt_residual
from strategies.layers.optimisation.problem import (
    ONCE,
    FactorRisk,
    Problem,
    Solution,
    build_problem,
    status_of,
)

WORDS = "the mean-variance kernels, half a minute, once per installation"
CHECKS = ("used", "entries", "definite")
NO_MATRIX, NO_VECTOR, NO_TRADE = np.empty((1, 0, 0)), np.empty((1, 0)), np.empty((1, 2, 0))
RIDGE = 1e-12  # of a variance that is lost beside P: the optimality conditions miss by no more
# All of a problem that has a gradient: P, or its two factors, q and the attributes of ``Problem``.
NAMES = (
    *("risk", "loadings", "specific", "linear", "lower", "upper", "rows", "row_lower", "row_upper"),
    *("holdings", "cost", "turnover_limit", "gross_limit"),
)


class Dates(NamedTuple):
    """What makes samples consecutive dates, see ``Chain`` of the kernels; without gradients."""

    begins: Tensor  # (B,) bool
    growth: Tensor  # (B, N)
    rates: Tensor  # (B, 3)


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
        return self._solved(problem, start, None, None)[0]

    def solve_dates(
        self, problem: Problem, cost: Tensor, dates: Dates
    ) -> tuple[Solution, Tensor, Tensor]:
        """Solve consecutive dates, each with the linear term q + c h.

        Args:
            problem: where it has turnover terms, their holdings become h.
            cost: c (B,), zero where a chain of dates begins.

        Returns:
            The solution, q + c h (B, N), and h (B, N).
        """
        return self._solved(problem, None, cost, dates)

    def _solved(
        self, problem: Problem, start: Tensor | None, cost: Tensor | None, dates: Dates | None
    ) -> tuple[Solution, Tensor, Tensor]:
        device = problem.lower.device
        if device.type != "cpu":
            problem = problem.each_tensor(Tensor.cpu)
            cost = None if cost is None else cost.cpu()
            dates = None if dates is None else Dates(*map(Tensor.cpu, dates))
        if self.check_risk == "definite":
            check_problem(problem)
        call = Call(problem, start, self.threads, self.check_risk == "entries", dates)
        weights = CompiledSolve.apply(call, cost, *call.differentiable)
        residual = call.residual
        if (residual.numpy() <= self.tolerance).all():
            status = torch.zeros(len(residual), dtype=torch.int8)
        else:
            status = status_of(residual, self.tolerance)
            check_problem(problem)  # raises where it finds the reason
            check_jointly(problem, status.nonzero().flatten().tolist())
        parts = [weights, status, call.rounds, residual, call.duals, call.states]
        *parts, linear, holdings = (
            each.to(device) for each in (*parts, call.linear, call.holdings)
        )
        return Solution(*parts), linear, holdings


class Call:
    """One solve: what goes in, and what comes out beside the weights, which alone carry gradients.

    Attributes:
        entries: whether every entry of P is checked.
        dates: where the samples are consecutive dates.
        needed: of ``NAMES``, which have a gradient.
        differentiable: these tensors.
        duals, states, rounds, residual: as in ``Solution``, after the forward.
        linear: (B, N) the linear term that was solved, q + c h on consecutive dates.
        holdings: (B, N) h on consecutive dates.
    """

    duals: Tensor
    states: Tensor
    rounds: Tensor
    residual: Tensor
    linear: Tensor
    holdings: Tensor

    def __init__(
        self,
        problem: Problem,
        start: Tensor | None = None,
        threads: int = 1,
        entries: bool = True,
        dates: Dates | None = None,
    ) -> None:
        self.problem, self.start, self.threads = problem, start, threads
        self.entries, self.dates = entries, dates
        tensors: list[Tensor | None] = [None, None, None, problem.expected_return]
        if isinstance(problem.risk, FactorRisk):
            tensors[1:3] = problem.risk.loadings, problem.risk.specific
        else:
            tensors[0] = problem.risk
        tensors += [getattr(problem, name) for name in NAMES[4:]]
        self.needed = [tensor is not None and tensor.requires_grad for tensor in tensors]
        self.differentiable = list(compress(tensors, self.needed))


class CompiledSolve(torch.autograd.Function):
    """Forward and backward by the compiled kernels."""

    @staticmethod
    def forward(ctx, call, cost, *differentiable):
        batch, chain = kernel_batch(call.problem), no_chain()
        if call.dates is not None:
            batch = batch._replace(linear=batch.linear.copy())  # c h is added to it
            begins, growth, rates = map(_array, call.dates)
            chain = kernels().Chain(begins, _array(cost), growth, rates, np.zeros_like(growth))
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


def _array(tensor: Tensor) -> np.ndarray:
    """A view where it can be, C-contiguous: one layout, one compilation."""
    return np.asarray(tensor.detach().contiguous().numpy())


def kernel_batch(problem: Problem) -> Any:
    """The ``Batch`` of the kernels."""
    risk, expected = problem.risk, _array(problem.expected_return)
    batch, assets = expected.shape
    parts = [NO_MATRIX, NO_MATRIX, NO_VECTOR]
    if isinstance(risk, FactorRisk):
        parts[1:] = _array(risk.loadings), _array(risk.specific)
    else:
        parts[0] = _array(risk)
    bounds = np.empty((batch, 2, assets))
    bounds[:, 0], bounds[:, 1] = problem.lower.detach().numpy(), problem.upper.detach().numpy()
    least, most = problem.row_lower.detach().numpy(), problem.row_upper.detach().numpy()
    limits = np.empty((batch, 2, least.shape[1] + 2))
    limits[:, 0, :-2], limits[:, 1, :-2] = least, most
    limits[:, 0, -2:] = -np.inf
    for place, limit in ((-2, problem.turnover_limit), (-1, problem.gross_limit)):
        limits[:, 1, place] = np.inf if limit is None else limit.detach().numpy()
    trade = NO_TRADE
    if problem.holdings is not None and problem.cost is not None:
        terms = problem.holdings.detach().numpy(), problem.cost.detach().numpy()
        trade = np.stack(terms, axis=1)
    gross = problem.gross_limit is not None
    return kernels().Batch(*parts, expected, bounds, _array(problem.rows), limits, trade, gross)


@cache
def no_chain() -> Any:
    """The ``Chain`` of samples that do not depend on each other."""
    none, empty = np.empty(0, dtype=np.bool_), np.empty((0, 0))
    return kernels().Chain(none, np.empty(0), empty, empty.copy(), empty.copy())


def solve_compiled(batch: Any, chain: Any, call: Call) -> tuple[np.ndarray, ...]:
    """Weights (B, N), duals (B, R + 2), states, rounds and residual (B,)."""
    solve, solved, refused = kernels().solve_batch, kernels().SOLVED, kernels().REFUSED
    count, assets = batch.linear.shape
    width = batch.limits.shape[2]
    shape = count, assets + width
    if call.start is None:
        states = np.empty(shape, dtype=np.int8)
        states[:, 0] = -1  # a cold start
    elif call.start.shape != shape:
        raise ValueError(f"start must have shape {shape}, got {tuple(call.start.shape)}")
    else:  # free to be written
        states = call.start.to(device="cpu", dtype=torch.int8, copy=True).contiguous().numpy()
    weights, duals, residual = np.zeros((count, assets)), np.zeros((count, width)), np.zeros(count)
    rounds, status = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    outputs = states, weights, duals, rounds, residual, status

    def again(sample: int) -> None:
        """Solve one that was not: cold if it had a start, then with more variance (``RIDGE``)."""
        if status[sample] == refused:
            return
        part = slice(sample, sample + 1)
        one, own = _part_of(batch, part, count), [output[part] for output in outputs]
        ridges = (0.0, RIDGE) if call.start is not None or len(chain.begins) else (RIDGE,)
        problem = call.problem.of_samples(torch.tensor([sample])).each_tensor(Tensor.detach)
        risk = problem.risk
        if isinstance(risk, FactorRisk):
            definite = bool((risk.specific > 0).all())
        else:
            definite = not bool(torch.linalg.cholesky_ex(risk).info.any())
        for ridge in ridges:
            if ridge and not definite:
                return
            states[sample, 0] = -1
            run_kernel(solve, WORDS, with_ridge(one, ridge), no_chain(), 0, call.entries, *own)
            if status[sample] == solved:
                break
        if ridge and status[sample] == solved:
            problem = replace(problem, expected_return=torch.from_numpy(batch.linear[part]))
            if len(chain.begins) and problem.holdings is not None:
                problem = replace(problem, holdings=torch.from_numpy(chain.holdings[part]))
            residual[part] = kkt_residual(
                problem, torch.from_numpy(weights[part]), torch.from_numpy(duals[part])
            )

    def work(part: slice) -> None:
        given = _part_of(batch, part, count), _part_of(chain, part, count)
        own = [output[part] for output in outputs]
        size, done = part.stop - part.start, 0
        while True:
            done = run_kernel(solve, WORDS, *given, done, call.entries, *own)
            if done == size:
                break
            again(part.start + done)  # of consecutive dates the next depends on it
            done += 1

    in_parts(count, min(call.threads, count), work, chain.begins)
    if not len(chain.begins):
        for sample in np.flatnonzero(status != solved) if status.any() else ():
            again(int(sample))
    return weights, duals, states, rounds, residual


def with_ridge(batch: Any, ridge: float) -> Any:
    """A ``Batch`` whose variances are larger by that part of them."""
    if not ridge:
        return batch
    if batch.specific.shape[1]:
        variance = np.square(batch.loadings).sum(2) + batch.specific
        return batch._replace(specific=batch.specific + ridge * variance)
    risk = batch.risk.copy()
    diagonal = np.einsum("bii->bi", risk)
    diagonal *= 1 + ridge
    return batch._replace(risk=risk)


def gradients_compiled(
    batch: Any, chain: Any, call: Call, solution: tuple[np.ndarray, ...], gradient: Tensor
) -> tuple[np.ndarray, ...]:
    """Gradients in the order of ``NAMES``, right where needed.

    Args:
        batch, chain: of ``solve_compiled``, as it has left them. solution: what it returned.
        gradient: (B, N) of the weights.
    """
    weights, duals, states = solution[:3]
    needed = call.needed
    incoming = gradient.detach().contiguous().numpy()
    if len(chain.begins):
        incoming = incoming.copy()  # it is added to
    risk = any(needed[:3])
    traded = len(chain.begins) > 0 and batch.trade.shape[2] > 0  # gradients pass through holdings
    wanted = np.array([risk, needed[4] or needed[5] or needed[9] or traded, needed[6]])
    # np.zeros leaves memory untouched until written, and only few rows of the risk ever are
    out = kernels().Batch(
        np.zeros(batch.risk.shape) if risk else NO_MATRIX,
        np.zeros(batch.loadings.shape) if risk else NO_MATRIX,
        np.zeros(batch.specific.shape) if risk else NO_VECTOR,
        np.zeros(batch.linear.shape),
        np.zeros(batch.bounds.shape),
        np.zeros(batch.rows.shape) if needed[6] else NO_MATRIX,
        np.zeros(batch.limits.shape),
        np.zeros(batch.trade.shape),
        batch.gross,
    )
    count = len(batch.linear)
    lock = threading.Lock()

    def work(part: slice) -> None:
        given = [array[part] for array in (states, weights, duals, incoming)]
        one, theirs = _part_of(batch, part, count), _part_of(chain, part, count)
        own = _part_of(out, part, count)
        if own is not out:  # what all samples share, each thread adds up for itself
            own = own._make(
                np.zeros_like(mine) if mine is shared and mine is not batch.gross else mine
                for mine, shared in zip(own, out, strict=True)
            )
        run_kernel(kernels().differentiate_batch, WORDS, one, theirs, *given, own, wanted)
        with lock:
            for mine, shared in zip(own[:-1], out[:-1], strict=True):
                if own is not out and len(shared) != count:
                    shared += mine

    in_parts(count, min(call.threads, count), work, chain.begins)
    bounds, limits, trade = out.bounds, out.limits, out.trade
    return (
        out.risk,
        out.loadings,
        out.specific,
        out.linear,
        bounds[:, 0],
        bounds[:, 1],
        out.rows,
        limits[:, 0, :-2],
        limits[:, 1, :-2],
        trade[:, 0],
        trade[:, 1],
        limits[:, 1, -2],
        limits[:, 1, -1],
    )


def compile_gradients() -> None:
    """Compile the kernel of the gradients, by those of no sample: nothing is solved before."""
    call = Call(build_problem(torch.eye(1, dtype=torch.float64).requires_grad_(), torch.zeros(1)))
    batch = _part_of(kernel_batch(call.problem), slice(0, 0), 1)
    none, width = np.zeros((0, 1)), batch.limits.shape[2]
    states = np.zeros((0, 1 + width), np.int8)
    solution = none, np.zeros((0, width)), states
    gradients_compiled(batch, no_chain(), call, solution, torch.from_numpy(none))


def _part_of(arrays: Any, part: slice, count: int) -> Any:
    """Some samples of a ``Batch`` or ``Chain`` of ``count``; what they share stays whole."""
    if part == slice(0, count):
        return arrays
    return type(arrays)(
        *(
            array if isinstance(array, bool) or len(array) != count else array[part]
            for array in arrays
        )
    )


@cache
def kernels() -> ModuleType:
    """The module of the kernels, imported where it is needed: it imports Numba."""
    from strategies.layers.optimisation.active_set import kernels

    return kernels
