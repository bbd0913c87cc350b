"""Bookkeeping: what filling target weights at given closes does to value, shares and cash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from engine.accounting.costs import NOTHING, Costs
from strategies.base import drift


@dataclass(frozen=True)
class Fills:
    """When K targets are filled, and at what.

    Attributes:
        dates: (T,) from the first fill on.
        path: (T, N) valuation prices.
        starts: (K,) rows of the fills, increasing.
        year: length of a row in years.
        illiquidity: (K, N) at the fills, or None (see ``Costs.charge``).
        capital: money before the first fill.
    """

    dates: pd.DatetimeIndex
    path: Tensor
    starts: Tensor
    year: float
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
    def lengths(self) -> Tensor:
        """(K - 1,) years from one fill to the next."""
        return self.starts.diff().to(torch.float64) * self.year


class Book(NamedTuple):
    """The books of a portfolio: fractions, but for money and shares where it says so."""

    weights: Tensor  # (T, N) after each close
    gross: Tensor  # (T,) returns of prices
    net: Tensor  # (T,) returns after everything
    carried: Tensor  # (T,) money that holding earned on the row
    value: Tensor  # (T,) money after the close
    cost: Tensor  # (K,) of the value before the fill
    turnover: Tensor  # (K,) likewise
    orders: Tensor  # (K, N) shares, negative where sold
    fees: Tensor  # (K, N) money


def keep_book(wanted: Tensor, fills: Fills, costs: Costs) -> Book:
    """The books of holding ``wanted`` (K, N), fractions of the value after each fill's costs.

    Raises:
        ValueError: the portfolio is ruined, on a date that is named.
    """
    at_fill = fills.prices
    over = at_fill[1:] / at_fill[:-1]
    carried = costs.carry(wanted[:-1]) * fills.lengths
    became = 1 + (wanted[:-1] * (over - 1)).sum(-1) + carried  # (K - 1,) just before the next fill
    for late in (became <= 0).nonzero()[:1].flatten():
        raise _ruined(fills, int(fills.starts[late + 1]))
    before = torch.cat([torch.zeros_like(wanted[:1]), drift(wanted[:-1], over, carried)])

    # Costs that are not proportional depend on the value, which depends on the costs before;
    # each pass makes at least one more fill final, and a few make all of them.
    value = torch.full_like(wanted[:, 0], fills.capital)  # (K,) before the fill
    for _ in range(len(wanted) + 1):
        cost = costs.charge(wanted, before, fills.illiquidity, value).cost
        earlier, factors = value, (1 - cost[:-1]) * became
        value = fills.capital * torch.cat([torch.ones_like(value[:1]), factors.cumprod(0)])
        if costs.proportional or torch.allclose(value, earlier, rtol=1e-14, atol=0):
            break
    traded = wanted * (1 - cost.unsqueeze(-1)) - before
    traded = traded.where(traded.abs() > NOTHING, 0.0)
    orders = traded * value.unsqueeze(-1) / at_fill
    return _daily(wanted, cost, value, orders, fills, costs)


def keep_whole_book(wanted: Tensor, fills: Fills, costs: Costs) -> tuple[Book, Tensor]:
    """The books with whole shares, and the orders (K, N) before they were rounded.

    Shares are rounded towards zero, and once more where their fees would overdraw the account.
    """
    at_fill = fills.prices
    shares, cash = torch.zeros_like(wanted[0]), torch.tensor(fills.capital, dtype=wanted.dtype)
    held, orders, ordered = (torch.zeros_like(wanted) for _ in range(3))
    costed, values = torch.zeros_like(wanted[:, 0]), torch.zeros_like(wanted[:, 0])
    after = cash
    for k, price in enumerate(at_fill):
        if k:
            cash = cash + costs.carry(held[k - 1]) * fills.lengths[k - 1] * after
        value = cash + shares @ price
        if value <= 0:
            raise _ruined(fills, int(fills.starts[k]))
        lack = None if fills.illiquidity is None else fills.illiquidity[k]
        cost = costs.charge(wanted[k], shares * price / value, lack, value).cost
        ideal = wanted[k] * (1 - cost) * value / price
        most = wanted[k].sum().clamp(min=1)  # of the value after costs may be invested
        for _ in range(100):
            rounded = (wanted[k] * (1 - cost) * value / price * (1 + 1e-12)).trunc()
            paid = costs.paid((rounded - shares) * price / value, lack, value)[0].sum()
            overdrawn = rounded @ price / value - most * (1 - paid)
            if overdrawn <= 0:
                break
            cost = cost + overdrawn
        ordered[k], orders[k] = ideal - shares, rounded - shares
        after = value * (1 - paid)
        shares, cash = rounded, after - rounded @ price
        held[k], costed[k], values[k] = shares * price / after, paid, value
    ordered = ordered.where((ordered * at_fill).abs() > NOTHING * values.unsqueeze(-1), 0.0)
    return _daily(held, costed, values, orders, fills, costs), ordered


def _daily(
    held: Tensor, cost: Tensor, value: Tensor, orders: Tensor, fills: Fills, costs: Costs
) -> Book:
    """The books of each day, from what was held (K, N) after each fill.

    ``cost`` (K,) is a fraction of ``value`` (K,), the money before the fill.
    """
    path, starts, at_fill = fills.path, fills.starts, fills.prices
    rows = torch.arange(len(path))
    period = torch.searchsorted(starts, rows, right=True) - 1  # (T,) the last fill up to the row
    growth = path / at_fill[period]  # (T, N) since that fill
    rate = costs.carry(held) * fills.year  # (K,) what a row of holding earns
    carried = rate[period] * (rows - starts[period])  # (T,) since the fill
    total = 1 + (held[period] * (growth - 1)).sum(-1) + carried  # (T,) value over that after fill
    for ruined in (total <= 0).nonzero()[:1].flatten():
        raise _ruined(fills, int(ruined))
    weights = drift(held[period], growth, carried)

    gross = torch.zeros_like(total)
    gross[1:] = (weights[:-1] * (path[1:] / path[:-1] - 1)).sum(-1)
    net = gross.clone()
    net[1:] += rate[period[:-1]] / total[:-1]
    net[starts] = (1 + net[starts]) * (1 - cost) - 1
    after = value * (1 - cost)  # (K,) money after the fill
    earned = torch.zeros_like(total)
    earned[1:] = (rate * after)[period[:-1]]
    traded = orders * at_fill / value.unsqueeze(-1)
    fees = costs.paid(traded, fills.illiquidity, value)[0] * value.unsqueeze(-1)
    return Book(
        weights, gross, net, earned, after[period] * total, cost, traded.abs().sum(-1), orders, fees
    )


def _ruined(fills: Fills, row: int) -> ValueError:
    return ValueError(f"the portfolio is ruined on {fills.dates[row].date()}")
