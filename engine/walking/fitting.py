"""The fits of a run: one for each learned strategy, fold and seed, here or on any executor.

A fit depends on nothing but itself and what all tasks share, so where it runs changes nothing: in
this process, in others (``workers``), or on a cluster (any ``concurrent.futures.Executor``). A task
is small: what all share is sent apart (``compute/executors.py``), and training rows are cut from it
where the fit is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sklearn.base import clone
from torch import Tensor

from data_loaders.validation import day
from engine.compute.executors import Submit, limited_threads
from engine.runs.run_directory import RunDirectory
from engine.training.callbacks import Callback, ProgressBar
from engine.training.fit_records import FitKey, Fits, Fitted, TrainingError
from engine.training.trainer import train
from engine.walking.learner import Learner
from engine.walking.weight_checks import reason_of, unchanged_market
from strategies.base import LearnedStrategy, Strategy, is_trained, learned_inside


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
            try:
                data = learner.training_data(key.name, strategy, learner.folds[key.fold])
                trained = train(
                    strategy, data, learner.costs, training, on_epoch, self.initial, self.checkpoint
                )
            except (MemoryError, OSError):
                raise
            except Exception as error:
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


class Fitting:
    """The fits of a run: those that wait, run, are done and have failed.

    Args:
        named: the strategies to fit, by the names to show.
        run: the directory that finished fits are read from and kept in, if there is one.
        submit: where to run; None is this process, which reports every epoch as it ends.
        callbacks: are told of epochs and fits, as is a progress bar.
        progress: whether to show it.

    Attributes:
        done: the fits that have ended.
        failed: the errors of those that failed. What would follow them, later folds of the same
            strategy and seed, is not trained.
    """

    def __init__(
        self,
        named: Mapping[str, Strategy],
        seeds: Sequence[int],
        learner: Learner,
        run: RunDirectory | None,
        submit: Submit | None,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
    ):
        self.named, self.learner, self.run, self.submit = named, learner, run, submit
        self.keys = [
            FitKey(name, fold.number, seed)
            for name in named
            for seed in seeds
            for fold in learner.folds
        ]
        self.done: Fits = run.finished(self.keys) if run is not None else {}
        self.failed: dict[FitKey, TrainingError] = {}
        self.waiting = [key for key in self.keys if key not in self.done]
        if submit is not None:  # the longest first: no worker is left with one when others ended
            self.waiting.sort(key=lambda key: -len(learner.folds[key.fold].train))
        self.running: dict[Future[Fitted], FitKey] = {}
        self.broken: dict[FitKey, Exception] = {}  # not of training: they end the run
        self.shown: set[FitKey] = set()  # fits whose epochs are reported as they end
        self.bar = ProgressBar(len(self.keys), len(self.done), len(learner.folds), progress)
        self.callbacks: list[Callback] = [self.bar, *callbacks]

    def finish(self, on_last: Callable[[], None]) -> None:
        """Run the fits that are not yet done.

        Args:
            on_last: called once the last of them is submitted to other processes.

        Raises:
            Any error that is not one of training, of the earliest of the keys where there are
            several, once those that had begun have ended and are kept.
        """
        with ExitStack() as stack:
            self.callbacks = [stack.enter_context(each) for each in self.callbacks]
            told = self.submit is None
            try:
                while self.waiting or self.running or not told:
                    ready = [
                        key
                        for key in self.waiting
                        if (before := self._before(key)) is None or before in self.done
                    ]
                    for key in ready[:1] if self.submit is None else ready:
                        self.waiting.remove(key)
                        self.running[self._start(key)] = key
                    if not self.waiting and not told:
                        told = True
                        on_last()
                    self._collect()
            except BaseException:
                for future in self.running:
                    future.cancel()
                raise
            if self.broken:
                raise self.broken[min(self.broken, key=self.keys.index)]
        if self.run is not None:
            self.run.tidy()

    def _before(self, key: FitKey) -> FitKey | None:
        """The fit that this one starts from, if it does not start from random numbers."""
        warm = self.learner.training.warm_start and key.fold
        return key._replace(fold=key.fold - 1) if warm else None

    def _start(self, key: FitKey) -> Future[Fitted]:
        """Run a fit where it is to run; in this process it then has ended."""
        strategy, before = self.named[key.name], self._before(key)
        learned, trains = learned_inside(strategy), is_trained(strategy)
        assert learned is not None
        initial = self.done[before].state if before is not None and trains else None
        file = self.run.checkpoint(key) if self.run is not None else None
        task = FitTask(key, clone(learned), initial, file, trains)
        if self.submit is not None:
            return self.submit(task)
        ended: Future[Fitted] = Future()
        try:
            ended.set_result(task.run(self.learner, partial(self._epoch, key)))
        except Exception as error:
            ended.set_exception(error)
        return ended

    def _epoch(self, key: FitKey, row: dict) -> None:
        self.shown.add(key)
        try:
            for callback in self.callbacks:
                callback.epoch(key, row)
        except Exception as error:  # of a callback, not of the strategy
            self.broken[key] = error
            raise

    def _collect(self) -> None:
        """Wait until a fit ends, keep it and report it; with the first error other than of
        training, what follows its key is cancelled."""
        for future in wait(self.running, return_when=FIRST_COMPLETED).done:
            key = self.running.pop(future)
            try:
                fitted = self.done[key] = future.result()
                if self.run is not None:
                    self.run.store(key, fitted)
                rows = [] if key in self.shown else fitted.history.to_dict("records")
                for callback in self.callbacks:
                    for row in rows if callback is not self.bar else rows[-1:]:
                        callback.epoch(key, {**row, "solves": fitted.solves})
                    callback.fitted(key)
            except TrainingError as error:
                self.failed[key] = error
                self.waiting = [
                    each
                    for each in self.waiting
                    if (each.name, each.seed) != (key.name, key.seed) or each.fold < key.fold
                ]
            except Exception as error:
                if not (self.broken and isinstance(error, CancelledError)):  # cancelled below
                    self.broken[key] = error
        if self.broken:
            self.waiting.clear()
            first = min(map(self.keys.index, self.broken))
            for future, key in self.running.items():
                if self.keys.index(key) > first:
                    future.cancel()
