"""Bookkeeping: what filling target weights at given closes does to value, shares and cash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from engine.costs import NOTHING, Costs, drift


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
    path, starts, at_fill = fills.path, fills.starts, fills.prices
    rows = torch.arange(len(path))
    period = torch.searchsorted(starts, rows, right=True) - 1  # (T,) the last fill up to the row
    growth = path / at_fill[period]  # (T, N) since that fill
    rate = costs.carry(wanted) * fills.year  # (K,) what a row of holding earns
    carried = rate[period] * (rows - starts[period])  # (T,) since the fill
    total = 1 + (wanted[period] * (growth - 1)).sum(-1) + carried  # (T,) value over that after fill
    weights = drift(wanted[period], growth, carried)

    # A row that is filled ends the period before: what that came to, just before the fill.
    ends = starts[1:]
    over = at_fill[1:] / at_fill[:-1]
    held = rate[:-1] * (ends - starts[:-1])
    became = 1 + (wanted[:-1] * (over - 1)).sum(-1) + held  # (K - 1,)
    for ruined in (total <= 0).nonzero()[:1].tolist() + ends[became <= 0][:1, None].tolist():
        raise ValueError(f"the portfolio is ruined on {fills.dates[ruined[0]].date()}")
    before = torch.cat([torch.zeros_like(wanted[:1]), drift(wanted[:-1], over, held)])

    # Costs that are not proportional depend on the value, which depends on the costs before;
    # each pass makes at least one more fill final, and a few make all of them.
    value = torch.full_like(rate, fills.capital)  # (K,) before the fill
    for _ in range(len(starts) + 1):
        trade = costs.charge(wanted, before, fills.illiquidity, value)
        earlier, factors = value, (1 - trade.cost[:-1]) * became
        value = fills.capital * torch.cat([torch.ones_like(value[:1]), factors.cumprod(0)])
        if costs.proportional or torch.allclose(value, earlier, rtol=1e-14, atol=0):
            break

    gross = torch.zeros_like(total)
    gross[1:] = (weights[:-1] * (path[1:] / path[:-1] - 1)).sum(-1)
    net = gross.clone()
    net[1:] += rate[period[:-1]] / total[:-1]
    net[starts] = (1 + net[starts]) * (1 - trade.cost) - 1
    after = value * (1 - trade.cost)  # (K,) money after the fill
    earned = torch.zeros_like(total)
    earned[1:] = (rate * after)[period[:-1]]

    traded = wanted * (1 - trade.cost.unsqueeze(-1)) - before
    traded = traded.where(traded.abs() > NOTHING, 0.0)
    fees = costs.paid(traded, fills.illiquidity, value)[0] * value.unsqueeze(-1)
    orders = traded * value.unsqueeze(-1) / at_fill
    money = after[period] * total
    return Book(weights, gross, net, earned, money, trade.cost, trade.turnover, orders, fees)


def whole_shares(wanted: Tensor, fills: Fills, costs: Costs) -> tuple[Tensor, Tensor]:
    """The weights (K, N) that whole shares come to, and the orders (K, N) before rounding.

    Shares are rounded towards zero, and once more where their fees would overdraw the account.
    """
    at_fill, starts = fills.prices, fills.starts
    shares, cash = torch.zeros_like(wanted[0]), torch.tensor(fills.capital, dtype=wanted.dtype)
    held, ordered, after = torch.zeros_like(wanted), torch.zeros_like(wanted), cash
    for k in range(len(wanted)):
        price = at_fill[k]
        if k:
            length = (starts[k] - starts[k - 1]) * fills.year
            cash = cash + costs.carry(held[k - 1]) * length * after
        value = cash + shares @ price
        lack = None if fills.illiquidity is None else fills.illiquidity[k]
        cost = costs.charge(wanted[k], shares * price / value, lack, value).cost
        ordered[k] = wanted[k] * (1 - cost) * value / price - shares
        most = wanted[k].sum().clamp(min=1)  # of the value after costs may be invested
        for _ in range(100):
            rounded = (wanted[k] * (1 - cost) * value / price * (1 + 1e-12)).trunc()
            paid = costs.paid((rounded - shares) * price / value, lack, value)[0].sum()
            overdrawn = rounded @ price / value - most * (1 - paid)
            if overdrawn <= 0:
                break
            cost = cost + overdrawn
        after = value * (1 - paid)
        shares, cash = rounded, after - rounded @ price
        held[k] = shares * price / after
    return held, ordered.where((ordered * at_fill).abs() > NOTHING * fills.capital, 0.0)
