"""A cost sweep: what the same decisions earn at other costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from data_loaders import Panel
from engine.accounting import performance
from engine.accounting.bookkeeping import keep_book
from engine.accounting.simulation import fills_of
from engine.runs.result import BacktestResult
from engine.runs.settings import read_costs


def cost_sweep(
    result: BacktestResult, panel: Panel, basis_points: Sequence[float] = (0, 5, 10, 25)
) -> pd.DataFrame:
    """What the result's targets earn if trading costs so many basis points of the value traded.

    Nothing is trained or decided again, so this is the effect of costs on given decisions: a
    strategy that is trained at higher costs trades less. The result's other costs stay the same.

    Returns:
        One row per entry of ``basis_points``: sharpe (annualised, net, in excess of the risk-free
        rate), annual_return (geometric, net), cost_drag (annual_return at the first entry minus
        that at this one), annual_cost (paid for trading, over the portfolio's value) and
        annual_turnover; all fractions.

    Raises:
        ValueError: the panel is not the one of the result.
    """
    if panel.fingerprint != result.settings["panel"]["fingerprint"]:
        raise ValueError(f"{result.name} was not tested on this panel: fingerprints differ")
    if not len(basis_points):
        raise ValueError("give at least one cost, in basis points")
    base = read_costs(result.settings["costs"])
    wanted = torch.tensor(result.targets.to_numpy(np.float64))
    fills = fills_of(result.targets, panel, base, result.settings["plan"]["execution_lag"])
    a_year = panel.periods_per_year
    rows = []
    for points in basis_points:
        book = keep_book(wanted, fills, replace(base, commission=points / 1e4, spread=0.0))
        net, periods = pd.Series(book.net.numpy(), fills.dates), len(book.net)
        rows.append(
            {
                "basis_points": points,
                "sharpe": performance.sharpe(result.in_excess(net), a_year),
                "annual_return": performance.annual_return(net, a_year),
                "annual_cost": performance.yearly(book.cost.numpy(), periods, a_year),
                "annual_turnover": performance.yearly(book.turnover.numpy(), periods, a_year),
            }
        )
    table = pd.DataFrame(rows).set_index("basis_points")
    table.insert(2, "cost_drag", table["annual_return"].iloc[0] - table["annual_return"])
    return table
