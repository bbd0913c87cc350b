"""Book and Plan: what a strategy that asks for them is told of its portfolio, and of the decisions
to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from data_loaders import Panel


@dataclass(frozen=True)
class Book:
    """The portfolio at the close of a decision, with all that was filled up to then.

    A strategy whose ``allocate`` has a third parameter named ``book`` is given it. Amounts are
    money. Where a run trades whole shares only, the book is that of the fractions before rounding.

    Attributes:
        date: of the decision.
        value: of the portfolio; cash: of it, negative if owed.
        shares: (N,) by asset, negative if short.
        entry_price: (N,) average price paid for the shares held, without fees (partial sales leave
            it as it is); NaN where nothing is held.
        entry_date: (N,) fill by which the position was opened; NaT where nothing is held.
        open_profit: (N,) of the shares held, at the last prices, before fees.
        realised: profit of what was sold or covered so far, less the fees of all orders.
            value = money at the start + realised + open profit + interest and borrowing fees.
        pending: one row an order on its way: asset, decided (date), target (weight), limit (price;
            NaN without one).
    """

    date: pd.Timestamp
    value: float
    cash: float
    shares: pd.Series
    entry_price: pd.Series
    entry_date: pd.Series
    open_profit: pd.Series
    realised: float
    pending: pd.DataFrame

    @classmethod
    def empty(cls, history: Panel, value: float = 1e6) -> Book:
        """That of a portfolio of cash at the last date of ``history``."""
        zeros = pd.Series(0.0, history.assets)
        return cls(
            date=history.dates[-1],
            value=value,
            cash=value,
            shares=zeros,
            entry_price=pd.Series(float("nan"), history.assets),
            entry_date=pd.Series(pd.NaT, history.assets, dtype="datetime64[ns]"),
            open_profit=zeros.copy(),
            realised=0.0,
            pending=pd.DataFrame(columns=["asset", "decided", "target", "limit"]),
        )


class Plan(Protocol):
    """What a strategy may ask of the plan that it is fitted for: the engine's ``WalkForward``."""

    @property
    def execution_lag(self) -> int:
        """Rows from a decision to its fill."""

    def decisions(self, dates: pd.DatetimeIndex) -> np.ndarray:
        """The rows (K,) of ascending dates at which decisions are made."""
