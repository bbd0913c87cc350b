"""The decision at the last close of a panel, as a backtest up to that close would make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from sklearn.base import clone

from data_loaders import Panel
from data_loaders.validation import day
from engine.planning.walk_forward import WalkForward, earlier_row
from engine.runs.result import BacktestResult
from engine.trading.errors import OrderError
from engine.trading.sessions import Schedule
from engine.walking.decisions import mean_answer
from engine.walking.weight_checks import Answer, checked_answer
from strategies.base import LearnedStrategy, Strategy, learned_inside, stack

States = Mapping[tuple[int, int], Mapping[str, torch.Tensor]]


class Earlier(NamedTuple):
    """A decision that was made before: its date, and the weights (N,) that were held then."""

    date: pd.Timestamp
    holdings: Mapping[str, float]


def decide(
    strategy: Strategy,
    result: BacktestResult,
    panel: Panel,
    plan: WalkForward,
    found: Schedule,
    holdings: pd.Series,
    earlier: Sequence[Earlier] = (),
    states: States | None = None,
    details: list | None = None,
) -> Answer:
    """What the strategy decides at the last close, with what was fitted at the last refit.

    A rule may remember what it was asked before. So the earlier decisions are made once more, in
    order, with the holdings of then; their answers are not used.

    Args:
        holdings: (N,) current weights.
        states: of trained networks by fold and seed; default those of the result.
        details: of an open record of solves, left with those of this decision alone.

    Raises:
        OrderError: the refit of a learned strategy is due, or its network has changed.
        AllocationError: the strategy's weights cannot be held.
    """
    deciding = _Deciding(strategy, result, panel, plan, found, states or result.states)
    if type(strategy).allocate is not LearnedStrategy.allocate:  # a network remembers nothing
        for each in earlier:
            row = panel.dates.get_indexer([each.date])[0]
            if row < 0:
                raise OrderError(
                    f"a decision was made on {day(each.date)}, on which these prices have no row"
                )
            held = pd.Series(each.holdings, dtype=float).reindex(panel.assets).fillna(0.0)
            deciding.at(int(row), held)
    return deciding.at(len(panel) - 1, holdings, details)


class _Deciding:
    """A strategy from one decision to the next, refitted where the plan says so."""

    def __init__(
        self,
        strategy: Strategy,
        result: BacktestResult,
        panel: Panel,
        plan: WalkForward,
        found: Schedule,
        states: States,
    ):
        self.strategy, self.result, self.panel = strategy, result, panel
        self.plan, self.schedule, self.states = plan, found, states
        self.learned = learned_inside(strategy)
        self.fold: int | None = None
        self.rule = clone(strategy)
        self.fitted: Sequence[Strategy] = [self.rule]

    def at(self, row: int, holdings: pd.Series, details: list | None = None) -> Answer:
        self._refit(row)
        if details is not None:
            details.clear()  # of earlier decisions, and of those that the refit has learned from
        history = self.panel.rows(max(0, row + 1 - self.strategy.lookback), row + 1)
        name = self.result.name
        answers = [checked_answer(name, each, history, holdings) for each in self.fitted]
        return answers[0] if len(answers) == 1 else mean_answer(answers, holdings.to_numpy())

    def _refit(self, row: int) -> None:
        fits = self.learned is not None or type(self.strategy).refitted is not Strategy.refitted
        if not fits and type(self.strategy).fit is Strategy.fit:
            return
        number, refit = self.schedule.fold(row, self.plan)
        if number == self.fold:
            return
        self.fold = number
        networks = self._networks(number, refit) if self.learned is not None else []
        if self.learned is self.strategy:
            self.fitted = networks
            return
        start = 0
        if self.plan.window == "rolling":
            start = earlier_row(self.panel.dates, refit, self.plan.train)
        known = self.panel.rows(start, refit + 1)
        self.rule = self.rule.with_trained(networks).refitted(known, self.plan)
        self.fitted = [self.rule]

    def _networks(self, number: int, refit: int) -> list[LearnedStrategy]:
        """The trained networks of a fold, one for each seed."""
        name, learned = self.result.name, self.learned
        assert learned is not None
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
