"""load("sp500" | "yahoo:SPY,TLT" | "prices.csv" | "synthetic:null"): one call for every source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from data_loaders.calendars import check_periods_per_year, rows_until
from data_loaders.files import KNOWN, is_file_name, read_features, read_members, read_panel
from data_loaders.panel import DateLike, Panel
from data_loaders.plugins import SOURCES, installed, is_plugin, plugged_panel
from data_loaders.reading.options import Options
from data_loaders.suggestions import did_you_mean, known_names
from data_loaders.validation import DataError


def load(
    source: str | Path,
    start: DateLike | None = None,
    end: DateLike | None = None,
    *,
    kind: str = "prices",
    unit: str | None = None,
    price: str | None = None,
    layout: str | None = None,
    asset: str | None = None,
    date_format: str | None = None,
    timezone: str | None = None,
    skip: int | str = 0,
    header: int | str | list[str] | None = None,
    table: int | None = None,
    na: str | float | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    asset_features: Mapping[str, str | Path] | None = None,
    market_features: str | Path | None = None,
    membership: str | Path | None = None,
    delisting_return: float = 0.0,
    benchmark: str | None = None,
    periods_per_year: float | None = None,
    update: bool = False,
    as_of: DateLike | None = None,
    allow_missing: bool = False,
    store: str | Path | None = None,
) -> Panel:
    """Load a panel of prices.

    Args:
        source: one of

            - ``"sp500"`` (20 large US stocks), ``"sp500_index"``, ``"factors"`` (5 US factor
              ETFs): daily to 2022, bundled with skfolio, nothing is fetched;
            - ``"yahoo:SPY,TLT,GLD"``: daily adjusted closes from Yahoo, through yfinance. Stored
              prices are read without the network;
            - a file: CSV or other text (packed by gzip, bzip2, xz or zip), Parquet or Feather; a
              folder or a pattern like ``"data/*.csv"``, with one file per asset; or a folder of
              partitioned Parquet. Wide, long, or the fields of one asset: the columns' names say
              which, and the caveats say what was taken;
            - ``"synthetic:planted"``, ``"synthetic:lead_lag"``, ``"synthetic:null"``, with their
              arguments as in ``"synthetic:planted?seed=3&rows=2000&assets=10"``;
            - your own: ``"my_data:prices"`` or ``"path/my_data.py:prices"``, a function that
              returns a Panel or prices (T, N), or the name of an installed one (entry points of
              the group ``deqfolio.sources``).
        start: first date to keep, inclusive.
        end: last date to keep, inclusive: the whole day where it has no time.
        kind: what a file holds: "prices" or "returns" (simple returns from the row before).
        unit: of returns: "fraction", "percent", "bp" (0.01%) or "gross" (1 + return).
        price: the column, or field, that holds the prices.
        layout: "wide" (each column is an asset), "fields" (the columns are fields of one asset) or
            "long" (a column names the asset of each row).
        asset: the name of the asset where the file holds one; by default the file's name.
        date_format: of the dates, like "%d/%m/%Y", or "epoch_s", "epoch_ms", "epoch_us",
            "epoch_ns", "excel"; by default it is detected.
        timezone: of the exchange, like "Asia/Tokyo": times are converted to it before they are
            cut to dates.
        skip: lines of a text file to leave out: a number of lines at the top, or lines like
            "1-3,135-139".
        header: the number of header lines, or, where there is none, the names of the columns like
            "date,open,high,low,close": columns with an empty name, or after the last, are left out.
        table: which of several tables in a file, counted from 1.
        na: a further mark of a missing value, like "-99.99".
        decimal: the decimal separator, "." or ",".
        thousands: the separator of thousands, like ",".
        asset_features: {name: file}, each wide like the prices; a row is known at the close of
            its date, and is used for later dates until the next row.
        market_features: a file with one row per date and one column per feature, likewise.
        membership: a CSV file with the columns asset, from, to (days, inclusive; empty is open).
            On other dates an asset is not a member: its prices stay known, it cannot be bought.
        delisting_return: return of a holding after the last price of a delisted asset, a
            fraction; -0.3 is a loss of 30%.
        benchmark: the column that strategies are compared with; it is taken out of the assets, so
            that no strategy can hold it.
        periods_per_year: rows per year, like 252 or 8760; by default counted from the dates.
        update: for Yahoo: fetch prices that are newer than the store.
        as_of: for Yahoo: read what the store held on that date.
        allow_missing: for Yahoo: leave out tickers without prices (the caveats name them);
            by default they are an error.
        store: folder of the snapshots; by default $DEQFOLIO_DATA or ~/.cache/deqfolio/data.

    Raises:
        DataError: an unknown source (with the nearest names), an unreadable file, an empty
            span, or anything that ``Panel`` refuses.
    """
    if not isinstance(source, str | Path):
        raise DataError(f"source should be a name or a path, got {source!r}")
    name = str(source)
    options = Options(
        kind, unit, price, layout, asset, date_format, timezone, skip, header, table, na, decimal,
        thousands,
    )  # fmt: skip
    first, last = _date(start, "start"), _date(end, "end")
    given = check_periods_per_year(periods_per_year)
    if name in BUNDLED:
        from skfolio import datasets

        function, said, caveats = BUNDLED[name]
        panel = Panel(getattr(datasets, function)(), source=said, caveats=caveats)
    elif name.startswith("yahoo:"):
        from data_loaders import yahoo_histories

        tickers = name.removeprefix("yahoo:").split(",")
        panel = yahoo_histories.load_panel(
            tickers, store=store, update=update, as_of=as_of, end=last, allow_missing=allow_missing
        )
    elif name.startswith("synthetic:"):
        from data_loaders import synthetic

        panel = synthetic.from_name(name).panel
    elif is_plugin(name):
        try:
            panel = plugged_panel(name)
        except DataError as error:
            known = [*NAMED, *installed(SOURCES)]
            raise DataError(f"{error}{did_you_mean(name, known)}") from error
    elif is_file_name(name):
        panel = read_panel(Path(source), options)
    else:
        raise DataError(
            f"unknown data source {name!r}{known_names(name, [*NAMED, *installed(SOURCES)])}, "
            f"yahoo:TICKER,TICKER, the path of a file that ends in {', '.join(KNOWN)}, and "
            "module:function"
        )
    if not name.startswith("yahoo:") and (update or as_of is not None or allow_missing):
        raise ValueError(
            f"update, as_of and allow_missing are for yahoo: sources, not for {name!r}"
        )
    if benchmark is not None and (panel.benchmark is None or panel.benchmark.name != benchmark):
        panel = panel.replaced(benchmark=benchmark)
    panel = _between(panel, first, last, name, delisting_return)
    panel = _joined(
        panel, asset_features or {}, market_features, membership, Options(date_format=date_format)
    )
    return panel if given is None else panel.replaced(periods_per_year=given)


def _between(
    panel: Panel, start: pd.Timestamp | None, end: pd.Timestamp | None, name: str, delisting: float
) -> Panel:
    """The dates from start to end; delistings are found on all dates of the source."""
    if delisting:
        panel = panel.with_delisting_return(delisting)
    dates = panel.dates
    low = 0 if start is None else int(dates.searchsorted(start, side="left"))
    high = len(dates)
    if end is not None:
        high = rows_until(dates, str(end.date()) if end == end.normalize() else end)
    if low >= high:
        raise DataError(
            f"{name} has no row from {start.date() if start else 'its start'} to "
            f"{end.date() if end else 'its end'}: it spans {dates[0].date()} to {dates[-1].date()}"
        )
    if (low, high) == (0, len(dates)):
        return panel
    part = panel.rows(low, high)
    kept = part.assets[part.prices.notna().any()]
    if len(kept) == len(part.assets):
        return part.replaced()
    outside = part.assets.difference(kept)
    return part.replaced(
        prices=part.prices[kept],
        asset_features={key: frame[kept] for key, frame in part.asset_features.items()},
        caveats=(*part.caveats, f"Left out, without a price in this span: {', '.join(outside)}."),
        members=part.members[kept] if part.has_universe else None,
    )


def _joined(
    panel: Panel,
    asset_features: Mapping[str, str | Path],
    market_features: str | Path | None,
    membership: str | Path | None,
    options: Options,
) -> Panel:
    """The panel with features and memberships from other files."""
    if not asset_features and market_features is None and membership is None:
        return panel
    features, notes = dict(panel.asset_features), list(panel.caveats)
    for name, file in asset_features.items():
        found, note = read_features(Path(file), panel.dates, options)
        if len(found) != 1:
            raise DataError(f"{file}: has columns {', '.join(found)}, expected one feature")
        (frame,) = found.values()
        absent = panel.assets.difference(frame.columns)
        if len(absent):
            raise DataError(
                f"{file}: has no column for {', '.join(absent[:5])}", assets=list(absent)
            )
        features[name] = frame[panel.assets]
        notes += [note] if note else []
    market = panel.market_features
    if market_features is not None:
        found, note = read_features(Path(market_features), panel.dates, options)
        if list(found) != [""]:
            raise DataError(f"{market_features}: market features must not have a column of assets")
        market = pd.concat([market, found[""]], axis=1)
        notes += [note] if note else []
    members = panel.members
    if membership is not None:
        inside, absent = read_members(Path(membership), panel.dates, panel.assets)
        members = members & inside
        if panel.benchmark is not None:
            absent = [name for name in absent if name != panel.benchmark.name]
        if absent:
            notes.append(
                f"{len(absent)} members of {Path(membership).name} have no prices here "
                f"({', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}): missing assets "
                "are often the delisted ones."
            )
    return panel.replaced(
        asset_features=features, market_features=market, caveats=notes, members=members
    )


def _date(value: DateLike | None, name: str) -> pd.Timestamp | None:
    if value is None:
        return None
    try:
        date = pd.Timestamp(value)
    except (ValueError, TypeError):
        date = pd.NaT
    if date is pd.NaT:
        raise DataError(f"{name}={value!r} is not a date (expected year-month-day)")
    return date.tz_localize(None)


BUNDLED = {  # skfolio's function, the source in words, and caveats
    "sp500": (
        "load_sp500_dataset",
        "20 S&P 500 stocks bundled with skfolio (adjusted daily closes)",
        (
            "The 20 stocks are hand-picked survivors: each was still large in 2022. Every "
            "long-only strategy, 1/N above all, looks far better on them than it could have been.",
            "Prices before 2000 are rounded after adjustment, so early returns are coarse.",
        ),
    ),
    "sp500_index": (
        "load_sp500_index",
        "S&P 500 index bundled with skfolio (daily closes)",
        ("The index is without dividends, and cannot be bought as such.",),
    ),
    "factors": (
        "load_factors_dataset",
        "5 US factor ETFs bundled with skfolio (adjusted daily closes)",
        ("The ETFs were chosen because they exist today: funds that closed are missing.",),
    ),
}
NAMED = (*BUNDLED, "synthetic:planted", "synthetic:lead_lag", "synthetic:null")
