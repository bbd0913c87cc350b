"""1/N from what a result holds, for a report of strategies that were tested without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.panel import prices_from
from engine.accounting.simulation import simulate
from engine.runs.description import described
from engine.runs.result import BacktestResult
from engine.runs.settings import read_costs
from reports.returns_alone import has_holdings
from strategies.baselines import EqualWeight

NAME = "EqualWeight"


def equal_weight_of(result: BacktestResult) -> tuple[BacktestResult | None, str]:
    """1/N at the fills and costs of a result; or None, and why it cannot be computed exactly.

    It equals what ``backtest`` would have found where the recorded returns of the assets say all:
    where each of them traded on every date.
    """
    settings = result.settings
    if reason := _lacking(result):
        return None, reason
    dates = pd.DatetimeIndex(result.asset_returns.index)
    prices = prices_from(result.asset_returns.iloc[1:]).set_axis(dates)
    panel = Panel(prices)
    weight = 1 / len(panel.assets)
    filled = _fill_dates(result)
    assert filled is not None  # or something is lacking
    targets = pd.DataFrame(weight, filled, panel.assets)
    done = simulate(targets, panel, read_costs(settings["costs"]), lag=0)
    empty = pd.DataFrame()
    return replace(
        result,
        name=NAME,
        strategy=described(EqualWeight()),
        targets=targets.set_axis(result.targets.index),
        fills=done.fills,
        most_invested=done.most_invested,
        delays=done.delays,
        weights=done.weights,
        gross_returns=done.gross_returns,
        net_returns=done.net_returns,
        turnover=done.turnover,
        costs=done.costs,
        orders=done.orders.iloc[:0],  # in shares, which need prices
        fractional_returns=done.fractional_returns,
        training=empty,
        solves=empty,
        checks=empty,
        limits=empty,
        sensitivity=empty,
        states={},
        failure=None,
        settings={**settings, "simulation_difference": done.difference},
    ), ""


def _fill_dates(result: BacktestResult) -> pd.DatetimeIndex | None:
    """The date (K,) of each decision's fill; None where the result does not say it."""
    on_time = not len(result.levels) and not len(result.delays)
    if on_time and len(result.targets) == len(result.turnover):
        return pd.DatetimeIndex(result.turnover.index)
    dates, decided = pd.DatetimeIndex(result.asset_returns.index), result.targets.index
    lag = result.settings["plan"]["execution_lag"]
    if (decided < dates[0]).sum() > 1:
        return None
    rows = np.where(decided < dates[0], 0, dates.searchsorted(decided) + lag)
    return dates[rows] if rows[-1] < len(dates) else None


def _lacking(result: BacktestResult) -> str:
    """Why 1/N cannot be computed exactly, in words; empty if it can."""
    settings, costs = result.settings, result.settings.get("costs", {})
    if not (has_holdings(result) and len(result.asset_returns) and len(result.turnover)):
        return "the results hold no returns of the assets"
    if settings.get("plan", {}).get("fill", "close") != "close":
        return "orders are filled at other prices than closes"
    if _fill_dates(result) is None:
        return "the results do not say when each decision is filled"
    if result.turnover.index[0] != result.asset_returns.index[0]:
        return "the results do not begin with their first fill"
    table = (settings.get("panel", {}).get("quality") or {}).get("assets", [])
    first, last = (str(when.date()) for when in (result.targets.index[0], result.weights.index[-1]))
    throughout = [
        row["gaps"] == 0 and str(row["first"]) <= first and str(row["last"]) >= last
        for row in table
    ]
    if len(throughout) != len(result.asset_returns.columns) or not all(throughout):
        return "not every asset has a price on every date"
    if settings.get("universe", True):
        return "the universe changed, or the run does not say whether it did"
    if costs.get("impact"):
        return "market impact needs the volumes"
    if settings.get("whole_shares"):
        return "whole shares need the prices"
    if costs.get("class"):
        return "the costs are of a class of the user's own"
    return ""
