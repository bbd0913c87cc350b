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


def yearly_returns(returns: pd.Series) -> pd.Series:
    """Compound return of each calendar year, a fraction; the first and last may be parts."""
    return monthly_returns(returns)["year"]


def _months(returns: pd.Series) -> np.ndarray:
    values = monthly_returns(returns).drop(columns="year").to_numpy().ravel()
    return values[~np.isnan(values)]


def best_month(returns: pd.Series) -> float:
    """Highest compound return of a calendar month, a fraction."""
    return float(_months(returns).max())


def worst_month(returns: pd.Series) -> float:
    """Lowest compound return of a calendar month, a fraction."""
    return float(_months(returns).min())


def months_won(returns: pd.Series) -> float:
    """Share of the calendar months with a gain, a fraction."""
    return float((_months(returns) > 0).mean())


def best_year(returns: pd.Series) -> float:
    """Highest compound return of a calendar year, a fraction; also of one begun or cut."""
    return float(yearly_returns(returns).max())


def worst_year(returns: pd.Series) -> float:
    """Lowest compound return of a calendar year, a fraction; also of one begun or cut."""
    return float(yearly_returns(returns).min())


def years_won(returns: pd.Series) -> float:
    """Share of the calendar years with a gain, a fraction; also of those begun or cut."""
    return float((yearly_returns(returns) > 0).mean())


def year_to_date(returns: pd.Series) -> float:
    """Return of the last calendar year, up to the last date, a fraction."""
    return float(yearly_returns(returns).iloc[-1])


def trailing_return(returns: pd.Series, periods_per_year: float, years: int) -> float:
    """``annual_return`` of the last ``years`` * P periods; NaN where the history is shorter."""
    periods = round(years * periods_per_year)
    return (
        annual_return(returns.iloc[-periods:], periods_per_year)
        if len(returns) >= periods
        else np.nan
    )


def last_year(returns: pd.Series, periods_per_year: float) -> float:
    """``annual_return`` of the last P periods; NaN where the history is shorter."""
    return trailing_return(returns, periods_per_year, 1)


def last_five_years(returns: pd.Series, periods_per_year: float) -> float:
    """``annual_return`` of the last 5 P periods; NaN where the history is shorter."""
    return trailing_return(returns, periods_per_year, 5)


def fold_returns(
    returns: pd.Series, starts: pd.Series, periods_per_year: float
) -> list[tuple[float, float]]:
    """(compound return, ``sharpe``) of each fold; a fold lasts until the next one starts."""
    fold = starts.searchsorted(returns.index, side="right") - 1
    parts = [returns[fold == number] for number in range(len(starts))]
    return [(cumulative_return(part), sharpe(part, periods_per_year)) for part in parts]
