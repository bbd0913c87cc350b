"""The decision at the last close of a panel, as a backtest up to that close would make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    plan: WalkForward
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
        return answers[0] if len(answers) == 1 else mean_answer(answers, holdings.to_numpy())

    def _refit(self, row: int) -> None:
        learned = learned_inside(self.strategy)
        fits = learned is not None or type(self.strategy).refitted is not Strategy.refitted
        if not fits and type(self.strategy).fit is Strategy.fit:
            return
        number, refit = self.schedule.fold(row, self.plan)
        if number == self._fold:
            return
        self._fold = number
        networks = self._networks(learned, number, refit) if learned is not None else []
        if learned is self.strategy:
            self._fitted = networks
            return
        start = 0
        if self.plan.window == "rolling":
            start = earlier_row(self.panel.dates, refit, self.plan.train)
        known = self.panel.rows(start, refit + 1)
        self._rule = self._rule.with_trained(networks).refitted(known, self.plan)
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
