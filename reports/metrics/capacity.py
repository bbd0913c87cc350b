"""How much money a strategy can manage: what market impact would take from its returns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from engine.accounting.performance import wealth
from engine.runs.result import BacktestResult

CAPITAL = 1e6  # with which the orders of a ``BacktestResult`` start
VALUES = (1e6, 1e7, 1e8, 1e9)  # of a portfolio, at which the impact is shown


def capacity_table(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """Value at which impact takes 1% per year, and what it takes per year at each of ``VALUES``.

    One row a strategy that traded assets with volumes.
    """
    rows = {}
    for name, result in results.items():
        shares = traded_shares(result) if result.illiquidity.size else pd.DataFrame()
        if not len(shares):
            continue
        year = result.rows_per_year
        drag = impact_drag(shares, result.illiquidity, len(result.net_returns), year)
        taken = {f"drag at {value:.0e}": drag * np.sqrt(value) for value in VALUES}
        rows[name] = {"capacity": capacity(drag), **taken}
    return pd.DataFrame.from_dict(rows, orient="index")


def traded_shares(result: BacktestResult) -> pd.DataFrame:
    """(K, N) size of each order over the portfolio's value before it, q >= 0, by fill date.

    Empty without recorded orders.
    """
    if not len(result.orders):
        return pd.DataFrame()
    sizes = result.orders["size"].astype(float) * result.orders["price"].astype(float)
    table = result.orders.assign(traded=sizes).pivot_table(
        index="date", columns="asset", values="traded", aggfunc="sum"
    )
    capital = (result.settings.get("costs") or {}).get("capital") or CAPITAL
    value = capital * wealth(result.net_returns)
    before = value.shift(1, fill_value=capital) * (1 + result.gross_returns + result.carry)
    return table.div(before.reindex(table.index), axis=0).fillna(0.0)


def impact_drag(
    shares: pd.DataFrame, illiquidity: pd.DataFrame, periods: int, periods_per_year: float
) -> float:
    """Annual return that market impact takes from a portfolio of value 1, a fraction.

    An order of value q V in an asset that trades v a day at volatility s costs, over its own
    value, s sqrt(q V / v). Over the portfolio's value that is q sqrt(q) l sqrt(V), with
    l = s / sqrt(v): the drag grows with sqrt(V), from P / T * sum of q sqrt(q) l at V = 1.
    Infinite where something is traded that has no volume.

    Args:
        shares: (K, N) size of each order over the portfolio's value, q >= 0, by fill date.
        illiquidity: (K, N) l before the fill, see ``accounting.liquidity``; in the unit of prices.
        periods, periods_per_year: T and P.

    Source: Almgren, Thum, Hauptmann and Li (2005), Direct Estimation of Equity Market Impact;
    the square root as in Toth et al. (2011), Anomalous Price Impact.
    """
    orders = shares.to_numpy(dtype=float)
    illiquid = illiquidity.reindex(index=shares.index, columns=shares.columns).to_numpy(dtype=float)
    if not np.isfinite(illiquid[orders > 0]).all():
        return np.inf
    at_one = np.sum(np.where(orders > 0, orders**1.5 * illiquid, 0.0))
    return float(at_one * periods_per_year / periods)


def capacity(drag_at_one: float, drag: float = 0.01) -> float:
    """Portfolio value at which market impact takes ``drag`` per year: (drag / ``impact_drag``)**2.

    In the unit of the prices; 0 where something is traded that has no volume, NaN without trades.
    """
    return float((drag / drag_at_one) ** 2) if drag_at_one > 0 else np.nan
