"""Bracket: weights with the prices at which their orders and positions are closed or filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Bracket:
    """An answer of a strategy that carries protective orders, by asset; NaN or no entry is none.

    They are watched from the fill on in the open, high and low prices of each row, and stay until
    the next order in the asset, or until another answer names other ones. Where both are within a
    row's high and low, the stop comes before the take-profit. Where a price gaps through a level,
    the fill is at the open.

    Attributes:
        weights: as ``Strategy.allocate`` returns them.
        stop: price at which the position is closed: below today's close if it is long, above if it
            is short.
        trailing: the same as a fraction below the highest price since the fill (above the lowest
            of a short position): 0.1 is 10%.
        take_profit: price at which a profit is taken, on the other side of today's close.
        limit: worst price at which the order is filled. It rests until a row reaches the price,
            and is not counted among the holdings before that.
    """

    weights: pd.Series | None
    stop: pd.Series | Mapping[str, float] | None = None
    trailing: pd.Series | Mapping[str, float] | None = None
    take_profit: pd.Series | Mapping[str, float] | None = None
    limit: pd.Series | Mapping[str, float] | None = None
