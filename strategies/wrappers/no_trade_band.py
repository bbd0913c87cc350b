"""NoTradeBand: leave alone what is near its target."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import Book, Bracket, Strategy
from strategies.parameter_ranges import above, one_of
from strategies.wrappers.wrapper import Wrapper


class NoTradeBand(Wrapper):
    """Trade an asset only once its weight is farther than ``width`` from its target.

    The first purchase is made in full. An asset that the strategy does not want, and that has no
    price or has left the universe, is sold whatever the band. Where the orders would take more than
    there is, as assets left alone stand above their targets, purchases are scaled down; what is
    sold from an asset alone stays cash until others leave the band. Davis & Norman (1990): with
    proportional costs a band is optimal, and it is traded to its edge.

    Args:
        strategy: whose answers are the targets.
        width: half of the band, a fraction of the portfolio; 0.02 = 2 points to either side.
        trade: what is done with an asset outside: "target" moves it to its target, "edge" to the
            edge of the band; with "all" everything is moved to its target at once.
    """

    ranges: ClassVar = {"width": above(0), "trade": one_of("target", "edge", "all")}

    def __init__(self, strategy: Strategy, width: float = 0.02, trade: str = "target"):
        self.strategy = strategy
        self.width = width
        self.trade = trade

    def allocate(
        self, history: Panel, holdings: pd.Series, book: Book | None = None
    ) -> pd.Series | Bracket:
        held = holdings.to_numpy(np.float64)
        answer = self.answer("strategy", history, held, book)
        if not held.any():
            return self.with_levels(answer, holdings)
        wanted = np.where(np.isnan(answer), held, answer)
        gap = wanted - held
        far = (np.abs(gap) > self.width) | ((wanted == 0) & ~history.last_members & (held != 0))
        if self.trade == "all":
            chosen = answer if far.any() else np.full(len(held), np.nan)
            return self.with_levels(chosen, holdings)
        if self.trade == "edge":
            inside = np.sign(gap) * np.minimum(np.abs(gap), self.width)
            wanted = np.where(history.last_members | (wanted != 0), wanted - inside, wanted)
        targets = self._affordable(np.where(far, wanted, np.nan), held)
        return self.with_levels(targets, holdings)

    def _affordable(self, targets: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Targets (N,) with purchases scaled down to what there is, NaN where nothing is traded."""
        size, before = np.abs(np.where(np.isnan(targets), held, targets)), np.abs(held)
        grown = np.maximum(size - before, 0)
        excess = size.sum() - self.room()[1]
        if excess <= 0 or not grown.any():
            return targets
        cut = size - grown * min(1.0, excess / grown.sum())
        return np.where(grown > 0, np.sign(targets) * cut, targets)
