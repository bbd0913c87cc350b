"""Delivery: what all tasks of a run share is sent to each worker once, and tasks refer to it.

That is the learner: panel, plan, costs and training. A worker keeps it, so that it prepares the
inputs of a date once for all tasks that it runs.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from uuid import uuid4

from engine.compute.cluster import client_of
from engine.compute.processes import local_processes

if TYPE_CHECKING:
    from engine.walking.learner import Learner


LOST = {  # errors that say so: of a process pool, of Dask, and of a scheduler that went away
    "BrokenExecutor": "a worker died and took its task with it",
    "KilledWorker": "several workers died of one task",
    "CancelledError": "the cluster gave up its tasks, as it does where its scheduler ends",
}


class WorkerLost(RuntimeError):
    """What runs tasks has died, and nothing takes its place; the message says what is kept."""


class Task(Protocol):
    """What can be run anywhere, given what all tasks share."""

    def run(self, learner: Learner) -> Any: ...


Submit: TypeAlias = "Callable[[Task], Future[Any]]"


class Parcel:
    """A learner on its way. Unpickled twice in one process, it is the same learner."""

    def __init__(self, learner: Learner, token: str | None = None):
        self.learner = learner
        self.token = token or uuid4().hex

    @cached_property
    def content(self) -> bytes:
        return pickle.dumps(self.learner, pickle.HIGHEST_PROTOCOL)

    def __reduce__(self) -> tuple:
        return _received, (self.token, self.content)


_kept: dict[str, Parcel] = {}  # at most one: the next run takes the place of the last


def _received(token: str, content: bytes) -> Parcel:
    if token not in _kept:
        _kept.clear()
        _kept[token] = Parcel(pickle.loads(content), token)  # of our own processes
    return _kept[token]


TURN = Lock()  # of a process: torch's random numbers, and how many threads it takes, are shared


def run_with(task: Task, parcel: Parcel) -> Any:
    """Run a task, in a process of many threads one after the other."""
    with TURN:
        return task.run(parcel.learner)


def run_with_kept(task: Task, token: str) -> Any:
    return run_with(task, _kept[token])


@contextmanager
def workplace(
    learner: Learner, workers: int | None, executor: Executor | None
) -> Iterator[Submit | None]:
    """How tasks are submitted: to so many processes, or to the executor; None is this process.

    A Dask client's executor keeps the learner as a result of its own, which the scheduler copies
    to each worker that has a task, and makes anew should all of them be lost. Any other executor
    is sent it with each task, and a process that has it already does not unpack it again.

    Raises:
        ValueError: both are given; WorkerLost: see there.
    """
    if workers is not None and executor is not None:
        raise ValueError("give workers or an executor, not both")
    if workers is None and executor is None:
        yield None
        return
    parcel = Parcel(learner)
    try:
        if executor is not None:
            yield _on(executor, parcel)
            return
        assert workers is not None
        with local_processes(workers, parcel) as pool:
            yield lambda task: pool.submit(run_with_kept, task, parcel.token)
    except Exception as error:
        found = next((LOST[c.__name__] for c in type(error).__mro__ if c.__name__ in LOST), None)
        if found is None:
            raise
        raise WorkerLost(
            f"{found} ({str(error) or type(error).__name__}); where memory ran out, take fewer "
            "workers or a smaller problem. Fits that had ended are in the run's directory, if it "
            "has one: the same call goes on"
        ) from error


def _on(executor: Executor, parcel: Parcel) -> Submit:
    client = client_of(executor)
    if client is None:
        return lambda task: executor.submit(run_with, task, parcel)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # it is large, and goes once
        key = f"deqfolio-{parcel.token}"
        held = client.submit(_received, parcel.token, parcel.content, key=key)
    return lambda task: executor.submit(run_with, task, held)
