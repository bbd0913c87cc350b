"""The mean-field cell's equilibrium on the CPU, by compiled kernels, with its exact gradient.

The same fixed point, steps, stopping rule and record as ``fixed_point`` with ``Picard`` or
``Anderson``, and ``Implicit`` of either, in a fifth of the time; and of several networks at once,
each sample computed as it would be alone, to the last bit.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strategies.layers.equilibrium.iteration import OnFailure, Solution, check_tolerance, conclude
from strategies.layers.equilibrium.solvers import Anderson, Picard, Solver
from strategies.layers.solve_record import SolveRecord, open_record
from strategies.layers.threads import in_parts

logger = logging.getLogger(__name__)

FEWEST = 64  # samples for which a thread of their own is worth starting


def compilable(z: Tensor, solver: Solver, adjoint: Solver) -> bool:
    """Whether the kernels do what these solvers would do on the state ``z``."""
    known = all(
        type(each) is Anderson or (type(each) is Picard and each.damping == 0)
        for each in (solver, adjoint)
    )
    return known and z.device.type == "cpu" and z.dtype == torch.float64


def mean_field_equilibrium(
    W1: Tensor,
    W2: Tensor,
    sizes: Sequence[int],
    drive: Tensor,
    present: Tensor,
    solver: Solver,
    adjoint: Solver,
    on_failure: OnFailure = "raise",
) -> Solution:
    """Solve ``Z = tanh(Z W1 + mean(Z) W2 + drive)``, the mean over the assets that trade.

    Args:
        W1, W2: (S, H, H) of S networks.
        sizes: how many samples each network has, in order; M together.
        drive: (M, N, H), with a gradient as W1 and W2.
        present: (M, N, 1), 1 where an asset trades, else 0; Z is zero there.
        solver, adjoint, on_failure: as for ``fixed_point`` and ``Implicit``; see ``compilable``.

    Raises:
        ConvergenceError: as ``fixed_point``.
    """
    check_tolerance(solver, drive.dtype)
    check_tolerance(adjoint, drive.dtype)
    call = _Call(tuple(sizes), solver, adjoint, on_failure, open_record())
    value = _Equilibrium.apply(W1, W2, drive, present.squeeze(2), call)
    return conclude(
        Solution(value, call.residual <= solver.rtol, call.steps, call.residual),
        solver,
        call.midway,
        kind="fixed point",
        on_failure=on_failure,
        record=call.record,
    )


@dataclass
class _Call:
    """One solve: what goes in beside the tensors, and what comes out beside the value."""

    sizes: tuple[int, ...]
    solver: Solver
    adjoint: Solver
    on_failure: OnFailure
    record: SolveRecord | None  # the one of the forward solve, whenever backward runs
    residual: Tensor = field(default_factory=lambda: torch.empty(0))
    midway: Tensor = field(default_factory=lambda: torch.empty(0))
    steps: Tensor = field(default_factory=lambda: torch.empty(0))

    def owners(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


class _Equilibrium(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, W1: Tensor, W2: Tensor, drive: Tensor, present: Tensor, call: _Call
    ) -> Tensor:
        value, call.residual, call.midway, call.steps = _run(
            compiled().solve_equilibria,
            call.solver,
            (W1, W2),
            call.owners(),
            (drive, present),
        )
        ctx.call = call
        ctx.save_for_backward(W1, W2, present, value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # as in fixed_point.py: once_differentiable may pass in silence
            raise RuntimeError(
                "this equilibrium's gradient is not differentiable (create_graph=True): give the "
                "encoder adjoint=Unrolled() for second derivatives"
            )
        W1, W2, present, value = ctx.saved_tensors
        call: _Call = ctx.call
        pulled, residual, midway, steps = _run(
            compiled().solve_adjoints,
            call.adjoint,
            (W1.mT, W2.mT),
            call.owners(),
            (value, present, grad),
        )
        conclude(
            Solution(pulled, residual <= call.adjoint.rtol, steps, residual),
            call.adjoint,
            midway,
            kind="adjoint",
            on_failure=call.on_failure,
            record=call.record,
        )
        share = 1 / present.sum(1, keepdim=True).clamp_min(1)  # (M, 1)
        means, sums = value.sum(1) * share, pulled.sum(1)  # (M, H)
        found = [
            (z.flatten(0, 1).mT @ t.flatten(0, 1), mean.mT @ total)
            for z, t, mean, total in zip(
                *(part.split(call.sizes) for part in (value, pulled, means, sums)), strict=True
            )
        ]
        first, second = (torch.stack(each) for each in zip(*found, strict=True))
        return first, second, pulled, None, None


def _run(
    kernel: Any,
    solver: Solver,
    weights: tuple[Tensor, Tensor],
    owner: np.ndarray,
    tensors: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Call a kernel on the batch, in one part for each of torch's threads; it releases the GIL."""
    matrices = [each.detach().contiguous().numpy() for each in weights]
    arrays = [each.detach().contiguous().numpy() for each in tensors]
    count = len(owner)
    found = np.empty(arrays[0].shape)
    residual, midway = np.zeros(count), np.zeros(count)
    steps = np.zeros(count, dtype=np.int64)
    mixing = (0, 0.0, 0.0)
    if isinstance(solver, Anderson):
        mixing = int(solver.memory), float(solver.least_ridge(torch.float64)), float(solver.onset)
    most = int(solver.max_steps)
    limits = (float(solver.rtol), float(solver.atol / solver.rtol), most, *mixing)

    def work(part: slice) -> None:
        own = (array[part] for array in arrays)
        out = (array[part] for array in (found, residual, midway, steps))
        kernel(*matrices, owner[part], *own, limits, *out)

    in_parts(count, min(torch.get_num_threads(), count // FEWEST), work)
    return tuple(map(torch.from_numpy, (found, residual, midway, steps)))  # type: ignore[return-value]


@cache
def compiled() -> Any:
    """The kernels' module; says so where compiling takes a while (once per installation)."""
    note = threading.Timer(
        3.0, logger.warning, ("compiling the equilibrium kernels, once per installation",)
    )
    note.start()
    try:
        from strategies.layers.equilibrium import kernels

        one, owner = np.zeros((1, 1, 1)), np.zeros(1, dtype=np.int64)
        limits = (1e-9, 1e-4, 9, 2, 1e-12, 0.0)
        flat, steps = np.zeros(1), np.zeros(1, dtype=np.int64)
        out = (np.zeros((1, 1, 1)), flat, flat.copy(), steps)
        kernels.solve_equilibria(one, one, owner, one, one[0], limits, *out)
        kernels.solve_adjoints(one, one, owner, one, one[0], one, limits, *out)
    finally:
        note.cancel()
    return kernels
