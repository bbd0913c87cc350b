"""Holdings, trades and costs; the conventions are those of ``accounting.performance``.

``turnover`` and ``costs`` are by fill date, fractions of the portfolio's value; ``weights``
(T, N) are those after each close.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from engine.accounting.performance import annual_return, sharpe, wealth
from engine.accounting.round_trips import CAPITAL
from engine.research.cost_sweep import Resimulation
from engine.runs.result import BacktestResult

DUST = 1e-6  # a smaller weight counts as none
TOLERANCE = 1e-8  # by so much may contributions miss the return they explain
VALUES = (1e6, 1e7, 1e8, 1e9)  # of a portfolio, at which the impact is shown
NAMED = 5  # assets that a sentence names
RATES = np.array([0, 5, 10, 25, 50]) * 1e-4  # costs of trading, fractions of the value traded


def turnover_per_rebalance(turnover: pd.Series) -> float:
    """Mean traded value per rebalance over portfolio value, a fraction: mean sum |w - w+|.

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


def cost_drag(before: pd.Series, net: pd.Series, periods_per_year: float) -> float:
    """Annual return lost to the costs of trading, a fraction: before them less after them.

    Both are annual returns after carry (interest, financing, borrow fees), so that it is never
    negative.
    """
    return annual_return(before, periods_per_year) - annual_return(net, periods_per_year)


def carry_a_year(gross: pd.Series, before: pd.Series, periods_per_year: float) -> float:
    """Annual return from carry, a fraction: interest on cash less financing and borrow fees.

    The annual return of prices and carry less that of prices alone. Annual return = that of prices
    + carry - cost drag.
    """
    return annual_return(before, periods_per_year) - annual_return(gross, periods_per_year)


def costs_paid(costs: pd.Series) -> float:
    """Sum of the costs, each as a fraction of the portfolio's value at its time."""
    return float(costs.sum())


def break_even_cost(again: Resimulation) -> float:
    """Cost of trading at which no gain is left, a fraction of the value traded: 0.01 = 100 bp.

    The rate, to 1e-9, at which the same targets earn nothing over the whole history, simulated
    with the other costs and the interest of the run; NaN where there is a loss without costs of
    trading, and where a gain is left at a commission or spread of 9.9%.
    """

    def gain(rate: float) -> float:
        return float((1 + again.at(rate).net_returns).prod()) - 1

    least, most = gain(0.0), gain(again.dearest)
    if least < 0 or most > 0:
        return np.nan
    return float(brentq(gain, 0.0, again.dearest, xtol=1e-9)) if least > 0 else 0.0


def gross_exposure(weights: pd.DataFrame) -> float:
    """Mean over the dates of sum |w|, a fraction: 1 is fully invested without leverage."""
    return float(weights.abs().sum(axis=1).mean()) if len(weights) else np.nan


def net_exposure(weights: pd.DataFrame) -> float:
    """Mean over the dates of sum w, a fraction: longs less shorts."""
    return float(weights.sum(axis=1).mean()) if len(weights) else np.nan


def time_in_market(weights: pd.DataFrame) -> float:
    """Share of the dates on which any asset is in the portfolio, a fraction."""
    return float((weights.abs().sum(axis=1) > DUST).mean()) if len(weights) else np.nan


def effective_assets(weights: pd.DataFrame) -> float:
    """Mean effective number of assets while invested: 1 / sum of squares of |w| / sum |w|.

    N for equal weights, 1 for a single asset: the inverse of the Herfindahl index.
    Source: Woerheide and Persson (1993), An Index of Portfolio Diversification.
    """
    sizes = weights.abs().fillna(0.0)
    total = sizes.sum(axis=1)
    shares = sizes[total > DUST].div(total[total > DUST], axis=0)
    return float((1 / (shares**2).sum(axis=1)).mean()) if len(shares) else np.nan


def largest_weight(weights: pd.DataFrame) -> float:
    """Largest |w| of any asset on any date, a fraction."""
    return float(weights.abs().max().max()) if weights.size else np.nan


# Tables of the report


def sharpe_by_cost(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """Net Sharpe ratio by cost of trading (basis points) and strategy, of the same targets.

    At ``RATES`` and each result's own rate, where it is that of the result. The other costs and
    the interest stay those of the run (see ``engine.cost_sweep``).
    """
    again = {name: found for name, r in results.items() if (found := resimulation(r)) is not None}
    rates = sorted(set(RATES) | {each.rate for each in again.values()})
    lines = {}
    for name, each in again.items():
        net = [results[name].in_excess(each.at(rate).net_returns) for rate in rates]
        year = results[name].settings["periods_per_year"]
        lines[name] = [sharpe(line, year) for line in net]
    points = [round(1e4 * rate, 6) for rate in rates] if again else []
    table = pd.DataFrame(lines, points, dtype=float)
    return table.rename_axis("basis points").dropna(axis=1, how="all")


def resimulation(result: BacktestResult) -> Resimulation | None:
    """The targets to be filled again; None where the result does not hold what that needs."""
    try:
        return Resimulation(result)
    except ValueError:
        return None


def whole_shares(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """One row a strategy that traded whole shares: its results with them and with fractions."""
    rows = {}
    for name, result in results.items():
        whole, fractions = result.net_returns, result.fractional_returns
        if len(fractions) and (fractions - whole).abs().max() > 0:
            year, pace = result.settings["periods_per_year"], result.rows_per_year
            rows[name] = {
                "return, whole": annual_return(whole, pace),
                "return, fractions": annual_return(fractions, pace),
                "Sharpe, whole": sharpe(result.excess_returns, year),
                "Sharpe, fractions": sharpe(result.in_excess(fractions), year),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def contributions(result: BacktestResult) -> pd.DataFrame | None:
    """(T, N) what each asset adds to the return before costs, w_(t-1) r_t; None where the rows do
    not sum to it, as without recorded returns of the assets.
    """
    if not len(result.asset_returns):
        return None
    weights = result.weights.fillna(0.0)
    moved = result.asset_returns.reindex(index=weights.index, columns=weights.columns)
    parts = weights.shift(1).fillna(0.0) * moved.fillna(0.0)
    return parts if (parts.sum(axis=1) - result.gross_returns).abs().max() < TOLERANCE else None


def asset_table(result: BacktestResult, periods_per_year: float) -> pd.DataFrame:
    """One row an asset, the largest mean weight first; all columns are fractions.

    Columns: mean, lowest and highest weight, held (share of the dates), return (contribution
    to the annual mean gross return: they sum to it) and risk (share of the
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
            "held": (weights.abs() > DUST).mean(),
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


def trip_summary(result: BacktestResult) -> pd.DataFrame:
    """One row about the closed round trips of a result; none without any.

    Columns: round trips; won (share with a profit after fees); mean win, mean loss, best, worst
    (returns, fractions); bars (mean rows held); adverse, favourable (mean largest moves,
    fractions); realised, open, fees (money).
    """
    trips = result.round_trips
    closed = trips[trips["reason"] != "open"]
    if not len(closed):
        return pd.DataFrame()
    earned = closed["return"].astype(float)
    won = closed["profit"] > 0
    row = {
        "round trips": len(closed),
        "won": won.mean(),
        "mean win": earned[won].mean() if won.any() else np.nan,
        "mean loss": earned[~won].mean() if (~won).any() else np.nan,
        "best": earned.max(),
        "worst": earned.min(),
        "bars": closed["bars"].mean(),
        "adverse": closed["adverse"].mean(),
        "favourable": closed["favourable"].mean(),
        "realised": closed["profit"].sum(),
        "open": trips["profit"].sum() - closed["profit"].sum(),
        "fees": trips["fees"].sum(),
    }
    return pd.DataFrame([row])


def delay_sentences(delays: pd.DataFrame) -> list[str]:
    """How many orders found no price when they were due, what became of them, and in which
    assets."""
    said = {
        "waited": "waited, and {were} filled at the first price after the gap",
        "waiting": "still {wait} for a price",
        "replaced": "{were} replaced by a later order while waiting",
        "cancelled": "{were} cancelled",
        "delisted": "{were} dropped, as the asset never traded again",
    }
    found = []
    for outcome, words in said.items() if len(delays) else ():
        names = delays.loc[delays["outcome"] == outcome, "asset"]
        if not len(names):
            continue
        assets = list(dict.fromkeys(map(str, names)))
        more = f" and {len(assets) - NAMED} other assets" if len(assets) > NAMED else ""
        one = len(names) == 1
        verb = words.format(were="was" if one else "were", wait="waits" if one else "wait")
        count = "1 order" if one else f"{len(names):,} orders"
        found.append(f"{count} {verb}: {', '.join(assets[:NAMED])}{more}.")
    return found


def capacity_table(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """One row a strategy that traded assets with volumes: the value at which impact takes 1% per
    year, and what it takes per year at each of ``VALUES``.
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
    """(K, N) size of each order over the portfolio's value before it, q >= 0, by fill date."""
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
        illiquidity: (K, N) l before the fill, see ``accounting.market``; in the unit of prices.
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
