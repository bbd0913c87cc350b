"""Today's orders: what to trade, from a finished run, today's prices and current holdings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from data_loaders import Panel
from engine.accounting.liquidity import illiquidity
from engine.accounting.positions import SAME
from engine.accounting.protective_orders import Levels
from engine.planning.walk_forward import later
from engine.runs.result import BacktestResult
from engine.runs.settings import read_costs, read_plan
from engine.walking.decisions import mean_answer
from engine.walking.weight_checks import checked_answer
from strategies.base import LearnedStrategy, Strategy, asks_for_book, learned_inside, stack

OLDEST = pd.Timedelta(days=5)  # a long weekend may lie between the last close and today


class OrderError(ValueError):
    """There can be no orders: stale prices, a stale or unknown model, or unknown assets."""


class Orders(NamedTuple):
    """What to trade to reach the strategy's target weights.

    Attributes:
        table: by asset: weight (target, a fraction), price, held, wanted, order (shares; negative
            is a sale), value and cost (money); and where the strategy decides on protective orders
            stop, trailing (a fraction), take_profit and limit, NaN where there is none. Value and
            cost are those of a fill at ``price``, also of an order with a limit. Protective orders
            of earlier decisions stay in force where nothing is ordered and no others are named.
        date: of the decision, at the close.
        cash: money left after the trades.
    """

    table: pd.DataFrame
    date: pd.Timestamp
    cash: float


def todays_orders(
    strategy: Strategy,
    result: BacktestResult,
    panel: Panel,
    shares: pd.Series,
    capital: float,
    today: pd.Timestamp,
    fractions: bool = False,
) -> Orders:
    """The orders that bring a portfolio to the strategy's target weights at the last close.

    Args:
        strategy: the strategy of ``result``, with the parameters it ran with.
        result: the finished run; a learned strategy decides with its last fitted state.
        panel: prices up to today, of the same assets.
        shares: shares held, by asset; an asset left out is not held.
        capital: all money, including what the shares are worth.
        today: refuse prices that end more than five days earlier.
        fractions: allow fractions of a share; otherwise rounded towards zero.

    Raises:
        OrderError: stale prices, a model whose refit is due or whose network has changed, assets
            that the run does not know, or shares worth more than the capital.
    """
    if not 0 < capital < float("inf"):
        raise OrderError(f"the capital should be an amount of money above 0, got {capital:g}")
    if asks_for_book(strategy):
        raise OrderError(
            f"{result.name} decides by its book, and at which prices and when the current holdings "
            "were bought is not known here: the backtest's last targets are in its result"
        )
    panel, date = panel.without_benchmark(), panel.dates[-1]
    if today - date > OLDEST:
        raise OrderError(
            f"prices end on {date.date()}, which is stale on {today.date()}: give newer ones, or "
            "another day of trading (--as-of on the command line)"
        )
    known = result.settings["panel"]["assets"]
    if list(panel.assets) != known:
        odd = sorted(set(panel.assets) ^ set(known))[:5] or ["the same, in another order"]
        raise OrderError(f"the run traded other assets: {', '.join(odd)}")
    unknown = [str(asset) for asset in shares.index if asset not in known]
    if unknown:
        raise OrderError(f"holdings of assets the run does not know: {', '.join(unknown[:5])}")
    prices = panel.prices.ffill().iloc[-1]
    held = shares.reindex(panel.assets).fillna(0.0)
    worth = float((held * prices).sum())
    if worth > capital * (1 + 1e-9):
        raise OrderError(
            f"the current holdings are worth {worth:,.2f}, more than the capital {capital:,.2f}"
        )

    fitted = _fitted(strategy, result, panel)
    history, holdings = panel.last(strategy.lookback), held * prices / capital
    held_now = holdings.fillna(0.0).to_numpy()
    answers = [checked_answer(result.name, each, history, holdings.fillna(0.0)) for each in fitted]
    answer = answers[0] if len(answers) == 1 else mean_answer(answers, held_now)
    alone = np.isnan(answer.weights) | (np.abs(answer.weights - held_now) <= SAME)
    weights = np.where(alone, np.nan, answer.weights)
    costs = read_costs(result.settings["costs"])
    by_date = illiquidity(panel, costs)
    last = None if by_date is None else by_date[-1]
    most = max(1.0, float(np.where(alone, held_now, weights).sum()))
    trade = costs.charge(torch.tensor(weights), torch.tensor(held_now), last, capital, most)
    left = (1 - trade.cost.item()) * capital
    wanted = (pd.Series(trade.weights.numpy(), panel.assets) * left / prices).fillna(0.0)
    wanted = wanted if fractions else np.trunc(wanted + 1e-9)
    wanted = wanted.where(~alone, held)
    order = wanted - held
    value = (order * prices).fillna(0.0)
    traded = torch.tensor((value / capital).to_numpy())
    paid = costs.paid(traded, last, torch.tensor(capital, dtype=torch.float64))
    table = pd.DataFrame(
        {
            "weight": np.where(alone, held_now, weights),
            "price": prices,
            "held": held,
            "wanted": wanted,
            "order": order,
            "value": value,
            "cost": paid.numpy() * capital,
        }
    )
    if answer.levels is not None:
        for name, levels in zip(Levels._fields, answer.levels, strict=True):
            table[name] = levels
    cash = capital - worth - float(value.sum()) - float(table["cost"].sum())
    return Orders(table, date, cash)


def read_holdings(path: Path) -> pd.Series:
    """Shares by asset, from a CSV file with the columns asset and shares.

    Raises:
        OrderError: no such file, other columns, an asset twice, or shares that are no number.
    """
    if not path.is_file():
        raise OrderError(f"there is no file of holdings {path}")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:  # empty, torn, or another encoding
        raise OrderError(f"{path} is not a readable CSV file: {error}") from error
    if list(table.columns) != ["asset", "shares"]:
        raise OrderError(f"{path} needs the columns asset,shares; it has {','.join(table.columns)}")
    shares = pd.to_numeric(table["shares"], errors="coerce")
    wrong = table["asset"][shares.isna() | table["asset"].duplicated()]
    if len(wrong):
        raise OrderError(f"{path}: {wrong.iloc[0]} is there twice, or its shares are no number")
    return pd.Series(shares.to_numpy(float), index=table["asset"].astype(str))


def _fitted(strategy: Strategy, result: BacktestResult, panel: Panel) -> Sequence[Strategy]:
    """The strategy with the last refit's states, one for each seed; a rule is fitted again."""
    plan = read_plan(result.settings["plan"])
    if (learned := learned_inside(strategy)) is None:
        return [clone(strategy).refitted(panel, plan)]
    last = result.folds["train_end"].iloc[-1]
    row = int(panel.dates.searchsorted(last))
    due = later(panel.dates, row, plan.refit)
    if due < len(panel):
        raise OrderError(
            f"{result.name} was fitted on {last.date()} and its refit was due on "
            f"{panel.dates[due].date()}; run the backtest again on prices up to today"
        )
    named = {name.rpartition("__")[2] for name in result.strategy["parameters"]}
    former = {k: v for k, v in getattr(learned, "former", {}).items() if k not in named}
    learned_then = clone(learned).set_params(**former)
    inputs = stack([learned_then.prepare(panel.last(learned.lookback))])
    newest = max(fold for fold, _ in result.states)
    fitted: list[LearnedStrategy] = []
    for (fold, _), state in result.states.items():
        if fold == newest:
            copy = clone(learned_then)
            copy.module_ = copy.build(inputs).to(torch.float64)
            try:
                copy.module_.load_state_dict(state)
            except RuntimeError as error:
                raise OrderError(
                    f"{result.name} in this run has parameters that its network no longer has; it "
                    "was fitted by another version of the code: run the backtest again"
                ) from error
            fitted.append(copy)
    if learned is strategy:
        return fitted
    first = int(panel.dates.searchsorted(result.folds["train_start"].iloc[-1]))
    known = panel.rows(first, row + 1)
    return [clone(strategy).with_trained(fitted).refitted(known, plan)]
