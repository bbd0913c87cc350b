"""Broadcast: what all tasks of a run share is sent to each worker once, and tasks refer to it.

A backtest shares its panel, plan, costs and training. A worker keeps the object that it was sent,
so what one task has computed on it, such as the inputs of a date, the next one finds there.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

from engine.compute.cluster import client_of
from engine.compute.worker_pool import local_processes

LOST = {  # errors that mean it: of a process pool, of Dask, and of a scheduler that went away
    "BrokenExecutor": "a worker died and took its task with it",
    "KilledWorker": "several workers died of one task",
    "CancelledError": "the cluster gave up its tasks, as it does where its scheduler ends",
}
TASK_LOCK = Lock()  # one task at a time in a process: torch's random numbers and threads are shared


class WorkerLost(RuntimeError):
    """The workers have died, and nothing takes their place; the message says what is kept."""


class Task(Protocol):
    """What can be run anywhere, given what all tasks share."""

    def run(self, shared: Any, /) -> Any: ...


Submit: TypeAlias = "Callable[[Task], Future[Any]]"


class Parcel:
    """An object to be shared. Unpickled twice in one process, it is the same object."""

    def __init__(self, shared: Any, token: str | None = None):
        self.shared = shared
        self.token = token or uuid4().hex

    @cached_property
    def content(self) -> bytes:
        return pickle.dumps(self.shared, pickle.HIGHEST_PROTOCOL)

    def __reduce__(self) -> tuple:
        return _received, (self.token, self.content)


_kept: dict[str, Parcel] = {}  # at most one: the next run's parcel takes the place of the last


def _received(token: str, content: bytes) -> Parcel:
    if token not in _kept:
        _kept.clear()
        _kept[token] = Parcel(pickle.loads(content), token)  # of our own processes
    return _kept[token]


def _run(task: Task, parcel: Parcel | str) -> Any:
    """Run a task on a parcel, or on the one that was kept under a token."""
    found = _kept[parcel] if isinstance(parcel, str) else parcel
    with TASK_LOCK:
        return task.run(found.shared)


@contextmanager
def broadcast(
    shared: Any, workers: int | None, executor: Executor | None
) -> Iterator[Submit | None]:
    """A function that submits tasks which share an object; None means: run them in this process.

    They run in ``workers`` processes of this machine, or on the executor. A Dask client's executor
    keeps the object as a result of its own, which the scheduler copies to each worker that has a
    task, and computes again if all of them are lost. Any other executor is sent it with each
    task; a process that has it already does not unpickle it again.

    Raises:
        ValueError: both are given.
        WorkerLost: workers died inside the block.
    """
    if workers is not None and executor is not None:
        raise ValueError("give workers or an executor, not both")
    if workers is None and executor is None:
        yield None
        return
    parcel = Parcel(shared)
    try:
        if executor is not None:
            client = client_of(executor)
            place = parcel if client is None else _on_dask(client, parcel)
            yield lambda task: executor.submit(_run, task, place)
            return
        assert workers is not None
        with local_processes(workers, parcel) as pool:
            yield lambda task: pool.submit(_run, task, parcel.token)
    except Exception as error:
        reason = next((LOST[c.__name__] for c in type(error).__mro__ if c.__name__ in LOST), None)
        if reason is None:
            raise
        raise WorkerLost(
            f"{reason} ({str(error) or type(error).__name__}); where memory ran out, take fewer "
            "workers or a smaller problem. Fits that had ended are in the run's directory, if it "
            "has one: the same call resumes"
        ) from error


def _on_dask(client: Any, parcel: Parcel) -> Any:
    """The future of the parcel on a Dask cluster, computed where it is needed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")  # it is large, and sent once
        key = f"deqfolio-{parcel.token}"
        return client.submit(_received, parcel.token, parcel.content, key=key)
