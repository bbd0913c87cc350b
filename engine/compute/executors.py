"""Where tasks run: in processes of this machine, on a Dask cluster, or on any executor; and on how
many threads.

What all tasks of a run share, as a backtest its panel, plan, costs and training, is sent to each
worker once. The worker keeps the object, so what one task has computed on it, such as the inputs of
a date, the next one finds there.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

from threadpoolctl import ThreadpoolController

from engine.compute.worker_pool import local_processes

LOST = {  # errors that mean it: of a process pool, of Dask, and of a scheduler that went away
    "BrokenExecutor": "a worker died and took its task with it",
    "KilledWorker": "several workers died of one task",
    "CancelledError": "the cluster gave up its tasks, as it does where its scheduler ends",
}
PACKAGES = ("data_loaders", "strategies", "engine", "reports")  # that tasks may import
WAIT = 20  # seconds for a cluster's answer
ADDRESS = r"(tcp|tls|ws|wss|ucx|inproc)://\S+"
TASK_LOCK = threading.Lock()  # a process runs one task at a time: torch's generator is shared


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
            place = parcel
            if client is not None:  # the parcel's future, computed where it is needed
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Sending large graph")  # and sent once
                    key = f"deqfolio-{parcel.token}"
                    place = client.submit(_received, parcel.token, parcel.content, key=key)
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


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """At most ``count`` threads inside the block, as many as before after it."""
    import torch  # it takes a second: the command line looks for a cluster without it

    before = torch.get_num_threads()
    with _pools(len(sys.modules)).limit(limits=count):
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    """The loaded libraries that have threads; a search takes milliseconds, so it is repeated only
    when the number of loaded modules has changed."""
    return ThreadpoolController()


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message says why, and the remedy."""


@contextmanager
def on_cluster(address: str | None) -> Iterator[Executor | None]:
    """The executor of the cluster at ``address``, like tcp://10.0.0.1:8786; None for None.

    Raises:
        ClusterError: distributed is not installed, nothing answers there, the cluster has no
            worker, or a worker runs another version of the code.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError(
            "a cluster needs Dask's distributed: pip install 'deqfolio[cluster]'"
        ) from None
    if not re.fullmatch(ADDRESS, address):
        raise ClusterError(
            f"{address} is no address of a cluster: it should be like tcp://10.0.0.1:8786, as the "
            "scheduler prints when it starts"
        )
    log = logging.getLogger("distributed")
    before = log.level
    log.setLevel(logging.CRITICAL)  # failures are reported by the error that ends the call
    try:
        with _connected(Client, address) as client:
            _check(client, address)
            yield client.get_executor()
    finally:
        log.setLevel(before)


def _connected(client: Any, address: str) -> Any:
    """A client of the cluster, within 30 seconds; ``client`` is Dask's class.

    In a thread, which is abandoned if something answers that is no scheduler: Dask then waits
    forever.
    """
    found: list[Any] = []

    def connect() -> None:
        try:
            found.append(client(address, timeout=WAIT, set_as_default=False))
        except Exception as error:  # raised below, in the caller's thread
            found.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(1.5 * WAIT)
    if not found:
        raise ClusterError(
            f"what answers at {address} is no Dask scheduler; its port is usually 8786, and the "
            "dashboard's 8787"
        )
    if isinstance(found[0], OSError | ValueError):
        raise ClusterError(
            f"no cluster answers at {address} ({found[0] or 'it timed out'}); start one with "
            "'dask scheduler' and 'dask worker ADDRESS'"
        ) from found[0]
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def client_of(executor: Executor) -> Any:
    """The Dask client behind an executor; None of any other executor."""
    return getattr(executor, "_client", None)


def _check(client: Any, address: str) -> None:
    if not client.ncores():
        raise ClusterError(f"the cluster at {address} has no worker: dask worker {address}")
    try:
        found = client.run(code_version)
    except Exception as error:
        raise ClusterError(
            f"the workers at {address} cannot import deqfolio ({error}); install it on each"
        ) from error
    mine = code_version()
    others = [worker for worker, version in found.items() if version != mine]
    if others:
        raise ClusterError(
            f"other code than here runs on {', '.join(sorted(others))}; install the same version "
            "of deqfolio there and start the workers again"
        )


def code_version() -> str:
    """sha256 of the source of all packages on this machine."""
    root = Path(__file__).parents[2]
    files = sorted(path for name in PACKAGES for path in (root / name).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
