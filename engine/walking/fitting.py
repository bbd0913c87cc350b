"""The fits of a run: one for each learned strategy, fold and seed, here or on any executor.

A fit depends on nothing but itself and what all tasks share, so where it runs changes nothing: in
this process, in others (``workers``), or on a cluster (any ``concurrent.futures.Executor``). A task
is small: what all share is sent apart (``compute/broadcast.py``), and training rows are cut from it
where the fit is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.compute.threads import limited_threads
from engine.training.errors import TrainingError
from engine.training.fit_records import FitKey, Fitted
from engine.training.trainer import train
from engine.walking.learner import Learner
from strategies.base import LearnedStrategy


@dataclass(frozen=True)
class FitTask:
    """One fit.

    Attributes:
        initial: the state that it starts from, if not from random numbers.
        checkpoint: the file in which its progress is kept, if any.
    """

    key: FitKey
    strategy: LearnedStrategy
    initial: Mapping[str, Tensor] | None = None
    checkpoint: Path | None = None

    def run(self, learner: Learner, on_epoch: Callable[[dict], None] = lambda row: None) -> Fitted:
        """Cut the training rows and train.

        Raises:
            TrainingError: it failed; the message says which fit, and its cause why.
        """
        key, strategy = self.key, self.strategy
        with limited_threads(learner.threads):
            learner.check_memory({key.name: strategy})
            data = learner.training_data(key.name, strategy, learner.folds[key.fold])
            training = replace(learner.training, seed=key.seed)
            try:
                trained = train(
                    strategy, data, learner.costs, training, on_epoch, self.initial, self.checkpoint
                )
            except (ValueError, RuntimeError) as error:
                raise TrainingError(
                    f"{key.name}, fold {key.fold}, seed {key.seed}: {error}",
                    getattr(error, "state", None),
                    getattr(error, "epoch", None),
                ) from error
        state = trained.module.state_dict()
        state = {name: value.detach().cpu().clone() for name, value in state.items()}
        return Fitted(state, trained.history, trained.solves, trained.checks)


def run_fits(
    keys: Sequence[FitKey],
    make: Callable[[FitKey, Mapping[str, Tensor] | None], FitTask],
    learner: Learner,
    submit: Callable[[FitTask], Future[Any]] | None,
    done: dict[FitKey, Fitted],
    on_done: Callable[[FitKey, Fitted], None],
    on_epoch: Callable[[FitKey, dict], None],
    on_last: Callable[[], None],
) -> None:
    """Run the fits that are not yet ``done``, and put them there.

    Args:
        keys: all fits; the folds of a strategy and seed are in order of time.
        make: the task of a key, and the state that it starts from: with ``Training.warm_start``
            that of the fold before.
        submit: where to run; None is this process, which shows every epoch.
        on_done: called as each fit ends, in whatever order they end.
        on_last: called once the last of them is submitted.

    Raises:
        The error of a fit, of the earliest of the keys where several fail, once those that had
        begun have ended and are kept.
    """

    def before(key: FitKey) -> FitKey | None:
        return key._replace(fold=key.fold - 1) if learner.training.warm_start and key.fold else None

    def task(key: FitKey) -> FitTask:
        earlier = before(key)
        return make(key, done[earlier].state if earlier else None)

    waiting = [key for key in keys if key not in done]
    if submit is None:
        for key in waiting:
            done[key] = task(key).run(learner, partial(on_epoch, key))
            on_done(key, done[key])
        return
    # The longest first: no worker is left with one when others have ended.
    waiting.sort(key=lambda key: -len(learner.folds[key.fold].train))
    if not waiting:
        on_last()
    running: dict[Future[Fitted], FitKey] = {}
    failures: dict[FitKey, Exception] = {}
    try:
        while waiting or running:
            for key in [key for key in waiting if before(key) is None or before(key) in done]:
                running[submit(task(key))] = key
                waiting.remove(key)
                if not waiting:
                    on_last()
            _collect(running, failures, done, on_done)
            if failures:
                waiting.clear()
                first = min(map(keys.index, failures))
                for future, key in running.items():  # what comes before might fail, too
                    if keys.index(key) > first:
                        future.cancel()
    except BaseException:
        for future in running:
            future.cancel()
        raise
    if failures:
        raise failures[min(failures, key=keys.index)]


def _collect(
    running: dict[Future[Fitted], FitKey],
    failures: dict[FitKey, Exception],
    done: dict[FitKey, Fitted],
    on_done: Callable[[FitKey, Fitted], None],
) -> None:
    """Wait until a fit ends; move those that ended from ``running`` to ``done`` or ``failures``."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        key = running.pop(future)
        try:
            done[key] = future.result()
            on_done(key, done[key])
        except Exception as error:
            if not (failures and isinstance(error, CancelledError)):  # else it was cancelled here
                failures[key] = error
