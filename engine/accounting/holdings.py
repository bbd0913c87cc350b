"""Holdings: what fills leave of a portfolio.

``Holdings`` are fractions of its value. ``PositionBook`` are the money and shares that a strategy
may ask for; only those who ask for them pay for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from engine.accounting.costs import NO_ORDER, Trade
from engine.accounting.market import Market
from engine.accounting.round_trips import CAPITAL, AverageCost
from strategies.contract_types import Book
from strategies.layers.drift import drift

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
        self._money = [market.costs.capital or 0.0]  # [e]: after the first e events

    def fill(self, event: Event) -> None:
        """Fill what an event says, at the end of all that was filled before."""
        after = event.targets
        if np.isnan(after).any():
            before = self.before(event.prices, event.row)[0]
            after = np.where(np.isnan(after) & (before == 0), 0.0, after)
            event = event._replace(targets=after)
            if np.isnan(after).any():
                money = None  # where no cost depends on it
                if not self.market.costs.proportional:
                    for done in range(len(self._money) - 1, len(self.events)):
                        earlier = self.events[done]
                        held, grown = self.before(earlier.prices, earlier.row, done)
                        money = self._money[-1] * grown
                        cost = self.charged(earlier, held, money).cost.item()
                        self._money.append(money * (1 - cost))
                    money = self._money[-1] * self.before(event.prices, event.row)[1]
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

    def before(
        self, prices: np.ndarray, row: int, events: int | None = None
    ) -> tuple[np.ndarray, float]:
        """Weights (N,) at these prices on a row, where the first so many events (all) are the
        last that were filled; and the value's growth since then."""
        count = len(self.events) if events is None else events
        if not count:
            return np.zeros(len(prices)), 1.0
        market, event, weights = self.market, self.events[count - 1], self.after[count - 1]
        growth = prices / event.prices
        carried = 0.0
        if market.costs.holding:
            carried = market.costs.carry(weights) * (market.clock[row] - market.clock[event.row])
        grown = 1 + float(weights @ (growth - 1)) + carried
        if grown <= 0:  # ruined
            return np.zeros_like(weights), 0.0
        return drift(weights, growth, carried), grown


class PositionBook:
    """The money, shares and entry prices of a portfolio, followed from fill to fill."""

    def __init__(self, filled: Holdings):
        self.filled, self.market = filled, filled.market
        self.assets = [AverageCost() for _ in self.market.panel.assets]
        self.shares = np.zeros(len(self.assets))  # (N,)
        self.money, self.realised = self.market.costs.capital or CAPITAL, 0.0
        self._done = 0  # events

    def at(self, row: int, pending: Iterable[tuple[int, int, float, float]]) -> Book:
        """The book at the close of ``row``, where all is filled that is due.

        Args:
            pending: as of ``Positions.pending``.
        """
        for number in range(self._done, len(self.filled.events)):
            self._follow(number)
        self._done = len(self.filled.events)
        panel, closes = self.market.panel, self.market.closes[row]
        value = self.money * self.filled.before(closes, row)[1]
        held = self.shares != 0
        price = np.array([each.price for each in self.assets])
        opened = panel.dates[[max(each.opened, 0) for each in self.assets]]
        names = panel.assets.astype(str)
        waiting = [(names[n], panel.dates[decided], *rest) for n, decided, *rest in pending]
        return Book(
            date=panel.dates[row],
            value=float(value),
            cash=float(value - self.shares @ closes),
            shares=pd.Series(self.shares.copy(), panel.assets),
            entry_price=pd.Series(np.where(held, price, np.nan), panel.assets),
            entry_date=pd.Series(opened, panel.assets).where(held),
            open_profit=pd.Series(
                np.where(held, self.shares * (closes - price), 0.0), panel.assets
            ),
            realised=self.realised,
            pending=pd.DataFrame(waiting, columns=["asset", "decided", "target", "limit"]),
        )

    def _follow(self, number: int) -> None:
        """Book what was filled by an event."""
        filled, costs, lack = self.filled, self.market.costs, self.market.illiquidity
        event, after = filled.events[number], filled.after[number]
        before, grown = filled.before(event.prices, event.row, number)
        money = self.money * grown
        trade = filled.charged(event, before, None if costs.proportional else money)
        cost = float(trade.cost)
        traded = after * (1 - cost) - before
        traded[(np.abs(traded) <= NO_ORDER) | np.isnan(event.targets)] = 0.0
        fees = costs.paid(
            torch.tensor(traded),
            None if lack is None else lack[event.row],
            torch.tensor(money, dtype=torch.float64),
        )
        self.money = money * (1 - cost)
        orders = traded * money / event.prices
        for asset in map(int, np.flatnonzero(orders)):
            paid = float(fees[asset]) * money
            price = float(event.prices[asset])
            closed, _ = self.assets[asset].trade(event.row, orders[asset], price, paid)
            self.realised -= paid
            if closed is not None:
                gain = closed.side * (price - closed.entry_price)
                self.realised += closed.shares * gain
        self.shares = after * self.money / event.prices
