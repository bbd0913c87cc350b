"""Arguments of a problem: brought to one batch, a budget to two ends, usual rows to two limits."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

# one number a sample
BY_SAMPLE = ("budget", "budget_upper", "turnover_limit", "gross_limit", "tracking")
Rows = tuple[Any, Any, Any, Sequence[str] | None]  # rows, row_lower, row_upper, row_names


def expand(
    values: dict[str, tuple[Tensor | float | None, int]], sizes: set[int], device: torch.device
) -> dict[str, Tensor]:
    """Every value that is not None as (B, width), float64, by name; values are (value, width).

    A number, a (width,) shared by the batch, a (B, width), or a (B,) of width 1. ``sizes`` are the
    batch sizes of the other arguments, 1 for what all samples share.
    """
    numbers, tensors = {}, {}
    for name, (value, _) in values.items():
        if value is None and name in ("lower", "upper"):
            raise ValueError(f"{name} is None: leave it out for its default, or give an infinity")
        if value is None:
            continue
        if isinstance(value, float | int):
            numbers[name] = value
        else:
            tensor = torch.as_tensor(value, dtype=torch.float64, device=device)
            if name in BY_SAMPLE and tensor.dim() == 1:
                tensor = tensor.unsqueeze(1)
            tensors[name] = tensor
            if tensor.dim() > 1:
                sizes.add(tensor.shape[0])
    batch = max(sizes)
    if sizes - {1, batch}:
        raise ValueError(f"the arguments have different batch sizes: {sorted(sizes)}")
    given = {
        name: torch.full((batch, values[name][1]), number, dtype=torch.float64, device=device)
        for name, number in numbers.items()
    }
    for name, tensor in tensors.items():
        width = values[name][1]
        if tensor.dim() > 2 or (tensor.dim() and tensor.shape[-1] not in (1, width)):
            shapes = f"({batch},)" if name in BY_SAMPLE else f"({width},) or ({batch}, {width})"
            raise ValueError(f"{name} must be a number, {shapes}, got shape {tuple(tensor.shape)}")
        given[name] = tensor if tensor.shape == (batch, width) else tensor.expand(batch, width)
    return given


def with_batch(name: str, tensor: Tensor, tail: tuple[int, ...]) -> Tensor:
    """A tensor (*tail) or (B, *tail) as (1|B, *tail)."""
    if tensor.dim() == len(tail):
        tensor = tensor.unsqueeze(0)
    if tensor.shape[1:] != tail:
        shape = ", ".join(map(str, tail))
        raise ValueError(
            f"{name} must have shape ({shape}) or (B, {shape}) to fit the expected returns, "
            f"got {tuple(tensor.shape)}"
        )
    return tensor


def collapse(part: Tensor) -> Tensor:
    """Take a risk that is expanded over the batch only once."""
    return part[:1] if part.shape[0] > 1 and part.stride(0) == 0 else part


def budget_ends(budget: Any) -> tuple[Any, Any]:
    """The least and the most that weights may sum to; the same object where it is one number.

    Args:
        budget: a number or (B,); or a pair of those, or both as (B, 2).

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(budget, Tensor) and budget.dim() == 2 and budget.shape[1] == 2:
        budget = budget.unbind(1)
    if isinstance(budget, Sequence) and not isinstance(budget, str) and len(budget) == 2:
        ends = budget[0], budget[1]
    else:
        ends = budget, budget
    if not all(isinstance(end, Real | Tensor) and not isinstance(end, bool) for end in ends):
        raise ValueError(
            "budget should be a number (1 invests all, 0 is dollar-neutral) or a pair such as "
            f"(0, 1), with which cash is a choice, got {budget!r}"
        )
    return ends


def with_usual_rows(given: Rows, A: Any, b: Any, G: Any, h: Any) -> Rows:
    """The given rows, limits and names, with those of ``A z = b`` and ``G z <= h`` after them.

    Args:
        given: as of ``build_problem``.
        A, G: (E, N), (B, E, N) or None. b, h: a number, (E,) or (B, E), with A and with G.

    Raises:
        ValueError: a matrix without its right-hand side, or the reverse.
    """
    if (A is None) != (b is None) or (G is None) != (h is None):
        raise ValueError("A goes with b, as in A z = b, and G with h, as in G z <= h")
    if A is None and G is None:
        return given
    rows, row_lower, row_upper, row_names = given
    infinity = torch.inf
    parts = [
        (rows, -infinity if row_lower is None else row_lower,
         infinity if row_upper is None else row_upper),
        (A, b, b),
        (G, -infinity, h),
    ]  # fmt: skip
    matrices: list[Tensor] = []
    lower: list[Tensor] = []
    upper: list[Tensor] = []
    for matrix, least, most in parts:
        if matrix is None:
            continue
        matrices.append(torch.atleast_2d(torch.as_tensor(matrix, dtype=torch.float64)))
        for limits, limit in ((lower, least), (upper, most)):
            tensor = torch.as_tensor(limit, dtype=torch.float64).to(matrices[-1].device)
            count = matrices[-1].shape[-2]
            limits.append(tensor.expand(*tensor.shape[:-1], count))
    if row_names is not None:
        added = sum(len(matrix[0].T) if matrix.dim() > 2 else len(matrix) for matrix in matrices)
        row_names = [*row_names, *(f"row {i}" for i in range(len(row_names), added))]
    return _joined(matrices, -2), _joined(lower, -1), _joined(upper, -1), row_names


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    """Parts put one after the other; those without a batch dimension are repeated over it."""
    batch = max((part.shape[0] for part in parts if part.dim() > -axis), default=0)
    if batch:
        parts = [part if part.dim() > -axis else part.expand(batch, *part.shape) for part in parts]
    return torch.cat(parts, dim=axis)
