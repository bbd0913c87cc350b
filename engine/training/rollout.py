"""The rollout: what portfolios earn net of costs while a network's weights are held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.accounting.costs import NO_ORDER, Account, Costs, settle
from engine.training.dataset import Block, Dataset, Step
from engine.training.fit_records import TrainingError
from strategies.contract_types import Inputs
from strategies.layers.drift import drift


def rollout(
    module: nn.Module,
    data: Dataset,
    block: Block,
    costs: Costs,
    forecasts: bool = False,
    noise: float = 0.0,
) -> Account:
    """The account of holding the module's weights over a block of S decisions.

    The block is entered with the weights of the decision before it, so the turnover across its
    edge is charged. The same holds after each gap in time (see ``Dataset.segments``).

    Args:
        block: its first decision is from 1 on.
        forecasts: whether the loss needs what the network predicts.
        noise: of the growth factors, see ``noise_factors``; the rows within periods have none.

    Raises:
        TrainingError: weights of the wrong shape, or no expected returns where they are needed.
    """
    numbers, is_entry = rollout_rows(data, *block)
    rows: Tensor | slice = torch.from_numpy(numbers)
    if (np.diff(numbers) == 1).all():  # which needs no copy
        rows = slice(int(numbers[0]), int(numbers[-1]) + 1)
    growth = data.growth[rows]  # (M, N), M = S and the entries
    if noise:
        growth = growth * noise_factors(growth, noise)
    inputs = {name: values[rows] for name, values in data.inputs.items()}
    weights, expected_return, variance = _weights(module, inputs, forecasts)  # (M, N), and (M,)
    if weights.shape != growth.shape:
        raise TrainingError(
            f"the module gave weights of shape {tuple(weights.shape)}, "
            f"expected {tuple(growth.shape)}"
        )
    carried = torch.zeros_like(weights[:, 0])
    if data.years is not None:
        carried = costs.carry(weights) * data.years[rows]
    after = drift(weights, growth, carried)
    periods = {}
    for m in np.flatnonzero(np.diff(numbers, prepend=-2) == 1):
        if numbers[m] not in data.steps:
            continue
        period = in_steps(weights[m], after[m - 1], data.steps[numbers[m]], costs)
        if period is not None:
            periods[m] = period
            after = after.index_copy(0, torch.tensor([m], device=after.device), period.after[None])
    kept = torch.from_numpy(np.flatnonzero(~is_entry)).to(weights.device)
    account = settle(
        weights[kept],
        growth[kept],
        after[kept - 1],
        carried[kept],
        costs,
        None if data.illiquidity is None else data.illiquidity[rows][kept],
    )
    if data.risk_free is not None:
        account = account._replace(risk_free=data.risk_free[rows][kept])
    if periods:
        place = np.cumsum(~is_entry) - 1
        counted = {int(place[m]): each for m, each in periods.items() if not is_entry[m]}
        account = patched(account, counted) if counted else account
    if data.paths is not None:
        account = account._replace(row_returns=row_returns(weights[kept], data.paths[rows][kept]))
    return account._replace(
        expected_return=None if expected_return is None else expected_return[kept],
        predicted_variance=None if variance is None else variance[kept],
    )


class Period(NamedTuple):
    """What a holding period with several fills came to."""

    gross: Tensor
    net: Tensor
    cost: Tensor
    turnover: Tensor
    after: Tensor  # (N,) weights at its end


def in_steps(weights: Tensor, before: Tensor, steps: list[Step], costs: Costs) -> Period | None:
    """Fill ``weights`` (N,) from ``before`` (N,) step by step; None where no order has to wait.

    The rule is that of ``Positions``: an order without a price waits for one or is cancelled, the
    assets without one keep their holdings, and others buy no more than the answer leaves beside
    these. Here it is differentiable.
    """
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


def noise_factors(growth: Tensor, noise: float) -> Tensor:
    """What growth factors (S, N) are multiplied by: exp(noise * s * e), e standard normal.

    s is the deviation of each asset's returns in these rows, so that 0.5 adds a quarter of its
    variance; prices stay positive.
    """
    drawn = torch.randn(growth.shape, dtype=growth.dtype).to(growth.device)  # on any device alike
    return (noise * growth.std(0) * drawn).exp()


def row_returns(weights: Tensor, paths: Tensor) -> Tensor:
    """Returns (S, D) at each row of a holding period, of weights (S, N) over their sum.

    They are held from the fill on. Weights that sum to zero are taken as they are.

    Args:
        paths: (S, D, N), see ``Dataset``.
    """
    total = weights.sum(-1, keepdim=True)
    invested = weights / torch.where(total.abs() > 1e-9, total, 1.0)
    value = 1 + ((paths - 1) * invested.unsqueeze(1)).sum(-1)  # (S, D)
    return value / torch.cat([torch.ones_like(value[:, :1]), value[:, :-1]], dim=1) - 1


def rollout_rows(data: Dataset, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The decisions that a rollout computes (M,), and which of them are entries.

    An entry is the decision before a segment: its weights are held, and not counted. Where its own
    orders may have met no price, the decision before it is one, too.
    """
    numbers, is_entry = [], []
    for a, b in data.segments(start, stop):
        first = a - 1
        while first in data.steps and data.follows(first):
            first -= 1
        numbers.append(np.arange(first, b))
        is_entry.append(numbers[-1] < a)
    return np.concatenate(numbers), np.concatenate(is_entry)


def _weights(
    module: nn.Module, inputs: Inputs, forecasts: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Weights (M, N) and, where they are asked for, expected returns (M, N) and, if the module
    predicts it, the variance (M,)."""
    if not forecasts:
        return module(inputs), None, None
    method = getattr(module, "weights_and_forecast", None)
    if method is None:
        raise TrainingError(
            f"the loss needs expected returns, and {type(module).__name__} has no method "
            "weights_and_forecast(inputs) that gives them beside the weights"
        )
    weights, expected_return, *variance = method(inputs)
    return weights, expected_return, variance[0] if variance else None
