"""Bookkeeping: what filling target weights at given closes does to value, shares and cash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_loaders.validation import day
from engine.accounting.costs import NO_ORDER, Costs, CostsTooHigh
from strategies.base import drift


@dataclass(frozen=True)
class Fills:
    """When K targets are filled, and at what prices.

    Attributes:
        dates: (T,) from the first fill on.
        path: (T, N) valuation prices.
        starts: (K,) rows of the fills, increasing.
        clock: (T,) years that have passed since the first fill.
        illiquidity: (K, N) at the fills, or None (see ``Costs.charge``).
        capital: money before the first fill.
    """

    dates: pd.DatetimeIndex
    path: Tensor
    starts: Tensor
    clock: Tensor
    illiquidity: Tensor | None
    capital: float

    @property
    def fill_dates(self) -> pd.DatetimeIndex:
        return self.dates[self.starts.numpy()]

    @property
    def prices(self) -> Tensor:
        """(K, N) at the fills."""
        return self.path[self.starts]

    @property
    def years(self) -> Tensor:
        """(K - 1,) from one fill to the next."""
        return self.clock[self.starts].diff()

    def check_solvent(self, value: Tensor, rows: Tensor) -> None:
        """Refuse values (M,) at these rows of ``dates`` that are not positive."""
        ruined = rows[value <= 0]
        if len(ruined):
            reason = "losses of short positions or of leverage took all of the portfolio's value"
            raise Ruin(self.dates, int(ruined[0]), reason)

    @contextmanager
    def affordable(self, first: int = 0) -> Iterator[None]:
        """Name the fill, from number ``first`` on, whose costs come to the whole portfolio."""
        try:
            yield
        except CostsTooHigh as error:
            raise Ruin(self.dates, int(self.starts[first + error.sample]), str(error)) from error

    def before(self, row: int) -> Fills:
        """Those of the rows before ``row``."""
        starts = self.starts[self.starts < row]
        lack = None if self.illiquidity is None else self.illiquidity[: len(starts)]
        dates, path, clock = self.dates[:row], self.path[:row], self.clock[:row]
        return replace(self, dates=dates, path=path, starts=starts, clock=clock, illiquidity=lack)


class Ruin(ValueError):
    """The portfolio is worth nothing any more, at the close of a ``row`` of its dates."""

    def __init__(self, dates: pd.DatetimeIndex, row: int, reason: str):
        super().__init__(f"the portfolio is ruined on {day(dates[row])}: {reason}")
        self.row, self.date, self.reason = row, dates[row], reason


class Book(NamedTuple):
    """The books of a portfolio: fractions, except where money or shares are named."""

    weights: Tensor  # (T, N) after each close
    gross: Tensor  # (T,) returns of prices
    net: Tensor  # (T,) returns after all costs and carry
    carried: Tensor  # (T,) money: carry of the row
    value: Tensor  # (T,) money after the close
    cost: Tensor  # (K,) of the value before the fill
    turnover: Tensor  # (K,) likewise
    orders: Tensor  # (K, N) shares, negative for sales
    fees: Tensor  # (K, N) money


def until_ruin(
    keep: Callable[[Tensor, Fills, Costs], Any], targets: Tensor, fills: Fills, costs: Costs
) -> tuple[Any, Fills, Ruin | None]:
    """What ``keep`` gives for the rows before the portfolio is ruined, these rows, and the ruin.

    Raises:
        Ruin: not even the first fill can be paid.
    """
    ruin = None
    while True:  # the books of a ruin may hide an earlier one
        try:
            return keep(targets[: len(fills.starts)], fills, costs), fills, ruin
        except Ruin as error:
            if error.row == 0:
                raise
            ruin, fills = error, fills.before(error.row)


def net_to_the_end(book: Book, fills: Fills) -> np.ndarray:
    """Net returns (T,) of books that may end with a ruin: -1 on that row, and zeros after it."""
    net = np.zeros(len(fills.dates))
    net[: len(book.net)] = book.net.numpy()
    net[len(book.net) : len(book.net) + 1] = -1.0
    return net


def keep_book(targets: Tensor, fills: Fills, costs: Costs) -> Book:
    """The books of filling ``targets`` (K, N), fractions of the value after each fill's costs.

    Raises:
        Ruin: its value falls to zero.
    """
    growth = fills.prices[1:] / fills.prices[:-1]
    carried = costs.carry(targets[:-1]) * fills.years
    grown = 1 + (targets[:-1] * (growth - 1)).sum(-1) + carried  # (K - 1,) until the next fill
    fills.check_solvent(grown, fills.starts[1:])
    before = torch.cat([torch.zeros_like(targets[:1]), drift(targets[:-1], growth, carried)])

    # Costs that are not proportional depend on the value, which depends on all costs before it.
    # Each pass makes at least one more fill final, and usually a few passes make all final.
    value = torch.full_like(targets[:, 0], fills.capital)  # (K,) before the fill
    for _ in range(len(targets) + 1):
        with fills.affordable():
            cost = costs.charge(targets, before, fills.illiquidity, value).cost
        factors = torch.cat([torch.ones_like(cost[:1]), (1 - cost[:-1]) * grown])
        earlier, value = value, fills.capital * factors.cumprod(0)
        if costs.proportional or torch.allclose(value, earlier, rtol=1e-14, atol=0):
            break
    traded = targets * (1 - cost.unsqueeze(-1)) - before
    traded = traded.where(traded.abs() > NO_ORDER, 0.0)
    orders = traded * value.unsqueeze(-1) / fills.prices
    return _daily(targets, cost, value, orders, fills, costs)


def keep_whole_book(targets: Tensor, fills: Fills, costs: Costs) -> tuple[Book, Tensor]:
    """The books with whole shares, and the orders (K, N) before they were rounded.

    Shares are rounded towards zero, and once more where their fees would overdraw the account.
    """
    shares, cash = torch.zeros_like(targets[0]), torch.tensor(fills.capital, dtype=targets.dtype)
    held, orders, ordered = (torch.zeros_like(targets) for _ in range(3))
    costed, values = torch.zeros_like(targets[:, 0]), torch.zeros_like(targets[:, 0])
    after, years = cash, fills.years
    for k, (target, price) in enumerate(zip(targets, fills.prices, strict=True)):
        if k:
            cash = cash + costs.carry(held[k - 1]) * years[k - 1] * after
        value = cash + shares @ price
        fills.check_solvent(value[None], fills.starts[k : k + 1])
        illiquidity = None if fills.illiquidity is None else fills.illiquidity[k]
        with fills.affordable(k):
            cost = costs.charge(target, shares * price / value, illiquidity, value).cost
        ordered[k] = target * (1 - cost) * value / price - shares
        most = target.sum().clamp(min=1)  # of the value after costs may be invested
        for _ in range(100):
            rounded = (target * (1 - cost) * value / price * (1 + 1e-12)).trunc()
            paid = costs.paid((rounded - shares) * price / value, illiquidity, value)[0].sum()
            overdrawn = rounded @ price / value - most * (1 - paid)
            if overdrawn <= 0:
                break
            cost = cost + overdrawn
        orders[k] = rounded - shares
        after = value * (1 - paid)
        shares, cash = rounded, after - rounded @ price
        held[k], costed[k], values[k] = shares * price / after, paid, value
    worth = ordered.abs() * fills.prices
    ordered = ordered.where(worth > NO_ORDER * values.unsqueeze(-1), 0.0)
    return _daily(held, costed, values, orders, fills, costs), ordered


def _daily(
    held: Tensor, cost: Tensor, value: Tensor, orders: Tensor, fills: Fills, costs: Costs
) -> Book:
    """The books of each day, from the weights ``held`` (K, N) after each fill.

    ``cost`` (K,) is a fraction of ``value`` (K,), the money before the fill.
    """
    path, starts = fills.path, fills.starts
    rows = torch.arange(len(path))
    period = torch.searchsorted(starts, rows, right=True) - 1  # (T,) the last fill up to the row
    growth = path / fills.prices[period]  # (T, N) since that fill
    rate = costs.carry(held)  # (K,) a year
    carried = rate[period] * (fills.clock - fills.clock[starts[period]])  # (T,) since the fill
    total = 1 + (held[period] * (growth - 1)).sum(-1) + carried  # (T,) value over that after fill
    fills.check_solvent(total, rows)
    weights = drift(held[period], growth, carried)

    gross = torch.zeros_like(total)
    gross[1:] = (weights[:-1] * (path[1:] / path[:-1] - 1)).sum(-1)
    net = gross.clone()
    accrued = rate[period[:-1]] * fills.clock.diff()  # (T - 1,) from the row before
    net[1:] += accrued / total[:-1]
    net[starts] = (1 + net[starts]) * (1 - cost) - 1
    after = value * (1 - cost)  # (K,) money after the fill
    earned = torch.zeros_like(total)
    earned[1:] = accrued * after[period[:-1]]
    traded = orders * fills.prices / value.unsqueeze(-1)
    fees = costs.paid(traded, fills.illiquidity, value)[0] * value.unsqueeze(-1)
    return Book(
        weights, gross, net, earned, after[period] * total, cost, traded.abs().sum(-1), orders, fees
    )
