"""Training decisions whose orders do not all find a price at their fill.

The rule is that of ``Positions``: such an order waits for a price or is cancelled, the assets
without one keep their holdings, and others buy no more than the answer leaves beside these. Here it
is differentiable.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.accounting.costs import NO_ORDER, Account, Costs
from engine.accounting.market import Market
from strategies.base import drift


class Step(NamedTuple):
    """A fill of a part of an answer, and what follows until the next fill."""

    ordered: Tensor  # (N,) bool: assets that have a price
    delisted: Tensor  # (N,) bool: these can be sold, at their last price, and not be bought
    growth: Tensor  # (N,) of prices until the next step, or the end of the holding period
    illiquidity: Tensor | None  # (N,) at the fill, if there is market impact
    years: float  # until the next step, or the end of the holding period


Steps = Mapping[int, list[Step]]  # by number of the decision, where there is more than one fill


def steps_of(
    market: Market, decided: np.ndarray, fills: np.ndarray, ends: np.ndarray, unpriced: str
) -> Steps:
    """The steps of the decisions (K,) that may meet an asset without a price.

    Args:
        market: what is known when training ends, so that an asset that trades again later is not
            told from one that does not.
        decided, fills, ends: rows of the decisions, of their fills and of the fills after these.
    """
    quoted, following = market.quoted, market.next_quoted
    started = np.logical_or.accumulate(~np.isnan(quoted), axis=0)
    lack = market.illiquidity
    found: dict[int, list[Step]] = {}
    for k in np.flatnonzero(~market.all_quoted[fills]):
        row, end = int(fills[k]), int(ends[k])
        missing, gone = np.isnan(quoted[row]), row >= market.delisted
        late = missing & ~gone
        known = late & (started[row] | (following[row] < end))
        if not (known | (gone & (decided[k] < market.delisted))).any():
            continue  # nobody orders an asset that is not there yet, or buys one that is gone
        waits = following[row][late] if unpriced == "wait" else np.empty(0, int)
        rows = [row, *np.unique(waits[waits < end]).tolist(), end]
        found[int(k)] = [
            Step(
                torch.from_numpy(~late if at == row else late & (following[row] == at)),
                torch.from_numpy(gone if at == row else np.zeros_like(gone)),
                torch.from_numpy(market.at_fills[after] / market.at_fills[at]),
                None if lack is None else lack[at],
                float(market.clock[after] - market.clock[at]),
            )
            for at, after in pairwise(rows)
        ]
    return found


class Period(NamedTuple):
    """What a holding period with several fills came to."""

    gross: Tensor
    net: Tensor
    cost: Tensor
    turnover: Tensor
    after: Tensor  # (N,) weights at its end


def in_steps(weights: Tensor, before: Tensor, steps: list[Step], costs: Costs) -> Period | None:
    """Fill ``weights`` (N,) from ``before`` (N,) step by step; None where no order has to wait."""
    first = steps[0]
    grows = (weights.abs() > before.abs()) | (weights * before < 0)
    kept = ~first.ordered | (first.delisted & grows)
    if not (kept & ((weights - before).abs() > NO_ORDER)).any():
        return None
    gross = net = torch.ones((), dtype=weights.dtype)
    paid, turnover = torch.zeros_like(net), torch.zeros_like(net)
    most = weights.sum().detach().clamp(min=1)
    waiting = torch.ones_like(first.ordered)
    for step in steps:
        alone = ~step.ordered | (step.delisted & grows)
        waiting = waiting & ~step.ordered
        room = most
        if waiting.any():  # others buy no more than the answer leaves beside what is not sold
            meant = torch.where(alone & ~waiting, before, weights).sum()
            room = torch.minimum(most, meant)
        targets = weights.masked_fill(alone, torch.nan)
        trade = costs.charge(targets, before, step.illiquidity, most=room)
        earned = (trade.weights * (step.growth - 1)).sum()
        carried = costs.carry(trade.weights) * step.years
        gross, net = gross * (1 + earned), net * (1 - trade.cost) * (1 + earned + carried)
        paid, turnover = paid + trade.cost, turnover + trade.turnover
        before = drift(trade.weights, step.growth, carried)
    return Period(gross - 1, net - 1, paid, turnover, before)


def patched(account: Account, periods: Mapping[int, Period]) -> Account:
    """The account with some of its S periods replaced."""
    rows = torch.tensor(list(periods), device=account.cost.device)

    def replaced(whole: Tensor, name: str) -> Tensor:
        return whole.index_copy(0, rows, torch.stack([getattr(p, name) for p in periods.values()]))

    return account._replace(
        gross_returns=replaced(account.gross_returns, "gross"),
        net_returns=replaced(account.net_returns, "net"),
        cost=replaced(account.cost, "cost"),
        turnover=replaced(account.turnover, "turnover"),
    )
