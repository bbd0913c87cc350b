"""Today's decision: whether a run's plan decides at the last close of a panel, and what.

A panel ends today, so whether today is the last session of its month depends on sessions that are
not there yet. They are taken to be the weekdays of the recent past, without the holidays that the
panel itself has kept so far and those that the user names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from data_loaders import Panel
from data_loaders.validation import day
from engine.planning.decision_dates import decision_rows
from engine.planning.walk_forward import WalkForward, earlier_row, later
from engine.runs.result import BacktestResult
from engine.trading.account import OrderError
from engine.walking.decisions import mean_answer
from engine.walking.weight_checks import Answer, checked_answer
from strategies.base import LearnedStrategy, Strategy, learned_inside
from strategies.contract_types import stack

RECENT = 130  # days from which the weekdays of sessions are taken
USUAL = 0.2  # share of the most frequent weekday's sessions, below which a weekday has none
DAILY = 4.0  # typical days between rows, above which the calendar is of weeks or longer
AHEAD = pd.Timedelta("400D")
States = Mapping[tuple[int, int], Mapping[str, torch.Tensor]]


class NoDecision(OrderError):
    """The plan of the run decides on another day; ``next`` is that day, as far as is known."""

    next: pd.Timestamp | None = None


def sessions_after(
    dates: pd.DatetimeIndex, until: pd.Timestamp, closed: Sequence[str] = ()
) -> pd.DatetimeIndex:
    """The sessions expected after the last of ascending dates (T,), up to a day.

    Args:
        closed: days without a session, beside the holidays that the dates show.
    """
    days = dates.normalize().unique()
    first = days[-1] + pd.Timedelta("1D")
    typical = (
        float(np.median(np.diff(days.values) / np.timedelta64(1, "D"))) if days[1:].size else 1
    )
    if typical > DAILY:
        coming = pd.date_range(days[-1], until, freq=pd.Timedelta(days=round(typical)))[1:]
        return coming.difference(pd.DatetimeIndex(list(closed)))
    recent = np.bincount(days[-RECENT:].day_of_week, minlength=7)
    coming = pd.date_range(first, until)
    coming = coming[(recent >= USUAL * recent.max())[coming.day_of_week]]
    coming = coming.difference(_holidays(days, coming)).difference(pd.DatetimeIndex(list(closed)))
    times = dates[-1:] - days[-1:]
    if len(dates) > len(days):  # bars: the times of the last whole day
        whole = days[-2] if len(days) > 1 else days[-1]
        times = dates[dates.normalize() == whole] - whole
    return pd.DatetimeIndex([each + time for each in coming for time in times])


class Schedule(NamedTuple):
    """The rows of known and expected sessions at which a plan decides.

    Attributes:
        plan: of the run.
        dates: of the panel, and the sessions that are expected to follow.
        rows: of these dates, at which decisions are made.
        first: the row of the first decision of the run, from which refits are counted; -1 where
            the panel begins after it.
    """

    plan: WalkForward
    dates: pd.DatetimeIndex
    rows: np.ndarray
    first: int

    def fold(self, row: int) -> tuple[int, int]:
        """The number of the refit that decides at a row, and the row at which it was made.

        Raises:
            OrderError: the panel begins after the first refit.
        """
        if self.first < 0:
            raise OrderError(
                f"prices begin on {day(self.dates[0])}, after the run's first decision, from which "
                "its refits are counted: give prices from the beginning of the run's on"
            )
        number = 0
        while (end := later(self.dates, self.first, self.plan.refit, number + 1)) <= row:
            number += 1
        begin = later(self.dates, self.first, self.plan.refit, number) if number else self.first
        decisions = self.rows[(self.rows >= begin) & (self.rows < end)]
        return number, int(decisions[0]) if len(decisions) else row


def schedule(
    dates: pd.DatetimeIndex,
    plan: WalkForward,
    decided: pd.DatetimeIndex,
    closed: Sequence[str] = (),
) -> Schedule:
    """The decisions of a run's plan on dates (T,) and on the sessions to come.

    Args:
        decided: the decision dates of the run.

    Raises:
        OrderError: on the dates of the run the plan does not decide as it did there.
    """
    whole = dates.append(sessions_after(dates, dates[-1] + AHEAD, closed))
    rows = decision_rows(whole, plan.rebalance, plan.holiday)  # type: ignore[arg-type]
    both = decided[(decided >= dates[0]) & (decided <= dates[-1])]
    if not len(both):
        raise OrderError(
            f"prices from {day(dates[0])} to {day(dates[-1])} hold no decision date of the run "
            f"({day(decided[0])} to {day(decided[-1])}): give its prices, and those that follow"
        )
    again = whole[rows]
    again = again[(again >= both[0]) & (again <= both[-1])]
    if not again.equals(both):
        odd = again.symmetric_difference(both)[0]
        raise OrderError(
            f"on these prices the plan does not decide when the run did: {day(odd)} is a decision "
            f"date of only one of them; give prices from {day(decided[0])} and before on, with "
            "the sessions that the run had"
        )
    first = int(whole.searchsorted(both[0])) if both[0] == decided[0] else -1
    return Schedule(plan, whole, rows, first)


def check_decision_day(found: Schedule, row: int, last: pd.Timestamp | None) -> None:
    """Refuse a row of the schedule at which the plan does not decide.

    Args:
        last: the last decision that was made, where that is known.

    Raises:
        NoDecision: with the next date.
        OrderError: a decision since ``last`` was missed.
    """
    if row in found.rows:
        return
    before = found.rows[found.rows < row]
    missed = len(before) and last is not None and found.dates[before[-1]] > last
    if missed:
        raise OrderError(
            f"the decision of {day(found.dates[before[-1]])} was missed: the last was made on "
            f"{day(last)}; --anyway decides now"
        )
    after = found.rows[found.rows > row]
    error = NoDecision(
        f"the plan does not decide on {day(found.dates[row])}; "
        + (f"its next decision is on {day(found.dates[after[0]])}" if len(after) else "no more")
        + " (--anyway decides now)"
    )
    error.next = found.dates[after[0]] if len(after) else None
    raise error


def _holidays(days: pd.DatetimeIndex, coming: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Those of the coming days on a holiday that the days so far have kept, the last two times."""
    from pandas.tseries import holiday as known

    def fixed(month: int, day_of_month: int, moved: object = None) -> known.Holiday:
        return known.Holiday("", month=month, day=day_of_month, observance=moved)

    if not len(coming):
        return coming
    rules = [
        known.GoodFriday, known.EasterMonday, known.USMartinLutherKingJr, known.USPresidentsDay,
        known.USMemorialDay, known.USLaborDay, known.USThanksgivingDay,
        fixed(1, 1), fixed(1, 1, known.sunday_to_monday), fixed(5, 1), fixed(12, 24),
        fixed(12, 25), fixed(12, 26), fixed(12, 31),
        *(fixed(m, d, known.nearest_workday) for m, d in ((6, 19), (7, 4), (12, 25))),
    ]  # fmt: skip
    recent = np.bincount(days[-RECENT:].day_of_week, minlength=7)
    week = recent >= USUAL * recent.max()
    found = pd.DatetimeIndex([])
    for rule in rules:
        past = rule.dates(days[0], days[-1])
        past = past[week[past.day_of_week]][-2:]
        if len(past) and not past.isin(days).any():
            found = found.union(rule.dates(coming[0], coming[-1]))
    return found


class Earlier(NamedTuple):
    """A decision that was made before: its date, and the weights (N,) that were held then."""

    date: pd.Timestamp
    holdings: Mapping[str, float]


@dataclass
class Decider:
    """A strategy of a run, which decides with what was fitted at the last refit of its plan.

    Attributes:
        panel: up to the close of the decision.
        states: of trained networks by fold and seed.
    """

    strategy: Strategy
    result: BacktestResult
    panel: Panel
    schedule: Schedule
    states: States

    def decide(
        self, holdings: pd.Series, earlier: Sequence[Earlier] = (), details: list | None = None
    ) -> Answer:
        """What it decides at the last close.

        A rule may remember what it was asked before. So the earlier decisions are made once more,
        in order, with the holdings of then; their answers are not used.

        Args:
            holdings: (N,) current weights.
            details: of an open record of solves, left with those of this decision alone.

        Raises:
            OrderError: the refit of a learned strategy is due, or its network has changed.
            AllocationError: the strategy's weights cannot be held.
        """
        self._fold: int | None = None
        self._rule = clone(self.strategy)
        self._fitted: Sequence[Strategy] = [self._rule]
        dates, assets = self.panel.dates, self.panel.assets
        forgets = type(self.strategy).allocate is LearnedStrategy.allocate
        for each in () if forgets else earlier:
            row = int(dates.get_indexer([each.date])[0])
            if row < 0:
                raise OrderError(
                    f"a decision was made on {day(each.date)}, on which these prices have no row"
                )
            self._at(row, pd.Series(each.holdings, dtype=float).reindex(assets).fillna(0.0))
        return self._at(len(dates) - 1, holdings, details)

    def _at(self, row: int, holdings: pd.Series, details: list | None = None) -> Answer:
        self._refit(row)
        if details is not None:
            details.clear()  # of earlier decisions, and of those that the refit has learned from
        history = self.panel.rows(max(0, row + 1 - self.strategy.lookback), row + 1)
        name = self.result.name
        answers = [checked_answer(name, each, history, holdings) for each in self._fitted]
        return mean_answer(answers, holdings.to_numpy())

    def _refit(self, row: int) -> None:
        learned = learned_inside(self.strategy)
        fits = learned is not None or type(self.strategy).refitted is not Strategy.refitted
        if not fits and type(self.strategy).fit is Strategy.fit:
            return
        plan, (number, refit) = self.schedule.plan, self.schedule.fold(row)
        if number == self._fold:
            return
        self._fold = number
        networks = self._networks(learned, number, refit) if learned is not None else []
        if learned is self.strategy:
            self._fitted = networks
            return
        start = 0
        if plan.window == "rolling":
            start = earlier_row(self.panel.dates, refit, plan.train)
        known = self.panel.rows(start, refit + 1)
        self._rule = self._rule.with_trained(networks).refitted(known, plan)
        self._fitted = [self._rule]

    def _networks(self, learned: LearnedStrategy, number: int, refit: int) -> list[LearnedStrategy]:
        """The trained networks of a fold, one for each seed."""
        name = self.result.name
        states = [state for (fold, _), state in sorted(self.states.items()) if fold == number]
        if not states:
            last = max(fold for fold, _ in self.states) if self.states else None
            at = self.result.folds["train_end"]
            known = f" was fitted on {day(at.loc[last])}" if last in at.index else ""
            raise OrderError(
                f"{name}{known} and its refit was due on {day(self.panel.dates[refit])}: "
                "deqfolio refit trains it on prices up to that day"
            )
        named = {each.rpartition("__")[2] for each in self.result.strategy["parameters"]}
        former = {k: v for k, v in getattr(learned, "former", {}).items() if k not in named}
        learned = clone(learned).set_params(**former)
        inputs = stack([learned.prepare(self.panel.last(learned.lookback))])
        found = []
        for state in states:
            copy = clone(learned)
            copy.module_ = copy.build(inputs).to(torch.float64)
            try:
                copy.module_.load_state_dict(state)
            except RuntimeError as error:
                raise OrderError(
                    f"{name} in this run has parameters that its network no longer has; it "
                    "was fitted by another version of the code: run the backtest again"
                ) from error
            found.append(copy)
        return found
