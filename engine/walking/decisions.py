"""Decisions: the target weights of a strategy, date by date, from what was known then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeGuard

import numpy as np
import pandas as pd
from sklearn.base import clone

from engine.accounting.position_book import PositionBook
from engine.accounting.positions import Positions
from engine.accounting.protective_orders import Levels
from engine.compute.threads import limited_threads
from engine.planning.walk_forward import Fold
from engine.training.errors import TrainingError
from engine.training.fit_records import FitKey, Fitted
from engine.walking.decision_record import DecisionRecord
from engine.walking.learner import Learner
from engine.walking.market_memory import unchanged_market
from engine.walking.sensitivity import sensitivity
from engine.walking.weight_checks import AllocationError, Answer, checked_answer, reason_of
from strategies.base import (
    LearnedStrategy,
    SolveRecord,
    Strategy,
    asks_for_book,
    holdings_input,
    learned_inside,
    record_solves,
)


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
        positions = Positions(learner.market, learner.plan.execution_lag, learner.plan.unpriced)
        book = PositionBook(positions) if asks_for_book(self.strategy) else None
        targets: dict[int, np.ndarray] = {}  # (N,) by row
        decided = Decided(pd.DataFrame(), [], [], [], {}, error=self.failed)
        rows = np.concatenate([fold.test for fold in self.folds] or [np.empty(0, int)])
        noted = DecisionRecord(learner.panel.dates, learner.panel.assets, rows)
        rule = clone(self.strategy)
        with limited_threads(learner.threads), unchanged_market(learner.panel, self.name):
            for fold in self.folds:
                try:
                    rule = self._walk(
                        fold, rule, learner, positions, book, targets, decided, noted, on_decision
                    )
                except MemoryError:
                    raise
                except AllocationError as error:
                    decided = decided._replace(error=error)
                    break
                except Exception as error:
                    rows = [row for row in fold.test if row not in targets] or fold.test[-1:]
                    when = learner.panel.dates[int(rows[0])]
                    failed = AllocationError.at("decision", self.name, when, reason_of(error))
                    failed.__cause__ = error
                    decided = decided._replace(error=failed)
                    break
        weights = np.reshape(list(targets.values()), (len(targets), len(learner.panel.assets)))
        dates, assets = learner.panel.dates[list(targets)], learner.panel.assets
        decided = decided._replace(targets=pd.DataFrame(weights, dates, columns=assets))
        if not self.observed:
            return decided
        decisions, reasons = noted.tables()
        return decided._replace(limits=noted.limits, decisions=decisions, reasons=reasons)

    def _walk(
        self,
        fold: Fold,
        rule: Strategy,
        learner: Learner,
        positions: Positions,
        book: PositionBook | None,
        targets: dict[int, np.ndarray],
        decided: Decided,
        noted: DecisionRecord,
        on_decision: Callable[[], object],
    ) -> Strategy:
        """Add what is decided in a fold to ``targets``, to ``noted`` and to the tables of
        ``decided``.

        Returns:
            The rule that decided, for the next fold.
        """
        networks: list[LearnedStrategy] = []
        if (learned := learned_inside(self.strategy)) is not None:
            networks = learner.restored(self.name, learned, fold, self.fits)
        fitted: Sequence[Strategy] = networks
        if learned is not self.strategy:
            rule = self._refitted(rule.with_trained(networks), fold, learner)
            fitted = [rule]
        detailed = self.observed or self.on_details is not None
        with record_solves(details=detailed) as record:
            decisions = self._decide(fold, fitted, learner, positions, book, record, noted)
            for row, targets[row], levels in decisions:
                if levels is not None:
                    decided.levels[row] = levels
                on_decision()
        if self.observed:
            about = {"fold": fold.number, "phase": "allocation"}
            decided.solves.extend({**about, **line} for line in record.summary())
            decided.sensitivity.extend(self._sensitivity(fold, networks, learner))
        return rule

    def _refitted(self, rule: Strategy, fold: Fold, learner: Learner) -> Strategy:
        """The rule of the fold before, for this one."""
        known = learner.known(fold.refit, fold.refit + 1 - fold.start)
        try:
            return rule.refitted(known, learner.plan)
        except Exception as error:
            failed = AllocationError.at("fit", self.name, known.dates[-1], reason_of(error))
            raise failed from error

    def _decide(
        self,
        fold: Fold,
        fitted: Sequence[Strategy],
        learner: Learner,
        positions: Positions,
        book: PositionBook | None,
        record: SolveRecord,
        noted: DecisionRecord,
    ) -> Iterator[tuple[int, np.ndarray, Levels | None]]:
        """Decide on the rows of a fold.

        Yields:
            Each row once it is decided, what is ordered (N,), and with which protective orders.
        """
        infer = None
        if self.on_details is None and _are_networks(fitted):
            infer = Inference(self.name, fitted, learner, fold.test)
        if record.details is not None:
            if infer is not None and infer.batch is not None:
                noted.solves(fold.test, record)
            record.details.clear()
        for number, row in enumerate(map(int, fold.test)):
            history = learner.known(row, fitted[0].lookback)
            held = positions.holdings(row)
            holdings = pd.Series(held.copy(), index=learner.panel.assets)
            answers = []
            for k, each in enumerate(fitted):
                asked = partial(infer, k, number, holdings) if infer is not None else None
                own = book.at(row) if book is not None else None
                answers.append(checked_answer(self.name, each, history, holdings, asked, own))
            if self.on_details is not None and record.details is not None:
                self.on_details(row, record.details.copy())
            answer = answers[0] if len(answers) == 1 else mean_answer(answers, held)
            ordered = positions.order(row, *answer)
            if self.observed:
                noted.decided(row, held, answer.weights, record)
            if record.details is not None:
                record.details.clear()
            yield row, ordered, answer.levels

    def _sensitivity(
        self, fold: Fold, networks: Sequence[LearnedStrategy], learner: Learner
    ) -> Iterator[dict[str, object]]:
        """Which inputs the fitted networks of a fold look at in its test rows."""
        seeds = sorted(key.seed for key in self.fits if key.fold == fold.number)
        for seed, strategy in zip(seeds, networks, strict=False):
            if len(fold.test):
                inputs = learner.stacked(self.name, strategy, fold.test)
                known = learner.known(int(fold.test[-1]), strategy.lookback)
                for row in sensitivity(strategy, inputs, seed, known):
                    yield {"fold": fold.number, "seed": seed, **row}


class Inference:
    """The weights of S fitted networks on K rows, from inputs that are prepared already.

    Networks that do not look at the current holdings decide on all rows in one batch. Where the
    batch fails, they decide date by date as others do, and the first date that fails is found.
    """

    def __init__(
        self,
        name: str,
        networks: Sequence[LearnedStrategy],
        learner: Learner,
        rows: np.ndarray,
    ):
        self.name, self.networks, self.learner, self.rows = name, networks, learner, rows
        self.batch: np.ndarray | None = None  # (S, K, N)
        if len(rows) and not networks[0].knows_holdings:
            inputs = learner.stacked(name, networks[0], rows)
            with suppress(KeyError, ValueError, RuntimeError):
                self.batch = np.stack([each.weights(inputs).numpy() for each in networks])

    def __call__(self, network: int, number: int, holdings: pd.Series) -> np.ndarray:
        """Weights (N,) of a network on one of the rows."""
        if self.batch is not None:
            return self.batch[network, number]
        chosen, rows = self.networks[network], self.rows[number : number + 1]
        inputs = self.learner.stacked(self.name, chosen, rows) | holdings_input(holdings)
        return chosen.weights(inputs)[0].numpy()


def _are_networks(fitted: Sequence[Strategy]) -> TypeGuard[Sequence[LearnedStrategy]]:
    """Whether their weights are those of their modules, and no ``allocate`` of their own changes
    them."""
    return all(type(each).allocate is LearnedStrategy.allocate for each in fitted)


def mean_answer(answers: Sequence[Answer], held: np.ndarray) -> Answer:
    """The mean of several answers; one without an order wants the holdings.

    Raises:
        ValueError: one of them has protective orders.
    """
    if any(answer.levels is not None for answer in answers):
        raise ValueError(
            f"{len(answers)} seeds decide together, by the mean of their weights, and protective "
            "orders have no mean; train one seed (Training(ensemble=1)), or return weights alone"
        )
    weights = (answer.weights for answer in answers)
    return Answer(np.mean([np.where(np.isnan(each), held, each) for each in weights], axis=0))
