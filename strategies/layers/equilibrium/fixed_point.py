"""Fixed points as layers: ``z = f(z)`` solved exactly, and differentiated.

Invariant: ``f(value) == value`` to the tolerance, in training and in evaluation alike.

Problem, solver and adjoint are separate arguments:

    solution = fixed_point(lambda z: torch.tanh(z @ W + x), z0, solver=Anderson())
    solution.value.sum().backward()        # gradients of W and of x

Read `fixed_point`, then `Implicit`; then fixed_point_solvers.py and fixed_point_loop.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from strategies.layers.equilibrium.fixed_point_loop import (
    OnFailure,
    Report,
    Solution,
    check_image,
    norm,
    solve,
    solve_linear,
)
from strategies.layers.equilibrium.fixed_point_solvers import Picard, Solver, tolerance_of
from strategies.layers.kernel_calls import refuse_second_derivative
from strategies.layers.solve_record import FIXED_POINT, open_record

ONCE = "a fixed point's gradient", "use adjoint=Unrolled()"


@dataclass(frozen=True)
class Problem:
    """The fixed point that is asked for; fields as the arguments of `fixed_point`."""

    f: Callable[..., Tensor]
    z0: Tensor
    inputs: tuple[Tensor, ...]
    history: bool
    report: Report  # to the record of the forward solve, whenever backward runs


class Adjoint(Protocol):
    """How a fixed point is computed so that it has the gradient that is wanted."""

    def run(self, problem: Problem, solver: Solver) -> Solution: ...


@dataclass(frozen=True)
class Implicit:
    """The exact gradient, by the implicit function theorem (arXiv 1909.01377, theorem 1).

    With v the loss gradient at the fixed point, solves ``g = v + g df/dz`` and hands g to a single
    application of f. What is kept for it does not grow with the steps. A second derivative raises.

    Args:
        solver: for that linear system; None is the one of the forward solve, which copes with f's
            slope. Only its ``rtol`` counts: gradients have no scale.
    """

    solver: Solver | None = None

    def solver_beside(self, forward: Solver) -> Solver:
        """The solver of the linear system, where the fixed point is found by ``forward``."""
        return forward if self.solver is None else self.solver

    def run(self, problem: Problem, solver: Solver) -> Solution:
        backward = self.solver_beside(solver)
        tolerance_of(backward, problem.z0.dtype)  # an unfit one raises before anything is solved
        solution = _solve_forward(problem, solver)
        if not torch.is_grad_enabled():
            return solution
        z = solution.value.detach().requires_grad_()
        image = problem.f(z, *problem.inputs)
        if not _depends_on_others(image, z):
            return solution
        report = replace(problem.report, kind="adjoint")

        def cotangent(v: Tensor) -> Tensor:
            def pull(g: Tensor) -> Tensor:
                (product,) = torch.autograd.grad(
                    image, z, g, retain_graph=True, materialize_grads=True
                )
                return product

            with _full_precision(v):
                return solve_linear(pull, v, backward, report).value

        return replace(solution, value=_Attach.apply(image, solution.value, cotangent))


@dataclass(frozen=True)
class Phantom:
    """An approximate gradient: that of k damped steps from the fixed point (arXiv 2111.05177).

    Cheaper than `Implicit`, and off by a factor of about (contraction)^k of the gradient.

    Args:
        steps: k.
        damping: share of the old iterate in each step, in [0, 1).
    """

    steps: int = 5
    damping: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 0 <= self.damping < 1:
            raise ValueError(f"damping must lie in [0, 1), got {self.damping}")

    def run(self, problem: Problem, solver: Solver) -> Solution:
        solution = _solve_forward(problem, solver)
        if not torch.is_grad_enabled():
            return solution
        image = solution.value.detach()
        for _ in range(self.steps):
            image = torch.lerp(problem.f(image, *problem.inputs), image, self.damping)
        if not image.requires_grad:
            return solution
        return replace(solution, value=_Attach.apply(image, solution.value, lambda v: v))


@dataclass(frozen=True)
class Unrolled:
    """The gradient of the iteration itself; memory grows with the steps.

    Only for `Picard`. ``value`` is f applied ``steps`` times: with ``Picard(max_steps=k)`` and
    ``on_failure="flag"`` this is a network of k tied layers. Differentiable any number of times,
    in z0 as well.
    """

    def run(self, problem: Problem, solver: Solver) -> Solution:
        if not isinstance(solver, Picard):
            raise TypeError(f"Unrolled() needs solver=Picard(), got {solver}: or use Implicit()")
        tolerance = tolerance_of(solver, problem.z0.dtype)
        z, B, floor = problem.z0, problem.z0.shape[0], tolerance.atol / tolerance.rtol
        residual, on_the_way = z.new_zeros(B), z.new_zeros(2, B)
        steps = torch.zeros(B, dtype=torch.long, device=z.device)
        active = torch.ones(B, dtype=torch.bool, device=z.device)
        traced = []
        for count in range(1, (solver.max_steps if B else 0) + 1):
            image = problem.f(z, *problem.inputs)
            check_image(image, z)
            with torch.no_grad():
                scale = norm(image) + floor
                relative = norm(image - z) / scale.clamp_min(torch.finfo(z.dtype).tiny)
            residual = torch.where(active, relative, residual)
            if count in tolerance.marks:
                on_the_way[tolerance.marks.index(count)] = residual
            traced.append(residual)
            steps += active
            # Each further tensor of a step would be kept for backward: none where none is needed.
            following = torch.lerp(image, z, solver.damping) if solver.damping else image
            if not active.all():
                following = torch.where(active.view(-1, *[1] * (z.ndim - 1)), following, z)
            z = following
            active = active & (relative > tolerance.rtol)
            if not active.any():
                break
        history = torch.stack(traced) if problem.history and traced else None
        return problem.report.conclude(tolerance, z, residual, on_the_way, steps, history)


def fixed_point(
    f: Callable[..., Tensor],
    z0: Tensor,
    *,
    inputs: tuple[Tensor, ...] = (),
    solver: Solver = Picard(),
    adjoint: Adjoint = Implicit(),
    on_failure: OnFailure = "raise",
    history: bool = False,
) -> Solution:
    """Solve ``z = f(z, *inputs)``, with gradients for all that f depends on.

    Args:
        f: maps (B, ...) to the same shape, each sample for itself, and always to the same values.
            Its parameters and whatever else it closes over receive gradients.
        z0: (B, ...) the first iterate.
        inputs: tensors (B, ...) that f takes after z. Given here rather than closed over, samples
            that have converged can leave the evaluation.
        solver: how the fixed point is found: `Picard`, `Anderson`, `Broyden`.
        adjoint: how it is differentiated: `Implicit`, `Unrolled`, `Phantom`.
        on_failure: "raise", or "flag" to get ``converged`` instead of an error. The backward solve
            keeps to it as well: its flags are in the record that was open in the forward pass.
        history: keep the residual of every evaluation.

    Raises:
        ConvergenceError: where a sample does not converge, here or in the backward pass.
        ValueError, TypeError: where shapes, dtypes or tolerances do not fit.

    Source: Bai, Kolter & Koltun, Deep Equilibrium Models, arXiv 1909.01377.
    """
    if z0.ndim < 2:
        raise ValueError(f"z0 must have shape (B, ...) with a state, got {tuple(z0.shape)}")
    for i, x in enumerate(inputs):
        if x.ndim == 0 or x.shape[0] != z0.shape[0]:
            raise ValueError(f"inputs[{i}] must lead with B={z0.shape[0]}, got {tuple(x.shape)}")
        if torch.promote_types(x.dtype, z0.dtype) != z0.dtype:
            raise TypeError(
                f"inputs[{i}] is {x.dtype} and z0 is {z0.dtype}: cast one, as in z0.double()"
            )
    if on_failure not in ("raise", "flag"):
        raise ValueError(f"on_failure must be 'raise' or 'flag', got {on_failure!r}")
    if isinstance(adjoint, type) or not hasattr(adjoint, "run"):
        raise TypeError(f"adjoint must be Implicit(), Unrolled() or Phantom(), got {adjoint!r}")
    report = Report(FIXED_POINT, on_failure, open_record())
    with _full_precision(z0):
        return adjoint.run(Problem(f, z0, tuple(inputs), history, report), solver)


def _full_precision(values: Tensor) -> AbstractContextManager[Any]:
    """Autocast would evaluate f in half precision behind a far finer tolerance."""
    kind = values.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def _solve_forward(problem: Problem, solver: Solver) -> Solution:
    with torch.no_grad():
        z0 = problem.z0.detach()
        return solve(problem.f, z0, solver, problem.report, problem.inputs, problem.history)


class _Attach(torch.autograd.Function):
    """``value`` going forward; going back, a cotangent of our own for ``image``."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, value: Tensor, cotangent: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.cotangent = cotangent
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivative(*ONCE)
        return ctx.cotangent(grad), None, None


def _depends_on_others(image: Tensor, z: Tensor) -> bool:
    """Whether any leaf other than z receives a gradient from image."""
    seen, stack = set(), [image.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", z) is not z:
            return True
        stack.extend(parent for parent, _ in node.next_functions)
    return False
