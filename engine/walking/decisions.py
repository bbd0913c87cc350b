"""Decisions: what each strategy wants to hold, date by date, from what was known then."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import NamedTuple, TypeGuard

import numpy as np
import pandas as pd
from sklearn.base import clone
from tqdm.auto import tqdm

from data_loaders import Panel
from engine.compute.progress import progress_bar
from engine.compute.threads import limited_threads
from engine.planning.walk_forward import Fold
from engine.training.fit_records import FitKey, Fitted
from engine.walking.learner import Learner
from engine.walking.questions import Answer, Deciding, Question, one_by_one
from engine.walking.weight_checks import AllocationError, allocated, reason_of
from strategies.base import (
    LearnedStrategy,
    SolveRecord,
    Strategy,
    drift,
    holdings_input,
    record_solves,
)


class Decided(NamedTuple):
    targets: pd.DataFrame  # (K, N) by decision date
    solves: list[dict]
    limits: list[dict]
    sensitivity: list[dict]


def decide(
    name: str, strategy: Strategy, learner: Learner, fits: dict[FitKey, Fitted], bar: tqdm
) -> Decided:
    """The weights of every test decision, in order of time, each from what was known then."""
    return one_by_one(deciding(name, strategy, learner, fits, bar))


def deciding(
    name: str, strategy: Strategy, learner: Learner, fits: dict[FitKey, Fitted], bar: tqdm
) -> Deciding[Decided]:
    """``decide``, which yields what it asks of networks: see ``questions.py``."""
    targets: dict[int, np.ndarray] = {}
    solves: list[dict] = []
    limits: list[dict] = []
    looks: list[dict] = []
    for fold in learner.folds:
        fitted = fitted_for(name, strategy, learner, fold, fits)
        with record_solves(limits=True) as record:
            yield from decide_rows(name, fitted, learner, fold.test, targets, bar, record, limits)
        solves += [{"fold": fold.number, "phase": "allocation", **row} for row in record.summary()]
        looks += learner.sensitivity(name, fitted, fold)
    return Decided(target_frame(targets, learner.panel), solves, limits, looks)


@dataclass(frozen=True)
class DecisionTask:
    """All decisions of a strategy, to be made anywhere; ``fits`` of its own, if it has any."""

    name: str
    strategy: Strategy
    fits: dict[FitKey, Fitted]

    def run(self, learner: Learner) -> Decided:
        quiet = progress_bar(self.name, 0, "decision", False)
        with limited_threads(learner.threads), quiet as bar:
            return decide(self.name, self.strategy, learner, self.fits, bar)


def portable(strategy: Strategy) -> bool:
    """Whether another process can be sent the strategy: not one written at a prompt or inside a
    function, as its class is found by the name of its module."""
    try:
        sent = pickle.dumps(strategy)
    except (AttributeError, TypeError, pickle.PicklingError):
        return False
    return b"__main__" not in sent or hasattr(sys.modules["__main__"], "__file__")


def fitted_for(
    name: str, strategy: Strategy, learner: Learner, fold: Fold, fits: dict[FitKey, Fitted]
) -> list[Strategy]:
    """What decides in a fold: one strategy, or one for each seed that was trained."""
    if isinstance(strategy, LearnedStrategy):
        return learner.restored(name, strategy, fold, fits)
    known = learner.panel.rows(fold.start, fold.refit + 1)
    try:
        return [clone(strategy).fit(known)]
    except Exception as error:
        when = known.dates[-1].date()
        raise AllocationError(f"{name}, fitted on {when}: {reason_of(error)}") from error


def decide_rows(
    name: str,
    fitted: list[Strategy],
    learner: Learner,
    rows: np.ndarray,
    targets: dict[int, np.ndarray],
    bar: tqdm,
    record: SolveRecord | None = None,
    limits: list[dict] | None = None,
) -> Deciding[None]:
    """Add the weights (N,) of some rows to ``targets``, which holds those of the rows before.

    What held the weights goes from ``record``, if it notes that, to ``limits``, with its date.
    """
    lookback, book = fitted[0].lookback, Holdings(learner, targets)
    ahead = _at_once(name, fitted, learner, rows)
    if record is not None and record.limits and limits is not None:
        noted = [(number % len(rows), sample) for number, sample in enumerate(record.limits)]
        dates = learner.panel.dates[rows]
        for number, sample in sorted(noted, key=itemgetter(0)):
            limits += [{"date": dates[number], **line} for line in sample]
        record.limits.clear()
    for number, row in enumerate(map(int, rows)):
        history = learner.known(row, lookback)
        holdings = book.at(row)
        asked: list[Callable[[], np.ndarray] | None] = [None] * len(fitted)
        if ahead is not None:
            asked = [partial(ahead.__getitem__, (seed, number)) for seed in range(len(fitted))]
        elif _are_networks(fitted):
            try:
                inputs = learner.stacked(name, fitted[0], np.array([row]))
                inputs = inputs | holdings_input(holdings)
                many = {k: v.expand(len(fitted), *v.shape[1:]) for k, v in inputs.items()}
                answers = yield Question(fitted, many, record)
            except Exception as error:
                answers = [error] * len(fitted)
            asked = [partial(_said, answer) for answer in answers]
        weights = [
            allocated(name, each, history, holdings, say)
            for each, say in zip(fitted, asked, strict=True)
        ]
        targets[row] = weights[0] if len(weights) == 1 else np.mean(weights, axis=0)
        if record is not None and record.limits and limits is not None:
            date = learner.panel.dates[row]
            limits += [{"date": date, **line} for sample in record.limits for line in sample]
            record.limits.clear()
        bar.update()


def _at_once(
    name: str, fitted: list[Strategy], learner: Learner, rows: np.ndarray
) -> np.ndarray | None:
    """What networks want to hold on some rows, (S, K, N) for S of them; None of other strategies.

    A network that does not know what is held makes all its decisions in one batch. None, too, where
    it fails: one by one, the first wrong date is found.
    """
    if not _are_networks(fitted) or fitted[0].knows_holdings or not len(rows):
        return None
    inputs = learner.stacked(name, fitted[0], rows)
    try:
        return np.stack([each.weights(inputs).numpy() for each in fitted])
    except (KeyError, ValueError, RuntimeError):
        return None


def _said(answer: Answer) -> np.ndarray:
    """The weights, or the error that stood in their place."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def _are_networks(fitted: Sequence[Strategy]) -> TypeGuard[Sequence[LearnedStrategy]]:
    """Whether their weights are those of their modules, and no ``allocate`` of their own changes
    them."""
    return all(type(each).allocate is LearnedStrategy.allocate for each in fitted)


def target_frame(targets: dict[int, np.ndarray], panel: Panel) -> pd.DataFrame:
    """Targets (K, N) by decision date."""
    weights = np.concatenate(list(targets.values())).reshape(len(targets), -1)
    return pd.DataFrame(weights, panel.dates[list(targets)], columns=panel.assets)


class Holdings:
    """What is held at each close: the last target that was filled, drifted with prices since.

    Args:
        targets: weights (N,) by the row they were decided at; those to come are added to it.
    """

    def __init__(self, learner: Learner, targets: dict[int, np.ndarray]):
        self.targets = targets
        self.lag = learner.plan.execution_lag
        self.assets = learner.panel.assets
        self.prices = learner.valuation_array
        self.costs = learner.costs if learner.costs.holding else None
        self.a_year = learner.panel.periods_per_year
        self.nothing = np.zeros(len(self.assets))

    def at(self, row: int) -> pd.Series:
        """Weights (N,) at the close of ``row``; zeros before the first fill."""
        return pd.Series(self._at(row), index=self.assets, copy=False)

    def _at(self, row: int) -> np.ndarray:
        for decided in reversed(self.targets):
            fill = decided + self.lag
            if fill <= row:
                break
        else:
            return self.nothing.copy()
        weights = self.targets[decided]
        growth = self.prices[row] / self.prices[fill]
        if self.costs is None:
            return drift(weights, growth)
        return drift(weights, growth, self.costs.carry(weights) * ((row - fill) / self.a_year))
