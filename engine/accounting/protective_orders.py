"""Stop, trailing, take-profit and limit orders: when and where a bar fills them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from data_loaders import Panel
from engine.accounting.market import Market

CHUNK = 256  # rows that are looked at together, at first


class Levels(NamedTuple):
    """Prices by asset (N,), and ``trailing``, a fraction; NaN where there is none."""

    stop: np.ndarray
    trailing: np.ndarray
    take_profit: np.ndarray
    limit: np.ndarray

    @classmethod
    def none(cls, count: int) -> Levels:
        return cls(*(np.full(count, np.nan) for _ in cls._fields))

    def protects(self) -> np.ndarray:
        """(N,) bool: the position has a stop, a trailing stop or a take-profit."""
        return ~(np.isnan(self.stop) & np.isnan(self.trailing) & np.isnan(self.take_profit))

    def floor(self, asset: int, side: float, best: float) -> float:
        """The stop of a position (the negative one of a short position) whose best price this is;
        NaN where there is none."""
        trailed = side * best - self.trailing[asset] * best
        return float(np.fmax(side * self.stop[asset], trailed))


def level_table(
    levels: Mapping[int, Levels], panel: Panel, decided: pd.DatetimeIndex
) -> pd.DataFrame:
    """One row a decision and asset that has any: date, asset, and the prices by their names.

    Args:
        levels: by row of the decision.
        decided: the dates of the decisions that count.
    """
    parts = []
    for row, each in levels.items():
        values = np.column_stack(each)  # (N, 4)
        named = np.flatnonzero(~np.isnan(values).all(axis=1))
        part = pd.DataFrame(values[named], columns=Levels._fields)
        part.insert(0, "asset", panel.assets.astype(str).to_numpy()[named])
        part.insert(0, "date", panel.dates[row])
        parts.append(part)
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return table[table["date"].isin(decided)].reset_index(drop=True) if parts else table


class Exit(NamedTuple):
    """The first bar that closes a position."""

    row: int
    price: float
    reason: str  # "stop", "trailing" or "take_profit"


class Guard(NamedTuple):
    """The protective orders of a position."""

    levels: Levels
    decided: int  # row
    exit: Exit | None  # what becomes of them


def first_exit(
    market: Market, asset: int, start: int, side: float, levels: Levels, best: float
) -> Exit | None:
    """When a position that is open before the bar of row ``start`` is closed; None if never.

    Args:
        side: 1 for a long position, -1 for a short one.
        best: the highest price since it was opened (the lowest of a short one); of a position
            without a trailing stop it is not read.
    """
    stop, trailing, take, _ = (level[asset] for level in levels)
    for first, last in _chunks(start, len(market.panel)):
        # A short position is a long one in negative prices.
        opened, high, low = (side * bar[first:last, asset] for bar in market.bars)
        if side < 0:
            high, low = low, high
        trailed = np.full(len(low), np.nan)
        if not np.isnan(trailing):
            peak = np.maximum.accumulate(np.append(side * best, np.nan_to_num(high, nan=-np.inf)))
            trailed, best = peak[:-1] - trailing * np.abs(peak[:-1]), side * peak[-1]
        floor = np.fmax(side * stop, trailed)
        ceiling = side * take
        gapped = opened >= ceiling
        hit = (low <= floor) | (high >= ceiling)
        if hit.any():
            k = int(hit.argmax())
            if low[k] <= floor[k] and not gapped[k]:
                reason = "trailing" if trailed[k] == floor[k] else "stop"
                return Exit(first + k, side * float(np.fmin(opened[k], floor[k])), reason)
            return Exit(first + k, side * float(np.fmax(opened[k], ceiling)), "take_profit")
    return None


def _chunks(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Rows from ``start`` on, a few first and each time twice as many: most exits are near."""
    rows = CHUNK
    while start < end:
        yield start, start + rows
        start, rows = start + rows, 2 * rows


def first_touch(market: Market, asset: int, start: int, side: float, limit: float) -> Exit | None:
    """The first bar from row ``start`` on that fills a limit order to buy (1) or sell (-1)."""
    for first, last in _chunks(start, len(market.panel)):
        opened, high, low = (bar[first:last, asset] for bar in market.bars)
        hit = low <= limit if side > 0 else high >= limit
        if hit.any():
            k = int(hit.argmax())
            price = np.fmin(opened[k], limit) if side > 0 else np.fmax(opened[k], limit)
            return Exit(first + k, float(price), "limit")
    return None


def best_price(
    market: Market, asset: int, since: int, until: int, side: float, entry: float
) -> float:
    """The highest price (lowest of a short position) of a position, opened at ``entry``, in the
    bars from row ``since`` up to before row ``until``."""
    _, high, low = market.bars
    bars = (high if side > 0 else low)[since:until, asset]
    return side * float(np.fmax.reduce(side * bars, initial=side * entry))
