"""The mean-variance problem by an active-set method: exact, and fast because few weights are free.

A compact primal-dual active-set method (a semismooth Newton method; Hintermueller, Ito & Kunisch
2002): guess what holds each weight, solve the equations that follow for the free ones, correct
every guess that the result contradicts, and stop when there is none. In a capped portfolio 10 to
20 of 500 weights are free, so no n^3 work is needed, and the result is exact to rounding.

On the CPU the rounds run in compiled kernels (``active_set_kernels.py``), elsewhere in batched
torch (``active_set_torch.py``). The rare sample whose rounds go in circles is started anew on an
easier problem that is led back to the given one, and if need be walked by a primal method.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from strategies.layers.optimisation.active_set_torch import differentiate_batched, solve_batched
from strategies.layers.optimisation.checks import check_jointly, check_problem, feasible_point
from strategies.layers.optimisation.problem import FactorRisk, Problem, Solution, status_of
from strategies.layers.threads import in_parts

logger = logging.getLogger(__name__)

CHECKS = ("used", "entries", "definite")
NO_MATRIX, NO_VECTOR, NO_TRADE = np.empty((1, 0, 0)), np.empty((1, 0)), np.empty((1, 2, 0))
NAMES = (
    "risk",
    "loadings",
    "specific",
    "linear",
    "lower",
    "upper",
    "rows",
    "row_lower",
    "row_upper",
    "held",
    "cost",
    "turnover_limit",
    "gross_limit",
)


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
        if self.check_risk == "definite":
            check_problem(problem)
        compute = CompiledSolve if problem.lower.device.type == "cpu" else BatchedSolve
        call = Call(problem, start, self.threads, self.check_risk == "entries")
        weights = compute.apply(call, *call.differentiable)
        residual = call.residual
        if ((residual.numpy() if residual.is_cpu else residual) <= self.tolerance).all():
            status = torch.zeros(len(residual), dtype=torch.int8, device=residual.device)
        else:
            status = status_of(residual, self.tolerance)
            check_problem(problem)  # raises where it finds the reason
            check_jointly(problem, status.nonzero().flatten().tolist())
        return Solution(weights, status, call.rounds, residual, call.duals, call.states)


class Call:
    """One solve: what goes in, and what comes out beside the weights, which alone carry gradients.

    Attributes:
        tensors: of the problem, in the order of ``NAMES``.
        entries: whether every entry of P is checked.
        needed: which of them have a gradient.
        differentiable: these.
        duals, states, rounds, residual: as in ``Solution``, after the forward.
    """

    duals: Tensor
    states: Tensor
    rounds: Tensor
    residual: Tensor

    def __init__(
        self,
        problem: Problem,
        start: Tensor | None = None,
        threads: int = 1,
        entries: bool = True,
    ) -> None:
        self.problem = problem
        self.start = start
        self.threads = threads
        self.entries = entries
        self.tensors = problem_tensors(problem)
        self.needed = [tensor is not None and tensor.requires_grad for tensor in self.tensors]
        self.differentiable = list(compress(self.tensors, self.needed))


def problem_tensors(problem: Problem) -> tuple[Tensor | None, ...]:
    """All that has a gradient, in the order of ``NAMES``."""
    risk = problem.risk
    parts = (
        (None, risk.loadings, risk.specific) if isinstance(risk, FactorRisk) else (risk, None, None)
    )
    return (
        *parts,
        problem.expected_return,
        problem.lower,
        problem.upper,
        problem.rows,
        problem.row_lower,
        problem.row_upper,
        problem.held,
        problem.cost,
        problem.turnover_limit,
        problem.gross_limit,
    )


class CompiledSolve(torch.autograd.Function):
    """Forward and backward by the compiled kernels."""

    @staticmethod
    def forward(ctx, call, *differentiable):
        batch = kernel_batch(*call.tensors)
        arrays = solve_compiled(batch, call)
        weights, call.duals, call.states, call.rounds, call.residual = map(torch.from_numpy, arrays)
        ctx.call, ctx.batch, ctx.arrays = call, batch, arrays
        ctx.save_for_backward(weights, *differentiable)  # that changes in place are noticed
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        _ = ctx.saved_tensors
        weights, duals, states = ctx.arrays[:3]
        needed, threads = ctx.call.needed, ctx.call.threads
        found = gradients_compiled(ctx.batch, states, weights, duals, threads, gradient, needed)
        return None, *(torch.from_numpy(array) for array in compress(found, needed))


class BatchedSolve(torch.autograd.Function):
    """Forward and backward in torch; what its rounds do not solve is left to the kernels."""

    @staticmethod
    def forward(ctx, call, *differentiable):
        outputs = solve_batched(call.problem, call.start)
        for sample in outputs[-1].isinf().nonzero().flatten().tolist():
            own = kernel_batch(*(_of_sample(tensor, sample) for tensor in call.tensors))
            solved = solve_compiled(own, Call(call.problem), [sample])
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
    @once_differentiable
    def backward(ctx, gradient):
        call, weights = ctx.call, ctx.saved_tensors[0]
        found = differentiate_batched(call.problem, weights, call.duals, call.states, gradient)
        return None, *(found[name] for name in compress(NAMES, call.needed))


def entries_sound(risk: Tensor) -> Tensor:
    """Which samples of P (1|B, N, N) have ``P_ij^2 <= P_ii P_jj`` everywhere, (1|B,) bool."""
    diagonal = risk.diagonal(dim1=-2, dim2=-1) * (1 + 1e-8) ** 0.5
    return (risk.square() <= diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2)).flatten(1).all(1)


def _of_sample(tensor: Tensor | None, sample: int) -> Tensor | None:
    if tensor is None:
        return None
    sample %= tensor.shape[0]
    return tensor[sample : sample + 1].cpu()


def kernel_batch(*tensors: Tensor | None) -> Any:
    """The arrays that the kernels take. Views where they can be: one layout, one compilation."""

    def view(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.detach().numpy()

    def array(tensor: Tensor | None, missing: np.ndarray) -> np.ndarray:
        return missing if tensor is None else tensor.detach().contiguous().numpy()

    risk, loadings, specific, linear, lower, upper, rows, row_lower, row_upper = tensors[:9]
    held, cost, turnover_limit, gross_limit = tensors[9:]
    expected = array(linear, NO_VECTOR)
    batch, assets = expected.shape
    bounds = np.empty((batch, 2, assets))
    bounds[:, 0], bounds[:, 1] = view(lower), view(upper)
    lowest = view(row_lower)
    limits = np.empty((batch, 2, lowest.shape[1] + 2))
    limits[:, 0, :-2], limits[:, 1, :-2] = lowest, view(row_upper)
    limits[:, 0, -2:] = -np.inf
    limits[:, 1, -2] = np.inf if turnover_limit is None else view(turnover_limit)
    limits[:, 1, -1] = np.inf if gross_limit is None else view(gross_limit)
    return compiled().Batch(
        array(risk, NO_MATRIX),
        array(loadings, NO_MATRIX),
        array(specific, NO_VECTOR),
        expected,
        bounds,
        array(rows, NO_MATRIX),
        limits,
        NO_TRADE if held is None else np.stack([view(held), view(cost)], axis=1),
        gross_limit is not None,
    )


def part_of(batch: Any, part: slice, count: int | None = None) -> Any:
    """Some samples of a ``Batch`` or ``Row``; arrays that all share stay whole."""
    count = batch.linear.shape[0] if count is None else count
    return type(batch)(
        *(
            array if isinstance(array, bool) or array.shape[0] != count else array[part]
            for array in batch
        )
    )


def solve_compiled(
    batch: Any, call: Call, samples: Sequence[int] | None = None, row: Any = None
) -> tuple[np.ndarray, ...]:
    """Weights (B, N), duals (B, R + 2), states, rounds and residual (B,).

    Args:
        batch: of the problem of ``call``, or of those of its samples that are named.
        row: a ``Row`` of the kernels, where the samples are dates in a row.
    """
    kernels = compiled()
    row = no_row() if row is None else row
    count, assets = batch.linear.shape
    width = batch.limits.shape[2]
    states = _first_states(call.start, count, assets + width)
    weights, duals = np.zeros((count, assets)), np.zeros((count, width))
    rounds, status = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    outputs: tuple[np.ndarray, ...] = states, weights, duals, rounds, np.zeros(count), status
    by_rounds = np.empty((0, assets))
    whole = slice(0, count)

    def walk(sample: int) -> None:
        """Solve one whose rounds went in circles from a feasible point, if there is any."""
        number = sample if samples is None else samples[sample]
        point, lacking = feasible_point(call.problem, number)
        if not lacking:
            part = slice(sample, sample + 1)
            own = [output[part] for output in outputs]
            one = part_of(batch, part)
            kernels.solve_batch(one, no_row(), 0, call.entries, point[None], *own)

    def work(part: slice) -> None:
        one, theirs, own = batch, row, outputs
        if part != whole:
            one, theirs = part_of(batch, part), part_of(row, part, count)
            own = tuple(output[part] for output in outputs)
        size, done = part.stop - part.start, 0
        while True:
            done = kernels.solve_batch(one, theirs, done, call.entries, by_rounds, *own)
            if done == size:
                break
            walk(part.start + done)
            done += 1

    in_parts(count, min(call.threads, count), work, row.begins)
    if not len(row.begins):
        for sample in np.flatnonzero(status == kernels.STALLED) if status.any() else ():
            walk(int(sample))
    return weights, duals, states, rounds, outputs[4]


def _first_states(start: Tensor | None, count: int, width: int) -> np.ndarray:
    """The states (B, N + R + 2) to start from, free to be written; -1 in front for a cold start."""
    if start is None:
        states = np.empty((count, width), dtype=np.int8)
        states[:, 0] = -1
        return states
    if start.shape != (count, width):
        raise ValueError(f"start must have shape ({count}, {width}), got {tuple(start.shape)}")
    return start.to(device="cpu", dtype=torch.int8, copy=True).contiguous().numpy()


def gradients_compiled(
    batch: Any,
    states: np.ndarray,
    weights: np.ndarray,
    duals: np.ndarray,
    threads: int,
    gradient: Tensor,
    needed: list[bool],
    row: Any = None,
) -> tuple[np.ndarray, ...]:
    """Gradients in the order of ``NAMES``, right where needed.

    Args:
        row: that of ``solve_compiled``, as it has left it.
    """
    kernels = compiled()
    row = no_row() if row is None else row
    incoming = gradient.detach().contiguous().numpy()
    if len(row.begins):
        incoming = incoming.copy()  # it is added to
    risk = any(needed[:3])
    wanted = np.array([risk, needed[4] or needed[5] or needed[9], needed[6]])
    # np.zeros leaves memory untouched until written, and only few rows of the risk ever are
    out = kernels.Batch(
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
    count = batch.linear.shape[0]
    lock = threading.Lock()

    def work(part: slice) -> None:
        given: tuple[np.ndarray, ...] = states, weights, duals, incoming
        if part == slice(0, count):
            kernels.differentiate_batch(batch, row, *given, out, wanted)
            return
        one, theirs = part_of(batch, part), part_of(row, part, count)
        given = tuple(array[part] for array in given)
        # what all samples share, each thread adds up for itself
        own = kernels.Batch(
            *(
                array
                if isinstance(array, bool)
                else (array[part] if array.shape[0] == count else np.zeros_like(array))
                for array in out
            )
        )
        kernels.differentiate_batch(one, theirs, *given, own, wanted)
        with lock:
            for array, addend in zip(out[:-1], own[:-1], strict=True):
                if array.shape[0] != count:
                    array += addend

    in_parts(count, min(threads, count), work, row.begins)
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


@cache
def no_row() -> Any:
    """The ``Row`` of samples that do not depend on each other."""
    empty = np.empty((0, 0))
    return compiled().Row(np.empty(0, dtype=np.bool_), np.empty(0), empty, empty.copy())


@cache
def compiled() -> Any:
    """The kernels' module, compiled; says so if that takes a while (once per installation)."""
    note = threading.Timer(
        3.0,
        logger.warning,
        ("compiling the mean-variance kernels, about 20 seconds, once per installation",),
    )
    note.start()
    try:
        from strategies.layers.optimisation import active_set_kernels as kernels

        ones = np.ones((1, 1))
        limits = np.array([[[1.0, -np.inf, -np.inf], [1.0, np.inf, np.inf]]])
        batch = kernels.Batch(
            ones[None],
            np.empty((1, 0, 0)),
            np.empty((1, 0)),
            ones,
            np.array([[[0.0], [1.0]]]),
            ones[None],
            limits,
            np.empty((1, 2, 0)),
            False,
        )
        states = np.full((1, 4), -1, dtype=np.int8)
        weights, duals, residual = np.zeros((1, 1)), np.zeros((1, 3)), np.zeros(1)
        rounds, status = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        row = kernels.Row(np.empty(0, dtype=np.bool_), np.empty(0), *np.empty((2, 0, 0)))
        outputs = states, weights, duals, rounds, residual, status
        kernels.solve_batch(batch, row, 0, True, np.empty((0, 1)), *outputs)
        out = kernels.Batch._make([*map(np.zeros_like, batch[:-1]), False])
        wanted = np.zeros(3, dtype=np.bool_)
        kernels.differentiate_batch(batch, row, states, weights, duals, ones, out, wanted)
    finally:
        note.cancel()
    return kernels
