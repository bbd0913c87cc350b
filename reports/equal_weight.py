"""1/N from what a result holds, for a report of strategies that were tested without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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


def is_equal_weight(result: BacktestResult) -> bool:
    """Whether the strategy is 1/N."""
    return str(result.strategy.get("class", "")).endswith(f":{NAME}")


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
    panel = Panel(prices, periods_per_year=settings["periods_per_year"])
    assets = len(panel.assets)
    targets = pd.DataFrame(1 / assets, pd.DatetimeIndex(result.turnover.index), panel.assets)
    done = simulate(targets, panel, read_costs(settings["costs"]), lag=0)
    empty = pd.DataFrame()
    return replace(
        result,
        name=NAME,
        strategy=described(EqualWeight()),
        targets=targets.set_axis(result.targets.index),
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
        settings={**settings, "simulation_difference": done.difference},
    ), ""
