"""The order-level simulation: targets in, holdings, orders and returns out.

The way of an order: ``Positions`` finds when the ``Market`` has a price for it, ``Holdings`` what
its fill leaves, and ``bookkeeping.py`` makes value, shares, fees and returns of all fills, with the
same costs and the same drift as the training loss. vectorbt then executes the same orders one by
one, and the two must agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_loaders import Panel
from data_loaders.machine import writable_cache
from data_loaders.validation import day
from engine.accounting.bookkeeping import Book, Fills, books_to_the_end
from engine.accounting.costs import Costs
from engine.accounting.holdings import CLOSE, Event
from engine.accounting.market import Levels, Market
from engine.accounting.positions import Delay, Positions
from engine.accounting.round_trips import CAPITAL

ORDER_COLUMNS = (
    "date", "asset", "side", "size", "price", "fees", "decided", "ordered", "paid", "reason",
)  # fmt: skip
TOLERANCE = 1e-10  # largest gap allowed between the two net returns of a day


class SimulationError(RuntimeError):
    """The order-level simulation and the accounting disagree."""


@dataclass(frozen=True)
class Simulation:
    """What holding the targets earned; fields as of ``BacktestResult``, and two more.

    Several fills on a date are one entry of turnover and costs: the sum, and 1 less the product of
    1 - cost.

    Attributes:
        difference: largest gap between our net returns and vectorbt's.
        decided: (K,) the decision dates of the targets that were filled.
    """

    weights: pd.DataFrame
    gross_returns: pd.Series
    net_returns: pd.Series
    turnover: pd.Series
    costs: pd.Series
    orders: pd.DataFrame
    delays: pd.DataFrame
    fills: pd.DataFrame
    most_invested: pd.Series
    difference: float
    fractional_returns: pd.Series
    decided: pd.DatetimeIndex
    failure: dict | None = None


def simulate(
    targets: pd.DataFrame,
    panel: Panel,
    costs: Costs,
    lag: int = 1,
    whole: bool = False,
    unpriced: str = "wait",
    fill: str = "close",
    levels: Mapping[int, Levels] | None = None,
) -> Simulation:
    """Fill each row of ``targets`` (K, N), indexed by decision date, ``lag`` rows later.

    An asset without a price is valued at its last one. For what is filled when, see ``Positions``.

    Args:
        whole: trade whole shares only, rounded towards zero; the remainder stays in cash.

    Raises:
        SimulationError: our net returns differ from vectorbt's by more than 1e-10.
        Ruin: not even the first fill can be paid.
    """
    positions = Positions(Market(panel, costs, fill), lag, unpriced)
    rows, levels = panel.dates.get_indexer(targets.index), levels or {}
    for row, wanted in zip(map(int, rows), targets.to_numpy(np.float64), strict=True):
        positions.replay(row, wanted, levels.get(row))
    positions.advance(len(panel) - 1)
    every = fills_of(positions)
    book, net, fills, ruin = books_to_the_end(every, costs)
    fractional = net
    if whole:
        book, net, fills, ruin = books_to_the_end(every, costs, whole=True)
    orders = _order_frame(book, fills, panel, positions.events, whole)
    end = panel.dates.get_loc(fills.dates[-1])
    decided = panel.dates[rows[rows + lag <= end]]

    executed = _execute(book, fills, costs)
    value = book.value.numpy()
    # vectorbt rounds small amounts away, so what remains after a ruin cannot be compared.
    alive = value > 1e-2 * np.maximum.accumulate(value)
    gaps = np.where(alive, np.abs(executed - book.net.numpy()), 0.0)
    difference = float(gaps.max())
    if not difference <= TOLERANCE:
        raise SimulationError(
            f"the order-level simulation and the accounting differ by {difference:.2e} on "
            f"{day(fills.dates[int(gaps.argmax())])}, more than {TOLERANCE:.0e}"
        )
    weights = pd.DataFrame(book.weights.numpy(), index=fills.dates, columns=panel.assets)
    gross, failure = book.gross.numpy(), None
    if ruin is not None:
        gross = np.append(gross, np.zeros(len(every.dates) - len(gross)))
        before, after = every.path[every.closes[ruin.row - 1 : ruin.row + 1]]
        moved = after / before - 1
        gross[ruin.row] = max(-1.0, float(book.weights[-1] @ moved))
        weights = weights.reindex(every.dates, fill_value=0.0)
        failure = {"date": day(ruin.date), "stage": "simulation", "reason": ruin.reason}

    def by_row(values: np.ndarray, name: str) -> pd.Series:
        return pd.Series(values, index=every.dates, name=name)

    def by_fill(values: Tensor, name: str) -> pd.Series:
        return pd.Series(values.numpy(), index=fills.fill_dates, name=name)

    turnover, cost = by_fill(book.turnover, "turnover"), by_fill(book.cost, "costs")
    if fills.fill_dates.has_duplicates:  # a stop within a bar, and a fill at its close
        turnover = turnover.groupby(level=0).sum()
        cost = 1 - (1 - cost).groupby(level=0).prod()
    return Simulation(
        weights=weights,
        gross_returns=by_row(gross, "gross_returns"),
        net_returns=by_row(net, "net_returns"),
        turnover=turnover,
        costs=cost,
        orders=orders,
        delays=_delay_frame(positions, fills.dates[-1]),
        fills=pd.DataFrame(fills.targets.numpy(), fills.fill_dates, panel.assets),
        most_invested=by_fill(fills.most, "most_invested"),
        difference=difference,
        fractional_returns=by_row(fractional, "fractional_returns"),
        decided=decided,
        failure=failure,
    )


def nothing_filled(panel: Panel) -> Simulation:
    """That of no target: a simulation without a row."""
    dates = panel.dates[:0]
    none = pd.Series(dtype=float, index=dates)
    weights = pd.DataFrame(dtype=float, index=dates, columns=panel.assets)
    orders = pd.DataFrame(columns=ORDER_COLUMNS)
    empty = pd.DataFrame()
    return Simulation(
        weights, none, none, none, none, orders, empty, weights, none, 0.0, none, dates
    )


def fills_of(positions: Positions) -> Fills:
    """The fills of all orders so far, and the path of prices to the last row of the panel."""
    market = positions.market
    panel, costs, last = market.panel, market.costs, len(market.panel)
    events = positions.events
    rows = np.array([event.row for event in events])
    closes = np.arange(rows[0], last)
    # A fill before the close of its row is a point of its own.
    early = np.array([event.moment != CLOSE for event in events])
    at = rows[early] - rows[0]
    prices = np.array([event.prices for event in events])
    path = np.insert(market.closes[closes], at, prices[early], axis=0)
    clock = np.insert(market.clock[closes], at, market.clock[rows[early]])
    points = np.arange(len(closes)) + np.searchsorted(at, np.arange(len(closes)), side="right")
    starts = np.where(early, rows - rows[0] + np.cumsum(early) - 1, points[rows - rows[0]])
    lack = market.illiquidity
    return Fills(
        dates=panel.dates[closes],
        closes=torch.from_numpy(points),
        starts=torch.from_numpy(starts),
        path=torch.from_numpy(np.ascontiguousarray(path)),
        clock=torch.from_numpy(clock - clock[0]),
        targets=torch.from_numpy(np.array([event.targets for event in events])),
        most=torch.tensor([event.most for event in events], dtype=torch.float64),
        held=torch.from_numpy(np.array(positions.filled.after)),
        decided=np.array([event.decided for event in events]),
        illiquidity=None if lack is None else lack[rows],
        capital=costs.capital or CAPITAL,
    )


def _order_frame(
    book: Book, fills: Fills, panel: Panel, events: Sequence[Event], whole: bool
) -> pd.DataFrame:
    """One row an order, in order of time."""
    fill, column = np.nonzero(((book.orders != 0) | (book.ordered != 0)).numpy())
    prices = fills.prices.numpy()[fill, column]
    filled, wanted, fees = (x.numpy()[fill, column] for x in (book.orders, book.ordered, book.fees))
    bought = np.where(filled == 0, wanted, filled) > 0
    reasons = [events[k].reasons.get(n, "decision") for k, n in zip(fill, column, strict=True)]
    unfilled = np.where(whole & (np.abs(wanted) < 1), "below_one_share", "cash_short")
    return pd.DataFrame(
        {
            "date": fills.fill_dates[fill],
            "asset": panel.assets.astype(str).to_numpy()[column],
            "side": np.array(["sell", "buy"], dtype=object)[bought.astype(int)],
            "size": np.abs(filled),
            "price": prices,
            "fees": fees,
            "decided": panel.dates[fills.decided[fill, column]],
            "ordered": np.abs(wanted),
            "paid": filled * prices + fees,
            "reason": np.where(filled == 0, unfilled, np.array(reasons, dtype=object)),
        }
    )


def _delay_frame(positions: Positions, last: pd.Timestamp) -> pd.DataFrame:
    """One row an order that found no price, up to the date ``last``."""
    panel, delays = positions.market.panel, positions.unfilled()
    at = {
        name: np.array([getattr(each, name) for each in delays], int) for name in Delay._fields[:3]
    }
    filled = np.array([each.filled for each in delays], int)
    table = pd.DataFrame(
        {
            "decided": panel.dates[at["decided"]],
            "due": panel.dates[at["due"]],
            "filled": panel.dates[filled].where(filled >= 0),
            "asset": panel.assets.astype(str).to_numpy()[at["asset"]],
            "outcome": [each.outcome for each in delays],
        }
    )
    return table[table["due"] <= last].reset_index(drop=True)


def _execute(book: Book, fills: Fills, costs: Costs) -> np.ndarray:
    """Net returns (T,) of vectorbt's execution of the orders.

    vectorbt lends no money and knows neither interest nor borrowing fees. So its account gets a
    loan without interest, large enough for every order, and carry by our own books is added. What
    is compared are orders, prices, fees, positions and cash.
    """
    vectorbt = load_vectorbt()
    # vectorbt rounds shares to about 1e-12, which is money at a price of 1e14. Powers of two bring
    # each price near 1 and change nothing else.
    unit = np.exp2(np.floor(np.log2(fills.path.numpy().max(axis=0))))  # (N,)
    path = fills.path.numpy() / unit
    shape, at_fill, starts = tuple(fills.path.shape), fills.prices, fills.starts.numpy()
    size = np.full(shape, np.nan)
    size[starts] = book.orders.where(book.orders != 0, torch.nan).numpy() * unit
    beside = np.zeros(len(path))  # money that vectorbt does not see
    beside[fills.closes.numpy()[1:]] = book.carried.numpy()[1:]
    fixed: np.ndarray | float = 0.0
    if not costs.proportional:
        traded = book.orders.abs() * at_fill
        # vectorbt fills no sale that brings less than its fees.
        most = torch.where(book.orders < 0, traded * (1 - 1e-9), torch.inf)
        charged = torch.minimum(book.fees, most)
        beside[starts] -= (book.fees - charged).sum(-1).numpy()
        fixed = np.zeros(shape)
        fixed[starts] = charged - costs.rate * traded
    traded_most = (book.orders.abs() * at_fill).sum(-1).max().item()
    owed_most = (-book.value * (1 - book.weights.sum(-1))).max().item()
    loan = 2 * (traded_most + max(owed_most, 0.0) + float(np.abs(beside.cumsum()).max()))
    portfolio = vectorbt.Portfolio.from_orders(
        pd.DataFrame(path),  # dates and names of assets stay ours
        size=size,
        size_type="amount",
        direction="both",
        fees=costs.rate,
        fixed_fees=fixed,
        init_cash=fills.capital + loan,
        cash_sharing=True,
        group_by=True,
        freq="1D",
    )
    value = _value(portfolio.order_records, path) + fills.capital + beside.cumsum()
    value = value[fills.closes.numpy()]
    return value / np.concatenate([[fills.capital], value[:-1]]) - 1


def _value(records: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Value (T,) of the positions and cash that vectorbt's records leave, starting from no cash.

    The same as its ``Portfolio.value`` less the initial cash, but faster: it builds no frames.
    """
    row, sold = records["idx"], records["side"] == 1
    bought = np.where(sold, -records["size"], records["size"])
    shares = np.zeros_like(prices)
    shares[row, records["col"]] = bought  # an asset has one order a row at most
    paid = np.bincount(row, bought * records["price"] + records["fees"], len(prices))
    return (shares.cumsum(axis=0) * prices).sum(axis=1) - paid.cumsum()


def load_vectorbt() -> ModuleType:
    """vectorbt, imported where it is used: it takes seconds."""
    writable_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own import warns about its dependencies
        import vectorbt

    return vectorbt
