"""From a problem's tensors to the arrays of the compiled kernels, and back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import compress
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from strategies.layers.optimisation.checks import kkt_residual
from strategies.layers.optimisation.problem import FactorRisk, Problem, build_problem
from strategies.layers.threads import in_parts

logger = logging.getLogger(__name__)

NO_MATRIX, NO_VECTOR, NO_TRADE = np.empty((1, 0, 0)), np.empty((1, 0)), np.empty((1, 2, 0))
RIDGE = 1e-12  # of a variance that is lost beside P: the optimality conditions miss by no more
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
    "holdings",
    "cost",
    "turnover_limit",
    "gross_limit",
)


class Dates(NamedTuple):
    """What makes samples consecutive dates, see ``Chain`` of the kernels; without gradients."""

    begins: Tensor  # (B,) bool
    growth: Tensor  # (B, N)
    rates: Tensor  # (B, 3)


class Call:
    """One solve: what goes in, and what comes out beside the weights, which alone carry gradients.

    Attributes:
        tensors: of the problem, in the order of ``NAMES``.
        entries: whether every entry of P is checked.
        dates: where the samples are consecutive dates.
        needed: which of the tensors have a gradient.
        differentiable: these.
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
        self.problem = problem
        self.start = start
        self.threads = threads
        self.entries = entries
        self.dates = dates
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
        *(getattr(problem, name) for name in NAMES[4:]),
    )


def kernel_batch(*tensors: Tensor | None) -> Any:
    """The ``Batch`` of the kernels. Views where they can be: one layout, one compilation."""

    def view(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.detach().numpy()

    def array(tensor: Tensor | None, missing: np.ndarray) -> np.ndarray:
        return missing if tensor is None else tensor.detach().contiguous().numpy()

    risk, loadings, specific, linear, lower, upper, rows, row_lower, row_upper = tensors[:9]
    holdings, cost, turnover_limit, gross_limit = tensors[9:]
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
    return kernels().Batch(
        array(risk, NO_MATRIX),
        array(loadings, NO_MATRIX),
        array(specific, NO_VECTOR),
        expected,
        bounds,
        array(rows, NO_MATRIX),
        limits,
        NO_TRADE if holdings is None else np.stack([view(holdings), view(cost)], axis=1),
        gross_limit is not None,
    )


def kernel_chain(dates: Dates, cost: Tensor) -> Any:
    """The ``Chain`` of the kernels; cost is (B,)."""
    begins, growth, rates = (each.detach().contiguous().numpy() for each in dates)
    cost = cost.detach().contiguous()
    return kernels().Chain(begins, cost.numpy(), growth, rates, np.zeros_like(growth))


@cache
def no_chain() -> Any:
    """The ``Chain`` of samples that do not depend on each other."""
    none, empty = np.empty(0, dtype=np.bool_), np.empty((0, 0))
    return kernels().Chain(none, np.empty(0), empty, empty.copy(), empty.copy())


def solve_compiled(
    batch: Any, chain: Any, call: Call, samples: Sequence[int] | None = None
) -> tuple[np.ndarray, ...]:
    """Weights (B, N), duals (B, R + 2), states, rounds and residual (B,).

    Args:
        batch: of the problem of ``call``, or of those of its samples that are named.
    """
    solve, solved, refused = kernels().solve_batch, kernels().SOLVED, kernels().REFUSED
    count, assets = batch.linear.shape
    width = batch.limits.shape[2]
    states = _first_states(call.start, count, assets + width)
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
        number = sample if samples is None else samples[sample]
        problem = call.problem.of_samples(torch.tensor([number])).each_tensor(
            lambda tensor: tensor.detach().cpu()
        )
        for ridge in ridges:
            if ridge and not positive_definite(problem):
                return
            states[sample, 0] = -1
            _run(solve, with_ridge(one, ridge), no_chain(), 0, call.entries, *own)
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
            done = _run(solve, *given, done, call.entries, *own)
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


def positive_definite(problem: Problem) -> bool:
    """Whether P is, of all samples."""
    risk = problem.risk
    if isinstance(risk, FactorRisk):
        return bool((risk.specific > 0).all())
    return not bool(torch.linalg.cholesky_ex(risk).info.any())


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
        _run(kernels().differentiate_batch, one, theirs, *given, own, wanted)
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
    batch = _part_of(kernel_batch(*call.tensors), slice(0, 0), 1)
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


def _run(kernel: Any, *arguments: Any) -> Any:
    """Call a kernel; where it has to be compiled first, say so if that takes a while."""
    if kernel.overloads:
        return kernel(*arguments)
    words = "compiling the mean-variance kernels, half a minute, once per installation"
    note = threading.Timer(3.0, logger.warning, (words,))
    note.start()
    try:
        return kernel(*arguments)
    finally:
        note.cancel()


@cache
def kernels() -> ModuleType:
    """The module of the kernels, imported where it is needed: it imports Numba."""
    from strategies.layers.optimisation.active_set import kernels

    return kernels
