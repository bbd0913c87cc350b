"""The mean-field cell's equilibrium on the CPU, by compiled kernels, with its exact gradient.

The same fixed point, steps, stopping rule and record as ``fixed_point`` with ``Picard`` or
``Anderson``, and ``Implicit`` of either, in a fifth of the time. A sample's result does not depend
on the other samples of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strategies.layers.equilibrium.fixed_point import ONCE
from strategies.layers.equilibrium.fixed_point_loop import OnFailure, Report, Solution
from strategies.layers.equilibrium.fixed_point_solvers import (
    Anderson,
    Picard,
    Solver,
    Tolerance,
    tolerance_of,
)
from strategies.layers.kernel_calls import in_parts, refuse_second_derivative, run_kernel
from strategies.layers.solve_record import FIXED_POINT, open_record

WORDS = "the equilibrium kernels, once per installation"
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
    drive: Tensor,
    present: Tensor,
    solver: Solver,
    adjoint: Solver,
    on_failure: OnFailure = "raise",
) -> Solution:
    """Solve ``Z = tanh(Z W1 + mean(Z) W2 + drive)``, the mean over the assets that trade.

    Args:
        W1, W2: (H, H).
        drive: (B, N, H), with a gradient as W1 and W2.
        present: (B, N, 1), 1 where an asset trades, else 0; Z is zero there.
        solver, adjoint, on_failure: as for ``fixed_point`` and ``Implicit``; see ``compilable``.

    Raises:
        ConvergenceError: as ``fixed_point``.
    """
    tolerance = tolerance_of(solver, drive.dtype)
    relative = tolerance_of(adjoint, drive.dtype)._replace(atol=0.0)
    present, record = present.squeeze(2), open_record()  # the record of backward, too
    found = _run("solve_equilibria", solver, tolerance, W1, W2, drive, present)
    solution = Report(FIXED_POINT, on_failure, record).conclude(tolerance, *found)

    def pull(W1: Tensor, W2: Tensor, z: Tensor, grad: Tensor) -> Tensor:
        found = _run("solve_adjoints", adjoint, relative, W1.mT, W2.mT, z, present, grad)
        return Report("adjoint", on_failure, record).conclude(relative, *found).value

    value = _Attach.apply(W1, W2, drive, present, solution.value, pull)
    return replace(solution, value=value)


class _Attach(torch.autograd.Function):
    """``value`` going forward; going back, the gradients of an equilibrium."""

    @staticmethod
    def forward(
        ctx: Any,
        W1: Tensor,
        W2: Tensor,
        drive: Tensor,
        present: Tensor,
        value: Tensor,
        pull: Callable[..., Tensor],
    ) -> Tensor:
        ctx.pull = pull
        value = value.detach()
        ctx.save_for_backward(W1, W2, present, value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative(*ONCE)
        W1, W2, present, z = ctx.saved_tensors  # z (B, N, H)
        t = ctx.pull(W1, W2, z, grad)  # (B, N, H), the gradient of the drive
        share = 1 / present.sum(1, keepdim=True).clamp_min(1)  # (B, 1)
        of_W1 = z.flatten(0, 1).mT @ t.flatten(0, 1)
        of_W2 = (z.sum(1) * share).mT @ t.sum(1)
        return of_W1, of_W2, t, None, None, None


def _run(name: str, solver: Solver, tolerance: Tolerance, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Call a kernel on the batch, in one part for each of torch's threads.

    Returns:
        value (B, N, H); residual (B,); those on the way (2, B), see ``Report``; steps (B,).
    """
    from strategies.layers.equilibrium import mean_field_kernels  # it imports Numba

    kernel = getattr(mean_field_kernels, name)
    W1, W2, *arrays = (each.detach().contiguous().numpy() for each in tensors)
    count = len(arrays[0])
    found = np.empty(arrays[0].shape)
    residual, on_the_way = np.zeros(count), np.zeros((count, 2))
    steps = np.zeros(count, dtype=np.int64)
    mixing = (1, 0.0, math.inf)  # plain steps only
    if isinstance(solver, Anderson):
        mixing = int(solver.memory), float(solver.least_ridge(torch.float64)), float(solver.onset)
    floor = float(tolerance.atol / tolerance.rtol)
    settings = (float(tolerance.rtol), floor, int(tolerance.max_steps), *mixing)

    def work(part: slice) -> None:
        own = (array[part] for array in arrays)
        out = (array[part] for array in (found, residual, on_the_way, steps))
        run_kernel(kernel, WORDS, W1, W2, *own, settings, *out)

    threads = torch.get_num_threads() if kernel.overloads else 1  # one compiles it
    in_parts(count, min(threads, count // FEWEST), work)
    return tuple(map(torch.from_numpy, (found, residual, on_the_way.T, steps)))
