"""The fits of a backtest: one for each learned strategy, fold and seed, on any executor.

Seeds of a fold that are trained side by side are one task. It depends on nothing but itself and
what all tasks share, so where it runs changes nothing about it: in this process, in others
(``workers``), or on a cluster (any ``concurrent.futures.Executor``). A task is small: what all
share is sent apart (``broadcast.py``), and training rows are cut from it where the fits are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from engine.compute.threads import limited_threads
from engine.training.fit_records import FitKey, Fitted
from engine.training.trainer import Trained, TrainingError, train_seeds
from strategies.base import LearnedStrategy

if TYPE_CHECKING:
    from engine.compute.broadcast import Submit
    from engine.walking.learner import Learner


@dataclass(frozen=True)
class FitTask:
    """What the fits of a strategy in one fold need besides what all share, one for each seed.

    Attributes:
        initial: the state that a seed starts from, of those that have one.
        checkpoints: the file in which each seed's progress is kept, if any.
    """

    keys: tuple[FitKey, ...]
    strategy: LearnedStrategy
    initial: Mapping[int, dict[str, Tensor]] = field(default_factory=dict)
    checkpoints: Mapping[int, Path] = field(default_factory=dict)

    def run(
        self,
        learner: Learner,
        on_epoch: Callable[[FitKey, dict], None] = lambda key, row: None,
    ) -> dict[FitKey, Fitted | TrainingError]:
        """Cut the training rows and train; where a fit fails, the error that says which it was."""
        first, of_seed = self.keys[0], {key.seed: key for key in self.keys}
        with limited_threads(learner.threads):
            learner.check_memory({first.name: self.strategy})
            fold = learner.folds[first.fold]
            samples = learner.training_samples(first.name, self.strategy, fold)
            try:
                found = train_seeds(
                    self.strategy,
                    samples,
                    learner.costs,
                    learner.training,
                    of_seed,
                    lambda seed, row: on_epoch(of_seed[seed], row),
                    self.initial,
                    self.checkpoints,
                )
            except (ValueError, RuntimeError) as error:  # of all seeds alike
                return {first: _named(first, error)}
        return {
            of_seed[seed]: _fitted(trained)
            if isinstance(trained, Trained)
            else _named(of_seed[seed], trained)
            for seed, trained in found.items()
        }


def _fitted(trained: Trained) -> Fitted:
    state = trained.module.state_dict()
    state = {name: value.detach().cpu().clone() for name, value in state.items()}
    return Fitted(state, trained.history, trained.solves, trained.checks)


def _named(key: FitKey, error: Exception) -> TrainingError:
    """The error, saying which fit it was."""
    if not isinstance(error, ValueError | RuntimeError):
        raise error  # of the program, not of a training
    named = TrainingError(
        f"{key.name}, fold {key.fold}, seed {key.seed}: {error}",
        getattr(error, "state", None),
        getattr(error, "epoch", None),
    )
    named.__cause__ = error
    return named


def run_fits(
    groups: list[tuple[FitKey, ...]],
    make: Callable[[tuple[FitKey, ...], Mapping[int, dict[str, Tensor]]], FitTask],
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
        groups: all fits, those together that are one task: seeds of a strategy in a fold. The folds
            of a strategy and seed are in order of time.
        make: the task of some keys, and the states by seed that they start from.
        learner: what all share.
        submit: where to run; None is this process, which shows every epoch.
        on_done: called as each fit ends, in whatever order they end.
        chained: a fold starts from the state that the fold before it ended with.
        on_last: called once the last of them is submitted.

    Raises:
        The error of a fit, of the earliest of the keys where several fail, once those that had
        begun have ended and are kept.
    """

    def before(key: FitKey) -> FitKey | None:
        return key._replace(fold=key.fold - 1) if chained and key.fold else None

    def able(group: tuple[FitKey, ...]) -> bool:
        return all(before(key) is None or before(key) in done for key in group)

    def task(group: tuple[FitKey, ...]) -> FitTask:
        earlier = {key.seed: before(key) for key in group}
        return make(group, {s: done[key].state for s, key in earlier.items() if key is not None})

    failures: dict[FitKey, Exception] = {}

    def finish(found: Mapping[FitKey, Fitted | TrainingError]) -> None:
        for plain, fitted in found.items():
            key = FitKey(*plain)  # Dask hands a named tuple back as a plain one
            if isinstance(fitted, Exception):
                failures[key] = fitted
            else:
                done[key] = fitted
                on_done(key, fitted)

    left = (tuple(key for key in group if key not in done) for group in groups)
    waiting = [group for group in left if group]
    if submit is not None:  # the longest first: no worker is left with one when others have ended
        waiting.sort(key=lambda group: -len(learner.folds[group[0].fold].train))
    place = {key: number for number, key in enumerate(key for group in groups for key in group)}
    running: dict[Future[dict[FitKey, Fitted | TrainingError]], tuple[FitKey, ...]] = {}
    if submit is not None and not waiting:
        on_last()
    try:
        while running or (waiting and not failures):
            if submit is None:
                finish(task(waiting.pop(0)).run(learner, on_epoch))
                continue
            for group in [group for group in waiting if able(group)] if not failures else []:
                running[submit(task(group))] = group
                waiting.remove(group)
                if not waiting:
                    on_last()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                group = running.pop(future)
                try:
                    finish(future.result())
                except CancelledError as error:
                    if not failures:  # nobody here cancelled it
                        failures[group[0]] = error
                except Exception as error:
                    failures[group[0]] = error
                if failures:
                    first = min(map(place.__getitem__, failures))
                    for other, after in running.items():  # what has begun may end, and is kept
                        if place[after[0]] > first:  # what comes before might have failed, too
                            other.cancel()
    except BaseException:
        for future in running:
            future.cancel()
        raise
    if failures:
        raise failures[min(failures, key=place.__getitem__)]
