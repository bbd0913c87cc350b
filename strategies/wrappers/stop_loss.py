"""StopLoss: close a position after a loss."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd

from data_loaders import Panel
from strategies.base import Book, Strategy
from strategies.bracket import Bracket
from strategies.parameter_ranges import above
from strategies.wrappers.wrapper import Wrapper


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
