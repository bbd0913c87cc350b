"""A cost sweep: what the same decisions earn at other costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from data_loaders.calendars import elapsed_years
from engine.accounting import performance
from engine.accounting.bookkeeping import Fills, books_to_the_end
from engine.accounting.costs import Costs
from engine.accounting.round_trips import CAPITAL
from engine.runs.experiment import read_costs
from engine.runs.result import BacktestResult

LARGEST = 0.099  # commission, or spread; ``Costs`` takes those below 0.1


class Refilled(NamedTuple):
    """What the targets earn at other costs; fractions."""

    net_returns: pd.Series  # (T,); -1 on the date of a ruin
    costs: np.ndarray  # (K,) of trading
    turnover: np.ndarray  # (K,)


class Resimulation:
    """The targets of a result, filled again at other costs of trading.

    Impact, fees per order, borrow, financing and interest stay those of the run, and so do whole
    shares. At the ``rate`` of the run, its net returns are found again.

    Attributes:
        rate: of the run: commission and half the spread, a fraction of the value traded.
        dearest: the largest that ``at`` takes, where one of them comes to 9.9%.

    Raises:
        ValueError: the result does not hold what its simulation needs.
    """

    def __init__(self, result: BacktestResult):
        if reason := _lacking(result):
            raise ValueError(f"{result.name} cannot be simulated at other costs: {reason}")
        self.base = read_costs(result.settings["costs"])
        self.rate = self.base.rate
        largest = max(self.base.commission, self.base.spread)
        self.dearest = self.rate / largest * LARGEST if self.rate else LARGEST
        self.whole = bool(result.settings.get("whole_shares", False))
        self.fills = _fills_of(result, self.base)

    def at(self, rate: float) -> Refilled:
        """What is earned where a unit of value traded costs ``rate``.

        Commission and spread keep their proportion; without any, all of it is commission.
        """
        factor = rate / self.rate if self.rate else 0.0
        commission = self.base.commission * factor if self.rate else rate
        costs = replace(self.base, commission=commission, spread=self.base.spread * factor)
        book, net, _, _ = books_to_the_end(self.fills, costs, self.whole)
        net_returns = pd.Series(net, self.fills.dates)
        return Refilled(net_returns, book.cost.numpy(), book.turnover.numpy())


def cost_sweep(
    result: BacktestResult, basis_points: Sequence[float] = (0, 5, 10, 25)
) -> pd.DataFrame:
    """What the result's targets earn if trading costs so many basis points of the value traded.

    Nothing is trained or decided again, so this is the effect of costs on given decisions: a
    strategy that is trained at higher costs trades less. The result's other costs stay the same:
    impact, fees per order, borrow, financing and interest.

    Returns:
        One row per entry of ``basis_points``: sharpe (annualised, net, in excess of the risk-free
        rate), annual_return (geometric, net), cost_drag (annual_return at the first entry minus
        that at this one), annual_cost (paid for trading, over the portfolio's value) and
        annual_turnover; all fractions.

    Raises:
        ValueError: the result does not hold what its simulation needs.
    """
    if not len(basis_points):
        raise ValueError("give at least one cost, in basis points")
    again, a_year = Resimulation(result), result.settings["periods_per_year"]
    pace = result.rows_per_year
    rows = []
    for points in basis_points:
        found = again.at(points / 1e4)
        net, periods = found.net_returns, len(found.net_returns)
        rows.append(
            {
                "basis_points": points,
                "sharpe": performance.sharpe(result.in_excess(net), a_year),
                "annual_return": performance.annual_return(net, pace),
                "annual_cost": performance.yearly(found.costs, periods, pace),
                "annual_turnover": performance.yearly(found.turnover, periods, pace),
            }
        )
    table = pd.DataFrame(rows).set_index("basis_points")
    table.insert(2, "cost_drag", table["annual_return"].iloc[0] - table["annual_return"])
    return table


def _lacking(result: BacktestResult) -> str:
    """Why a result cannot be simulated again, in words; empty if it can."""
    dates = result.net_returns.index
    if result.failure is not None:
        return "it did not finish"
    if not len(result.turnover) or not result.turnover.any():
        return "nothing was traded"
    if not result.asset_returns.index.equals(dates):
        return "it holds no returns of the assets; run the backtest again"
    orders = result.orders
    reasons = orders["reason"][orders["size"] > 0] if "reason" in orders else pd.Series(dtype=str)
    at_close = result.settings["plan"].get("fill", "close") == "close"
    if not (at_close and (reasons == "decision").all()):
        return "orders were filled at other prices than closes, which it does not hold"
    if not _filled(result)[0].index.equals(result.turnover.index):
        return "it does not hold what was filled; run the backtest again"
    if result.turnover.index[0] != dates[0]:
        return "it does not begin with its first fill"
    return ""


def _filled(result: BacktestResult) -> tuple[pd.DataFrame, np.ndarray]:
    """Targets (E, N) by fill date, NaN where there was no order, and what weights may sum to."""
    if len(result.fills):
        most = result.most_invested.to_numpy(np.float64)
        return result.fills.set_axis(pd.DatetimeIndex(result.fills.index)), most
    if len(result.targets) != len(result.turnover):
        return pd.DataFrame(), np.empty(0)
    return result.targets.set_axis(result.turnover.index), np.ones(len(result.targets))


def _fills_of(result: BacktestResult, costs: Costs) -> Fills:
    """As ``simulation.fills_of``, from what a result holds: prices follow from the returns."""
    dates = pd.DatetimeIndex(result.net_returns.index)
    growth = 1 + result.asset_returns.to_numpy(np.float64)
    growth[0] = 1.0
    path = pd.DataFrame(growth.cumprod(axis=0), dates, result.asset_returns.columns.astype(str))
    if len(result.orders):  # shares are whole at the prices that were traded at
        first = result.orders.drop_duplicates("asset").set_index("asset")
        for asset, date, price in zip(first.index, first["date"], first["price"], strict=True):
            path[asset] *= price / path.at[pd.Timestamp(date), asset]
    lack = result.illiquidity.to_numpy(np.float64).copy() if costs.impact else None
    targets, most = _filled(result)
    return Fills(
        dates=dates,
        closes=torch.arange(len(dates)),
        starts=torch.from_numpy(dates.get_indexer(targets.index)),
        path=torch.tensor(path.to_numpy()),
        clock=torch.from_numpy(elapsed_years(dates).cumsum()),
        targets=torch.tensor(targets.to_numpy(np.float64)),
        most=torch.tensor(most),
        decided=np.zeros(targets.shape, int),
        illiquidity=None if lack is None else torch.from_numpy(lack),
        capital=costs.capital or CAPITAL,
    )
