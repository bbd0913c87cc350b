"""Worker processes on this machine."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from engine.compute.worker_pool import WorkerPool

if TYPE_CHECKING:
    from engine.compute.broadcast import Parcel

PRELOAD = "engine.compute.preload"


@contextmanager
def local_processes(workers: int, parcel: Parcel | None = None) -> Iterator[Executor]:
    """``workers`` processes on this machine, each of which is handed the parcel as it starts.

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
    with WorkerPool(workers, context, _begin, (parcel,)) as pool:
        try:
            yield pool
        except BaseException:
            pool.kill()
            raise


def _begin(parcel: Parcel | None) -> None:
    """A worker's first act; receiving the parcel is keeping it (``delivery.py``)."""
