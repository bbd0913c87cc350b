"""What was held, traded and paid; the conventions are those of ``metrics``.

``turnover`` and ``costs`` are by fill date, over the portfolio's value; ``weights`` (T, N) are
held after each close.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from engine.accounting.performance import annual_return, sharpe, wealth
from engine.runs.result import BacktestResult

HELD = 1e-6  # a smaller weight is dust
CAPITAL = 1e6  # with which the orders of a ``BacktestResult`` start
CLOSES = 1e-8  # by so much may contributions miss the return they explain


def turnover_per_rebalance(turnover: pd.Series) -> float:
    """Mean traded value over portfolio value of a rebalance, a fraction: mean sum |w - w+|.

    Purchases and sales both count, and so does the first purchase out of cash.
    Source: DeMiguel, Garlappi and Uppal (2009), Optimal Versus Naive Diversification.
    """
    return float(turnover.mean()) if len(turnover) else 0.0


def holding_period(turnover: pd.Series, weights: pd.DataFrame) -> float:
    """Mean periods for which money stays in an asset: 2 T (mean exposure) / sum of turnover.

    A purchase and a sale make a round trip. NaN where nothing is traded after the first fill.
    """
    later = float(turnover.iloc[1:].sum())
    return 2 * len(weights) * gross_exposure(weights) / later if later > 0 else np.nan


def cost_drag(gross: pd.Series, net: pd.Series, periods_per_year: float) -> float:
    """Return a year lost to costs, a fraction: annual return before costs less that after."""
    return annual_return(gross, periods_per_year) - annual_return(net, periods_per_year)


def costs_paid(costs: pd.Series) -> float:
    """Sum of the costs, each as a fraction of the portfolio's value at its time."""
    return float(costs.sum())


def charged(gross: pd.Series, turnover: pd.Series, rate: float) -> pd.Series:
    """Returns after proportional costs: (1 + g_t) (1 - rate * turnover_t) - 1.

    ``rate`` is a fraction of the value traded; the trades stay what they were. At the rate of
    the run these are its net returns.
    """
    traded = turnover.reindex(gross.index).fillna(0.0)
    return (1 + gross) * (1 - rate * traded).clip(lower=0) - 1


def break_even_cost(gross: pd.Series, turnover: pd.Series) -> float:
    """Cost of trading at which nothing is left, a fraction of the value traded: 0.01 = 100 bp.

    The rate at which the return over the whole history is 0, by bisection to 1e-9; NaN where
    nothing is traded, and where there is a loss before costs. From 0 to 1.
    """
    earned = np.maximum(1 + gross.to_numpy(dtype=float), 0.0)
    traded = turnover.reindex(gross.index).fillna(0.0).to_numpy(dtype=float)

    def left(rate: float) -> bool:
        with np.errstate(over="ignore"):
            return float(np.prod(earned * np.maximum(1 - rate * traded, 0.0))) >= 1

    if not traded.any() or not left(0.0) or left(1.0):
        return np.nan
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) else (low, middle)
    return low


def cost_sweep(
    gross: pd.Series, turnover: pd.Series, rates: Iterable[float], periods_per_year: float
) -> pd.Series:
    """Net Sharpe ratio by cost of trading (basis points of the value traded) at the same trades."""
    return pd.Series(
        {
            round(1e4 * rate, 6): sharpe(charged(gross, turnover, rate), periods_per_year)
            for rate in rates
        },
        dtype=float,
    )


def traded_shares(result: BacktestResult) -> pd.DataFrame:
    """(K, N) size of each order over the portfolio's value before it, q >= 0, by fill date.

    Empty without recorded orders.
    """
    orders = result.orders
    if not len(orders):
        return pd.DataFrame()
    sizes = orders["size"].astype(float) * orders["price"].astype(float)
    table = pd.pivot_table(
        pd.DataFrame({"date": orders["date"], "asset": orders["asset"], "size": sizes}),
        index="date",
        columns="asset",
        values="size",
        aggfunc="sum",
    )
    capital = (result.settings.get("costs") or {}).get("capital") or CAPITAL
    value = capital * wealth(result.net_returns)
    before = value.shift(1, fill_value=capital) * (1 + result.gross_returns)
    return table.div(before.reindex(table.index), axis=0).fillna(0.0)


def impact_drag(
    shares: pd.DataFrame,
    illiquidity: pd.DataFrame,
    periods: int,
    periods_per_year: float,
    coefficient: float = 1.0,
) -> float:
    """Return a year that market impact takes from a portfolio of value 1, a fraction.

    An order of value q V in an asset that trades v a day at volatility s costs, over its own
    value, Y s sqrt(q V / v). Over the portfolio's value that is Y q sqrt(q) l sqrt(V), with
    l = s / sqrt(v): the drag grows with the root of V, from P / T * sum of Y q sqrt(q) l at V = 1.
    Infinite where something is traded that has no volume.

    Args:
        shares: (K, N) size of each order over the portfolio's value, q >= 0, by fill date.
        illiquidity: (K, N) l before the fill, see ``accounting.liquidity``; in the unit of prices.
        periods, periods_per_year: T and P.
        coefficient: Y, about 1.

    Source: Almgren, Thum, Hauptmann and Li (2005), Direct Estimation of Equity Market Impact;
    the square root as in Toth et al. (2011), Anomalous Price Impact.
    """
    orders = shares.to_numpy(dtype=float)
    lack = illiquidity.reindex(index=shares.index, columns=shares.columns).to_numpy(dtype=float)
    if not np.isfinite(lack[orders > 0]).all():
        return np.inf
    at_one = coefficient * np.sum(np.where(orders > 0, orders**1.5 * lack, 0.0))
    return float(at_one * periods_per_year / periods)


def capacity(drag_at_one: float, drag: float = 0.01) -> float:
    """Portfolio value at which market impact takes ``drag`` a year: (drag / ``impact_drag``)**2.

    In the unit of the prices; 0 where something is traded that has no volume, NaN without trades.
    """
    return float((drag / drag_at_one) ** 2) if drag_at_one > 0 else np.nan


def gross_exposure(weights: pd.DataFrame) -> float:
    """Mean over the dates of sum |w|, a fraction: 1 is fully invested without leverage."""
    return float(weights.abs().sum(axis=1).mean()) if len(weights) else np.nan


def net_exposure(weights: pd.DataFrame) -> float:
    """Mean over the dates of sum w, a fraction: longs less shorts."""
    return float(weights.sum(axis=1).mean()) if len(weights) else np.nan


def time_in_market(weights: pd.DataFrame) -> float:
    """Share of the dates on which anything is held, a fraction."""
    return float((weights.abs().sum(axis=1) > HELD).mean()) if len(weights) else np.nan


def effective_assets(weights: pd.DataFrame) -> float:
    """Mean effective number of assets: 1 / sum of squares of |w| / sum |w|, where held.

    N for equal weights, 1 for a single asset: the inverse of the Herfindahl index.
    Source: Woerheide and Persson (1993), An Index of Portfolio Diversification.
    """
    sizes = weights.abs().fillna(0.0)
    total = sizes.sum(axis=1)
    shares = sizes[total > HELD].div(total[total > HELD], axis=0)
    return float((1 / (shares**2).sum(axis=1)).mean()) if len(shares) else np.nan


def largest_weight(weights: pd.DataFrame) -> float:
    """Largest |w| of any asset on any date, a fraction."""
    return float(weights.abs().max().max()) if weights.size else np.nan


def contributions(result: BacktestResult) -> pd.DataFrame | None:
    """(T, N) what each asset adds to the return before costs, w_(t-1) r_t; the rows sum to it.

    None where they do not, as without recorded returns of the assets.
    """
    if not len(result.asset_returns):
        return None
    weights = result.weights.fillna(0.0)
    moved = result.asset_returns.reindex(index=weights.index, columns=weights.columns)
    parts = weights.shift(1).fillna(0.0) * moved.fillna(0.0)
    return parts if (parts.sum(axis=1) - result.gross_returns).abs().max() < CLOSES else None


def asset_table(result: BacktestResult, periods_per_year: float) -> pd.DataFrame:
    """One row an asset, the largest mean weight first; all but "held" are fractions.

    Columns: mean, lowest and highest weight, held (share of the dates), return (contribution
    to the mean gross return a year, arithmetic: they sum to it) and risk (share of the
    variance of the gross returns, cov(c_i, g) / var(g): they sum to 1); NaN where
    ``contributions`` are not known.

    Source of the risk shares: Litterman (1996), Hot Spots and Hedges.
    """
    weights = result.weights.fillna(0.0)
    table = pd.DataFrame(
        {
            "mean": weights.mean(),
            "lowest": weights.min(),
            "highest": weights.max(),
            "held": (weights.abs() > HELD).mean(),
        }
    )
    parts = contributions(result)
    if parts is None:
        table[["return", "risk"]] = np.nan
    else:
        gross = result.gross_returns - result.gross_returns.mean()
        variance = float(gross @ gross)
        table["return"] = parts.mean() * periods_per_year
        table["risk"] = parts.T @ gross / variance if variance > 0 else np.nan
    return table.sort_values("mean", ascending=False, kind="stable")


def limit_table(limits: pd.DataFrame) -> pd.DataFrame:
    """How often each constraint held the weights, and at what price: one row a constraint.

    Columns: binds (share of the decisions at which it holds any weight or, for sums, at all),
    weights (mean share of the weights that stand at it; NaN for sums), price and highest (mean
    and largest shadow price over the variance z'Pz, absolute, where it binds): the gain of the
    objective for one unit more of the limit, in units of the variance. A price of 0.5 says that
    one percentage point more room is worth half a percent of the variance.

    Args:
        limits: ``BacktestResult.limits``.
    """
    price = (limits["price"] / limits["variance"]).abs().where(limits["held"] > 0)
    table = limits.assign(binds=limits["held"] > 0, weights=limits["held"] / limits["of"])
    grouped = table.assign(price=price).groupby("limit", sort=False)
    found = pd.DataFrame(
        {
            "binds": grouped["binds"].mean(),
            "weights": grouped["weights"].mean().where(grouped["of"].max() > 1),
            "price": grouped["price"].mean(),
            "highest": grouped["price"].max(),
        }
    )
    return found.reset_index()


LIMITS = {"limit.lower": "floors (who may be held)", "limit.upper": "caps (who may be held)"}


def sensitivity_table(sensitivity: pd.DataFrame) -> pd.DataFrame:
    """What the network looks at: one row a feature, the most important first.

    Columns: feature, change (mean share of the portfolio that is held elsewhere when the feature
    is shuffled over the test dates, see ``walking.sensitivity``), lowest and highest fold or seed.
    """
    named = sensitivity["feature"].replace(LIMITS)
    found = sensitivity.groupby(named, sort=False)["change"].agg(["mean", "min", "max"])
    found.columns = pd.Index(["change", "lowest", "highest"])
    return found.sort_values("change", ascending=False, kind="stable").reset_index()
