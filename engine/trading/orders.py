"""Today's orders: what to trade, from a finished run, today's prices and the account."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from data_loaders import Panel
from engine.accounting.bookkeeping import whole_shares
from engine.accounting.costs import Costs
from engine.accounting.market import Levels, Market
from engine.accounting.positions import SAME
from engine.runs.description import described, installed_versions
from engine.runs.experiment import read_costs, read_plan
from engine.runs.result import BacktestResult
from engine.trading.account import Account, OrderError
from engine.trading.asset_checks import (
    changes_since,
    check_assets,
    check_sessions,
    describe_changes,
)
from engine.trading.todays_decision import Decider, Earlier, States, check_decision_day, schedule
from engine.walking.decision_record import DecisionRecord
from engine.walking.weight_checks import AllocationError, Answer
from strategies.base import Strategy, asks_for_book
from strategies.layers.solve_record import record_solves


@dataclass(frozen=True)
class OrderRules:
    """What may be ordered, and from which prices.

    Args:
        max_age: the oldest price that is traded on, before the last close; by default it is of
            the last session of its calendar.
        allow_stale: assets with older prices, whose positions are kept as they are.
        accept_changes: of code, packages and known prices since the run.
        anyway: decide on a day on which the plan does not.
        lot: shares that are traded together; 0 allows fractions.
        minimum_order: money, below which nothing is ordered.
        closed: days without a session to come, beside the holidays that the prices show.
    """

    max_age: pd.Timedelta | None = None
    allow_stale: tuple[str, ...] = ()
    accept_changes: bool = False
    anyway: bool = False
    lot: float = 1.0
    minimum_order: float = 0.0
    closed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("lot", "minimum_order"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise OrderError(f"{name} should be from 0 on, got {getattr(self, name):g}")


@dataclass(frozen=True)
class Orders:
    """What to trade to reach the strategy's target weights.

    Attributes:
        table: by asset: weight (target, a fraction), price, held, wanted, order (shares; negative
            is a sale), value and cost (money), price_date, before and after (weights, fractions of
            the capital), reason (a sentence); and where the strategy decides on protective orders
            stop, trailing (a fraction), take_profit and limit, NaN where there is none. Value and
            cost are those of a fill at ``price``, also of an order with a limit. Protective orders
            of earlier decisions stay in force where nothing is ordered and no others are named.
        date: of the decision, at the close.
        cash: money left after the trades.
        capital: money before the trades, shares and deposit included.
        limits: the constraints that bind in the optimisation: limit, held, of, price, variance.
        holdings: (N,) weights that the strategy was asked with.
        changes: of code, packages and prices since the run, accepted.
        notes: what else a reader should know.
    """

    table: pd.DataFrame
    date: pd.Timestamp
    cash: float
    capital: float
    holdings: pd.Series
    limits: list[dict[str, Any]] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def todays_orders(
    strategy: Strategy,
    result: BacktestResult,
    panel: Panel,
    account: Account,
    today: pd.Timestamp,
    rules: OrderRules = OrderRules(),
    earlier: Sequence[Earlier] = (),
    accepted: Collection[str] = (),
    prices: Mapping[str, tuple[float, str]] | None = None,
    states: States | None = None,
) -> Orders:
    """The orders that bring an account to the strategy's target weights at the last close.

    Args:
        strategy: the strategy of ``result``, with the parameters it ran with.
        result: the finished run; a learned strategy decides with its last fitted state.
        panel: prices of the same assets; rows after ``today`` are not looked at.
        today: the day of trading.
        earlier: decisions made before, from which a rule has what it remembers.
        accepted: changes since the run that were accepted before.
        prices: {asset: (price, date)} of the last orders.
        states: of networks trained since the run, by fold and seed.

    Raises:
        NoDecision: the plan does not decide at the last close.
        OrderError: stale, missing or rewritten prices, changed code, a model whose refit is due,
            assets that the run does not know, or an account that does not add up.
    """
    if asks_for_book(strategy):
        raise OrderError(
            f"{result.name} decides by its book, and at which prices and when the current holdings "
            "were bought is not known here: the backtest's last targets are in its result"
        )
    if result.failure is not None:
        raise OrderError(
            f"{result.name} did not come to the end of its run: {result.failure['reason']}; the "
            "same backtest tries it again"
        )
    panel = panel.without_benchmark()
    panel = panel.until(str(today.date()) if today == today.normalize() else today)
    if not len(panel):
        raise OrderError(f"there are no prices up to {today.date()}")
    held = _held(account, panel, result)
    plan = read_plan(result.settings["plan"])
    check_sessions(panel.dates, today, rules.closed, rules.max_age)
    found = schedule(panel.dates, plan, pd.DatetimeIndex(result.targets.index), rules.closed)
    if not rules.anyway:
        last = earlier[-1].date if earlier else None
        check_decision_day(found, len(panel) - 1, last)
    stale = check_assets(panel, result, held, rules.allow_stale, rules.max_age)
    since = max([pd.Timestamp(result.settings["panel"]["end"]), *(each.date for each in earlier)])
    changes = describe_changes(result, described(strategy), installed_versions())
    changes += changes_since(panel, result, prices or {}, since)
    if (refused := [each for each in changes if each not in accepted]) and not rules.accept_changes:
        raise OrderError(
            f"changed since the run: {'; '.join(refused)}. Run the backtest again, or accept it "
            "(--accept-changes); the orders name what was accepted"
        )
    closes = panel.prices.ffill().iloc[-1]
    worth = float((held * closes).sum())
    cash, capital = account.money(worth, strategy.room()[1])
    holdings = (held * closes / (cash + worth) if cash + worth > 0 else held * 0.0).fillna(0.0)
    with record_solves(details=True) as record:
        decider = Decider(strategy, result, panel, found, states or result.states)
        answer, notes = _decided(decider, holdings, earlier, record.details)
    table, left = _sized(strategy, result, panel, held, closes, answer, capital, stale, rules)
    if account.deposit:
        came = "of new money is invested" if account.deposit > 0 else "is taken out"
        notes.append(f"{abs(account.deposit):,.2f} {came} in the same proportions")
    noted = DecisionRecord(panel.dates, panel.assets, np.array([len(panel) - 1]))
    noted.solves(np.array([len(panel) - 1]), record)
    noted.look()
    return Orders(table, panel.dates[-1], left, capital, holdings, noted.limits, changes, notes)


def _held(account: Account, panel: Panel, result: BacktestResult) -> pd.Series:
    """Shares (N,) by asset of the panel, which is that of the run."""
    known = result.settings["panel"]["assets"]
    if list(panel.assets) != known:
        odd = sorted(set(panel.assets) ^ set(known))[:5] or ["the same, in another order"]
        raise OrderError(f"the run traded other assets: {', '.join(odd)}")
    unknown = [str(asset) for asset in account.shares.index if asset not in known]
    if unknown:
        raise OrderError(f"holdings of assets the run does not know: {', '.join(unknown[:5])}")
    return account.shares.reindex(panel.assets).fillna(0.0)


def _decided(
    decider: Decider, holdings: pd.Series, earlier: Sequence[Earlier], details: list | None
) -> tuple[Answer, list[str]]:
    """The answer at the current weights or, where cash makes it impossible, at those invested."""
    invested = float(holdings.sum())
    try:
        return decider.decide(holdings, earlier, details), []
    except AllocationError:
        if not 0 < invested < 1 - SAME or (holdings < 0).any():
            raise
        try:
            answer = decider.decide(holdings / invested, earlier, details)
        except AllocationError:
            pass
        else:
            return answer, [
                f"the cash, {1 - invested:.1%} of the account, is new money to the strategy, which "
                "has no answer that counts it as held: it decided on the weights of the shares"
            ]
        raise


def _sized(
    strategy: Strategy,
    result: BacktestResult,
    panel: Panel,
    held: pd.Series,
    closes: pd.Series,
    answer: Answer,
    capital: float,
    stale: Mapping[str, str],
    rules: OrderRules,
) -> tuple[pd.DataFrame, float]:
    """The table of orders, and the cash that is left."""
    costs = read_costs(result.settings["costs"])
    by_date = Market(panel, costs).illiquidity
    last = None if by_date is None else by_date[-1]
    names = list(map(str, panel.assets))
    prices = closes.fillna(1.0).to_numpy()
    shares = held.to_numpy()
    before = shares * prices / capital
    kept = np.isin(names, list(stale))
    chosen = np.isnan(answer.weights) | (np.abs(answer.weights - before) <= SAME)
    alone = chosen | kept
    small = np.zeros(len(names), bool)
    leverage = strategy.room()[1]
    while True:
        still = alone | small
        targets = np.where(still, np.where(shares == 0, 0.0, np.nan), answer.weights)
        asked = float(np.where(still, before, answer.weights).sum())
        most = max(1.0, min(asked, max(leverage, float(before.sum()))))
        if (still & ~chosen).any():  # no more is invested than was decided
            most = min(most, float(np.where(chosen, before, answer.weights).sum()))
        wanted = _shares(targets, shares, prices, capital, costs, last, most, rules.lot)
        value = (wanted - shares) * prices
        below = (value != 0) & (np.abs(value) < rules.minimum_order)
        if not below.any():
            break
        small |= below
    money = torch.tensor(capital, dtype=torch.float64)
    cost = (costs.paid(torch.tensor(value / capital), last, money) * money).numpy()
    left = capital - float(wanted @ prices) - float(cost.sum())
    if left < 0 and left > -1e-9 * capital:  # rounding
        left = 0.0
    if left < 0 and leverage <= 1:
        raise OrderError(f"the orders would overdraw the account by {-left:,.2f}")
    after = wanted * prices / capital
    target = np.where(alone, before, answer.weights)
    known = panel.prices.notna().to_numpy()
    dates = panel.dates[len(panel) - 1 - known[::-1].argmax(axis=0)]
    why = [
        stale[name]
        if kept[n]
        else _reason(
            bool(alone[n]), bool(small[n]), value[n], before[n], target[n], after[n],
            max(rules.lot, 0.0) * prices[n] / capital, rules,
        )
        for n, name in enumerate(names)
    ]  # fmt: skip
    table = pd.DataFrame(
        {
            "weight": target,
            "price": closes.to_numpy(),
            "held": shares,
            "wanted": wanted,
            "order": wanted - shares,
            "value": value,
            "cost": cost,
            "price_date": dates,
            "before": before,
            "after": after,
            "reason": why,
        },
        index=panel.assets,
    )
    if answer.levels is not None:
        for name, levels in zip(Levels._fields, answer.levels, strict=True):
            table[name] = levels
    return table, left


def _shares(
    targets: np.ndarray,
    shares: np.ndarray,
    prices: np.ndarray,
    capital: float,
    costs: Costs,
    last: torch.Tensor | None,
    most: float,
    lot: float,
) -> np.ndarray:
    """Shares (N,) to hold, as a backtest would fill the targets."""
    wanted, held, price = (torch.tensor(each) for each in (targets, shares, prices))
    money = torch.tensor(capital, dtype=torch.float64)
    if lot:
        found, _, _ = whole_shares(wanted, held, price, money, costs, last, most, lot)
        return found.numpy()
    trade = costs.charge(wanted, held * price / money, last, money, most)
    fraction = trade.weights * (1 - trade.cost) * money / price
    return fraction.where(~wanted.isnan(), held).numpy()


def _reason(
    alone: bool,
    small: bool,
    value: float,
    before: float,
    target: float,
    after: float,
    lot: float,
    rules: OrderRules,
) -> str:
    """Why an asset is traded, or is not, in a sentence."""
    if alone:
        return "the strategy leaves it as it is" if before else "not held and not wanted"
    if small:
        return f"an order to {target:.2%} would be below the minimum of {rules.minimum_order:,.2f}"
    if value == 0:
        return f"its target of {target:.2%} is less than one lot away from {before:.2%}"
    words = f"{'bought' if value > 0 else 'sold'} from {before:.2%} to its target of {target:.2%}"
    if value > 0 and after < target * (1 - 0.02) - lot:
        words += f"; the cash suffices for {after:.2%}"
    elif abs(after - target) > 5e-4:
        words += f", {after:.2%} in whole lots"
    return words
