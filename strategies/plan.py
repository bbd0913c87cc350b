"""Plan: what a strategy that asks for it is told about the decisions to come."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pandas as pd


class Plan(Protocol):
    """What a strategy may ask of the plan that it is fitted for: the engine's ``WalkForward``."""

    @property
    def execution_lag(self) -> int:
        """Rows from a decision to its fill."""

    def decisions(self, dates: pd.DatetimeIndex) -> np.ndarray:
        """The rows (K,) of ascending dates at which decisions are made."""
