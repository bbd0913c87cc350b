"""Returns by month, year and fold, to date, of trailing years and of known crises; and metrics of a
moving window, by date, from the first full window on.

See ``accounting.performance`` for the conventions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from engine.accounting.performance import (
    ROUNDING,
    annual_return,
    cumulative_return,
    max_drawdown,
    sharpe,
)

TRAILING = {  # back from the last date, by the calendar
    "Month to date": pd.offsets.MonthEnd(1),
    "Year to date": pd.offsets.YearEnd(1),
    "3 months": pd.DateOffset(months=3),
    "1 year": pd.DateOffset(years=1),
    "3 years a year": pd.DateOffset(years=3),
    "5 years a year": pd.DateOffset(years=5),
    "10 years a year": pd.DateOffset(years=10),
}
STRESS = {  # (last close before it, last close of it), of US stocks
    "Black Monday": ("1987-10-13", "1987-10-19"),
    "Gulf war": ("1990-07-16", "1990-10-11"),
    "Russian default": ("1998-07-17", "1998-08-31"),
    "Dot-com bust": ("2000-03-24", "2002-10-09"),
    "September 2001": ("2001-09-10", "2001-09-21"),
    "Global financial crisis": ("2007-10-09", "2009-03-09"),
    "Lehman to November 2008": ("2008-09-12", "2008-11-20"),
    "Flash crash and Greece": ("2010-04-23", "2010-07-02"),
    "US downgrade, euro crisis": ("2011-07-22", "2011-10-03"),
    "Chinese devaluation": ("2015-08-10", "2015-08-25"),
    "Oil and China": ("2015-11-03", "2016-02-11"),
    "Volatility shock": ("2018-01-26", "2018-02-08"),
    "Rate fears": ("2018-09-20", "2018-12-24"),
    "COVID crash": ("2020-02-19", "2020-03-23"),
    "Inflation and rates": ("2022-01-03", "2022-10-12"),
    "Tariffs": ("2025-02-19", "2025-04-08"),
}


def monthly_returns(returns: pd.Series) -> pd.DataFrame:
    """Compound return of each calendar month, a fraction: years by months 1 to 12 and "year".

    NaN where the history has no period in the month.
    """
    dates = pd.DatetimeIndex(returns.index)
    growth = (1 + returns.astype(float)).clip(lower=0)
    table = growth.groupby([dates.year, dates.month]).prod().unstack()
    table = table.reindex(columns=list(range(1, 13)))
    return table.assign(year=growth.groupby(dates.year).prod()) - 1


def trailing_return(returns: pd.Series, periods_per_year: float, years: int) -> float:
    """``annual_return`` of the last ``years`` * P periods; NaN where the history is shorter."""
    periods = round(years * periods_per_year)
    if len(returns) < periods:
        return np.nan
    return annual_return(returns.iloc[-periods:], periods_per_year)


def last_year(returns: pd.Series, periods_per_year: float) -> float:
    """``annual_return`` of the last P periods; NaN where the history is shorter."""
    return trailing_return(returns, periods_per_year, 1)


def last_five_years(returns: pd.Series, periods_per_year: float) -> float:
    """``annual_return`` of the last 5 P periods; NaN where the history is shorter."""
    return trailing_return(returns, periods_per_year, 5)


def fold_returns(
    returns: pd.Series, excess: pd.Series, starts: pd.Series, periods_per_year: float
) -> list[tuple[float, float]]:
    """(compound return, ``sharpe`` of the excess) by fold; each lasts until the next one starts."""
    fold = starts.searchsorted(returns.index, side="right") - 1
    parts = [fold == number for number in range(len(starts))]
    return [(cumulative_return(returns[k]), sharpe(excess[k], periods_per_year)) for k in parts]


def trailing_returns(returns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """One row a period of ``TRAILING``, one column a strategy; compound, yearly from 3 years on.

    From the last close up to so long before the last date of all; NaN where a history is shorter.
    """
    last = max(line.index[-1] for line in returns.values())
    table = pd.DataFrame(index=list(TRAILING), columns=list(returns), dtype=float)
    for period, offset in TRAILING.items():
        begin = last.normalize() - offset
        years = offset.kwds.get("years", 1) if period.endswith("a year") else 1
        for name, line in returns.items():
            if line.index[0] <= begin and line.index[-1] == last:
                growth = float((1 + line[line.index > _end_of_day(begin)]).prod())
                table.loc[period, name] = growth ** (1 / years) - 1
    return table.dropna(how="all")


def stress_returns(returns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """One row a period of ``STRESS`` that lies in the dates of the first: start, end, then the
    compound return of each strategy, and "deepest": the largest loss of the first within it."""
    rows = {}
    first = next(iter(returns))
    for period, (start, end) in STRESS.items():
        begin, until = pd.Timestamp(start), _end_of_day(pd.Timestamp(end))
        if returns[first].index[0] > begin or returns[first].index[-1] < pd.Timestamp(end):
            continue
        row: dict[str, object] = {"start": begin, "end": pd.Timestamp(end)}
        for name, line in returns.items():
            covered = line.index[0] <= begin and line.index[-1] >= pd.Timestamp(end)
            within = line[(line.index > _end_of_day(begin)) & (line.index <= until)]
            row[name] = float((1 + within).prod() - 1) if covered and len(within) else np.nan
            if name == first:
                row["deepest"] = float(max_drawdown(within)) if len(within) else np.nan
        rows[period] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _end_of_day(date: pd.Timestamp) -> pd.Timestamp:
    return date + pd.Timedelta(days=1) - pd.Timedelta(1, "ns")


def rolling_sharpe(returns: pd.Series, window: int, periods_per_year: float) -> pd.Series:
    """``sharpe`` of excess returns over the last ``window`` periods."""
    windows = returns.astype(float).rolling(window)
    deviation, largest = windows.std(ddof=1), returns.abs().rolling(window).max()
    ratio = windows.mean() / deviation.where(deviation > ROUNDING * largest)
    return (ratio * np.sqrt(periods_per_year)).iloc[window - 1 :]


def rolling_volatility(returns: pd.Series, window: int, periods_per_year: float) -> pd.Series:
    """``volatility`` of the last ``window`` periods."""
    spread = returns.astype(float).rolling(window).std(ddof=1)
    return (spread * np.sqrt(periods_per_year)).iloc[window - 1 :]


def rolling_beta(returns: pd.Series, benchmark: pd.Series, window: int) -> pd.Series:
    """``beta`` of excess returns to the benchmark's over the last ``window`` common periods."""
    common = returns.index.intersection(benchmark.index)
    ours, theirs = returns[common].astype(float), benchmark[common].astype(float)
    spread = theirs.rolling(window).var(ddof=1)
    tiny = (ROUNDING * theirs.abs().rolling(window).max()) ** 2
    joint = ours.rolling(window).cov(theirs, ddof=1)
    return (joint / spread.where(spread > tiny)).iloc[window - 1 :]


def rolling_alpha(
    returns: pd.Series, benchmark: pd.Series, window: int, periods_per_year: float
) -> pd.Series:
    """``alpha`` a year of excess returns against the benchmark's, over the same windows as
    ``rolling_beta``: what the mean has beyond beta times that of the benchmark."""
    beta = rolling_beta(returns, benchmark, window)
    common = returns.index.intersection(benchmark.index)
    lines = (line[common].astype(float) for line in (returns, benchmark))
    ours, theirs = (line.rolling(window).mean() for line in lines)
    return ((ours - beta * theirs) * periods_per_year)[beta.index]


def trailing_turnover(turnover: pd.Series) -> pd.Series:
    """Sum over the last 52 weeks, by fill date, from the first full year on if there is one."""
    year = pd.Timedelta("364D")  # a day more would count the same weekday 53 times
    total = turnover.rolling(year).sum()
    full = total[total.index >= total.index[0] + year]
    return full if len(full) > 1 else total
