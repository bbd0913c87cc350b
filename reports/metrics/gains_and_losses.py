"""The distribution of returns, tails, gains and losses; and drawdowns: how deep, long and often.

The conventions are those of ``accounting.performance``; lengths are in periods.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import kurtosis, skew
from scipy.stats import t as student

from engine.accounting.performance import constant, drawdowns, max_drawdown

DEGREES = (2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 25.0, 50.0, 100.0)


def skewness(returns: pd.Series) -> float:
    """Third standardised moment: mean((r - m)**3) / s**3, s with ddof 0; NaN if constant."""
    return np.nan if constant(returns) else float(skew(returns))


def excess_kurtosis(returns: pd.Series) -> float:
    """Fourth standardised moment less 3, which is 0 for the normal distribution.

    mean((r - m)**4) / s**4 - 3, s with ddof 0; NaN if constant.
    """
    return np.nan if constant(returns) else float(kurtosis(returns))


def value_at_risk(returns: pd.Series) -> float:
    """The 5% quantile of the returns of a period, a fraction: -0.02 is a loss of 2%.

    The empirical quantile, without a distribution behind it; linear between observations, as in
    empyrical. quantstats shows that of a normal distribution, which understates fat tails.
    Source: Jorion (2006), Value at Risk.
    """
    return float(np.quantile(returns, 0.05)) if len(returns) else np.nan


def expected_shortfall(returns: pd.Series) -> float:
    """Mean of the returns at or below ``value_at_risk``, a fraction.

    As in empyrical; quantstats takes that of a normal distribution. Source: Acerbi and Tasche
    (2002), On the Coherence of Expected Shortfall.
    """
    if not len(returns):
        return np.nan
    return float(returns[returns <= value_at_risk(returns) + 1e-15].mean())


def tail_ratio(returns: pd.Series) -> float:
    """Size of the 95% quantile over that of the 5% quantile: above 1, gains have longer tails."""
    low, high = np.quantile(returns, [0.05, 0.95]) if len(returns) else (0.0, 0.0)
    return float(abs(high / low)) if low < 0 else np.nan


def payoff_ratio(returns: pd.Series) -> float:
    """Mean gain over the size of the mean loss; NaN where there is no gain or no loss."""
    gains, losses = returns[returns > 0], returns[returns < 0]
    return float(gains.mean() / -losses.mean()) if len(gains) and len(losses) else np.nan


def periods_won(returns: pd.Series) -> float:
    """Share of the periods with a gain among those with a gain or a loss, a fraction."""
    moved = returns[returns != 0]
    return float((moved > 0).mean()) if len(moved) else np.nan


def best(returns: pd.Series) -> float:
    """Highest return of a period, month or year, a fraction; the last may be incomplete."""
    return float(returns.max())


def worst(returns: pd.Series) -> float:
    """Lowest return of a period, month or year, a fraction; the last may be incomplete."""
    return float(returns.min())


def share_won(returns: pd.Series) -> float:
    """Share of the months or years with a gain, a fraction."""
    return float((returns > 0).mean())


def latest(returns: pd.Series) -> float:
    """Compound return of the last calendar year, up to the last date, a fraction."""
    return float(returns.iloc[-1])


def longest_losing_streak(returns: pd.Series) -> float:
    """Highest number of consecutive periods with a loss."""
    lost = returns < 0
    return float(lost.groupby((~lost).cumsum()).sum().max())


def autocorrelation(returns: pd.Series) -> float:
    """Correlation of a return with that of the period before; NaN if constant.

    Where it is far from 0, annualising by sqrt(P) misleads (Lo 2002).
    """
    if constant(returns) or len(returns) < 3:
        return np.nan
    moves = (returns - returns.mean()).to_numpy(dtype=float)
    return float(moves[1:] @ moves[:-1] / (moves @ moves))


def growth_optimal_leverage(returns: pd.Series) -> float:
    """Leverage of the highest expected log growth, to second order: mean / mean(r**2).

    Of excess returns, as what is borrowed is paid for. Source: Thorp (2006), The Kelly Criterion in
    Blackjack, Sports Betting and the Stock Market, section 7. quantstats shows the stake of a coin,
    p - (1 - p) / payoff ratio, which does not change with the size of returns.
    """
    if constant(returns):
        return np.nan
    return float(returns.mean() / np.mean(returns.to_numpy(dtype=float) ** 2))


def student_t(returns: pd.Series) -> tuple[float, float, float]:
    """(degrees of freedom, location, scale) of the most likely Student-t; degrees 2 to 100.

    Location and scale by expectation and maximisation for each of ``DEGREES``, of which the
    most likely is taken. Source: Liu and Rubin (1995), ML Estimation of the t Distribution.
    """
    values = returns.to_numpy(dtype=float)
    best = (-np.inf, np.nan, np.nan, np.nan)
    for degrees in DEGREES:
        location, scale = float(np.median(values)), float(values.std())
        for _ in range(60):
            weights = (degrees + 1) / (degrees + ((values - location) / scale) ** 2)
            location = float(weights @ values / weights.sum())
            scale = float(np.sqrt(np.mean(weights * (values - location) ** 2)))
        likelihood = float(student.logpdf(values, degrees, location, scale).sum())
        best = max(best, (likelihood, degrees, location, scale))
    return best[1:]


def ulcer_index(returns: pd.Series) -> float:
    """Root mean square of ``drawdowns``, a fraction: sqrt(mean(D_t ** 2)).

    Source: Martin and McCann (1989), The Investor's Guide to Fidelity Funds.
    """
    return float(np.sqrt(np.mean(drawdowns(returns) ** 2))) if len(returns) else np.nan


def drawdown_periods(returns: pd.Series) -> pd.DataFrame:
    """One row a drawdown, deepest first: from a high to the next value that reaches it.

    Columns: start (first date below the high), trough, end (first date at the high again, NaT
    while it lasts), depth (fraction < 0), fall, recovery, length (periods; the recovery of one
    that lasts is NaN and its length counts up to the last date).
    """
    depth, dates = drawdowns(returns).to_numpy(dtype=float), returns.index
    edges = np.diff(np.concatenate([[False], depth < -1e-12, [False]]).astype(int))
    first, after = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    spans = zip(first, after, strict=True)
    trough = np.array([low + depth[low:high].argmin() for low, high in spans], dtype=int)
    over = after < len(depth)
    ends = dates[np.minimum(after, len(depth) - 1)].to_series().where(over).array
    table = pd.DataFrame(
        {
            "start": dates[first],
            "trough": dates[trough],
            "end": ends,
            "depth": depth[trough],
            "fall": trough - first + 1,
            "recovery": np.where(over, after - trough, np.nan),
            "length": after - first + over,
        }
    )
    return table.sort_values("depth", kind="stable").reset_index(drop=True)


def longest_drawdown(returns: pd.Series) -> float:
    """Periods from the first loss below a high until the value is back at it, the longest.

    One that still lasts counts up to the last date; 0 without a loss. Periods, as a year has P of
    them: quantstats counts calendar days, up to the last date below the high.
    """
    return float(drawdown_periods(returns)["length"].max()) if max_drawdown(returns) < 0 else 0.0


def mean_drawdown(returns: pd.Series) -> float:
    """Mean depth of the ``drawdown_periods``, a fraction <= 0; 0 without a loss."""
    return float(drawdown_periods(returns)["depth"].mean()) if max_drawdown(returns) < 0 else 0.0


def time_under_water(returns: pd.Series) -> float:
    """Share of the periods that end below an earlier high, a fraction."""
    return float((drawdowns(returns) < -1e-12).mean()) if len(returns) else np.nan
