"""Returns by month, year, fold and trailing span; see ``accounting.performance``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from engine.accounting.performance import annual_return, cumulative_return, sharpe


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
