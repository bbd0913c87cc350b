"""Untrained: a learned strategy before its first training step."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import Strategy, learned_inside
from strategies.wrappers.wrapper import Wrapper


class Untrained(Wrapper):
    """What a learned strategy decides untrained: what its training has to be compared with.

    Built on the training rows of each refit, like the strategy itself, with no step of training.
    The report shows the difference between the two, where both are among the results.

    Args:
        strategy: a learned one, or a wrapper around one.
    """

    trains = False

    def __init__(self, strategy: Strategy):
        self.strategy = strategy

    def check_parameters(self) -> None:
        super().check_parameters()
        if learned_inside(self.strategy) is None:
            raise ValueError(
                f"Untrained is for a strategy that is trained, and {self.strategy.shown_name()} is "
                "not: compare with the strategy itself"
            )

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        answer = self.answer("strategy", history, holdings.to_numpy(np.float64))
        return pd.Series(answer, history.assets)
