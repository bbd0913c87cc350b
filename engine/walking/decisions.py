"""Decisions: the target weights of a strategy, date by date, from what was known then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone

from engine.accounting.holdings import PositionBook
from engine.accounting.market import Levels
from engine.accounting.positions import Positions
from engine.compute.executors import limited_threads
from engine.planning.walk_forward import Fold
from engine.training.fit_records import FitKey, Fitted, TrainingError
from engine.walking.decision_record import DecisionRecord, sensitivity
from engine.walking.learner import Learner
from engine.walking.weight_checks import (
    AllocationError,
    Answer,
    checked_answer,
    reason_of,
    unchanged_market,
)
from strategies.base import LearnedStrategy, Strategy, asks_for_book, learned_inside
from strategies.contract_types import holdings_input
from strategies.layers.solve_record import SolveRecord, record_solves


class Decided(NamedTuple):
    """What a task decided; the rest are rows for the tables of ``BacktestResult``."""

    targets: pd.DataFrame  # (K, N) by decision date
    solves: list[dict]
    limits: list[dict]
    sensitivity: list[dict]
    levels: dict[int, Levels]  # of protective orders, by the row of their decision
    decisions: pd.DataFrame = pd.DataFrame()
    reasons: pd.DataFrame = pd.DataFrame()
    error: AllocationError | TrainingError | None = None  # that ended it; ``targets`` are before


@dataclass(frozen=True)
class DecisionTask:
    """The decisions of a strategy in some folds, in this process or in another.

    Attributes:
        fits: of the strategy in these folds, if it is learned. With several in a fold, the target
            is the mean of their weights.
        folds: in order of time; holdings are carried from one to the next.
        failed: the error of training in the fold that would follow.
        observed: whether solves, binding limits and sensitivity are looked at.
        on_details: called with each row and the details of its solves, see ``SolveRecord``; with
            it, networks decide date by date.
    """

    name: str
    strategy: Strategy
    fits: Mapping[FitKey, Fitted]
    folds: Sequence[Fold]
    observed: bool = True
    failed: TrainingError | None = None
    on_details: Callable[[int, list], object] | None = None

    def __len__(self) -> int:
        """How many decisions there are."""
        return sum(len(fold.test) for fold in self.folds)

    def run(self, learner: Learner, on_decision: Callable[[], object] = lambda: None) -> Decided:
        """Decide, from the first date to the last; ``on_decision`` is called after each.

        A failure of the strategy ends it, and is returned as its ``error``.

        Raises:
            MarketChanged: the strategy wrote into the memory of the panel.
        """
        walk = _Walk(self, learner, on_decision)
        error: AllocationError | TrainingError | None = self.failed
        with limited_threads(learner.threads), unchanged_market(learner.panel, self.name):
            for fold in self.folds:
                try:
                    walk.decide(fold)
                except MemoryError:
                    raise
                except AllocationError as caught:
                    error = caught
                    break
                except Exception as caught:
                    rows = [row for row in fold.test if row not in walk.targets] or fold.test[-1:]
                    when = learner.panel.dates[int(rows[0])]
                    error = AllocationError.at("decision", self.name, when, reason_of(caught))
                    error.__cause__ = caught
                    break
        return walk.decided(error)


class _Walk:
    """The decisions of a task, from fold to fold."""

    def __init__(self, task: DecisionTask, learner: Learner, on_decision: Callable[[], object]):
        self.task, self.learner, self.on_decision = task, learner, on_decision
        plan, panel = learner.plan, learner.panel
        self.positions = Positions(learner.market, plan.execution_lag, plan.unpriced)
        self.book = PositionBook(self.positions.filled) if asks_for_book(task.strategy) else None
        self.rule = clone(task.strategy)
        rows = np.concatenate([fold.test for fold in task.folds] or [np.empty(0, int)])
        self.noted = DecisionRecord(panel.dates, panel.assets, rows)
        self.targets: dict[int, np.ndarray] = {}  # (N,) by row
        self.levels: dict[int, Levels] = {}  # by row
        self.solves: list[dict] = []
        self.sensitivity: list[dict] = []

    def decided(self, error: AllocationError | TrainingError | None) -> Decided:
        """What was decided before the error, if there is one."""
        dates, assets = self.learner.panel.dates[list(self.targets)], self.learner.panel.assets
        weights = np.reshape(list(self.targets.values()), (len(dates), len(assets)))
        targets = pd.DataFrame(weights, dates, columns=assets)
        found = Decided(targets, self.solves, [], self.sensitivity, self.levels, error=error)
        if not self.task.observed:
            return found
        decisions, reasons = self.noted.tables()
        return found._replace(limits=self.noted.limits, decisions=decisions, reasons=reasons)

    def decide(self, fold: Fold) -> None:
        """Decide in a fold, with what is fitted for it."""
        task, learner, networks = self.task, self.learner, []
        if (learned := learned_inside(task.strategy)) is not None:
            networks = learner.restored(task.name, learned, fold, task.fits)
        fitted: Sequence[Strategy] = networks
        decider = task.strategy
        if not getattr(decider, "trains", True):  # ``Untrained`` only leaves the training out
            decider = decider.inner_strategies()["strategy"]
        if learned is not decider:
            known = learner.known(fold.refit, fold.refit + 1 - fold.start)
            rule = self.rule.with_trained(networks)
            try:
                self.rule = rule.refitted(known, learner.plan)
            except Exception as error:
                when, reason = known.dates[-1], reason_of(error)
                raise AllocationError.at("fit", task.name, when, reason) from error
            fitted = [self.rule]
        detailed = task.observed or task.on_details is not None
        with record_solves(details=detailed) as record:
            self._ask(fold, fitted, record)
        if not task.observed:
            return
        about = {"fold": fold.number, "phase": "allocation"}
        self.solves.extend({**about, **line} for line in record.summary())
        if len(fold.test):
            seeds = sorted(key.seed for key in task.fits if key.fold == fold.number)
            for seed, network in zip(seeds, networks, strict=False):
                inputs = learner.stacked(task.name, network, fold.test)
                known = learner.known(int(fold.test[-1]), network.lookback)
                moved = sensitivity(network, inputs, seed, known)
                about = {"fold": fold.number, "seed": seed}
                self.sensitivity.extend({**about, **line} for line in moved)

    def _ask(self, fold: Fold, fitted: Sequence[Strategy], record: SolveRecord) -> None:
        """Ask for the weights of each row of a fold, and order them.

        Where the weights are those of modules, and no ``allocate`` of their own changes them, they
        come from inputs that are prepared already; and all in one batch where the modules do not
        look at the current holdings. Where the batch fails, they decide date by date as others do,
        and the first date that fails is found.
        """
        task, learner = self.task, self.learner
        networks = [each for each in fitted if isinstance(each, LearnedStrategy)]
        own = any(type(each).allocate is not LearnedStrategy.allocate for each in fitted)
        if own or task.on_details is not None:
            networks = []
        batch: np.ndarray | None = None  # (S, K, N), of S networks on K rows
        if networks and len(fold.test) and not networks[0].knows_holdings:
            inputs = learner.stacked(task.name, networks[0], fold.test)
            with suppress(KeyError, ValueError, RuntimeError):
                batch = np.stack([each.weights(inputs).numpy() for each in networks])
        if record.details is not None:
            if batch is not None:
                self.noted.solves(fold.test, record)
            record.details.clear()
        for number, row in enumerate(map(int, fold.test)):
            history = learner.known(row, fitted[0].lookback)
            held = self.positions.holdings(row)
            holdings = pd.Series(held.copy(), index=learner.panel.assets)
            answers = []
            for k, each in enumerate(fitted):
                asked: Callable[[], np.ndarray] | None = None
                if batch is not None:
                    asked = partial(batch.__getitem__, (k, number))
                elif networks:
                    asked = partial(self._weights, networks[k], row, holdings)
                book = None
                if self.book is not None:
                    book = self.book.at(row, self.positions.pending())
                answers.append(checked_answer(task.name, each, history, holdings, asked, book))
            if task.on_details is not None and record.details is not None:
                task.on_details(row, record.details.copy())
            answer = mean_answer(answers, held)
            ordered = self.positions.order(row, *answer)
            if task.observed:
                self.noted.decided(row, held, answer.weights, record)
            if record.details is not None:
                record.details.clear()
            self.targets[row] = ordered
            if answer.levels is not None:
                self.levels[row] = answer.levels
            self.on_decision()

    def _weights(self, network: LearnedStrategy, row: int, holdings: pd.Series) -> np.ndarray:
        """Weights (N,) of a network on a row, from its prepared inputs."""
        inputs = self.learner.stacked(self.task.name, network, np.array([row]))
        return network.weights(inputs | holdings_input(holdings))[0].numpy()


def mean_answer(answers: Sequence[Answer], held: np.ndarray) -> Answer:
    """The mean of the answers of several seeds, of which one without an order wants the holdings.

    Raises:
        ValueError: one of them has protective orders.
    """
    if len(answers) == 1:
        return answers[0]
    if any(answer.levels is not None for answer in answers):
        raise ValueError(
            f"{len(answers)} seeds decide together, by the mean of their weights, and protective "
            "orders have no mean; train one seed (Training(ensemble=1)), or return weights alone"
        )
    weights = (answer.weights for answer in answers)
    return Answer(np.mean([np.where(np.isnan(each), held, each) for each in weights], axis=0))
