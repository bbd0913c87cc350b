"""Worker processes on this machine."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from threading import current_thread, main_thread

from engine.compute.worker_pool import WorkerPool

PRELOAD = "engine.compute.preload"


@contextmanager
def local_processes(workers: int, shared: object = None) -> Iterator[Executor]:
    """``workers`` processes on this machine, each of which is sent ``shared`` as it starts.

    Imports take a process seconds. So on Linux one process, the server, imports everything and
    does nothing else, and the workers are forks of it; a fork of this one would copy locks that
    its threads hold. Elsewhere each is started afresh.
    """
    if workers < 1:
        raise ValueError(f"workers is a whole number from 1 on, got {workers}")
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload([PRELOAD])  # too late, and harmless, where the server runs
    if sys.platform == "linux" and current_thread() is main_thread():
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server inherits it
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, before)
    with WorkerPool(workers, context, _begin, (shared,)) as pool:
        try:
            yield pool
        except BaseException:
            pool.kill()
            raise


def _begin(shared: object) -> None:
    """A worker's first act; to unpickle a ``Parcel`` is to keep it (see ``broadcast.py``)."""
