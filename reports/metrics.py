"""What a series of returns amounts to: each number from its definition, and how it is written.

All functions are pure. ``returns`` are simple returns of equal periods as fractions (0.01 =
1%), oldest first; ``periods_per_year`` is the number of such periods in a year (252 sessions,
52 weeks); the risk-free rate is 0. A number that is not defined is NaN, never infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from engine.result import BacktestResult

COLUMNS = (
    "annual return",
    "volatility",
    "Sharpe",
    "Sharpe s.e.",
    "Sortino",
    "max drawdown",
    "Calmar",
    "turnover/rebalance",
    "turnover/year",
    "cost drag/year",
)
HIGH_IS_GOOD = {
    "annual return": True,
    "volatility": False,
    "Sharpe": True,
    "Sortino": True,
    "max drawdown": True,  # negative: the highest is the shallowest
    "Calmar": True,
    "turnover/rebalance": False,
    "turnover/year": False,
    "cost drag/year": False,
}
DASH = "\N{EN DASH}"  # stands for a number that is not defined
ROUNDING = 1e-10  # a spread below this share of the largest return is a rounding error


def summary_table(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """One row a strategy, net of costs; the columns are ``COLUMNS``.

    Raises:
        ValueError: there is no result, or returns hold a NaN (the error names the dates).
    """
    if not results:
        raise ValueError("there is no result to summarise: results are empty")
    rows = {}
    for name, result in results.items():
        periods = result.settings["periods_per_year"]
        net = check_returns(result.net_returns, name)
        gross = check_returns(result.gross_returns, name)
        rows[name] = (
            annual_return(net, periods),
            volatility(net, periods),
            sharpe(net, periods),
            sharpe_standard_error(net, periods),
            sortino(net, periods),
            max_drawdown(net),
            calmar(net, periods),
            turnover_per_rebalance(result.turnover),
            turnover_per_year(result.turnover, len(net), periods),
            cost_drag(gross, net, periods),
        )
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS), dtype=float)


def best_in_columns(table: pd.DataFrame) -> dict[str, set[str]]:
    """{column of ``summary_table``: who is best in it}; nobody if all are alike, no ruined one."""
    best: dict[str, set[str]] = {}
    table = table[table["annual return"] > -1]
    for column, high in HIGH_IS_GOOD.items():
        values = table[column]
        top = values.index[values == (values.max() if high else values.min())]
        best[column] = set(top) if len(top) < len(values) else set()
    return best


def check_returns(returns: pd.Series, name: str) -> pd.Series:
    """``returns`` themselves where there are some and all are finite; an error elsewhere."""
    bad = returns.index[~np.isfinite(returns.to_numpy(dtype=float))]
    if not len(returns) or len(bad):
        where = f"not finite on {', '.join(map(str, bad[:3]))}" if len(bad) else "empty"
        raise ValueError(f"the returns of {name!r} are {where}; every period needs a return")
    return returns


def wealth(returns: pd.Series) -> pd.Series:
    """Value after each period of 1 invested before the first: W_t = prod (1 + r_s), s <= t.

    A loss of 100% or more leaves 0, for good.
    """
    return (1 + returns).clip(lower=0).cumprod()


def annual_return(returns: pd.Series, periods_per_year: float) -> float:
    """Geometric return a year, a fraction: W_T ** (P / T) - 1; -1 after a bankruptcy.

    Source: Bacon (2008), Practical Portfolio Performance Measurement and Attribution.
    """
    if not len(returns):
        return np.nan
    with np.errstate(over="ignore"):
        value = np.float_power(wealth(returns).iloc[-1], periods_per_year / len(returns)) - 1
    return float(value) if np.isfinite(value) else np.nan


def volatility(returns: pd.Series, periods_per_year: float) -> float:
    """Standard deviation (ddof 1) a year, a fraction: std * sqrt(P)."""
    return float(returns.std(ddof=1) * np.sqrt(periods_per_year)) if len(returns) > 1 else np.nan


def sharpe(returns: pd.Series, periods_per_year: float) -> float:
    """Mean over standard deviation (ddof 1) a year: mean / std * sqrt(P); NaN if constant.

    Source: Sharpe (1994), The Sharpe Ratio; annualised as if returns were uncorrelated.
    """
    if _constant(returns):
        return np.nan
    return float(returns.mean() / returns.std(ddof=1) * np.sqrt(periods_per_year))


def sharpe_standard_error(returns: pd.Series, periods_per_year: float) -> float:
    """Standard error of ``sharpe``, in the same unit, for independent, not normal, returns:

    sqrt(P) * sqrt((1 - g3 SR + (g4 - 1) / 4 * SR**2) / (T - 1))

    with SR a period, skewness g3 and raw kurtosis g4 (3 for the normal distribution, where
    this is Lo's sqrt((1 + SR**2 / 2) / T) but for T - 1).

    Source: Lo (2002), The Statistics of Sharpe Ratios; Mertens (2002); the form with T - 1
    from Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.
    """
    if _constant(returns):
        return np.nan
    centred = (returns - returns.mean()).to_numpy(dtype=float)
    variance = np.mean(centred**2)
    skewness = np.mean(centred**3) / variance**1.5
    kurtosis = np.mean(centred**4) / variance**2
    ratio = float(returns.mean() / returns.std(ddof=1))
    spread = (1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / (len(returns) - 1)
    return float(np.sqrt(periods_per_year * max(spread, 0.0)))


def sortino(returns: pd.Series, periods_per_year: float) -> float:
    """Mean over downside deviation a year: mean / sqrt(mean(min(r, 0)**2)) * sqrt(P).

    The squares are averaged over all periods, also those with a gain; NaN without a loss.
    Source: Sortino and Price (1994), Performance Measurement in a Downside Risk Framework.
    """
    downside = float(np.sqrt(np.mean(np.minimum(returns.to_numpy(dtype=float), 0) ** 2)))
    return float(returns.mean() / downside * np.sqrt(periods_per_year)) if downside > 0 else np.nan


def drawdowns(returns: pd.Series) -> pd.Series:
    """Loss since the highest value so far, fractions <= 0: W_t / max(1, W_s, s <= t) - 1.

    The value of 1 before the first period counts as a high.
    """
    value = wealth(returns)
    return value / value.cummax().clip(lower=1) - 1


def max_drawdown(returns: pd.Series) -> float:
    """The deepest of ``drawdowns``, a fraction <= 0: -0.2 is a loss of 20% from a high.

    Source: Magdon-Ismail and Atiya (2004), Maximum Drawdown.
    """
    return float(drawdowns(returns).min()) if len(returns) else np.nan


def calmar(returns: pd.Series, periods_per_year: float) -> float:
    """``annual_return`` over the size of ``max_drawdown``, whole history; NaN without a loss.

    Source: Young (1991), Calmar Ratio: A Smoother Tool (there over 36 months).
    """
    depth = -max_drawdown(returns)
    return annual_return(returns, periods_per_year) / depth if depth > 0 else np.nan


def turnover_per_rebalance(turnover: pd.Series) -> float:
    """Mean traded value over portfolio value of a rebalance, a fraction: mean sum |w - w+|.

    Purchases and sales both count, and so does the first purchase out of cash.
    Source: DeMiguel, Garlappi and Uppal (2009), Optimal Versus Naive Diversification.
    """
    return float(turnover.mean()) if len(turnover) else 0.0


def turnover_per_year(turnover: pd.Series, periods: int, periods_per_year: float) -> float:
    """Traded value over portfolio value a year, a fraction: (sum of turnover) * P / T."""
    return float(turnover.sum()) * periods_per_year / periods


def cost_drag(gross: pd.Series, net: pd.Series, periods_per_year: float) -> float:
    """Return a year lost to costs, a fraction: annual return before costs less that after."""
    return annual_return(gross, periods_per_year) - annual_return(net, periods_per_year)


def rolling_sharpe(returns: pd.Series, window: int, periods_per_year: float) -> pd.Series:
    """``sharpe`` of the last ``window`` periods, by date; starts when the first window is full."""
    windows = returns.astype(float).rolling(window)
    deviation, largest = windows.std(ddof=1), returns.abs().rolling(window).max()
    ratio = windows.mean() / deviation.where(deviation > ROUNDING * largest)
    return (ratio * np.sqrt(periods_per_year)).iloc[window - 1 :]


def trailing_turnover(turnover: pd.Series) -> pd.Series:
    """Sum over the last 52 weeks, by fill date, from the first full year on if there is one."""
    year = pd.Timedelta("364D")  # a day more would count the same weekday 53 times
    total = turnover.rolling(year).sum()
    full = total[total.index >= total.index[0] + year]
    return full if len(full) > 1 else total


def monthly_returns(returns: pd.Series) -> pd.DataFrame:
    """Compound return of each calendar month, a fraction: years by months 1 to 12 and "year".

    NaN where the history has no period in the month.
    """
    dates = pd.DatetimeIndex(returns.index)
    growth = (1 + returns.astype(float)).clip(lower=0)
    table = growth.groupby([dates.year, dates.month]).prod().unstack()
    table = table.reindex(columns=list(range(1, 13)))
    return table.assign(year=growth.groupby(dates.year).prod()) - 1


def fold_returns(
    returns: pd.Series, starts: pd.Series, periods_per_year: float
) -> list[tuple[float, float]]:
    """(compound return, ``sharpe``) of each fold; a fold lasts until the next one starts."""
    fold = starts.searchsorted(returns.index, side="right") - 1
    parts = [returns[fold == number] for number in range(len(starts))]
    return [
        (wealth(part).iloc[-1] - 1 if len(part) else np.nan, sharpe(part, periods_per_year))
        for part in parts
    ]


def _constant(returns: pd.Series) -> bool:
    """Whether the returns have no spread, so that a ratio to it says nothing."""
    return len(returns) < 2 or not returns.std(ddof=1) > ROUNDING * returns.abs().max()


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.123 -> "12.3%"; a dash where it is not defined."""
    return DASH if value is None or not np.isfinite(value) else number(100 * value, digits) + "%"


def number(value: float | None, digits: int = 2) -> str:
    """With a true minus sign and no minus zero; a dash where it is not defined."""
    if value is None or not np.isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    negative = text.startswith("-") and text.strip("-0.,") != ""
    return ("\N{MINUS SIGN}" if negative else "") + text.lstrip("-")


def count(value: float | None) -> str:
    """A whole number with separators, or a small one in powers of ten (residuals)."""
    if value is None or not np.isfinite(value):
        return DASH
    return f"{value:,.0f}" if value == int(value) else f"{value:.1e}".replace("-", "\N{MINUS SIGN}")


def day(date: Any) -> str:
    """2004-01-02, with the time of day where there is one; a dash for none."""
    if pd.isna(date):
        return DASH
    stamp = pd.Timestamp(date)
    return str(stamp.date()) if stamp == stamp.normalize() else f"{stamp:%Y-%m-%d %H:%M}"
