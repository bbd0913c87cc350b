"""Round trips: orders as positions that were opened and closed, matched by average cost."""

from __future__ import annotations

from collections.abc import Mapping
from math import copysign
from typing import NamedTuple

import numpy as np
import pandas as pd

CAPITAL = 1e6  # money at the start, where costs name none
COLUMNS = (
    "asset", "side", "shares", "entry_date", "entry_price", "exit_date", "exit_price", "fees",
    "profit", "return", "bars", "adverse", "favourable", "reason",
)  # fmt: skip


class Closed(NamedTuple):
    """What an order closes of a position."""

    shares: float  # positive
    side: float  # of the position: 1 long, -1 short
    opened: int  # row
    entry_price: float
    entry_fees: float  # money: the share of these shares


class AverageCost:
    """The shares of one asset, and their average price: a sale leaves it as it is.

    An order beyond the holding closes the position, and opens another on the other side.
    """

    def __init__(self) -> None:
        self.shares = self.price = self.fees = 0.0
        self.opened = -1

    def trade(
        self, row: int, shares: float, price: float, fees: float
    ) -> tuple[Closed | None, float]:
        """Fill an order of so many shares, negative for a sale.

        Returns:
            What it closes, and the part of its own fees that belongs to that.
        """
        size, side = abs(self.shares), copysign(1.0, self.shares)
        closing = min(size, abs(shares)) if shares * self.shares < 0 else 0.0
        if closing > size * (1 - 1e-9):  # all of it: what is left is rounding
            closing = size
        closed, own = None, 0.0
        if closing:
            part = closing / size
            closed = Closed(closing, side, self.opened, self.price, self.fees * part)
            own = fees * min(1.0, closing / abs(shares))
            self.fees *= 1 - part
            self.shares = side * (size - closing)
        rest = abs(shares) - closing
        if rest > abs(shares) * 1e-9:
            held = abs(self.shares)
            self.opened = self.opened if held else row
            self.price = (self.price * held + price * rest) / (held + rest)
            self.fees = (self.fees if held else 0.0) + fees - own
            self.shares += copysign(rest, shares)
        return closed, own


def round_trips(
    orders: pd.DataFrame, weights: pd.DataFrame, asset_returns: pd.DataFrame, value: pd.Series
) -> pd.DataFrame:
    """One row for each order that closes a position or a part of it; see ``BacktestResult``.

    Args:
        value: (T,) of the portfolio after each close, money.
    """
    dates = pd.DatetimeIndex(value.index)
    orders = orders[orders["size"] > 0] if len(orders) else orders
    if not len(orders):
        return pd.DataFrame(columns=list(COLUMNS))
    closes = _closes(orders, weights, asset_returns, value)  # {asset: (T,)}
    held: dict[str, AverageCost] = {}
    found: list[tuple] = []
    at = dates.get_indexer(pd.DatetimeIndex(orders["date"]))
    signed = np.where(orders["side"] == "buy", orders["size"], -orders["size"])
    reasons = orders["reason"] if "reason" in orders else ["decision"] * len(orders)
    for row, asset, shares, price, fees, reason in zip(
        at, orders["asset"], signed, orders["price"], orders["fees"], reasons, strict=True
    ):
        position = held.setdefault(asset, AverageCost())
        closed, own = position.trade(int(row), shares, price, fees)
        if closed is not None:
            path = closes[asset][closed.opened : row] if asset in closes else np.empty(0)
            found.append(_trip(asset, closed, dates, row, price, own, path, reason))
    for asset, position in held.items():
        if position.shares:
            whole = Closed(
                abs(position.shares), np.sign(position.shares), position.opened, position.price,
                position.fees,
            )  # fmt: skip
            path = closes[asset][position.opened :] if asset in closes else np.array([np.nan])
            found.append(_trip(asset, whole, dates, None, path[-1], 0.0, path, "open"))
    return pd.DataFrame(found, columns=list(COLUMNS))


def profit_by_asset(trips: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Sums of the round trips by asset, or by group; the largest profit first."""
    names = trips["asset"]
    if groups is not None:
        names = names.map(lambda asset: groups.get(asset, "no group")).rename("group")
    open_ = trips["reason"] == "open"
    table = pd.DataFrame(
        {
            "round trips": (~open_).astype(int),
            "won": ((trips["profit"] > 0) & ~open_).astype(int),
            "realised": trips["profit"].where(~open_, 0.0),
            "open": trips["profit"].where(open_, 0.0),
            "fees": trips["fees"],
            "profit": trips["profit"],
        }
    ).groupby(names).sum()  # fmt: skip
    return table.sort_values("profit", ascending=False, kind="stable")


def _trip(
    asset: str,
    closed: Closed,
    dates: pd.DatetimeIndex,
    row: int | None,
    price: float,
    own: float,
    path: np.ndarray,
    reason: str,
) -> tuple:
    """A row of the table; ``path`` are the closes from the entry on, before the exit."""
    cost = closed.entry_price * closed.shares
    fees = closed.entry_fees + own
    profit = closed.side * (price - closed.entry_price) * closed.shares - fees
    seen = [price, closed.entry_price, *((path.min(), path.max()) if len(path) else ())]
    moves = [closed.side * (each / closed.entry_price - 1) for each in (min(seen), max(seen))]
    last = len(dates) - 1 if row is None else row
    return (
        asset, "long" if closed.side > 0 else "short", closed.shares, dates[closed.opened],
        closed.entry_price, pd.NaT if row is None else dates[row], price, fees, profit,
        profit / cost, last - closed.opened, min(moves), max(moves), reason,
    )  # fmt: skip


def _closes(
    orders: pd.DataFrame, weights: pd.DataFrame, asset_returns: pd.DataFrame, value: pd.Series
) -> dict[str, np.ndarray]:
    """Valuation prices (T,) by asset: returns from the close at which its weight is largest.

    The shares are known there, and so are the weight and the value of the portfolio.
    """
    signed = orders["size"].where(orders["side"] == "buy", -orders["size"])
    found = {}
    for asset in weights.columns:
        name, held = str(asset), weights[asset].to_numpy()
        row = int(np.nanargmax(np.abs(held))) if len(held) else 0
        own = (orders["asset"] == name) & (orders["date"] <= value.index[row])
        shares = float(signed[own].sum())
        if held[row] and shares and asset in asset_returns:
            growth = (1 + asset_returns[asset].to_numpy()).cumprod()
            found[name] = growth / growth[row] * held[row] * value.iloc[row] / shares
    return found
