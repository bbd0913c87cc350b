"""Bookkeeping: what filling target weights at given closes does to value, shares and cash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_loaders.validation import day
from engine.accounting.costs import NO_ORDER, Costs, CostsTooHigh
from strategies.layers.drift import drift


@dataclass(frozen=True)
class Fills:
    """When E targets are filled, and at what prices.

    Value is followed from point to point: P points of time, which are the T closes from the first
    fill on and, where fills are not at closes, the moments of fills before them.

    Attributes:
        dates: (T,) from the first fill on.
        closes: (T,) points of the closes.
        starts: (E,) points of the fills, increasing.
        path: (P, N) valuation prices.
        clock: (P,) years since the first point.
        targets: (E, N); NaN where there is no order.
        most: (E,) that weights may sum to where assets are left alone.
        decided: (E, N) rows of the decisions, as of the panel.
        illiquidity: (E, N) at the fills, or None (see ``Costs.charge``).
        held: (E, N) weights after the fills at the costs of the run; None where they are not known.
        capital: money before the first fill.
    """

    dates: pd.DatetimeIndex
    closes: Tensor
    starts: Tensor
    path: Tensor
    clock: Tensor
    targets: Tensor
    most: Tensor
    decided: np.ndarray
    illiquidity: Tensor | None
    capital: float
    held: Tensor | None = None

    @property
    def rows(self) -> np.ndarray:
        """(E,) rows of ``dates`` in which the fills are."""
        return np.searchsorted(self.closes.numpy(), self.starts.numpy())

    @property
    def fill_dates(self) -> pd.DatetimeIndex:
        return self.dates[self.rows]

    @property
    def prices(self) -> Tensor:
        """(E, N) at the fills."""
        return self.path[self.starts]

    @property
    def years(self) -> Tensor:
        """(E - 1,) from one fill to the next."""
        return self.clock[self.starts].diff()

    def check_solvent(self, value: Tensor, points: Tensor) -> None:
        """Refuse values (M,) at these points that are not positive."""
        ruined = points[value <= 0]
        if len(ruined):
            reason = "losses of short positions or of leverage took all of the portfolio's value"
            raise Ruin(self.dates, self._row(ruined[0]), reason)

    @contextmanager
    def affordable(self, first: int = 0) -> Iterator[None]:
        """Name the fill, from number ``first`` on, whose costs come to the whole portfolio."""
        try:
            yield
        except CostsTooHigh as error:
            row = self._row(self.starts[first + error.sample])
            raise Ruin(self.dates, row, str(error)) from error

    def before(self, row: int) -> Fills:
        """Those of the rows before ``row``."""
        points = int(self.closes[row - 1]) + 1
        count = int((self.starts < points).sum())
        return replace(
            self,
            dates=self.dates[:row],
            closes=self.closes[:row],
            starts=self.starts[:count],
            path=self.path[:points],
            clock=self.clock[:points],
            targets=self.targets[:count],
            most=self.most[:count],
            decided=self.decided[:count],
            illiquidity=None if self.illiquidity is None else self.illiquidity[:count],
            held=None if self.held is None else self.held[:count],
        )

    def _row(self, point: Tensor) -> int:
        return int(torch.searchsorted(self.closes, point))


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
    ordered: Tensor  # (K, N) the same before purchases were scaled down to the cash, and rounded
    fees: Tensor  # (K, N) money


def books_to_the_end(
    fills: Fills, costs: Costs, whole: bool = False
) -> tuple[Book, np.ndarray, Fills, Ruin | None]:
    """``keep_book``, or ``keep_whole_book``, of a portfolio that may be ruined.

    Returns:
        The books and the fills up to the ruin, and between them net returns (T,) to the last row:
        -1 on the row of the ruin, and zeros after it.

    Raises:
        Ruin: not even the first fill can be paid.
    """
    ruin, net = None, np.zeros(len(fills.dates))
    while True:  # the books of a ruin may hide an earlier one
        try:
            book = keep_whole_book(fills, costs) if whole else keep_book(fills, costs)
        except Ruin as error:
            if error.row == 0:
                raise
            ruin, fills = error, fills.before(error.row)
        else:
            break
    net[: len(book.net)] = book.net.numpy()
    net[len(book.net) : len(book.net) + 1] = -1.0
    return book, net, fills, ruin


def keep_book(fills: Fills, costs: Costs) -> Book:
    """The books of filling the targets, fractions of the value after each fill's costs.

    Raises:
        Ruin: its value falls to zero.
    """
    held = filled_weights(fills, costs) if fills.held is None else fills.held
    growth = fills.prices[1:] / fills.prices[:-1]
    carried = costs.carry(held[:-1]) * fills.years
    grown = 1 + (held[:-1] * (growth - 1)).sum(-1) + carried  # (E - 1,) until the next fill
    fills.check_solvent(grown, fills.starts[1:])
    before = torch.cat([torch.zeros_like(held[:1]), drift(held[:-1], growth, carried)])

    # Costs that are not proportional depend on the value, which depends on all costs before it.
    # Each pass makes at least one more fill final, and usually a few passes make all final.
    value = torch.full_like(held[:, 0], fills.capital)  # (E,) before the fill
    for _ in range(len(held) + 1):
        with fills.affordable():
            trade = costs.charge(fills.targets, before, fills.illiquidity, value, fills.most)
        cost = trade.cost
        factors = torch.cat([torch.ones_like(cost[:1]), (1 - cost[:-1]) * grown])
        earlier, value = value, fills.capital * factors.cumprod(0)
        if costs.proportional or torch.allclose(value, earlier, rtol=1e-14, atol=0):
            break
    traded = held * (1 - cost.unsqueeze(-1)) - before
    traded = traded.where((traded.abs() > NO_ORDER) & ~fills.targets.isnan(), 0.0)
    ordered = _unscaled(fills.targets, before, traded, cost)
    orders, ordered = (x * value.unsqueeze(-1) / fills.prices for x in (traded, ordered))
    return _daily(held, cost, value, orders, ordered, fills, costs)


def _unscaled(targets: Tensor, before: Tensor, traded: Tensor, cost: Tensor) -> Tensor:
    """Orders (..., N), fractions, as they would be if the cash sufficed for all purchases."""
    wanted = targets * (1 - cost.unsqueeze(-1)) - before
    return wanted.where(wanted > traded + NO_ORDER, traded)


def filled_weights(fills: Fills, costs: Costs) -> Tensor:
    """Weights (E, N) after each fill: the targets, and what became of assets left alone."""
    weights = fills.targets.clone()
    value = torch.tensor(fills.capital, dtype=weights.dtype)
    partial = weights.isnan().any(-1)
    last = int(partial.nonzero().max()) if partial.any() else -1
    for k in range(last + 1):
        before = torch.zeros_like(weights[0])
        if k:
            growth = fills.prices[k] / fills.prices[k - 1]
            carried = costs.carry(weights[k - 1]) * fills.years[k - 1]
            grown = 1 + weights[k - 1] @ (growth - 1) + carried
            fills.check_solvent(grown[None], fills.starts[k : k + 1])
            before, value = drift(weights[k - 1], growth, carried), value * grown
        if not partial[k] and costs.proportional:
            continue
        lack = None if fills.illiquidity is None else fills.illiquidity[k]
        with fills.affordable(k):
            trade = costs.charge(fills.targets[k], before, lack, value, fills.most[k])
        weights[k], value = trade.weights, value * (1 - trade.cost)
    return weights


def keep_whole_book(fills: Fills, costs: Costs) -> Book:
    """The books with whole shares.

    Shares are rounded towards zero, and once more where their fees would overdraw the account.
    """
    targets = fills.targets
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
            rounded, ordered[k], paid = whole_shares(
                target, shares, price, value, costs, illiquidity, fills.most[k]
            )
        orders[k] = rounded - shares
        after = value * (1 - paid)
        shares, cash = rounded, after - rounded @ price
        held[k], costed[k], values[k] = shares * price / after, paid, value
    worth = ordered.abs() * fills.prices
    ordered = ordered.where(worth > NO_ORDER * values.unsqueeze(-1), 0.0)
    return _daily(held, costed, values, orders, ordered, fills, costs)


def whole_shares(
    target: Tensor,
    shares: Tensor,
    price: Tensor,
    value: Tensor,
    costs: Costs,
    illiquidity: Tensor | None,
    most: Tensor | float = 1.0,
    lot: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Shares (N,) in whole lots that come nearest to weights (N,) from below, after costs.

    Args:
        target: NaN where nothing is ordered; those shares stay as they are.
        value: money before the trade, what the shares are worth included.

    Returns:
        The shares; the orders before purchases were scaled down to the cash, and rounded; the
        costs, a fraction of the value.
    """
    before = shares * price / value
    trade = costs.charge(target, before, illiquidity, value, most)
    cost, wanted, alone = trade.cost, trade.weights * value / price, target.isnan()
    most = trade.weights.sum().clamp(min=1)  # of the value after costs may be invested
    traded = (trade.weights * (1 - cost) - before).where(~alone, 0.0)
    ordered = _unscaled(target, before, traded, cost) * value / price
    for _ in range(100):
        rounded = (wanted * (1 - cost) * (1 + 1e-12) / lot).trunc() * lot
        against = (rounded - shares) * (wanted * (1 - cost) - shares) < 0  # of an odd lot
        rounded = rounded.where(~(alone | against), shares)
        paid = costs.paid((rounded - shares) * price / value, illiquidity, value).sum()
        overdrawn = rounded @ price / value - most * (1 - paid)
        if overdrawn <= 0:
            break
        cost = cost + overdrawn
    return rounded, ordered, paid


def _daily(
    held: Tensor,
    cost: Tensor,
    value: Tensor,
    orders: Tensor,
    ordered: Tensor,
    fills: Fills,
    costs: Costs,
) -> Book:
    """The books of each day, from the weights ``held`` (E, N) after each fill.

    ``cost`` (E,) is a fraction of ``value`` (E,), the money before the fill.
    """
    path, starts, clock = fills.path, fills.starts, fills.clock
    points = torch.arange(len(path))
    period = torch.searchsorted(starts, points, right=True) - 1  # (P,) the last fill up to each
    growth = path / fills.prices[period]  # (P, N) since that fill
    rate = costs.carry(held)  # (E,) a year
    carried = rate[period] * (clock - clock[starts][period])  # (P,) since the fill
    total = 1 + (held[period] * (growth - 1)).sum(-1) + carried  # (P,) value over that after fill
    fills.check_solvent(total, points)
    weights = drift(held[period], growth, carried)

    gross = torch.zeros_like(total)
    gross[1:] = (weights[:-1] * (path[1:] / path[:-1] - 1)).sum(-1)
    net, years = gross.clone(), clock.diff()
    net[1:] += rate[period[:-1]] * years / total[:-1]
    net[starts] = (1 + net[starts]) * (1 - cost) - 1
    after = value * (1 - cost)  # (E,) money after the fill
    earned = torch.zeros_like(total)
    earned[1:] = (rate * after)[period[:-1]] * years
    traded = orders * fills.prices / value.unsqueeze(-1)
    fees = costs.paid(traded, fills.illiquidity, value) * value.unsqueeze(-1)
    worth, closes = after[period] * total, fills.closes
    if len(closes) < len(path):  # fills before the close are points of the same row
        row = torch.searchsorted(closes, points)
        one = torch.ones(len(closes), dtype=gross.dtype)
        gross, net = (one.scatter_reduce(0, row, 1 + each, "prod") - 1 for each in (gross, net))
        earned = torch.zeros_like(gross).index_add(0, row, earned)
        weights, worth = weights[closes], worth[closes]
    turnover = traded.abs().sum(-1)
    return Book(weights, gross, net, earned, worth, cost, turnover, orders, ordered, fees)
