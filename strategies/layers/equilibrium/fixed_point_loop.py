"""The loop that drives a solver over a batch until each sample has converged, failed or run out."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from strategies.layers.equilibrium.fixed_point_solution import (
    Report,
    Solution,
    Tolerance,
    check_image,
    norm,
    runaway_error,
    tolerance_of,
)
from strategies.layers.equilibrium.fixed_point_solvers import Picard, Solver

# Copying what is left of a batch pays once a quarter of it has converged.
_COMPACT = 0.75


def solve(
    f: Callable[..., Tensor],
    z0: Tensor,
    solver: Solver,
    report: Report,
    inputs: tuple[Tensor, ...] = (),
    history: bool = False,
    absolute: bool = True,
) -> Solution:
    """Drive the solver until each sample has converged, failed, or used up its steps.

    A sample that is done changes no more; given ``inputs``, it is soon evaluated no more either.

    Args:
        f: maps (B, ...) to the same shape, each sample for itself.
        z0: (B, ...) the first iterate.
        inputs: tensors (B, ...) that f takes after z.
        history: keep the residual of each evaluation.
        absolute: whether the solver's ``atol`` counts.

    Raises:
        ConvergenceError: where a sample did not converge and ``on_failure`` is "raise".
        TypeError, ValueError: where the tolerance, or what f returns, does not fit z0.
    """
    tolerance = tolerance_of(solver, z0.dtype)
    if not absolute:
        tolerance = tolerance._replace(atol=0.0)
    B, floor = z0.shape[0], tolerance.atol / tolerance.rtol
    value = z0.clone(memory_format=torch.contiguous_format)
    residual = z0.new_zeros(B)
    steps = torch.zeros(B, dtype=torch.long, device=z0.device)
    rows = torch.arange(B, device=z0.device)  # which samples are evaluated
    active = torch.ones(B, dtype=torch.bool, device=z0.device)  # which of those count
    on_the_way, traced = z0.new_zeros(2, B), []
    z, gap, step = z0, torch.empty_like(value), solver.start(z0)
    watch = _Watch(tolerance, every_step=history or not _is_plain(solver))
    for count in range(1, (tolerance.max_steps if B else 0) + 1):
        image = f(z, *inputs)
        if count == 1:
            check_image(image, z)
        if count < watch.due:
            z = image
            continue
        gap = torch.sub(image, z, out=gap)  # a fresh tensor a step costs more than the difference
        size, scale = norm(gap), norm(image)
        relative = size / (scale + floor).clamp_min(torch.finfo(z.dtype).tiny)
        if count == 1:
            start, before = norm(z) + scale, (z, size)
        least, ended = _look(relative, active, tolerance.rtol, count == tolerance.max_steps)
        watch.note(count, least)
        if count in tolerance.marks:
            on_the_way[tolerance.marks.index(count), rows] = relative
        if history:
            traced.append(residual.index_put((rows[active],), relative[active]))
        if ended is not None:
            here, still = ended
            at = rows[here]
            value.index_copy_(0, at, z.index_select(0, here))
            error = runaway_error(size, scale, start, before[1], norm(z - before[0]))
            residual[at], steps[at] = torch.maximum(relative, error)[here], count
            active = active.index_fill(0, here, False)
            if len(still) == 0:
                break
            if inputs and len(still) <= _COMPACT * len(rows):
                z, image, gap, size = z[still], image[still], gap[still], size[still]
                inputs = tuple(x[still] for x in inputs)
                step.keep(still)
                start = start[still]
                rows, active = rows[still], active[still]
        before = z, size
        z = step(z, image, gap, size)
    trace = torch.stack(traced) if traced else None
    return report.conclude(tolerance, value, residual, on_the_way, steps, trace)


def solve_linear(
    pull: Callable[[Tensor], Tensor], v: Tensor, solver: Solver, report: Report
) -> Solution:
    """Solve ``g = v + pull(g)`` for a linear ``pull``; errors as in `solve`.

    Only ``rtol`` counts: v may have any scale.
    """
    if _is_plain(solver):
        return _sum_series(pull, v, tolerance_of(solver, v.dtype), report)
    return solve(lambda g: v + pull(g), v, solver, report, absolute=False)


def _sum_series(
    pull: Callable[[Tensor], Tensor], v: Tensor, tolerance: Tolerance, report: Report
) -> Solution:
    """The plain iteration from g = v, as the sum of its differences.

    Its iterates are the partial sums of ``v + pull(v) + pull(pull(v)) + ...`` and their gap is the
    next term: adding terms up does the same at a third of what it costs beyond ``pull``.
    """
    B, tiny = v.shape[0], torch.finfo(v.dtype).tiny
    value = v.clone(memory_format=torch.contiguous_format)
    residual, on_the_way = v.new_zeros(B), v.new_zeros(2, B)
    steps = torch.zeros(B, dtype=torch.long, device=v.device)
    active = torch.ones(B, dtype=torch.bool, device=v.device)
    term, watch = v, _Watch(tolerance)
    for count in range(1, (tolerance.max_steps if B else 0) + 1):
        term = pull(term)
        if count < watch.due:
            value += term
            continue
        relative = norm(term) / norm(value).clamp_min(tiny)
        least, ended = _look(relative, active, tolerance.rtol, count == tolerance.max_steps)
        watch.note(count, least)
        if count in tolerance.marks:
            on_the_way[tolerance.marks.index(count)] = relative
        if ended is not None:
            here, still = ended
            residual[here], steps[here] = relative[here], count
            active = active.index_fill(0, here, False)
            if len(still) == 0:
                break
            term = term.masked_fill(_like(~active, term), 0.0)  # what has ended grows no more
        value += term
    return report.conclude(tolerance, value, residual, on_the_way, steps)


def _look(
    relative: Tensor, active: Tensor, rtol: float, last: bool
) -> tuple[float, tuple[Tensor, Tensor] | None]:
    """The smallest of the residuals (B,), and if any active samples end, which, and which go on.

    All that the host asks in a step, in one transfer: a GPU waits for each.
    """
    least = torch.nan
    if relative.device.type == "cpu":  # where nothing waits, and what is not needed is not computed
        least = float(relative.min())  # of a NaN it is NaN
        if least > rtol and not last:
            return least, None
    # Not "at most": a residual that is NaN is done as well, and infinity soon is NaN.
    closing = active if last else active & ~(relative > rtol)
    counts = torch.stack([relative.min(), closing.sum(), active.sum()]).tolist()
    least, ending, going = counts[0], int(counts[1]), int(counts[2] - counts[1])
    if least > rtol and not last:
        return least, None
    order = (closing.to(torch.int8) + active.to(torch.int8)).argsort(descending=True, stable=True)
    return least, (order[:ending], order[ending : ending + going])


class _Watch:
    """When the plain iteration is to measure its residual next.

    Measuring costs a quarter of a cheap f. Far from the tolerance it is left out for most of the
    steps that the fastest sample still needs at its rate so far, but for no more steps than have
    been taken.
    """

    def __init__(self, tolerance: Tolerance, every_step: bool = False):
        self.rtol, self.every_step = tolerance.rtol, every_step
        self.marks = (*tolerance.marks, tolerance.max_steps)
        self.due = 1
        self.last: tuple[int, float] | None = None

    def note(self, count: int, least: float) -> None:
        """Plan the next measurement after this one, of residuals from ``least``, at ``count``."""
        self.due = count + 1
        if self.every_step:
            return
        if self.last is not None and self.rtol < least < self.last[1]:
            rate = math.log(least / self.last[1]) / (count - self.last[0])
            ahead = min(int(0.9 * math.log(self.rtol / least) / rate), count)
            mark = min(m for m in (*self.marks, math.inf) if m > count)
            self.due = int(min(count + max(ahead, 1), mark))
        self.last = count, least


def _is_plain(solver: Solver) -> bool:
    return isinstance(solver, Picard) and solver.damping == 0


def _like(flags: Tensor, values: Tensor) -> Tensor:
    """Flags (B,) shaped to be broadcast with values (B, ...)."""
    return flags.view(-1, *[1] * (values.ndim - 1))
