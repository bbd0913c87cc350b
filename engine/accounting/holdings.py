"""Holdings: what fills leave of a portfolio, as fractions of its value."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from engine.accounting.costs import Trade
from engine.accounting.market import Market
from strategies.base import drift

Moment = tuple[int, int]  # row and moment
BEFORE, BAR, CLOSE = range(3)  # moments of a row, in order of time


class Event(NamedTuple):
    """What is traded at one moment."""

    row: int
    moment: int
    prices: np.ndarray  # (N,) at which the portfolio is valued, and orders are filled
    targets: np.ndarray  # (N,) NaN where there is no order
    most: float  # that weights may sum to where assets are left alone
    decided: np.ndarray  # (N,) rows of the decisions
    reasons: dict[int, str]  # by asset: "limit", "stop", "trailing" or "take_profit"


class Holdings:
    """The fills of a portfolio, and its weights after each.

    Attributes:
        events: in order of time.
        after: (N,) weights after each.
    """

    def __init__(self, market: Market):
        self.market = market
        self.events: list[Event] = []
        self.after: list[np.ndarray] = []
        self._money = [market.costs.capital or 0.0]

    def fill(self, event: Event) -> None:
        """Fill what an event says, at the end of all that was filled before."""
        targets = event.targets
        if np.isnan(targets).any():
            before = self.before(event.prices, event.row)[0]
            targets = np.where(np.isnan(targets) & (before == 0), 0.0, targets)
            event = event._replace(targets=targets)
        after = targets
        if np.isnan(targets).any():
            money = self.money_before(event)
            after = self.charged(event, before, money).weights.numpy()
        self.events.append(event)
        self.after.append(after)

    def charged(self, event: Event, before: np.ndarray, money: float | None) -> Trade:
        lack = self.market.illiquidity
        return self.market.costs.charge(
            torch.tensor(event.targets),
            torch.tensor(before),
            None if lack is None else lack[event.row],
            money,
            event.most,
        )

    def money_before(self, event: Event) -> float | None:
        """Money before a fill; None where no cost depends on it."""
        if self.market.costs.proportional:
            return None
        while len(self._money) <= len(self.events):  # [e]: after the first e events
            done = len(self._money) - 1
            each = self.events[done]
            before, grown = self.before(each.prices, each.row, done)
            money = self._money[-1] * grown
            cost = self.charged(each, before, money).cost.item()
            self._money.append(money * (1 - cost))
        return self._money[-1] * self.before(event.prices, event.row)[1]

    def before(
        self, prices: np.ndarray, row: int, events: int | None = None
    ) -> tuple[np.ndarray, float]:
        """Weights (N,) before a fill, after so many events (all); the value's growth since then."""
        count = len(self.events) if events is None else events
        if not count:
            return np.zeros(len(prices)), 1.0
        return self.drifted(prices, self.market.clock[row], count - 1)

    def drifted(
        self, prices: np.ndarray, clock: float, number: int = -1
    ) -> tuple[np.ndarray, float]:
        """Weights (N,) at these prices and time since event ``number``, and the value's growth."""
        market, event, weights = self.market, self.events[number], self.after[number]
        growth = prices / event.prices
        carried = 0.0
        if market.costs.holding:
            carried = market.costs.carry(weights) * (clock - market.clock[event.row])
        grown = 1 + float(weights @ (growth - 1)) + carried
        if grown <= 0:  # ruined
            return np.zeros_like(weights), 0.0
        return drift(weights, growth, carried), grown
