"""Panel: immutable, validated, aligned prices and features.

A row of a panel is known at the close of its date. ``panel.until(date)`` is therefore what
was known at that close, and the only thing a strategy is ever handed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from html import escape
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from data_loaders import calendars
from data_loaders.reading.frames import as_frame, check_index
from data_loaders.reading.options import Options
from data_loaders.reading.returns import prices_from, simple_returns
from data_loaders.suggestions import did_you_mean
from data_loaders.validation import (
    DataError,
    aligned,
    check_assets,
    check_benchmark,
    check_dates,
    check_prices,
    frozen,
)

DateLike: TypeAlias = "str | pd.Timestamp"

DELISTED_AFTER = 10  # rows (of bars: days) without a price at the end: the asset is delisted


class Panel:
    """Prices of N assets on T dates, with optional features known at the same closes.

    Args:
        prices: (T, N) positive prices; NaN where the asset does not trade. The index holds
            unique, increasing session dates without a time zone, the columns unique names. Columns
            of two levels (field, asset), as yfinance gives them, and Polars or Arrow tables are
            read by their names: the caveats say what was taken, other fields become features.
        asset_features: {name: (T, N) frame}, index and columns as ``prices``.
        market_features: (T, E) frame, index as ``prices``.
        source: where the data came from, in words; shown in the report.
        caveats: what a reader of results must know about the data (survivorship, ...).
        members: (T, N) frame of bool, index and columns as ``prices``: in the universe at that
            close. By default every asset is, whenever it trades. A price outside of the
            universe still values current holdings.
        snapshots: {name: identity} of the stored snapshots it was read from, if any.
        benchmark: name of the column of ``prices`` that strategies are compared with. It is taken
            out: it is no asset, no strategy is given it or can hold it, and its returns are
            stored with the results. Or a Series of its prices (T,), index as ``prices``.
        periods_per_year: rows per year, by which figures are annualised; by default they are
            counted from the dates.

    Raises:
        DataError: naming the first offending dates and assets.
    """

    def __init__(
        self,
        prices: pd.DataFrame,
        asset_features: Mapping[str, pd.DataFrame] | None = None,
        market_features: pd.DataFrame | None = None,
        source: str = "prices given by the caller",
        caveats: Sequence[str] = (),
        members: pd.DataFrame | None = None,
        snapshots: Mapping[str, str] | None = None,
        benchmark: str | pd.Series | None = None,
        periods_per_year: float | None = None,
    ):
        prices, fields, notes = as_frame(prices)
        check_dates(prices.index)
        check_assets(prices.columns)
        features = {**fields, **(asset_features or {})}
        market = pd.DataFrame(index=prices.index) if market_features is None else market_features
        if isinstance(benchmark, str):
            benchmark, without, note = _taken_out(benchmark, prices)
            prices, market = without(prices), without(market)
            features = {name: without(frame) for name, frame in features.items()}
            members = None if members is None else without(members)
            notes += [note] if note else []
        self._whole, self._span = self, slice(0, len(prices))
        self.prices = frozen(prices, "prices")
        self.prices.attrs.update(prices.attrs)
        check_prices(self.prices)
        self.asset_features = MappingProxyType(
            {
                name: frozen(aligned(frame, self.prices, f"asset feature {name!r}"), name)
                for name, frame in features.items()
            }
        )
        self.market_features = frozen(
            aligned(market, self.prices, "market features", columns=False), "market features"
        )
        self.source = source
        self.caveats = (*caveats, *notes)
        self.snapshots = MappingProxyType(dict(snapshots or {}))
        self._benchmark = None if benchmark is None else check_benchmark(benchmark, self.dates)
        self._given_year = calendars.check_periods_per_year(periods_per_year)
        self.has_universe = members is not None  # otherwise every asset with a price is a member
        if members is not None:
            inside = aligned(members, self.prices, "members").to_numpy(dtype=bool)
            self.members = _frame(inside & self._priced, self.dates, self.assets)

    @classmethod
    def from_returns(cls, returns: pd.DataFrame, unit: str | None = None, **rest: Any) -> Panel:
        """A panel whose ``returns`` are these simple returns (T, N).

        The panel has one row more: the first, one period earlier, where every price starts
        at 100. NaN is a period in which the asset did not trade.

        ``unit`` is as in ``load``; by default fractions, and what looks like another is refused.
        """
        check_index(returns)
        options = Options(kind="returns", unit=unit)
        return cls(prices_from(simple_returns(returns, options, "returns")), **rest)

    # Parts of a panel are lazy views of the whole: there is one for each decision, and most
    # strategies look at one or two of these attributes only.

    @cached_property
    def prices(self) -> pd.DataFrame:
        """(T, N), float64; NaN where an asset does not trade."""
        return self._whole.prices.iloc[self._span]

    @cached_property
    def asset_features(self) -> Mapping[str, pd.DataFrame]:
        """{name: (T, N)}, each row known at that row's close."""
        features = self._whole.asset_features.items()
        return MappingProxyType({name: frame.iloc[self._span] for name, frame in features})

    @cached_property
    def market_features(self) -> pd.DataFrame:
        """(T, E), likewise."""
        return self._whole.market_features.iloc[self._span]

    @cached_property
    def dates(self) -> pd.DatetimeIndex:
        """The session dates, (T,)."""
        return self._whole.prices.index[self._span]

    @property
    def assets(self) -> pd.Index:
        """The names of the assets, (N,)."""
        return self._whole.prices.columns

    @cached_property
    def returns(self) -> pd.DataFrame:
        """Simple returns from the previous row, (T, N), fractions; NaN in the first row.

        The first row of a part has the return from the row before it in the whole panel.
        """
        if self._whole is not self:
            return self._whole.returns.iloc[self._span]
        values = self.prices.to_numpy()
        out = np.full(values.shape, np.nan)
        np.divide(values[1:], values[:-1], out=out[1:])
        out -= 1
        return _frame(out, self.dates, self.assets)

    @cached_property
    def benchmark(self) -> pd.Series | None:
        """Prices (T,) of the benchmark, NaN where it has none; its name is that of the Series.

        None without one, and in what a strategy is given.
        """
        return None if self._benchmark is None else self._benchmark.iloc[self._span]

    @cached_property
    def periods_per_year(self) -> float:
        """Rows per year: 252 (sessions), 365 (every day), 52, 12, 4, 1, or bars, or as given.

        Raises:
            DataError: the dates change their frequency, from days to weeks for example.
        """
        if self._whole is not self:
            return self._whole.periods_per_year
        given = self._given_year
        return calendars.periods_per_year(self.dates) if given is None else given

    @cached_property
    def members(self) -> pd.DataFrame:
        """(T, N) bool: trades and is in the universe at that close, so it may be bought."""
        if self._whole is not self:
            return self._whole.members.iloc[self._span]
        return _frame(self._priced, self.dates, self.assets)

    @property
    def last_members(self) -> np.ndarray:
        """(N,) bool: the last row of ``members``."""
        return self._whole.members.to_numpy()[self._span.stop - 1]

    @cached_property
    def trades_throughout(self) -> pd.Series:
        """(N,) bool by asset: has a price on every date, and is a member on the last.

        A strategy is given the assets for which this holds over its lookback.
        """
        trades = self._priced.all(axis=0)
        if self.has_universe:
            trades &= self.members.to_numpy()[-1:].all(axis=0)
        return pd.Series(trades, index=self.assets)

    @cached_property
    def _priced(self) -> np.ndarray:
        """(T, N) bool: has a price."""
        if self._whole is not self:
            return self._whole._priced[self._span]
        known = ~np.isnan(self.prices.to_numpy())
        known.flags.writeable = False
        return known

    def until(self, date: DateLike) -> Panel:
        """What was known at the close of ``date``: the rows up to it, without a copy.

        Of bars within a day, a text like "2020-01-31" is the whole day, a Timestamp its moment.
        """
        return self.rows(0, calendars.rows_until(self.dates, date))

    def last(self, rows: int) -> Panel:
        """The last ``rows`` rows, without a copy."""
        return self.rows(max(0, len(self) - rows), len(self))

    def since(self, date: DateLike) -> Panel:
        """The rows from ``date`` on, without a copy."""
        return self.rows(int(self.dates.searchsorted(pd.Timestamp(date), side="left")), len(self))

    def rows(self, start: int, stop: int) -> Panel:
        """Rows ``start`` to before ``stop``, as of a sequence, without a copy."""
        start, stop, _ = slice(start, stop).indices(len(self))
        first = self._span.start
        part = object.__new__(Panel)
        part._whole = self._whole
        part._span = slice(first + start, first + max(start, stop))
        part.has_universe, part._benchmark = self.has_universe, self._benchmark
        part._given_year = self._given_year
        part.source, part.caveats, part.snapshots = self.source, self.caveats, self.snapshots
        return part

    def without_benchmark(self) -> Panel:
        """The panel as strategies are given it, and all its parts: without a copy."""
        if self._benchmark is None:
            return self
        part = self.rows(0, len(self))
        part._benchmark = None
        return part

    def replaced(self, **changes: Any) -> Panel:
        """A panel of the same content but for these arguments of ``Panel``."""
        return Panel(**{**self._arguments(), **changes})

    def with_delisting_return(self, fraction: float) -> Panel:
        """A panel in which a delisted asset has one more price: the last one times 1 + fraction.

        An asset is delisted if it has no price in the last 10 rows, or days where they are bars. On
        the added date it can be sold, but is not a member, so it cannot be bought. Without this, a
        holding keeps its last price.

        Args:
            fraction: the return after the last trade; -0.3 is a loss of 30%. Shumway (1997)
                finds about -30% for stocks delisted by NYSE and AMEX for poor performance.
        """
        if not -1 < fraction < np.inf:
            raise ValueError(
                f"a delisting return must be above -1 (-100%, a price of zero), got {fraction}"
            )
        rows, columns = self.delistings
        values = self.prices.to_numpy().copy()
        values[rows + 1, columns] = values[rows, columns] * (1 + fraction)
        note = f"A holding that is delisted earns {fraction:.0%} after its last price."
        prices = _frame(values, self.dates, self.assets)
        return self.replaced(prices=prices, members=self.members, caveats=(*self.caveats, note))

    @property
    def delistings(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the last prices, and columns, of the assets that are delisted."""
        known = self.prices.notna().to_numpy()
        rows = len(self) - 1 - known[::-1].argmax(axis=0)
        columns = np.flatnonzero(
            rows < len(self) - DELISTED_AFTER * calendars.bars_per_day(self.dates)
        )
        return rows[columns], columns

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the content: dates, names, prices, features, members, benchmark; bitwise.

        Rows per year belong to it where they were given.
        """
        return self.content_hash()

    def content_hash(self) -> str:
        """The fingerprint, computed again from what is in memory now."""
        digest = hashlib.sha256()
        parts = [("prices", self.prices), ("market", self.market_features)]
        parts += [(f"asset:{name}", frame) for name, frame in sorted(self.asset_features.items())]
        if self.benchmark is not None:
            parts.append(("benchmark", self.benchmark.to_frame()))
        digest.update(self.dates.values.astype("datetime64[ns]").tobytes())
        for name, frame in parts:
            digest.update("\x1f".join([name, *map(str, frame.columns)]).encode() + b"\x1e")
            values = np.ascontiguousarray(frame.to_numpy(np.float64))
            # NaN has many bit patterns: use one of them.
            digest.update(np.where(np.isnan(values), np.nan, values).data)
        members = self.members.to_numpy()
        if not np.array_equal(members, self.prices.notna().to_numpy()):
            digest.update(np.ascontiguousarray(members).data)
        if self._given_year is not None:
            digest.update(f"periods_per_year {self._given_year!r}".encode())
        return digest.hexdigest()

    def __reduce__(self) -> tuple:
        """Pickle the arguments of what this panel shows; a year has the rows of the whole one."""
        rest = self._arguments()
        prices = rest.pop("prices")
        known = {}
        with suppress(DataError):
            known["periods_per_year"] = self.periods_per_year
        return partial(type(self), **rest), (prices,), known

    def _arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "prices": self.prices,
            "asset_features": dict(self.asset_features),
            "market_features": self.market_features,
            "source": self.source,
            "caveats": self.caveats,
            "snapshots": dict(self.snapshots),
            "members": self.members if self.has_universe else None,
            "benchmark": self.benchmark,
            "periods_per_year": self._given_year,
        }

    def __len__(self) -> int:
        return self._span.stop - self._span.start

    def __repr__(self) -> str:
        if not len(self):
            return f"Panel(empty, {len(self.assets)} assets)"
        span = f"{self.dates[0].date()} to {self.dates[-1].date()}"
        return f"Panel({len(self)} dates from {span}, {len(self.assets)} assets, {self.source})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.prices.to_html(max_rows=6, max_cols=8)}"


def _frame(values: np.ndarray, index: pd.Index, columns: pd.Index) -> pd.DataFrame:
    """A frame over ``values`` itself, which becomes read-only."""
    values.flags.writeable = False
    return pd.DataFrame(values, index=index, columns=columns, copy=False)


def _taken_out(
    name: str, prices: pd.DataFrame
) -> tuple[pd.Series, Callable[[pd.DataFrame], pd.DataFrame], str]:
    """The benchmark's column of prices (T, N), and what takes it out of any table of these rows.

    Rows on which nothing but the benchmark has a price are no sessions of the assets, and are
    left out, too, with a caveat (else "").
    """
    if name not in prices.columns:
        known = list(map(str, prices.columns))
        raise DataError(
            f"benchmark {name!r} is no column of the prices{did_you_mean(name, known)}; columns "
            f"are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
        )
    if len(prices.columns) == 1:
        raise DataError(f"benchmark {name!r} is the only column: there is no asset to hold")
    kept = prices.drop(columns=name).notna().any(axis=1).to_numpy() | prices[name].isna().to_numpy()
    rows = slice(None) if kept.all() else kept

    def without(table: pd.DataFrame) -> pd.DataFrame:
        found = table.drop(columns=name, errors="ignore")
        return found[rows] if table.index.equals(prices.index) else found  # refused later

    note = f"Left out: {(~kept).sum():,} rows on which only the benchmark {name} has a price."
    return prices.loc[rows, name], without, "" if kept.all() else note


def benchmark_returns(prices: pd.Series | None, dates: pd.DatetimeIndex) -> pd.Series:
    """Simple returns (T,) of a benchmark bought at the close of the first of consecutive dates.

    A row without a price is NaN, and the next one with a price has the return since the last. The
    first is 0, or NaN where there is no price until then. Empty without a benchmark, or dates.
    """
    if prices is None or not len(dates):
        return pd.Series(dtype=float, index=dates[:0], name="benchmark")
    known = prices.ffill()
    returns = (known / known.shift(1) - 1).where(prices.notna())[dates].rename("benchmark")
    returns.iloc[0] = 0.0 if np.isfinite(known[dates[0]]) else np.nan
    return returns
