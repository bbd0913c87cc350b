"""Results of returns alone, without holdings or orders: what a report is given of a fund or another
program, or its benchmark; as series, or files of prices or returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from data_loaders.calendars import periods_per_year
from data_loaders.files import read_all
from data_loaders.reading import names
from data_loaders.reading.frames import check_index
from data_loaders.reading.options import Options
from data_loaders.reading.returns import prices_from, unit_doubt
from data_loaders.validation import DataError, check_dates, day, days
from engine.accounting.risk_free import Rates, read_risk_free
from engine.runs.result import BacktestResult

LONGEST = pd.Timedelta("10D")  # between rows, above which a daily benchmark has a hole
SPACINGS = 3  # likewise, in typical distances between its rows
REMEDY = 'give a longer series, or compare with another benchmark, as "EqualWeight" (1/N)'
PERSISTENT = 0.5  # deviation of changes over that of levels: 0 of a trend, 1.4 of white noise
FEW = 20  # values below which a series of positive numbers is not judged


def results_of(given: object, risk_free: Rates | None = None) -> dict[str, BacktestResult]:
    """Results by name, of results or of simple returns: a Series, a frame, a mapping of Series, or
    a file of dates, and for each strategy a column of returns or of values, such as prices or a net
    asset value. Of what ``backtest_seeds`` gives, rules once and "name (seed 3)".

    Raises:
        TypeError: something else, or both in one mapping.
    """
    source = "returns given by the caller"
    if isinstance(given, str | Path):
        source = f"returns from {Path(given).name}"
        levels = _read_levels(given)
        given = {name: line.pct_change().iloc[1:] for name, line in levels.items()}
    if isinstance(given, pd.Series):
        given = {given.name or "strategy": given}
    if isinstance(given, pd.DataFrame):
        given = dict(given.items())
    if not isinstance(given, Mapping):
        raise TypeError(
            "a report needs {name: result} as backtest returns them, or simple returns: a Series, "
            "a DataFrame with a column per strategy, {name: Series}, or a file of these; got "
            f"{type(given).__name__}"
        )
    seeds = all(isinstance(k, int) and isinstance(each, Mapping) for k, each in given.items())
    if given and seeds:
        by_name: dict[str, BacktestResult] = {}
        for seed, results in given.items():
            for name, result in results.items():
                learned = bool((result.strategy or {}).get("learned"))
                by_name.setdefault(f"{name} (seed {seed})" if learned else name, result)
        given = {name: replace(result, name=name) for name, result in by_name.items()}
    if all(isinstance(each, BacktestResult) for each in given.values()):
        if risk_free is not None:
            raise ValueError(
                "results of a backtest have the risk-free rate that they were run with: give it to "
                "backtest(risk_free=...)"
            )
        return dict(given)
    if all(isinstance(each, pd.Series) for each in given.values()):
        return {
            str(name): result_of_returns(line, str(name), risk_free=risk_free, source=source)
            for name, line in given.items()
        }
    odd = sorted({type(each).__name__ for each in given.values()})
    raise TypeError(f"expected results, or a Series of returns for each name, got {', '.join(odd)}")


def read_benchmark(path: str | Path) -> pd.Series:
    """Prices of the benchmark in a file of one column of prices or returns."""
    return next(iter(_read_levels(path, 1).values()))


def _read_levels(path: str | Path, most: int | None = None) -> dict[str, pd.Series]:
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
    if most is not None and table.shape[1] > most:
        listed = ", ".join([*map(str, table)][:5] + ["..."][: table.shape[1] > 5])
        raise DataError(
            f"{path} holds {table.shape[1]} columns ({listed}), and a benchmark is one: keep its "
            "dates and one column"
        )
    if frames.price != "price":
        kind = "prices" if frames.price in names.PRICES else "returns"
    return {str(name): benchmark_of(table[name], str(name), kind) for name in table.columns}


def result_of_returns(
    returns: pd.Series,
    name: str | None = None,
    *,
    a_year: float | None = None,
    risk_free: Rates | None = None,
    source: str = "returns given by the caller",
) -> BacktestResult:
    """A result with these returns and nothing else.

    Args:
        returns: (T,) simple returns by date, fractions, the first one included; NaN only before
            the first and after the last.
        a_year: periods per year; by default from the dates.
        risk_free: yearly rate, or rates by date, see ``backtest``; default 0. The first return is
            taken to be of a period as long as the typical one.
        source: where they come from, for the page.

    Raises:
        DataError: no dates, not in order, gaps, returns of -100% or less, or returns that look
            like percent or prices.
    """
    name = str(name or returns.name or "strategy")
    zone = getattr(returns.index, "tz", None)
    if zone is not None and returns.index.normalize().equals(returns.index):
        returns = returns.tz_localize(None)  # session dates, as pyfolio and zipline have them
    check_index(returns.to_frame(name))
    try:
        given = returns.astype(float)
    except (TypeError, ValueError) as error:
        raise DataError(f"the returns of {name} are no numbers: {error}") from None
    known = np.flatnonzero(given.notna())
    if not len(known):
        raise DataError(f"{name} has no return")
    given = given.iloc[known[0] : known[-1] + 1]
    dates = pd.DatetimeIndex(given.index)
    check_dates(dates)
    bad = dates[~np.isfinite(given.to_numpy())]
    if len(bad):
        raise DataError(
            f"{name} has no finite return on {days(bad)}: give 0 where nothing was earned, or "
            "leave the dates out",
            dates=bad,
        )
    if doubt := unit_doubt(given.to_numpy()[:, None], dates):
        reading = doubt.partition(": pass")[0]
        raise DataError(
            f"{name} should be simple returns, fractions like 0.01 for 1%, but {reading}: divide "
            "percent by 100, take 1 from growth factors, and pct_change() of prices"
        )
    if (given < -1).any():
        raise DataError(f"{name} has a return below -100% on {days(dates[given < -1])}")
    rates = read_risk_free(risk_free, 0.0, dates)
    interest = rates.returns(dates, dates)
    if len(dates) > 1:
        first = dates[0] + pd.Timedelta(np.median(np.diff(dates.values)))
        interest.iloc[0] = rates.accrued(pd.DatetimeIndex([dates[0], first]))[1]
    span = {"start": day(dates[0]), "end": day(dates[-1])}
    return BacktestResult(
        name=name,
        strategy={"class": "", "parameters": {}},
        **dict.fromkeys(("targets", "orders", "folds", "training", "solves"), pd.DataFrame()),
        weights=pd.DataFrame(index=dates),
        gross_returns=pd.Series(dtype=float),
        net_returns=given.rename("net_returns"),
        turnover=pd.Series(dtype=float, index=dates[:0]),
        costs=pd.Series(dtype=float, index=dates[:0]),
        settings={
            "panel": {"source": source, **span, "caveats": []},
            "costs": {},
            "risk_free": rates.described(),
            "periods_per_year": a_year or periods_per_year(dates),
        },
        risk_free=interest,
    )


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
    said = f"{name} has a value on each of the {len(dates):,} dates."
    if not alike:
        said = f"{name} has a value on {matched.sum():,} of the {len(dates):,} dates."
    if not matched.all():
        said += (
            f" On the other {(~matched).sum():,} it has none: the returns of both sides are "
            "compounded up to the next date that both have."
        )
    if len(between):
        said += (
            f" {len(between):,} of its rows lie between the dates, and are compounded up to the "
            "next."
        )
    return replace(found, risk_free=interest), said


def has_holdings(result: BacktestResult) -> bool:
    """Whether more is known than its returns."""
    return bool(len(result.weights.columns))
