"""Metrics of a series of returns, each from its definition: the same in training, search, report.

``returns`` are simple returns of T equal periods as fractions (0.01 = 1%), oldest first, in a
series, an array or a tensor; a tensor gives a tensor with its gradient. ``periods_per_year`` (P) is
the number of such periods in a year: 252 sessions, 52 weeks.

Sharpe, Sortino and Omega ratios are given the returns in ``excess`` of the risk-free ones, as
``BacktestResult.excess_returns`` and ``Account.excess_returns`` are; growth and drawdowns are of
the returns themselves.

A metric that is undefined is NaN, never infinite:

- without returns; a standard deviation of fewer than two;
- a ratio to a denominator that is zero up to rounding: at most ``ROUNDING`` of the largest return;
- where the number is too large for a float.

Training needs a finite number and gradient there, too: with ``floor``, which is for tensors, a
denominator is at least that.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # torch takes a second to import, and whoever has a tensor has it already
    from torch import Tensor

ROUNDING = 1e-10
NOISE = 1e-14  # of the difference of two returns, which are differences of numbers near 1

Returns: TypeAlias = "pd.Series | np.ndarray | Tensor"
Number: TypeAlias = Any  # a float; of a tensor a tensor without dimensions


def constant(returns: Returns, largest: float | None = None) -> bool:
    """Whether the returns have no standard deviation beyond rounding.

    ``largest``: the size of the numbers that were rounded, where these are differences of others.
    """
    return not deviation(returns) > ROUNDING * (_largest(returns) if largest is None else largest)


def deviation(returns: Returns) -> Number:
    """Standard deviation (ddof 1) of a period."""
    if len(returns) < 2:
        return np.nan
    values = _values(returns)
    return values.std() if _is_tensor(values) else float(values.std(ddof=1))


def excess(returns: Returns, other: Returns) -> Any:
    """Returns (T,) less those of another portfolio or the risk-free ones, r - f.

    A difference up to ``NOISE`` is 0: a year in cash among others has no ratio of its own. Where
    all vary by the rounding of the two only, their mean in every row, so that they are
    ``constant``.
    """
    found, largest = returns - other, max(_largest(returns), _largest(other))
    return level(found, largest) if constant(found, largest) else found * (abs(found) > NOISE)


def level(returns: Returns, largest: float) -> Any:
    """The mean of the returns (T,) in every row; 0 where it is rounding of numbers so large."""
    if not len(returns):
        return returns
    mean = _values(returns).mean()
    return returns * 0 + (0.0 if abs(mean) <= ROUNDING * largest else mean)


def volatility(returns: Returns, periods_per_year: float, floor: float | None = None) -> Number:
    """Standard deviation (ddof 1) a year, a fraction: std * sqrt(P)."""
    found = deviation(returns)
    return (found if floor is None else found.clip(floor)) * periods_per_year**0.5


def sharpe(returns: Returns, periods_per_year: float, floor: float | None = None) -> Number:
    """Mean over standard deviation (ddof 1) of excess returns, a year: mean / std * sqrt(P).

    Source: Sharpe (1994), The Sharpe Ratio; annualised as if returns were uncorrelated. Undefined
    for cash alone.
    """
    if floor is None and constant(returns):
        return np.nan
    values, spread = _values(returns), deviation(returns)
    ratio = values.mean() / (spread if floor is None else spread.clip(floor))
    return _number(ratio * periods_per_year**0.5)


def information_ratio(returns: Returns, benchmark: Returns, periods_per_year: float) -> Number:
    """Mean over standard deviation (ddof 1) of r - b, a year: the risk-free return cancels.

    Source: Goodwin (1998), The Information Ratio. quantstats shows it per period, as empyrical
    does (excess_sharpe): divided by sqrt(P).
    """
    return sharpe(excess(returns, benchmark), periods_per_year)


def downside_deviation(
    returns: Returns, periods_per_year: float, target: float = 0.0, floor: float | None = None
) -> Number:
    """Root mean square of excess returns below the target: sqrt(mean(min(r - target, 0)^2) P).

    The squares are averaged over all periods, also those above. ``target`` and result are
    fractions a year. Source: Sortino and Price (1994), Performance Measurement in a Downside
    Risk Framework.
    """
    if not len(returns):
        return np.nan
    below = (_values(returns) - target / periods_per_year).clip(None, 0)
    square = (below**2).mean()
    square = square if floor is None else square.clip(floor**2)  # the root has no slope at zero
    return _number(square**0.5 * periods_per_year**0.5)


def sortino(
    returns: Returns, periods_per_year: float, target: float = 0.0, floor: float | None = None
) -> Number:
    """Mean excess return above the target over ``downside_deviation``, both a year.

    The target counts beyond the risk-free rate; the report's is 0. Source: Sortino and Price
    (1994), Performance Measurement in a Downside Risk Framework.
    """
    if not len(returns):
        return np.nan
    excess = _values(returns).mean() * periods_per_year - target
    downside = downside_deviation(returns, periods_per_year, target, floor)
    if floor is None and (constant(returns) or not downside > ROUNDING * _largest(returns)):
        return np.nan
    return _number(excess / downside)


def omega(returns: Returns, threshold: float = 0.0, floor: float | None = None) -> Number:
    """Sum of the excess returns above a threshold over the size of the sum of those below.

    The threshold, a period, counts beyond the risk-free return; the report's is 0, so that cash is
    neither gain nor loss. Source: Keating and Shadwick (2002), A Universal
    Performance Measure.
    """
    if not len(returns):
        return np.nan
    excess = _values(returns) - threshold
    return _ratio(excess.clip(0).sum(), (-excess).clip(0).sum(), floor, returns)


def wealth(returns: Returns) -> Any:
    """Value (T,) after each period of 1 invested before the first: W_t = prod (1 + r_s), s <= t.

    A loss of 100% or more leaves 0, for good.
    """
    with np.errstate(over="ignore"):
        return (1 + returns).clip(0).cumprod(0)


def cumulative_return(returns: Returns) -> Number:
    """Return over the whole history, a fraction: W_T - 1."""
    return _defined(wealth(_values(returns))[-1] - 1) if len(returns) else np.nan


def annual_return(returns: Returns, periods_per_year: float) -> Number:
    """Geometric return a year, a fraction: W_T^(P / T) - 1; -1 after a bankruptcy.

    In reports T / P are here the years from the first date to the last; empyrical takes P for 252
    where rows are days. Source: Bacon (2008), Practical Portfolio Performance Measurement and
    Attribution.
    """
    if not len(returns):
        return np.nan
    with np.errstate(over="ignore"):
        return _defined(wealth(_values(returns))[-1] ** (periods_per_year / len(returns)) - 1)


def drawdowns(returns: Returns) -> Any:
    """Loss (T,) since the highest value so far, fractions <= 0: W_t / max(1, W_s, s <= t) - 1.

    The value of 1 before the first period counts as a high.
    """
    value = wealth(returns)
    if _is_tensor(value):
        return value / value.cummax(0).values.clip(1) - 1
    with np.errstate(invalid="ignore"):
        return value / np.maximum.accumulate(value).clip(1) - 1


def max_drawdown(returns: Returns) -> Number:
    """The deepest of ``drawdowns``, a fraction <= 0: -0.2 is a loss of 20% from a high.

    Source: Magdon-Ismail and Atiya (2004), Maximum Drawdown.
    """
    return _number(drawdowns(_values(returns)).min()) if len(returns) else np.nan


def calmar(returns: Returns, periods_per_year: float, floor: float | None = None) -> Number:
    """``annual_return`` over the size of ``max_drawdown``, whole history.

    Of net returns: the risk-free rate has no place in its definition. Source: Young (1991), Calmar
    Ratio: A Smoother Tool (there over 36 months).
    """
    growth, depth = annual_return(returns, periods_per_year), -max_drawdown(returns)
    return _ratio(growth, depth, floor, returns)


def yearly(amounts: Returns, periods: int, periods_per_year: float) -> Number:
    """Sum of turnover or costs a year, over the portfolio's value: (sum in T periods) * P / T.

    T / P are the years of ``annual_return``.
    """
    return _number(_values(amounts).sum() / (periods / periods_per_year))


def _is_tensor(value: Any) -> bool:
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def _values(returns: Returns) -> Any:
    return returns if _is_tensor(returns) else np.asarray(returns, dtype=float)


def _largest(returns: Returns) -> float:
    return abs(_values(returns)).max().item() if len(returns) else 0.0


def _number(value: Any) -> Number:
    return value if _is_tensor(value) else float(value)


def _defined(value: Any) -> Number:
    return _number(value) if abs(value) < np.inf else np.nan


def _ratio(above: Any, below: Any, floor: float | None, returns: Returns) -> Number:
    if floor is not None:
        return above / below.clip(floor)
    return _defined(above / below) if below > ROUNDING * _largest(returns) else np.nan
