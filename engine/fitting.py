"""The fits of a backtest: one for each learned strategy, fold and seed, on any executor.

A fit depends on nothing but its task, so where it runs changes nothing about it: in this
process, in others (``workers``), or on a cluster (any ``concurrent.futures.Executor``).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import active_children, forkserver, get_context
from threading import current_thread, main_thread
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from engine.costs import Costs
from engine.threads import limited_threads
from engine.training import Samples, Training, TrainingError, train
from strategies.base import LearnedStrategy

PRELOAD = "engine.preload"
MOST_PENDING = 8  # tasks handed to an executor at once: each carries its training rows


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
    """Everything one fit needs; ``initial`` is the state to start from, if any."""

    key: FitKey
    strategy: LearnedStrategy
    samples: Samples
    costs: Costs
    training: Training
    threads: int
    initial: dict[str, Tensor] | None = None

    def run(self, on_epoch: Callable[[dict], None] = lambda row: None) -> Fitted:
        """Train, and say which fit it was where it fails."""
        training = replace(self.training, seed=self.key.seed)
        with limited_threads(self.threads):
            try:
                trained = train(
                    self.strategy, self.samples, self.costs, training, on_epoch, self.initial
                )
            except (ValueError, RuntimeError) as error:
                raise TrainingError(
                    f"{self.key.name}, fold {self.key.fold}, seed {self.key.seed}: {error}",
                    getattr(error, "state", None),
                    getattr(error, "epoch", None),
                ) from error
        state = {
            name: value.detach().clone()
            for name, value in self.strategy.module_.state_dict().items()
        }
        return Fitted(state, trained.history, trained.solves, trained.checks)


def run_fits(
    keys: list[FitKey],
    make: Callable[[FitKey, dict[str, Tensor] | None], FitTask],
    executor: Executor | None,
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
        executor: where to run; None is this process, which shows every epoch.
        on_done: called as each fit ends, in whatever order they end.
        chained: a fold starts from the state that the fold before it ended with.
        on_last: called once the executor has the last of them.

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
    if executor is None:
        for key in waiting:
            finish(key, task(key).run(lambda row, key=key: on_epoch(key, row)))  # type: ignore[misc]
        return
    place = {key: number for number, key in enumerate(keys)}
    running: dict[Future[Fitted], FitKey] = {}
    failures: dict[FitKey, Exception] = {}
    if not waiting:
        on_last()
    try:
        while running or (waiting and not failures):
            ready = [key for key in waiting if before(key) is None or before(key) in done]
            for key in ready[: MOST_PENDING - len(running)] if not failures else []:
                running[executor.submit(task(key).run)] = key
                waiting.remove(key)
                if not waiting:
                    on_last()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(future)
                try:
                    finish(key, future.result())
                except CancelledError:
                    continue
                except Exception as error:
                    failures[key] = error
                    for other, after in running.items():  # what has begun may end, and is kept
                        if place[after] > place[key]:  # what comes before might have failed, too
                            other.cancel()
    except BaseException:
        for future in running:
            future.cancel()
        raise
    if failures:
        raise failures[min(failures, key=place.__getitem__)]


@contextmanager
def local_processes(workers: int) -> Iterator[Executor]:
    """``workers`` processes on this machine.

    Imports take a process seconds. So on Linux one process, the server, imports everything and
    does nothing else, and the workers are forks of it; a fork of this one would copy locks that
    its threads hold. Elsewhere each is started afresh.
    """
    if workers < 1:
        raise ValueError(f"workers is a whole number from 1 on, got {workers}")
    others = set(active_children())
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload([PRELOAD])  # too late, and harmless, where the server runs
    if sys.platform == "linux" and current_thread() is main_thread():
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server inherits it
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),  # Ctrl-C is for the process that waits
    )
    with pool:
        try:
            yield pool
        except BaseException:
            for process in set(active_children()) - others:
                process.terminate()
            queue = getattr(pool, "_call_queue", None)
            if queue is not None:  # a task that nobody will read must not hold up the end
                queue.cancel_join_thread()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
