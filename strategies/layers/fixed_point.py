"""Fixed points as layers: ``z = f(z)`` solved exactly, and differentiated.

Problem, solver and adjoint are separate arguments:

    solution = fixed_point(lambda z: torch.tanh(z @ W + x), z0, solver=Anderson())
    solution.value.sum().backward()        # gradients of W and x

Read in this order: `fixed_point`, `Implicit`, then the solvers in solvers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from strategies.layers.record import open_record
from strategies.layers.solvers import (
    Anderson,
    ConvergenceError,
    OnFailure,
    Picard,
    Solution,
    Solver,
    check_tolerance,
    solve,
)

__all__ = [
    "Anderson",
    "ConvergenceError",
    "Implicit",
    "Picard",
    "Solution",
    "fixed_point",
]


class Adjoint(Protocol):
    """How the fixed point is computed and what its gradient is."""

    def run(
        self,
        f: Callable[..., Tensor],
        z0: Tensor,
        inputs: tuple[Tensor, ...],
        solver: Solver,
        on_failure: OnFailure,
        history: bool,
    ) -> Solution: ...


def fixed_point(
    f: Callable[..., Tensor],
    z0: Tensor,
    *,
    inputs: tuple[Tensor, ...] = (),
    solver: Solver = Picard(),  # noqa: B008 (frozen)
    adjoint: Adjoint | None = None,
    on_failure: OnFailure = "raise",
    history: bool = False,
) -> Solution:
    """Solve ``z = f(z, *inputs)``, with gradients for all that f depends on.

    Args:
        f: maps (B, ...) to the same shape, each sample for itself. Its parameters, and whatever
            else it closes over, receive gradients.
        z0: (B, ...) the first iterate; the solution does not depend on it.
        inputs: tensors (B, ...) that f takes after z. What is given here rather than closed over
            lets samples that have converged leave the evaluation.
        solver: how the solution is found.
        adjoint: how it is differentiated; `Implicit()` by default.
        on_failure: "raise", or "flag" to get ``converged`` instead of an error.
        history: keep the residual of every evaluation.

    Raises:
        ConvergenceError: where a sample, forward or backward, does not converge.
        ValueError, TypeError: where shapes, dtypes or tolerances do not fit.

    Source: Bai, Kolter & Koltun, Deep Equilibrium Models, arXiv 1909.01377.
    """
    if z0.ndim < 2:
        raise ValueError(f"z0 must have shape (B, ...), got {tuple(z0.shape)}")
    for i, x in enumerate(inputs):
        if x.ndim == 0 or x.shape[0] != z0.shape[0]:
            raise ValueError(
                f"inputs[{i}] must lead with B={z0.shape[0]}, got {tuple(x.shape)}"
            )
    if on_failure not in ("raise", "flag"):
        raise ValueError(f"on_failure must be 'raise' or 'flag', got {on_failure!r}")
    # Autocast would evaluate f in half precision behind a tolerance of 1e-8.
    with torch.autocast(z0.device.type, enabled=False):
        return (adjoint or Implicit()).run(
            f, z0, tuple(inputs), solver, on_failure, history
        )


@dataclass(frozen=True)
class Implicit:
    """The exact gradient, by the implicit function theorem (arXiv 1909.01377, theorem 1).

    With the loss gradient v at the fixed point, solves ``g = v + g df/dz`` and hands g to a single
    application of f. Memory does not grow with the steps. Not differentiable twice.

    Args:
        solver: for that linear system; only its ``rtol`` counts, since gradients have no scale.
    """

    solver: Solver = field(default_factory=Picard)

    def run(
        self,
        f: Callable[..., Tensor],
        z0: Tensor,
        inputs: tuple[Tensor, ...],
        solver: Solver,
        on_failure: OnFailure,
        history: bool,
    ) -> Solution:
        check_tolerance(self.solver, z0.dtype)
        record = open_record()
        with torch.no_grad():
            solution = solve(
                f,
                z0.detach(),
                solver,
                kind="fixed point",
                inputs=inputs,
                on_failure=on_failure,
                record=record,
                history=history,
            )
        if not torch.is_grad_enabled():
            return solution
        z = solution.value.detach().requires_grad_()
        image = f(z, *inputs)
        settings = replace(self.solver, atol=0.0)  # type: ignore[type-var]

        def cotangent(v: Tensor) -> Tensor:
            def pull(g: Tensor) -> Tensor:
                (product,) = torch.autograd.grad(
                    image, z, g, retain_graph=True, materialize_grads=True
                )
                return product.add_(v) if product.is_contiguous() else product + v

            with torch.autocast(v.device.type, enabled=False):
                return solve(
                    pull,
                    v,
                    settings,
                    kind="adjoint",
                    on_failure=on_failure,
                    record=record,
                ).value

        return replace(solution, value=_Attach.apply(image, solution.value, cotangent))


class _Attach(torch.autograd.Function):
    """``value`` going forward; going back, the cotangent that ``image`` is to receive."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, value: Tensor, cotangent: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.cotangent = cotangent
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of a fixed point cannot be differentiated again "
                "(create_graph=True): use adjoint=Unrolled() for second derivatives"
            )
        return ctx.cotangent(grad), None, None
