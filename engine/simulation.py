"""The order-level simulation: targets in, holdings, orders and returns out.

The returns come from our own accounting (``costs.py``, which the training loss uses too).
vectorbt then executes the same targets order by order, and the two must agree.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from data_loaders import Panel
from engine.costs import Costs, drift

TOLERANCE = 1e-10  # largest gap allowed between the two net returns of a day


class SimulationError(RuntimeError):
    """The order-level simulation and the accounting disagree."""


@dataclass(frozen=True)
class Simulation:
    """What holding the targets earned; all fractions, dates are closes.

    Attributes:
        weights: (T, N) held after each close, from the first fill on.
        gross_returns, net_returns: (T,) simple returns; the first row is the first fill.
        turnover, costs: (K,) by fill date, over the portfolio's value before the trade.
        orders: one row an order: date, asset, side, size (shares), price, fees.
        difference: largest gap between our net returns and vectorbt's.
    """

    weights: pd.DataFrame
    gross_returns: pd.Series
    net_returns: pd.Series
    turnover: pd.Series
    costs: pd.Series
    orders: pd.DataFrame
    difference: float


def simulate(
    targets: pd.DataFrame, panel: Panel, costs: Costs, lag: int = 1, capital: float = 1e6
) -> Simulation:
    """Fill each row of ``targets`` (K, N), indexed by decision date, ``lag`` rows later.

    An asset without a price is valued at its last one, and sold at it.

    Raises:
        SimulationError: our net returns differ from vectorbt's by more than 1e-10.
    """
    fills = panel.dates.get_indexer(targets.index) + lag
    first = int(fills[0])
    prices = panel.prices.ffill().iloc[first:]  # valuation prices (T, N)
    path = torch.from_numpy(prices.fillna(1.0).to_numpy())  # before its first price nothing is held
    wanted = torch.from_numpy(targets.to_numpy(np.float64))
    starts = torch.from_numpy(fills - first)

    at_fill = path[starts]
    before = drift(wanted[:-1], at_fill[1:] / at_fill[:-1])
    before = torch.cat([torch.zeros_like(wanted[:1]), before])
    trade = costs.charge(wanted, before)

    # Every row belongs to the last fill at or before it.
    period = torch.searchsorted(starts, torch.arange(len(path)), right=True) - 1
    weights = drift(wanted[period], path / at_fill[period])
    gross = torch.zeros(len(path), dtype=torch.float64)
    gross[1:] = (weights[:-1] * (path[1:] / path[:-1] - 1)).sum(-1)
    net = gross.clone()
    net[starts] = (1 + gross[starts]) * (1 - trade.cost) - 1

    sizes = wanted * (1 - trade.cost).unsqueeze(-1)
    orders, executed = _execute(sizes, starts, prices, costs, capital)
    # vectorbt rounds small amounts away, so what is left of a ruin cannot be compared.
    alive = (1 + net.numpy()).cumprod() > 1e-2
    gaps = np.where(alive, np.abs(executed - net.numpy()), 0.0)
    difference = float(gaps.max())
    if not difference <= TOLERANCE:
        day = prices.index[int(gaps.argmax())].date()
        raise SimulationError(
            f"the order-level simulation and the accounting differ by {difference:.2e} on {day}, "
            f"more than {TOLERANCE:.0e}"
        )
    days, fill_days = prices.index, prices.index[starts.numpy()]
    return Simulation(
        weights=pd.DataFrame(weights.numpy(), index=days, columns=panel.assets),
        gross_returns=pd.Series(gross.numpy(), index=days, name="gross_returns"),
        net_returns=pd.Series(net.numpy(), index=days, name="net_returns"),
        turnover=pd.Series(trade.turnover.numpy(), index=fill_days, name="turnover"),
        costs=pd.Series(trade.cost.numpy(), index=fill_days, name="costs"),
        orders=orders,
        difference=difference,
    )


def _execute(
    sizes: torch.Tensor, starts: torch.Tensor, prices: pd.DataFrame, costs: Costs, capital: float
) -> tuple[pd.DataFrame, np.ndarray]:
    """Orders (frame) and net returns (T,) of vectorbt's execution.

    ``sizes`` (K, N) are fractions of the value before the trade that leave the money for the
    costs in cash, so that no order is cut short for lack of it.
    """
    vectorbt = _vectorbt()
    size = np.full(prices.shape, np.nan)
    size[starts.numpy()] = sizes.numpy()
    size[np.isnan(prices.to_numpy())] = np.nan
    portfolio = vectorbt.Portfolio.from_orders(
        prices.set_axis(range(prices.shape[1]), axis=1),  # names of assets stay ours
        size=size,
        size_type="targetpercent",
        direction="longonly",
        fees=costs.rate,
        init_cash=capital,
        cash_sharing=True,
        group_by=True,
        call_seq="auto",
        freq="1D",
    )
    records = portfolio.orders.values
    orders = pd.DataFrame(
        {
            "date": prices.index[records["idx"]],
            "asset": prices.columns[records["col"]].astype(str),
            "side": np.where(records["side"] == 0, "buy", "sell"),
            "size": records["size"],
            "price": records["price"],
            "fees": records["fees"],
        }
    )
    value = np.concatenate([[capital], np.asarray(portfolio.value())])
    return orders, value[1:] / value[:-1] - 1


def _vectorbt():  # imported here: it takes seconds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own import warns about its dependencies
        import vectorbt

    return vectorbt
