"""Series and files of prices or returns: a report's strategies, or its benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from data_loaders.reading import names
from data_loaders.reading.frames import check_index
from data_loaders.reading.many_files import read_all
from data_loaders.reading.options import Options
from data_loaders.reading.returns import prices_from, unit_doubt
from data_loaders.validation import DataError, check_dates, day, days
from engine.accounting.risk_free import Rates
from engine.runs.result import BacktestResult
from reports.returns_alone import as_results, has_holdings, of_seeds, result_of_returns

LONGEST = pd.Timedelta("10D")  # between rows, above which a daily benchmark has a hole
SPACINGS = 3  # likewise, in typical distances between its rows
REMEDY = 'give a longer series, or compare with another benchmark, as "EqualWeight" (1/N)'
PERSISTENT = 0.5  # deviation of changes over that of levels: 0 of a trend, 1.4 of white noise
FEW = 20  # values below which a series of positive numbers is not judged


def read_benchmark(path: str | Path) -> pd.Series:
    """Prices of the benchmark in a file, see ``read_levels``."""
    found = read_levels(path)
    if len(found) != 1:
        listed = ", ".join([*found][:5] + ["..."][: len(found) > 5])
        raise DataError(
            f"{path} holds {len(found)} columns ({listed}), and a benchmark is one: keep its dates "
            "and one column"
        )
    (read,) = found.values()
    return read()


def read_levels(path: str | Path) -> dict[str, Callable[[], pd.Series]]:
    """{column: its prices by date} of a file, read as ``load`` reads prices and returns."""
    file = Path(path).expanduser()
    try:
        frames = read_all(file, Options())
    except DataError as error:
        try:
            frames = read_all(file, Options(kind="returns"))
        except DataError:
            raise error from None
    table, kind = frames.fields[frames.price], None
    if frames.price != "price":
        kind = "prices" if frames.price in names.PRICES else "returns"
    return {str(c): partial(benchmark_of, table[c], str(c), kind) for c in table.columns}


def results_of(given: object, risk_free: Rates | None = None) -> dict[str, BacktestResult]:
    """As ``as_results``, also of what ``backtest_seeds`` gives, and of a file: dates, and for each
    strategy a column of simple returns or of values, such as prices or a net asset value.
    """
    if not isinstance(given, str | Path):
        return as_results(of_seeds(given), risk_free)
    source = f"returns from {Path(given).name}"
    returns = {name: read().pct_change().iloc[1:] for name, read in read_levels(given).items()}
    return {
        name: result_of_returns(line, name, risk_free=risk_free, source=source)
        for name, line in returns.items()
    }


def benchmark_of(values: pd.Series, name: str | None = None, kind: str | None = None) -> pd.Series:
    """Prices by date of a series of prices or of simple returns; NaN is a date without a row.

    Prices of returns begin one period before the first of them. ``kind`` is "prices" or "returns";
    by default the name of the series says it (close, return), or its values do.

    Raises:
        DataError: no dates, not in order, or values that can be read as both.
    """
    own = names.field(str(values.name)) if values.name is not None else None
    name = str(name or values.name or "benchmark")
    check_index(values.to_frame(name))
    try:
        values = values.astype(float).dropna().rename(name)
    except (TypeError, ValueError) as error:
        raise DataError(f"benchmark {name} holds values that are no numbers: {error}") from None
    if not len(values):
        raise DataError(f"benchmark {name} has no value")
    check_dates(pd.DatetimeIndex(values.index))
    if kind is None and own == "return":
        kind = "returns"
    elif kind is None and own in names.PRICES and own != "price":
        kind = "prices"
    kind = kind or _kind(values, name)
    if kind == "prices":
        bad = values.index[~((values > 0) & (values < np.inf))]
        if len(bad):
            raise DataError(f"benchmark {name}: its price on {days(bad)} is not above 0")
        return values
    if doubt := unit_doubt(values.to_numpy()[:, None], pd.DatetimeIndex(values.index)):
        raise DataError(
            f"benchmark {name} is read as returns, but {doubt.partition(': pass')[0]}: divide "
            "percent by 100; prices have no value of 0 or below"
        )
    return prices_from(values.to_frame())[name]


def _kind(values: pd.Series, name: str) -> str:
    """What positive numbers are: a level that moves little from row to row, or moves."""
    if (values <= 0).any():
        return "returns"
    middle = float(values.median())
    if middle > 2:  # a median return of 200% is none
        return "prices"
    spread = float(values.std())
    persistent = spread > 0 and values.diff().std() < PERSISTENT * spread
    if middle > 0.5 and len(values) >= FEW and persistent:
        return "prices"
    if middle < 0.5 and len(values) >= FEW and spread > 0 and not persistent:
        return "returns"
    raise DataError(
        f"benchmark {name} has values from {values.min():.4g} to {values.max():.4g}, which are "
        "prices or returns: name the series or column close or return"
    )


def check_coverage(prices: pd.Series, dates: pd.DatetimeIndex) -> None:
    """Refuse a benchmark that begins later than these dates (T,), ends earlier or has a hole."""
    name, own = prices.name, pd.DatetimeIndex(prices.index)
    need = f"the comparison needs it from {day(dates[0])} to {day(dates[-1])}"
    if own[0] > dates[0]:
        raise DataError(f"benchmark {name} begins on {day(own[0])}: {need}; {REMEDY}")
    inside = own[(own >= dates[0]) & (own <= dates[-1])]
    shared = len(inside.intersection(dates))
    if shared < 2:
        raise DataError(
            f"benchmark {name} has {shared} of the {len(dates):,} dates from {day(dates[0])} to "
            f"{day(dates[-1])}: give it the dates, and times of day, of the results"
        )
    gaps = np.diff(inside.values)
    limit = max(LONGEST, SPACINGS * pd.Timedelta(np.median(gaps)))
    if dates[-1] - own[-1] > limit:
        raise DataError(f"benchmark {name} ends on {day(own[-1])}: {need}; {REMEDY}")
    at = int(gaps.argmax())
    longest = pd.Timedelta(np.diff(dates.values).max())
    if pd.Timedelta(gaps[at]) > max(limit, 2 * longest):
        raise DataError(
            f"benchmark {name} has no value between {day(inside[at])} and {day(inside[at + 1])}: "
            f"{need}; {REMEDY.replace('longer series', 'series without this hole')}"
        )


def aligned(prices: pd.Series, subject: BacktestResult) -> tuple[BacktestResult, str]:
    """A benchmark as a result on those of the subject's dates on which it has a price, and how many
    rows matched, in words.

    It is bought at the close of the subject's first fill, at the last price known then, and held
    without costs.
    """
    dates = pd.DatetimeIndex(subject.net_returns.index)
    check_coverage(prices, dates)
    own = pd.DatetimeIndex(prices.index)
    matched = dates.isin(own)
    between = own[(own > dates[0]) & (own <= dates[-1])].difference(dates)
    alike = matched.all() and not len(between)
    kept = dates[matched]
    if has_holdings(subject):  # its first row is the purchase
        kept = dates[:1].union(kept)
        levels = np.append(prices.asof(dates[0]), prices[kept[1:]])
        returns = np.append(0.0, levels[1:] / levels[:-1] - 1)
    else:  # its first row is a return, of a period that begins where that of the benchmark does
        levels = prices[kept].to_numpy()
        returns = np.append(np.nan, levels[1:] / levels[:-1] - 1)
        before = own.searchsorted(dates[0]) - 1
        if alike and before >= 0:
            returns[0] = levels[0] / prices.iloc[before] - 1
    name = str(prices.name)
    year = subject.settings["periods_per_year"] * (len(kept) / len(dates))
    found = result_of_returns(pd.Series(returns, kept), name, a_year=year)
    growth = (1 + subject.risk_free).cumprod()
    until = growth[found.net_returns.index]
    begun = growth.shift(1, fill_value=1.0)[until.index[0]]
    interest = (until / until.shift(1, fill_value=begun) - 1).rename("risk_free")
    said = _said(name, len(dates), int(matched.sum()), len(between))
    return replace(found, risk_free=interest), said


def _said(name: str, rows: int, matched: int, between: int) -> str:
    if matched == rows and not between:
        return f"{name} has a value on each of the {rows:,} dates."
    said = f"{name} has a value on {matched:,} of the {rows:,} dates."
    if matched < rows:
        said += (
            f" On the other {rows - matched:,} it has none: the returns of both sides are "
            "compounded up to the next date that both have."
        )
    if between:
        said += (
            f" {between:,} of its rows lie between the dates, and are compounded up to the next."
        )
    return said
