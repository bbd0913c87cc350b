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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from strategies.layers.checks import check_jointly, check_problem, feasible_point
from strategies.layers.problem import FactorRisk, Problem, Solution

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActiveSet:
    """Solve by the active-set method.

    It looks only at the part of P that the solution depends on: a NaN, an asymmetry or a negative
    direction of P elsewhere goes unnoticed unless ``check_risk`` is set, which costs more than
    the solve (it reads all of P and factors it).

    Args:
        tolerance: relative KKT residual above which a sample has not converged.
        threads: over which the batch is spread on the CPU.
        check_risk: whether every entry of P is checked, and that P is positive definite.
    """

    tolerance: float = 1e-10
    threads: int = 1
    check_risk: bool = False

    def solve(self, problem: Problem, start: Tensor | None = None) -> Solution:
        """Solve; errors as in ``Solver``."""
        if self.check_risk:
            check_problem(problem)
        tensors = _tensors(problem)
        weights, duals, states, rounds, residual = _Solve.apply(
            problem, start, self.threads, *tensors
        )
        converged = residual <= self.tolerance
        if not bool(converged.all()):
            check_problem(problem)  # raises where it finds the reason
            check_jointly(problem, (~converged).nonzero().flatten().tolist())
        return Solution(weights, converged, rounds, residual, duals, states)


def _tensors(problem: Problem) -> tuple[Tensor | None, ...]:
    """All that has a gradient, in the order of ``_Solve``."""
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


class _Solve(torch.autograd.Function):
    """Forward and backward by the compiled kernels."""

    @staticmethod
    def forward(ctx, problem, start, threads, *tensors):
        batch = _batch(*tensors)
        weights, duals, states, rounds, residual = _solve_batch(batch, problem, start, threads)
        ctx.saved = batch, states, weights, duals, threads
        outputs = tuple(
            torch.from_numpy(part) for part in (weights, duals, states, rounds, residual)
        )
        ctx.mark_non_differentiable(*outputs[1:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, *_):
        return None, None, None, *_gradients(*ctx.saved, gradient, ctx.needs_input_grad[3:])


def _batch(*tensors: Tensor | None) -> Any:
    """The arrays that the kernels take. Views where they can be: one layout, one compilation."""
    from strategies.layers.active_set_kernels import Batch

    arrays = [None if t is None else t.detach().contiguous().numpy() for t in tensors]
    risk, loadings, specific, linear, lower, upper, rows, row_lower, row_upper = arrays[:9]
    held, cost, turnover_limit, gross_limit = arrays[9:]
    batch, assets = linear.shape
    bounds = np.empty((batch, 2, assets))
    bounds[:, 0], bounds[:, 1] = lower, upper
    limits = np.empty((batch, 2, row_lower.shape[1] + 2))
    limits[:, 0, :-2], limits[:, 1, :-2] = row_lower, row_upper
    limits[:, 0, -2:] = -np.inf
    limits[:, 1, -2] = np.inf if turnover_limit is None else turnover_limit
    limits[:, 1, -1] = np.inf if gross_limit is None else gross_limit
    trade = np.empty((1, 2, 0))
    if held is not None:
        trade = np.stack([held, cost], axis=1)
    return Batch(
        np.empty((1, 0, 0)) if risk is None else risk,
        np.empty((1, 0, 0)) if loadings is None else loadings,
        np.empty((1, 0)) if specific is None else specific,
        linear,
        bounds,
        rows,
        limits,
        trade,
        gross_limit is not None,
    )


def _part(batch: Any, part: slice) -> Any:
    """Some samples of the batch; arrays that all share stay whole."""
    count = batch.linear.shape[0]
    return type(batch)(
        *(
            array if isinstance(array, bool) or array.shape[0] != count else array[part]
            for array in batch
        )
    )


def _run(work: Callable[[slice, Any], None], batch: Any, threads: int) -> None:
    """Call ``work`` on the batch, in one part a thread; the kernels release the GIL."""
    count = batch.linear.shape[0]
    threads = min(threads, count)
    if threads == 1:
        work(slice(0, count), batch)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    parts = [slice(low, high) for low, high in pairwise(edges)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, part, _part(batch, part)) for part in parts]:
            done.result()


def _solve_batch(
    batch: Any, problem: Problem, start: Tensor | None, threads: int
) -> tuple[np.ndarray, ...]:
    """Weights (B, N), duals (B, R + 2), states, rounds and residual (B,)."""
    kernels = compiled()
    count, assets = batch.linear.shape
    width = batch.limits.shape[2]
    if start is None:
        states = np.empty((count, assets + width), dtype=np.int8)
        states[:, 0] = -1
    else:
        if start.shape != (count, assets + width):
            raise ValueError(
                f"start must have shape ({count}, {assets + width}), got {tuple(start.shape)}"
            )
        states = start.to(device="cpu", dtype=torch.int8, copy=True).contiguous().numpy()
    weights, duals = np.zeros((count, assets)), np.zeros((count, width))
    rounds, status = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    residual = np.zeros(count)

    def work(part: slice, of_part: Any, points: np.ndarray | None = None) -> None:
        kernels.solve_batch(
            of_part,
            np.empty((0, assets)) if points is None else points,
            states[part],
            weights[part],
            duals[part],
            rounds[part],
            residual[part],
            status[part],
        )

    _run(work, batch, threads)
    for sample in np.flatnonzero(status == kernels.STALLED):
        point, lacking = feasible_point(problem, int(sample))
        if not lacking:
            part = slice(sample, sample + 1)
            work(part, _part(batch, part), point[None])
    return weights, duals, states, rounds, residual


def _gradients(
    batch: Any,
    states: np.ndarray,
    weights: np.ndarray,
    duals: np.ndarray,
    threads: int,
    gradient: Tensor,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients of the tensors of ``_tensors``, None where not needed."""
    kernels = compiled()
    incoming = gradient.detach().contiguous().numpy()
    risk = any(needed[:3])
    wanted = np.array([risk, needed[4] or needed[5] or needed[9], needed[6]])
    # np.zeros leaves memory untouched until written, and only few rows of the risk ever are
    out = kernels.Batch(
        np.zeros(batch.risk.shape if risk else (1, 0, 0)),
        np.zeros(batch.loadings.shape if risk else (1, 0, 0)),
        np.zeros(batch.specific.shape if risk else (1, 0)),
        np.zeros(batch.linear.shape),
        np.zeros(batch.bounds.shape),
        np.zeros(batch.rows.shape if needed[6] else (1, 0, 0)),
        np.zeros(batch.limits.shape),
        np.zeros(batch.trade.shape),
        batch.gross,
    )
    count = batch.linear.shape[0]
    lock = threading.Lock()

    def work(part: slice, of_part: Any) -> None:
        whole = part == slice(0, count)
        # what all samples share, each thread adds up for itself
        own = kernels.Batch(
            *(
                array
                if whole or isinstance(array, bool)
                else (array[part] if array.shape[0] == count else np.zeros_like(array))
                for array in out
            )
        )
        kernels.differentiate_batch(
            of_part, states[part], weights[part], duals[part], incoming[part], own, wanted
        )
        if not whole:
            with lock:
                for array, addend in zip(out[:-1], own[:-1], strict=True):
                    if array.shape[0] != count:
                        array += addend

    _run(work, batch, threads)
    bounds, limits, trade = out.bounds, out.limits, out.trade
    gradients = (
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
    return tuple(
        torch.from_numpy(array) if need else None
        for array, need in zip(gradients, needed, strict=True)
    )


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
        from strategies.layers import active_set_kernels as kernels

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
        kernels.solve_batch(
            batch, np.empty((0, 1)), states, weights, duals, rounds, residual, status
        )
        out = kernels.Batch(*(np.zeros_like(array) for array in batch[:-1]), False)
        kernels.differentiate_batch(
            batch, states, weights, duals, ones, out, np.zeros(3, dtype=np.bool_)
        )
    finally:
        note.cancel()
    return kernels
