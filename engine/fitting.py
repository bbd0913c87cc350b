"""The fits of a backtest: one for each learned strategy, fold and seed, on any executor.

A fit depends on nothing but its task and what all tasks share, so where it runs changes nothing
about it: in this process, in others (``workers``), or on a cluster (any
``concurrent.futures.Executor``). A task is small: what all share is sent apart (``delivery.py``),
and training rows are cut from it where the fit is made.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from torch import Tensor

from engine.threads import limited_threads
from engine.training import TrainingError, train
from strategies.base import LearnedStrategy

if TYPE_CHECKING:
    from engine.delivery import Submit
    from engine.learner import Learner


class FitKey(NamedTuple):
    """Which fit: of the strategy shown under ``name``, in a fold, with a seed."""

    name: str
    fold: int
    seed: int


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind: the module's state, and the record of its training."""

    state: dict[str, Tensor]
    history: pd.DataFrame
    solves: list[dict]
    checks: list[dict]


@dataclass(frozen=True)
class FitTask:
    """What one fit needs besides what all share; ``initial`` is the state to start from, if any."""

    key: FitKey
    strategy: LearnedStrategy
    initial: dict[str, Tensor] | None = None

    def run(self, learner: Learner, on_epoch: Callable[[dict], None] = lambda row: None) -> Fitted:
        """Cut the training rows and train; say which fit it was where that fails."""
        training = replace(learner.training, seed=self.key.seed)
        with limited_threads(learner.threads):
            learner.check_memory({self.key.name: self.strategy})
            samples = learner.samples(self.key.name, self.strategy, learner.folds[self.key.fold])
            try:
                trained = train(
                    self.strategy, samples, learner.costs, training, on_epoch, self.initial
                )
            except (ValueError, RuntimeError) as error:
                raise TrainingError(
                    f"{self.key.name}, fold {self.key.fold}, seed {self.key.seed}: {error}",
                    getattr(error, "state", None),
                    getattr(error, "epoch", None),
                ) from error
        state = {
            name: value.detach().cpu().clone()
            for name, value in self.strategy.module_.state_dict().items()
        }
        return Fitted(state, trained.history, trained.solves, trained.checks)


def run_fits(
    keys: list[FitKey],
    make: Callable[[FitKey, dict[str, Tensor] | None], FitTask],
    learner: Learner,
    submit: Submit | None,
    done: dict[FitKey, Fitted],
    on_done: Callable[[FitKey, Fitted], None],
    on_epoch: Callable[[FitKey, dict], None],
    chained: bool,
    on_last: Callable[[], None] = lambda: None,
) -> None:
    """Run what is not yet ``done``, and put it there.

    Args:
        keys: all fits, the folds of a strategy and seed in order of time.
        make: the task of a key, and the state it starts from.
        learner: what all share.
        submit: where to run; None is this process, which shows every epoch.
        on_done: called as each fit ends, in whatever order they end.
        chained: a fold starts from the state that the fold before it ended with.
        on_last: called once the last of them is submitted.

    Raises:
        The error of a fit, of the earliest of ``keys`` where several fail, once those that had
        begun have ended and are kept.
    """

    def before(key: FitKey) -> FitKey | None:
        return key._replace(fold=key.fold - 1) if chained and key.fold else None

    def task(key: FitKey) -> FitTask:
        earlier = before(key)
        return make(key, done[earlier].state if earlier is not None else None)

    def finish(key: FitKey, fitted: Fitted) -> None:
        done[key] = fitted
        on_done(key, fitted)

    waiting = [key for key in keys if key not in done]
    if submit is None:
        for key in waiting:
            shown = partial(on_epoch, key)
            finish(key, task(key).run(learner, shown))
        return
    place = {key: number for number, key in enumerate(keys)}
    running: dict[Future[Fitted], FitKey] = {}
    failures: dict[FitKey, Exception] = {}
    if not waiting:
        on_last()
    try:
        while running or (waiting and not failures):
            ready = [key for key in waiting if before(key) is None or before(key) in done]
            for key in ready if not failures else []:
                running[submit(task(key))] = key
                waiting.remove(key)
                if not waiting:
                    on_last()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(future)
                try:
                    finish(key, future.result())
                except CancelledError as error:
                    if not failures:  # nobody here cancelled it
                        failures[key] = error
                except Exception as error:
                    failures[key] = error
                if failures:
                    first = min(map(place.__getitem__, failures))
                    for other, after in running.items():  # what has begun may end, and is kept
                        if place[after] > first:  # what comes before might have failed, too
                            other.cancel()
    except BaseException:
        for future in running:
            future.cancel()
        raise
    if failures:
        raise failures[min(failures, key=place.__getitem__)]
