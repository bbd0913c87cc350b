"""What a budget may be: a number, or the least and the most that the weights may sum to."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from torch import Tensor


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
