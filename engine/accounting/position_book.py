"""The book of positions that a strategy may ask for, followed from fill to fill."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from engine.accounting.average_cost import AverageCost
from engine.accounting.capital import CAPITAL
from engine.accounting.costs import NO_ORDER
from engine.accounting.positions import Positions
from strategies.base import Book


class PositionBook:
    """The money and shares of a portfolio; only those who ask for them pay for them."""

    def __init__(self, positions: Positions):
        self.positions, self.market = positions, positions.market
        self.assets = [AverageCost() for _ in self.market.panel.assets]
        self.shares = np.zeros(len(self.assets))  # (N,)
        self.money, self.realised = self.market.costs.capital or CAPITAL, 0.0
        self._done = 0  # events

    def at(self, row: int) -> Book:
        """The book at the close of ``row``, of what was filled up to the decision there."""
        self.positions.holdings(row)  # fills what is due
        self._catch_up()
        market, filled, panel = self.market, self.positions.filled, self.market.panel
        closes, assets = market.closes[row], panel.assets
        value = self.money
        if filled.events:
            value *= filled.drifted(closes, market.clock[row])[1]
        held = self.shares != 0
        price = np.array([each.price for each in self.assets])
        opened = panel.dates[[max(each.opened, 0) for each in self.assets]]
        return Book(
            date=panel.dates[row],
            value=float(value),
            cash=float(value - self.shares @ closes),
            shares=pd.Series(self.shares.copy(), assets),
            entry_price=pd.Series(np.where(held, price, np.nan), assets),
            entry_date=pd.Series(opened, assets).where(held),
            open_profit=pd.Series(np.where(held, self.shares * (closes - price), 0.0), assets),
            realised=self.realised,
            pending=self._pending(),
        )

    def _catch_up(self) -> None:
        filled, costs = self.positions.filled, self.market.costs
        lack = self.market.illiquidity
        for number in range(self._done, len(filled.events)):
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
        self._done = len(filled.events)

    def _pending(self) -> pd.DataFrame:
        panel = self.market.panel
        names = panel.assets.astype(str)
        rows = [
            (names[asset], panel.dates[decided], target, limit)
            for asset, decided, target, limit in self.positions.pending()
        ]
        return pd.DataFrame(rows, columns=["asset", "decided", "target", "limit"])
