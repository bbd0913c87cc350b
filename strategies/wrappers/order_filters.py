"""Wrappers that change which orders are placed: NoTradeBand, LargestPositions, StopLoss."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import Strategy
from strategies.contract_types import Book, Bracket
from strategies.parameter_ranges import above, at_least, one_of
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


class StopLoss(Wrapper):
    """The strategy's weights, with a stop for each position; a ``Bracket`` says when it is filled.

    A position that was stopped out is opened again by the next decision that wants it. Where prices
    were beyond the stop already at the close of a decision, the position is closed by an order.

    Of a strategy that answers with a ``Bracket``, the nearer of two stops counts.

    Args:
        strategy: whose positions they are.
        stop: loss from the close at which a position was decided on, a fraction; 0.1 = 10%. Later
            orders on the same side keep the price. None for none.
        trailing: the same from the best price since the position was opened.
    """

    ranges: ClassVar = {"stop": above(0, 0.999), "trailing": above(0, 0.999)}

    def __init__(self, strategy: Strategy, stop: float | None = 0.1, trailing: float | None = None):
        self.strategy = strategy
        self.stop = stop
        self.trailing = trailing

    def allocate(
        self, history: Panel, holdings: pd.Series, book: Book | None = None
    ) -> pd.Series | Bracket:
        held = holdings.to_numpy(np.float64)
        answer = self.answer("strategy", history, held, book)
        side = np.sign(np.where(np.isnan(answer), held, answer))
        close = history.prices.ffill().iloc[-1].to_numpy(np.float64)
        before, starts = getattr(self, "_starts", (side, close))
        kept = (np.sign(held) == side) & (before == side)
        self._starts = side, np.where(kept, starts, close)  # the closes that stops are below
        stop = self._starts[1] * (1 - side * (np.nan if self.stop is None else self.stop))
        beyond = (side != 0) & (side * close <= side * stop)
        weights = np.where(beyond, 0.0, answer)
        trailing = np.full(len(held), np.nan if self.trailing is None else self.trailing)
        own = self._bracket or Bracket(None)  # of the strategy inside: the nearer one counts
        inside = own.level("stop", history.assets), own.level("trailing", history.assets)
        stop, trailing = side * np.fmax(side * stop, side * inside[0]), np.fmin(trailing, inside[1])
        named = ~(np.isnan(weights) & np.isnan(inside).all(axis=0)) & (weights != 0)
        self._bracket = replace(
            own,
            stop=pd.Series(np.where(named, stop, np.nan), history.assets),
            trailing=pd.Series(np.where(named, trailing, np.nan), history.assets),
        )
        return self.with_levels(weights, holdings)
