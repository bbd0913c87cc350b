"""Drift: what weights become as prices change and cash earns or owes interest.

The one definition, for numpy arrays and torch tensors alike. The compiled kernels of consecutive
dates repeat it for scalars; a test compares the two.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def drift(weights: Array, growth: Array, carried: Any = 0.0) -> Array:
    """Weights (..., N) after prices grew by the factors ``growth`` (..., N).

    The remainder to 1 is cash. It changes only by ``carried`` (...), see ``carry``.
    """
    grown = weights * growth
    total = grown.sum(-1) + (1 - weights.sum(-1)) + carried
    return grown / total[..., None]


def carry(weights: Array, cash_rate: Any, financing: Any, borrow: Any) -> Any:
    """What holding ``weights`` (..., N) earns apart from price changes, (...).

    A fraction of the portfolio's value; negative where holding costs. The rates, each a number or
    (...), are for the time that the weights are held: earned on cash, paid on cash owed, and paid
    on the value of short positions.
    """
    cash = 1 - weights.sum(-1)
    short = weights.clip(max=0).sum(-1)
    return cash_rate * cash.clip(min=0) + financing * cash.clip(max=0) + borrow * short
