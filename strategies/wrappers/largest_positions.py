"""LargestPositions: at most so many positions, each zero or at least so large."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import Book, Bracket, Strategy
from strategies.parameter_ranges import at_least
from strategies.wrappers.wrapper import Wrapper


class LargestPositions(Wrapper):
    """The largest weights of a strategy, scaled to the sum that all of them had; others are zero.

    A heuristic for a limit on the number of positions, or for positions of zero or at least
    ``least``: the best portfolio under such limits is a combinatorial problem, and the best few
    assets need not be those with the largest weights. Scaling raises weights above the caps of the
    strategy, if it has any. What the strategy leaves alone is left alone, and does not count.

    Args:
        strategy: whose weights they are.
        count: most positions that are held; None is no limit.
        least: smallest absolute weight that is held, a fraction: as many of the largest as all
            reach it once they are scaled.
    """

    ranges: ClassVar = {"count": at_least(1), "least": at_least(0, 1)}

    def __init__(self, strategy: Strategy, count: int | None = None, least: float = 0.0):
        self.strategy = strategy
        self.count = count
        self.least = least

    def allocate(
        self, history: Panel, holdings: pd.Series, book: Book | None = None
    ) -> pd.Series | Bracket:
        answer = self.answer("strategy", history, holdings.to_numpy(np.float64), book)
        size = np.abs(np.nan_to_num(answer))
        order = np.argsort(-size, kind="stable")
        sums, total = size[order].cumsum(), size.sum()
        with np.errstate(invalid="ignore"):
            smallest = size[order] / sums * total  # (N,) once so many are kept and scaled
        kept = (size[order] > 0) & (smallest >= self.least)
        number = min(np.flatnonzero(kept).max(initial=-1) + 1, self.count or len(size))
        weights = np.where(np.isnan(answer), np.nan, 0.0)
        chosen = order[:number]
        if number:
            weights[chosen] = answer[chosen] * total / sums[number - 1]
        return self.with_levels(weights, holdings)
