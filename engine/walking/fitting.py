"""The fits of a run: one for each learned strategy, fold and seed, here or on any executor.

A fit depends on nothing but itself and what all tasks share, so where it runs changes nothing: in
this process, in others (``workers``), or on a cluster (any ``concurrent.futures.Executor``). A task
is small: what all share is sent apart (``compute/broadcast.py``), and training rows are cut from it
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
from engine.training.errors import TrainingError
from engine.training.fit_records import FitKey, Fitted
from engine.training.trainer import train
from engine.walking.learner import Learner
from engine.walking.market_memory import unchanged_market
from engine.walking.weight_checks import reason_of
from strategies.base import LearnedStrategy


@dataclass(frozen=True)
class FitTask:
    """One fit.

    Attributes:
        initial: the state that it starts from, if not from random numbers.
        checkpoint: the file in which its progress is kept, if any.
        trains: whether any step is made, see ``strategies/wrappers/untrained.py``.
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
    failed: dict[FitKey, TrainingError] = {}
    waiting = [key for key in keys if key not in done]

    def follows(later: FitKey, key: FitKey) -> bool:
        return (later.name, later.seed) == (key.name, key.seed) and later.fold > key.fold

    def fail(key: FitKey, error: TrainingError) -> None:
        failed[key] = error
        waiting[:] = [each for each in waiting if not follows(each, key)]

    def before(key: FitKey) -> FitKey | None:
        return key._replace(fold=key.fold - 1) if learner.training.warm_start and key.fold else None

    def task(key: FitKey) -> FitTask:
        earlier = before(key)
        return make(key, done[earlier].state if earlier else None)

    if submit is None:
        while waiting:
            key = waiting.pop(0)
            try:
                done[key] = task(key).run(learner, partial(on_epoch, key))
            except TrainingError as error:
                fail(key, error)
            else:
                on_done(key, done[key])
        return failed
    # The longest first: no worker is left with one when others have ended.
    waiting.sort(key=lambda key: -len(learner.folds[key.fold].train))
    running: dict[Future[Fitted], FitKey] = {}
    errors: dict[FitKey, Exception] = {}
    told = False  # that the last is submitted
    try:
        while waiting or running or not told:
            for key in [key for key in waiting if before(key) is None or before(key) in done]:
                running[submit(task(key))] = key
                waiting.remove(key)
            if not waiting and not told:
                told = True
                on_last()
            for key, problem in _collect(running, done, on_done):
                if isinstance(problem, TrainingError):
                    fail(key, problem)
                elif not (errors and isinstance(problem, CancelledError)):  # cancelled below
                    errors[key] = problem
            if errors:
                waiting.clear()
                first = min(map(keys.index, errors))
                cancel(each for each, key in running.items() if keys.index(key) > first)
    except BaseException:
        cancel(running)
        raise
    if errors:
        raise errors[min(errors, key=keys.index)]
    return failed


def cancel(futures: Iterable[Future[Fitted]]) -> None:
    for future in futures:
        future.cancel()


def _collect(
    running: dict[Future[Fitted], FitKey],
    done: dict[FitKey, Fitted],
    on_done: Callable[[FitKey, Fitted], None],
) -> list[tuple[FitKey, Exception]]:
    """Wait until a fit ends; move those that ended from ``running`` to ``done``.

    Returns:
        Those that failed, with their errors.
    """
    failed: list[tuple[FitKey, Exception]] = []
    for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
        key = running.pop(future)
        try:
            done[key] = future.result()
            on_done(key, done[key])
        except Exception as error:
            failed.append((key, error))
    return failed
