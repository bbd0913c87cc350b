"""Fit records: which fit it is, and what it leaves behind. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # they take a second to import
    import pandas as pd
    from torch import Tensor


class FitKey(NamedTuple):
    """Which fit: of the strategy shown under ``name``, in a fold, with a seed."""

    name: str
    fold: int
    seed: int


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind: the module's state, and the record of its training."""

    state: dict[str, Tensor]
    history: pd.DataFrame
    solves: list[dict]
    checks: list[dict]
