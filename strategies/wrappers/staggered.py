"""Staggered: portfolios of one strategy that rebalance in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import Strategy
from strategies.parameter_ranges import at_least
from strategies.wrappers.sub_portfolios import SubPortfolios
from strategies.wrappers.wrapper import Wrapper


class Staggered(Wrapper):
    """``n`` portfolios of the same strategy, of which one rebalances at each decision, in turn.

    Each keeps its own holdings for n decisions, as in Jegadeesh & Titman (1993): the portfolio
    depends less on the day on which it was decided, and a decision trades about an n-th. At the
    first decision all of them buy. Money is not moved between them.

    Args:
        strategy: of all portfolios.
        n: number of portfolios.
    """

    ranges: ClassVar = {"n": at_least(1)}

    def __init__(self, strategy: Strategy, n: int = 4):
        self.strategy = strategy
        self.n = n

    def inner_strategies(self) -> Mapping[str, Strategy]:
        return {f"strategy {number}": self.strategy for number in range(self.n)}

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        held = holdings.to_numpy(np.float64)
        turns = [getattr(self, "_turn", 0)]
        if not hasattr(self, "_parts"):
            self._parts = SubPortfolios(np.full(self.n, 1 / self.n), held)
            turns = turns if held.any() else list(range(self.n))
        self._parts.update(held)
        traded = np.zeros(len(held), bool)
        for number in turns:
            before = self._parts.holdings(number)
            answer = self.answer(f"strategy {number}", history, before)
            self._parts.trade(number, np.where(np.isnan(answer), before, answer))
            traded |= ~np.isnan(answer)
        self._turn = (turns[-1] + 1) % self.n
        return pd.Series(np.where(traded, self._parts.assets.sum(axis=0), np.nan), history.assets)
