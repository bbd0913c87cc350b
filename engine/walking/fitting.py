"""The fits of a run: one for each learned strategy, fold and seed, here or on any executor.

A fit depends on nothing but itself and what all tasks share, so where it runs changes nothing: in
this process, in others (``workers``), or on a cluster (any ``concurrent.futures.Executor``). A task
is small: what all share is sent apart (``compute/executors.py``), and training rows are cut from it
where the fit is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from data_loaders.validation import day
from engine.compute.threads import limited_threads
from engine.training.fit_records import FitKey, Fitted, TrainingError
from engine.training.trainer import train
from engine.walking.learner import Learner
from engine.walking.weight_checks import reason_of, unchanged_market
from strategies.base import LearnedStrategy


@dataclass(frozen=True)
class FitTask:
    """One fit.

    Attributes:
        initial: the state that it starts from, if not from random numbers.
        checkpoint: the file in which its progress is kept, if any.
        trains: whether any step is made, see ``Untrained``.
    """

    key: FitKey
    strategy: LearnedStrategy
    initial: Mapping[str, Tensor] | None = None
    checkpoint: Path | None = None
    trains: bool = True

    def run(self, learner: Learner, on_epoch: Callable[[dict], None] = lambda row: None) -> Fitted:
        """Cut the training rows and train.

        Raises:
            TrainingError: it failed; the message says which fit and why, ``failure`` when.
            MemoryError, OSError: what fails is the machine.
            MarketChanged: the strategy wrote into the memory of the panel.
        """
        key, strategy = self.key, self.strategy
        with limited_threads(learner.threads), unchanged_market(learner.panel, key.name):
            learner.check_memory({key.name: strategy})
            training = replace(learner.training, seed=key.seed)
            if not self.trains:
                training = replace(training, epochs=0, warmup=0, warm_start=False)
            others: list[Exception] = []  # of who is told, not of the strategy

            def told(row: dict) -> None:
                try:
                    on_epoch(row)
                except Exception as error:
                    others.append(error)
                    raise

            try:
                data = learner.training_data(key.name, strategy, learner.folds[key.fold])
                trained = train(
                    strategy, data, learner.costs, training, told, self.initial, self.checkpoint
                )
            except Exception as error:
                if error in others or isinstance(error, MemoryError | OSError):
                    raise
                raise training_error(key, learner, error) from error
        state = trained.module.state_dict()
        state = {name: value.detach().cpu().clone() for name, value in state.items()}
        return Fitted(state, trained.history, trained.solves, trained.checks)


def training_error(key: FitKey, learner: Learner, error: Exception) -> TrainingError:
    """The error of a fit, which names it, with its ``failure``."""
    reason = reason_of(error)
    message = f"{key.name}, fold {key.fold}, seed {key.seed}: {reason}"
    state, epoch = getattr(error, "state", None), getattr(error, "epoch", None)
    failed = TrainingError(message, state, epoch)
    refit = day(learner.panel.dates[learner.folds[key.fold].refit])
    failed.failure = {"date": refit, "stage": "training", "reason": reason}
    return failed


def run_fits(
    keys: Sequence[FitKey],
    make: Callable[[FitKey, Mapping[str, Tensor] | None], FitTask],
    learner: Learner,
    submit: Callable[[FitTask], Future[Any]] | None,
    done: dict[FitKey, Fitted],
    on_done: Callable[[FitKey, Fitted], None],
    on_epoch: Callable[[FitKey, dict], None],
    on_last: Callable[[], None],
) -> dict[FitKey, TrainingError]:
    """Run the fits that are not yet ``done``, and put them there.

    Args:
        keys: all fits; the folds of a strategy and seed are in order of time.
        make: the task of a key, and the state that it starts from: with ``Training.warm_start``
            that of the fold before.
        submit: where to run; None is this process, which shows every epoch.
        on_done: called as each fit ends, in whatever order they end.
        on_last: called once the last of them is submitted.

    Returns:
        The errors of the fits that failed. What would follow them, later folds of the same
        strategy and seed, is not trained.

    Raises:
        Any error that is not one of training, of the earliest of the keys where there are several,
        once those that had begun have ended and are kept.
    """
    runs = _Runs(keys, make, learner, done, on_done)
    if submit is None:
        while runs.waiting:
            key = runs.waiting.pop(0)
            try:
                done[key] = runs.task(key).run(learner, partial(on_epoch, key))
            except TrainingError as error:
                runs.fail(key, error)
            else:
                on_done(key, done[key])
        return runs.failed
    # The longest first: no worker is left with one when others have ended.
    runs.waiting.sort(key=lambda key: -len(learner.folds[key.fold].train))
    told = False  # that the last is submitted
    try:
        while runs.waiting or runs.running or not told:
            for key in filter(runs.ready, list(runs.waiting)):
                runs.running[submit(runs.task(key))] = key
                runs.waiting.remove(key)
            if not runs.waiting and not told:
                told = True
                on_last()
            runs.collect()
    except BaseException:
        cancel(runs.running)
        raise
    if runs.errors:
        raise runs.errors[min(runs.errors, key=keys.index)]
    return runs.failed


def cancel(futures: Iterable[Future[Fitted]]) -> None:
    for future in futures:
        future.cancel()


class _Runs:
    """The fits that wait, run and have failed; arguments as of ``run_fits``."""

    def __init__(
        self,
        keys: Sequence[FitKey],
        make: Callable[[FitKey, Mapping[str, Tensor] | None], FitTask],
        learner: Learner,
        done: dict[FitKey, Fitted],
        on_done: Callable[[FitKey, Fitted], None],
    ):
        self.keys, self.make, self.done, self.on_done = keys, make, done, on_done
        self.warm_start = learner.training.warm_start
        self.waiting = [key for key in keys if key not in done]
        self.running: dict[Future[Fitted], FitKey] = {}
        self.failed: dict[FitKey, TrainingError] = {}
        self.errors: dict[FitKey, Exception] = {}  # others, which end the run

    def before(self, key: FitKey) -> FitKey | None:
        return key._replace(fold=key.fold - 1) if self.warm_start and key.fold else None

    def ready(self, key: FitKey) -> bool:
        before = self.before(key)
        return before is None or before in self.done

    def task(self, key: FitKey) -> FitTask:
        before = self.before(key)
        return self.make(key, self.done[before].state if before else None)

    def fail(self, key: FitKey, error: TrainingError) -> None:
        """Later folds of the same strategy and seed are not trained."""
        self.failed[key] = error
        self.waiting = [
            each
            for each in self.waiting
            if (each.name, each.seed) != (key.name, key.seed) or each.fold <= key.fold
        ]

    def collect(self) -> None:
        """Wait until a fit ends; with the first error other than of training, what follows its key
        is cancelled."""
        ended = wait(self.running, return_when=FIRST_COMPLETED).done if self.running else ()
        for future in ended:
            key = self.running.pop(future)
            try:
                self.done[key] = future.result()
                self.on_done(key, self.done[key])
            except TrainingError as error:
                self.fail(key, error)
            except Exception as error:
                if not (self.errors and isinstance(error, CancelledError)):  # cancelled below
                    self.errors[key] = error
        if self.errors:
            self.waiting.clear()
            first = min(map(self.keys.index, self.errors))
            cancel(f for f, key in self.running.items() if self.keys.index(key) > first)
