"""The market that orders meet: prices of fills and of valuation, bars, and liquidity.

Bars say when and where stop, trailing, take-profit and limit orders are filled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from data_loaders import DataError, Panel
from data_loaders.calendars import elapsed_years
from data_loaders.panel import DELISTED_AFTER
from engine.accounting.costs import Costs

CHUNK = 256  # rows of bars that are looked at together, at first
FEWEST = 12  # rows behind the volatility and the volume of a date, where a quarter has fewer


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


@dataclass(frozen=True)
class Market:
    """The prices that orders and positions meet.

    Attributes:
        panel: T rows of N assets.
        costs: of trading and holding.
        fill: the price at which orders are filled: "close", "open" (the asset feature of that
            name), or the name of an asset feature, such as "vwap".
    """

    panel: Panel
    costs: Costs
    fill: str = "close"

    @cached_property
    def closes(self) -> np.ndarray:
        """Valuation prices (T, N) at the closes: the last known; 1 before the first."""
        return self.panel.prices.ffill().fillna(1.0).to_numpy(copy=True)

    @cached_property
    def quoted(self) -> np.ndarray:
        """Prices (T, N) at which orders are filled; NaN where there is none."""
        prices = self.panel.prices
        if self.fill == "close":
            return prices.to_numpy()
        if self.fill not in self.panel.asset_features:
            known = ", ".join(self.panel.asset_features) or "no features"
            raise ValueError(
                f"fill={self.fill!r} needs that price as an asset feature; the panel has {known}"
            )
        quoted = self.panel.asset_features[self.fill].where(prices.notna()).to_numpy()
        if (quoted <= 0).any():
            row, column = np.argwhere(quoted <= 0)[0]
            raise ValueError(
                f"fill={self.fill!r} of {self.panel.assets[column]} is {quoted[row, column]:g} on "
                f"{self.panel.dates[row]}; a price is positive"
            )
        return quoted

    @cached_property
    def at_fills(self) -> np.ndarray:
        """Valuation prices (T, N) at the moment of fills: quoted, else the last close before."""
        if self.fill == "close":
            return self.closes
        before = np.vstack([self.closes[:1], self.closes[:-1]])
        return np.where(np.isnan(self.quoted), before, self.quoted)

    @cached_property
    def next_quoted(self) -> np.ndarray:
        """(T, N) the first row from each on with a quoted price; T where there is none."""
        rows = np.where(np.isnan(self.quoted), len(self.panel), np.arange(len(self.panel))[:, None])
        return np.minimum.accumulate(rows[::-1])[::-1]

    @cached_property
    def all_quoted(self) -> np.ndarray:
        """(T,) bool: every asset has a quoted price."""
        return ~np.isnan(self.quoted).any(axis=1)

    @cached_property
    def delisted(self) -> np.ndarray:
        """(N,) the row from which an asset has no price any more, T where it still trades."""
        known = self.panel.prices.notna().to_numpy()
        after = len(known) - np.argmax(known[::-1], axis=0)
        return np.where(len(known) - after >= DELISTED_AFTER, after, len(known))

    @cached_property
    def clock(self) -> np.ndarray:
        """(T,) years since the first row."""
        return elapsed_years(self.panel.dates).cumsum()

    @cached_property
    def illiquidity(self) -> torch.Tensor | None:
        """The ``illiquidity`` (T, N) that is charged for; None where there is no market impact.

        Raises:
            DataError: the panel has no feature "volume", or an asset without any.
        """
        if not self.costs.impact:
            return None
        found = illiquidity(self.panel)
        if not len(found):
            raise DataError(
                'market impact needs the asset feature "volume" (shares a session); the panel has '
                f"{', '.join(self.panel.asset_features) or 'no features'}; impact=0 goes without"
            )
        empty = found.columns[found.isna().any()]
        if len(empty):
            raise DataError(
                f"no volume of {', '.join(map(str, empty[:5]))}; market impact cannot be charged "
                "there"
            )
        return torch.from_numpy(found.to_numpy().copy())

    @cached_property
    def bars(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Open, high and low prices, (T, N) each; NaN where an asset does not trade.

        Raises:
            ValueError: the panel does not have them, or a close lies outside of its bar.
        """
        features, prices = self.panel.asset_features, self.panel.prices
        missing = [name for name in ("open", "high", "low") if name not in features]
        if missing:
            raise ValueError(
                "stop, take-profit and limit prices need the asset features open, high and low; "
                f"the panel has no {' and no '.join(missing)}; load a file that has them, or give "
                "them as Panel(prices, {'open': ..., 'high': ..., 'low': ...})"
            )
        first, high, low = (features[name].to_numpy() for name in ("open", "high", "low"))
        odd = (low > np.fmin(first, prices)) | (high < np.fmax(first, prices))
        if odd.to_numpy().any():
            row, column = np.argwhere(odd.to_numpy())[0]
            raise ValueError(
                f"{self.panel.assets[column]} on {self.panel.dates[row]}: open and close are not "
                "between low and high; adjust all of them for splits and dividends, or none"
            )
        order = np.asfortranarray  # one asset is read at a time
        return order(first), order(high), order(low)

    def first_exit(
        self, asset: int, start: int, side: float, levels: Levels, best: float
    ) -> Exit | None:
        """When a position that is open before the bar of row ``start`` is closed; None if never.

        Args:
            side: 1 for a long position, -1 for a short one.
            best: the highest price since it was opened (the lowest of a short one); of a position
                without a trailing stop it is not read.
        """
        stop, trailing, take, _ = (level[asset] for level in levels)
        for first, last in self._chunks(start):
            # A short position is a long one in negative prices.
            opened, high, low = (side * bar[first:last, asset] for bar in self.bars)
            if side < 0:
                high, low = low, high
            trailed = np.full(len(low), np.nan)
            if not np.isnan(trailing):
                peak = np.maximum.accumulate(
                    np.append(side * best, np.nan_to_num(high, nan=-np.inf))
                )
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

    def first_touch(self, asset: int, start: int, side: float, limit: float) -> Exit | None:
        """The first bar from row ``start`` on that fills a limit order to buy (1) or sell (-1)."""
        for first, last in self._chunks(start):
            opened, high, low = (bar[first:last, asset] for bar in self.bars)
            hit = low <= limit if side > 0 else high >= limit
            if hit.any():
                k = int(hit.argmax())
                price = np.fmin(opened[k], limit) if side > 0 else np.fmax(opened[k], limit)
                return Exit(first + k, float(price), "limit")
        return None

    def best_price(self, asset: int, since: int, until: int, side: float, entry: float) -> float:
        """The highest price (lowest of a short position) of a position, opened at ``entry``, in the
        bars from row ``since`` up to before row ``until``."""
        _, high, low = self.bars
        bars = (high if side > 0 else low)[since:until, asset]
        return side * float(np.fmax.reduce(side * bars, initial=side * entry))

    def _chunks(self, start: int) -> Iterator[tuple[int, int]]:
        """Rows from ``start`` on, a few first and each time twice as many: most exits are near."""
        rows = CHUNK
        while start < len(self.panel):
            yield start, start + rows
            start, rows = start + rows, 2 * rows


def illiquidity(panel: Panel) -> pd.DataFrame:
    """l = sigma / sqrt(v) of each date and asset, (T, N), which market impact is proportional to.

    sigma is the standard deviation of daily returns and v the mean money traded a day, both over
    the quarter to that close. Rows of n a day, or one in n days, need no conversion: the variance
    and the money traded of a row are both that many times a day's. The first rows of an asset take
    its first figure; NaN where nothing is known. Volume is in shares a row, counted as prices are:
    as adjusted for splits. Without the feature "volume" the frame is empty.
    """
    if "volume" not in panel.asset_features:
        return pd.DataFrame()
    rows = max(FEWEST, round(panel.periods_per_year / 4))
    traded = (panel.asset_features["volume"] * panel.prices).rolling(rows, min_periods=2).mean()
    spread = panel.returns.rolling(rows, min_periods=2).std()
    return (spread / traded.where(traded > 0) ** 0.5).ffill().bfill()
