"""WorkerPool: processes that run tasks, and that end at once and without a word when told to."""

from __future__ import annotations

import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from multiprocessing import active_children, forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

PATIENCE = 10  # seconds for the threads to notice that their workers were killed


class WorkerTraceback(Exception):
    """Where an error arose in a worker: the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class WorkerPool(Executor):
    """So many worker processes, each begun with its first task, each with a thread here.

    Unlike in ``ProcessPoolExecutor``, workers share no queue, lock or semaphore, only a pipe each
    with this process: one that dies takes nothing with it but its own task, whose future has a
    BrokenExecutor, and ``kill`` has nothing to wait for. Tasks and results are copied as plain
    pickles; tensors are not left in the shared memory of a process that may be gone.

    Args:
        workers: how many.
        context: of multiprocessing, "forkserver" or "spawn".
        begin: what each worker calls first, with ``arguments``.
    """

    def __init__(
        self,
        workers: int,
        context: BaseContext,
        begin: Callable[..., object] | None = None,
        arguments: tuple = (),
    ):
        self._context, self._begin, self._arguments = context, begin, arguments
        self._others = set(active_children())
        self._tasks: SimpleQueue[tuple[Future, tuple] | None] = SimpleQueue()
        self._starting, self._processes = Lock(), list[BaseProcess]()
        self._closed = self._killed = False
        self._threads = [Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        if self._closed:
            raise RuntimeError("the pool is shut down")
        future: Future = Future()
        self._tasks.put((future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers end after the tasks submitted, or after those begun."""
        if not self._closed:
            self._closed = True
            if cancel_futures:
                self._cancel()
            for _ in self._threads:
                self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def kill(self) -> None:
        """Kill the workers, whatever they do, even those that are only beginning.

        On Linux workers are forks of a server, which may still be importing, for seconds, with
        workers asked for that it has not begun. So it is killed as well, unless it may serve
        processes that were there before the pool; whoever needs a server next starts one.
        """
        self._killed = True
        self.shutdown(wait=False, cancel_futures=True)
        limit = time.monotonic() + PATIENCE
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < limit:
            if not self._others:
                _kill_server()
            for process in self._processes:
                process.kill()
            for thread in self._threads:
                thread.join(0.1)

    def _cancel(self) -> None:
        while not self._tasks.empty():
            item = self._tasks.get()
            if item is not None:
                item[0].cancel()

    def _serve(self) -> None:
        """Hand tasks to a worker, one after the other; a thread's work."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # what it starts inherits this
        worker: tuple[BaseProcess, Connection] | None = None
        while (item := self._tasks.get()) is not None:
            future, task = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                message = pickle.dumps(task, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                future.set_exception(error)
                continue
            try:
                worker = worker or self._start()
                worker[1].send_bytes(message)
                reply = worker[1].recv_bytes()
            except (EOFError, OSError) as error:
                future.set_exception(BrokenExecutor(_death(worker, error)))
                worker = None
                continue
            _settle(future, reply)
        if worker is not None:
            process, pipe = worker
            pipe.close()  # which a worker that waits takes for the end
            process.join()

    def _start(self) -> tuple[BaseProcess, Connection]:
        with self._starting:
            if self._killed:
                raise EOFError("the pool was killed")
            mine, its = self._context.Pipe()
            process = self._context.Process(  # type: ignore[attr-defined]
                target=_work, args=(its, self._begin, self._arguments)
            )
            process.start()
            its.close()
            self._processes.append(process)
        return process, mine


def _work(pipe: Connection, begin: Callable[..., object] | None, arguments: tuple) -> None:
    """What a worker does: run what comes through the pipe until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    if begin is not None:
        begin(*arguments)
    with suppress(EOFError, ConnectionError):
        while True:
            message = pipe.recv_bytes()
            try:
                task, args, kwargs = pickle.loads(message)  # of the process that began this one
                reply = _packed(True, task(*args, **kwargs))
            except BaseException as error:
                reply = _packed(False, error)
            pipe.send_bytes(reply)


def _packed(fine: bool, result: Any) -> bytes:
    """A reply: the result or, with where it arose, the error."""
    told = "" if fine else "".join(traceback.format_exception(result))
    try:
        packed = pickle.dumps((fine, result, told), pickle.HIGHEST_PROTOCOL)
        pickle.loads(packed) if not fine else None  # errors are often made for one way only
        return packed
    except Exception as error:
        kind = type(result).__name__
        said = f"{kind} cannot be sent back: {error}" if fine else f"{kind}: {result}"
        return pickle.dumps((False, RuntimeError(said), told))


def _settle(future: Future, reply: bytes) -> None:
    """Give the future what a worker replied."""
    try:
        fine, result, told = pickle.loads(reply)  # of a process that this one began
    except Exception as error:
        future.set_exception(error)
        return
    if fine:
        future.set_result(result)
        return
    result.__cause__ = WorkerTraceback(told)
    future.set_exception(result)


def _death(worker: tuple[BaseProcess, Connection] | None, error: Exception) -> str:
    if worker is None:
        return f"a worker process did not begin: {str(error) or type(error).__name__}"
    process, pipe = worker
    pipe.close()
    process.join()
    return f"a worker process ended with code {process.exitcode} in the middle of a task"


def _kill_server() -> None:
    """Kill the server that multiprocessing forks workers from, and what it has forked."""
    server = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    if server is None:
        return
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(server, signal.SIGSTOP)  # no more of them, while its own are looked for
        with suppress(OSError):  # a Linux that lists no children
            listed = Path(f"/proc/{server}/task/{server}/children").read_text()
            for child in map(int, listed.split()):
                os.kill(child, signal.SIGKILL)
        os.kill(server, signal.SIGKILL)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)  # left for its owner to find dead
