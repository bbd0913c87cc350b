"""``A z = b`` and ``G z <= h``, the names that solvers have for rows, as rows with two limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Rows = tuple[Any, Any, Any, Sequence[str] | None]  # rows, row_lower, row_upper, row_names


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
    rows, row_lower, row_upper, row_names = given
    infinity = torch.inf
    parts = [
        (rows, -infinity if row_lower is None else row_lower,
         infinity if row_upper is None else row_upper),
        (A, b, b),
        (G, -infinity, h),
    ]  # fmt: skip
    if A is None and G is None:
        return given
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
