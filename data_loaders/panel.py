"""Panel: immutable, validated, aligned prices and features.

A row of a panel is known at the close of its date. ``panel.until(date)`` is therefore what
was known at that close, and the only thing a strategy is ever handed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

DateLike: TypeAlias = "str | pd.Timestamp"


class DataError(ValueError):
    """Data that cannot be used; ``dates`` and ``assets`` name where, as far as it is known."""

    def __init__(self, message: str, dates: Sequence = (), assets: Sequence[str] = ()):
        super().__init__(message)
        self.dates = list(dates)
        self.assets = list(assets)


class Panel:
    """Prices of N assets on T dates, with optional features known at the same closes.

    Args:
        prices: (T, N) positive prices; NaN where the asset does not trade. The index holds
            unique, increasing session dates without a time zone, the columns unique names.
        asset_features: {name: (T, N) frame}, index and columns as ``prices``.
        market_features: (T, E) frame, index as ``prices``.
        source: where the data came from, in words; shown in the report.
        caveats: what a reader of results must know about the data (survivorship, ...).

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
    ):
        _check_dates(prices.index)
        _check_assets(prices.columns)
        self.prices = _frozen(prices, "prices")
        _check_prices(self.prices)
        self.asset_features = MappingProxyType(
            {
                name: _frozen(_aligned(frame, self.prices, f"asset feature {name!r}"), name)
                for name, frame in (asset_features or {}).items()
            }
        )
        market = pd.DataFrame(index=prices.index) if market_features is None else market_features
        self.market_features = _frozen(
            _aligned(market, self.prices, "market features", columns=False), "market features"
        )
        self.source = source
        self.caveats = tuple(caveats)

    @classmethod
    def from_returns(cls, returns: pd.DataFrame, **rest: Any) -> Panel:
        """A panel whose ``returns`` are these simple returns (T, N), in fractions.

        The panel has one row more: the first, one period earlier, where every price starts
        at 100. NaN is a period in which the asset did not trade.
        """
        _check_dates(returns.index)
        wrong = returns.le(-1) | np.isinf(returns)
        if wrong.to_numpy().any():
            raise _located("simple returns must be finite and above -1 (-100%)", returns, wrong)
        gaps = returns.index.to_series().diff()
        period = gaps.median() if len(returns) > 1 else pd.Timedelta("1D")
        growth = 100 * (1 + returns.fillna(0)).cumprod()
        base = pd.DataFrame(100.0, index=[returns.index[0] - period], columns=returns.columns)
        prices = pd.concat([base, growth])
        known = returns.notna().to_numpy()
        opens = np.vstack([known, np.zeros((1, known.shape[1]), bool)])  # a return starts here
        ends = np.vstack([np.zeros((1, known.shape[1]), bool), known])
        return cls(prices.where(opens | ends), **rest)

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The session dates, (T,)."""
        return self.prices.index

    @property
    def assets(self) -> pd.Index:
        """The names of the assets, (N,)."""
        return self.prices.columns

    @cached_property
    def returns(self) -> pd.DataFrame:
        """Simple returns from the row before, (T, N), fractions; NaN in the first row."""
        values = self.prices.to_numpy()
        out = np.full(values.shape, np.nan)
        out[1:] = values[1:] / values[:-1] - 1
        return _frame(out, self.dates, self.assets)

    @cached_property
    def periods_per_year(self) -> int:
        """Rows a year, read off the dates: 252 (sessions), 365 (every day), 52 or 12."""
        days = np.diff(self.dates.values).astype("timedelta64[D]").astype(int)
        typical = float(np.median(days)) if len(days) else 1.0
        if typical >= 20:
            return 12
        if typical >= 5:
            return 52
        return 365 if len(days) >= 7 and days.max() == 1 else 252

    @cached_property
    def trades_throughout(self) -> pd.Series:
        """(N,) bool by asset: has a price on every date of this panel."""
        return self.prices.notna().all()

    def until(self, date: DateLike) -> Panel:
        """What was known at the close of ``date``: the rows up to it, without a copy."""
        stop = int(self.dates.searchsorted(pd.Timestamp(date), side="right"))
        return self._rows(0, stop)

    def last(self, rows: int) -> Panel:
        """The last ``rows`` rows, without a copy."""
        return self._rows(max(0, len(self) - rows), len(self))

    def since(self, date: DateLike) -> Panel:
        """The rows from ``date`` on, without a copy."""
        return self._rows(int(self.dates.searchsorted(pd.Timestamp(date), side="left")), len(self))

    def _rows(self, start: int, stop: int) -> Panel:
        part = object.__new__(Panel)
        part.prices = self.prices.iloc[start:stop]
        part.asset_features = MappingProxyType(
            {name: frame.iloc[start:stop] for name, frame in self.asset_features.items()}
        )
        part.market_features = self.market_features.iloc[start:stop]
        part.source, part.caveats = self.source, self.caveats
        part.__dict__["periods_per_year"] = self.periods_per_year
        part.__dict__["returns"] = self.returns.iloc[start:stop]
        return part

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the content: dates, names, prices and features, bit for bit."""
        digest = hashlib.sha256()
        parts = [("prices", self.prices), ("market", self.market_features)]
        parts += [(f"asset:{name}", frame) for name, frame in sorted(self.asset_features.items())]
        digest.update(self.dates.values.astype("datetime64[ns]").tobytes())
        for name, frame in parts:
            digest.update("\x1f".join([name, *map(str, frame.columns)]).encode() + b"\x1e")
            values = np.ascontiguousarray(frame.to_numpy(np.float64))
            # NaN has many bit patterns; one of them stands for all.
            digest.update(np.where(np.isnan(values), np.nan, values).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.prices)

    def __repr__(self) -> str:
        if not len(self):
            return f"Panel(empty, {len(self.assets)} assets)"
        span = f"{self.dates[0].date()} to {self.dates[-1].date()}"
        return f"Panel({len(self)} dates from {span}, {len(self.assets)} assets, {self.source})"


def _frame(values: np.ndarray, index: pd.Index, columns: pd.Index) -> pd.DataFrame:
    """A frame over ``values`` itself, which becomes read-only."""
    values.flags.writeable = False
    return pd.DataFrame(values, index=index, columns=columns, copy=False)


def _frozen(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    try:
        values = np.array(frame.to_numpy(dtype=np.float64, na_value=np.nan), order="C", copy=True)
    except (TypeError, ValueError):
        for name in frame.columns:
            numbers = pd.to_numeric(frame[name], errors="coerce")
            bad = frame.index[numbers.isna() & frame[name].notna()]
            if len(bad):
                raise DataError(
                    f"{what}: column {name!r} holds {frame[name].loc[bad[0]]!r} at {_day(bad[0])}, "
                    "which is not a number",
                    dates=bad,
                    assets=[name],
                ) from None
        raise
    return _frame(values, frame.index, frame.columns)


def _check_dates(index: pd.Index) -> None:
    if not isinstance(index, pd.DatetimeIndex):
        raise DataError(
            f"the index of prices must hold dates (a DatetimeIndex), got {type(index).__name__}; "
            "pd.to_datetime(frame.index) makes one"
        )
    if index.tz is not None:
        raise DataError(
            f"dates carry the time zone {index.tz}; session dates have none: "
            "frame.index = frame.index.tz_localize(None).normalize()"
        )
    if not len(index):
        raise DataError("there is no row of prices")
    if index.hasnans:
        raise DataError(f"row {int(np.flatnonzero(index.isna())[0])} has no date")
    twice = index[index.duplicated()]
    if len(twice):
        raise DataError(f"dates occur more than once: {_days(twice)}", dates=twice)
    backwards = index[1:][index[1:] < index[:-1]]
    if len(backwards):
        raise DataError(
            f"dates are not in order: {_days(backwards)} stands after a later date; "
            "sort_index() sorts them",
            dates=backwards,
        )


def _check_assets(columns: pd.Index) -> None:
    if not len(columns):
        raise DataError("there is no asset: prices have no column")
    if not all(isinstance(name, str) and name for name in columns):
        raise DataError(f"asset names must be non-empty text, got {list(columns)[:5]}")
    twice = list(columns[columns.duplicated()])
    if twice:
        raise DataError(f"assets occur more than once: {', '.join(twice[:5])}", assets=twice)


def _check_prices(prices: pd.DataFrame) -> None:
    values = prices.to_numpy()
    wrong = (values <= 0) | np.isinf(values)
    if wrong.any():
        raise _located("prices must be positive and finite", prices, wrong)
    empty = list(prices.columns[np.isnan(values).all(axis=0)])
    if empty:
        raise DataError(
            f"assets without a single price: {', '.join(empty[:5])}; leave them out", assets=empty
        )


def _aligned(
    frame: pd.DataFrame, prices: pd.DataFrame, what: str, columns: bool = True
) -> pd.DataFrame:
    if not frame.index.equals(prices.index):
        odd = frame.index.symmetric_difference(prices.index)
        raise DataError(
            f"{what}: dates differ from the prices', first at {_days(odd) or 'their order'}",
            dates=odd,
        )
    if columns and not frame.columns.equals(prices.columns):
        names = [str(name) for name in frame.columns.symmetric_difference(prices.columns)]
        raise DataError(
            f"{what}: columns differ from the assets: {', '.join(names[:5]) or 'their order'}",
            assets=names,
        )
    return frame


def _located(message: str, frame: pd.DataFrame, wrong: np.ndarray | pd.DataFrame) -> DataError:
    rows, columns = np.nonzero(np.asarray(wrong))
    places = [
        f"{frame.columns[j]} {frame.iat[i, j]:g} on {_day(frame.index[i])}"
        for i, j in zip(rows[:3], columns[:3], strict=True)
    ]
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return DataError(
        f"{message}: {'; '.join(places)}{more}",
        dates=frame.index[np.unique(rows)],
        assets=list(frame.columns[np.unique(columns)]),
    )


def _day(date: pd.Timestamp) -> str:
    return date.strftime("%Y-%m-%d") if date == date.normalize() else str(date)


def _days(dates: pd.Index) -> str:
    more = f" and {len(dates) - 3} more" if len(dates) > 3 else ""
    return ", ".join(_day(date) for date in dates[:3]) + more
