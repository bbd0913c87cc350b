"""Worker processes on this machine, which can be ended at once and silently."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager, suppress
from multiprocessing import (
    active_children,
    current_process,
    forkserver,
    get_context,
    resource_tracker,
    util,
)
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

PRELOAD = "torch._dynamo", "torch.nn.utils"  # what tasks of a backtest need
SAFE_PATH = "PYTHONSAFEPATH"  # of Python 3.11 and later
PATIENCE = 10  # seconds for the threads to notice that their workers were killed
LONGEST = 50  # characters of the folder for temporary files; the name of a socket has 107 at most


@contextmanager
def local_processes(workers: int, shared: object = None) -> Iterator[Executor]:
    """``workers`` processes on this machine, each of which is sent ``shared`` as it starts.

    They end when the block does: after the tasks submitted, or at once on an error.
    """
    if workers < 1:
        raise ValueError(f"workers is a whole number from 1 on, got {workers}")
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    start_server()
    with WorkerPool(workers, context, shared) as pool:
        try:
            yield pool
        except BaseException:
            pool.kill()
            raise


def start_server(*modules: str) -> None:
    """On Linux, start the process that workers are forked from, if it does not run yet.

    Imports take a process seconds. So the server imports what workers need, and ``modules``, once,
    and does nothing else. A fork of this process would copy locks that its threads hold. Elsewhere
    each worker is a new process.
    """
    if sys.platform != "linux":
        return
    forkserver.set_forkserver_preload([*PRELOAD, *modules])  # no effect if the server runs
    _use_own_folder()
    with _safe_path():
        # First, because starting it unblocks SIGINT in this thread.
        resource_tracker.ensure_running()
        # Blocked, not ignored: this process still receives Ctrl-C afterwards. The server inherits
        # it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_alive(process: int) -> bool:
    """Whether there is a process of that number; on Windows, where to ask would end it, yes."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _use_own_folder() -> None:
    """Let multiprocessing keep its sockets in a folder of ours, unless it has one already.

    Python's own, ``pymp-*``, stays where a process is killed. Ours is named by machine and process,
    so that the next process removes what a dead one left.
    """
    config = current_process()._config  # type: ignore[attr-defined]
    if config.get("tempdir") is not None or len(tempfile.gettempdir()) > LONGEST:
        return
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]
    start = f"deqfolio-{machine}-"
    for old in Path(tempfile.gettempdir()).glob(f"{start}*"):
        number = old.name.removeprefix(start).partition("-")[0]
        if number.isdecimal() and not is_alive(int(number)):
            shutil.rmtree(old, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{start}{current_process().pid}-")
    util.Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-100)
    config["tempdir"] = folder


@contextmanager
def _safe_path() -> Iterator[None]:
    """Processes started in this block do not import from the working directory, where a strategy's
    file may be called json.py; workers are told this process's path afterwards."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


class WorkerTraceback(Exception):
    """Where an error was raised in a worker: the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class WorkerPool(Executor):
    """Worker processes, each started with its first task, each served by a thread of this one.

    Unlike in ``ProcessPoolExecutor``, workers share no queue, lock or semaphore, only a pipe each
    with this process: one that dies loses its own task, whose future has a BrokenExecutor, and
    nothing else, and ``kill`` has nothing to wait for. Tasks and results are copied as plain
    pickles; tensors are not left in the shared memory of a process that may be gone.

    Args:
        workers: how many.
        context: of multiprocessing, "forkserver" or "spawn".
        shared: what each worker is sent as it starts; to unpickle a ``Parcel`` is to keep it.
    """

    def __init__(self, workers: int, context: BaseContext, shared: object = None):
        self._context, self._shared = context, shared
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
        """Let the workers end after the tasks submitted, or after those that run."""
        if not self._closed:
            self._closed = True
            while cancel_futures and not self._tasks.empty():
                item = self._tasks.get()
                if item is not None:
                    item[0].cancel()
            for _ in self._threads:
                self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def kill(self) -> None:
        """Kill the workers, whatever they do, even those that are only starting.

        The server that they are forked from may still be importing, for seconds, with workers
        asked for that it has not started. So it is killed as well, unless it may serve processes
        that existed before the pool; the next pool starts another one.
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

    def _serve(self) -> None:
        """Send tasks to a worker, one after the other; each thread runs this."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # its worker inherits this
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
            pipe.close()  # the worker then ends
            process.join()

    def _start(self) -> tuple[BaseProcess, Connection]:
        with self._starting:
            if self._killed:
                raise EOFError("the pool was killed")
            mine, its = self._context.Pipe()
            process = self._context.Process(  # type: ignore[attr-defined]
                target=_work, args=(its, self._shared)
            )
            process.start()
            its.close()
            self._processes.append(process)
        return process, mine


def _work(pipe: Connection, shared: object) -> None:
    """Run the tasks that come through the pipe until its other end is closed; in a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    with suppress(EOFError, ConnectionError):
        while True:
            message = pipe.recv_bytes()
            try:
                task, args, kwargs = pickle.loads(message)  # of the process that started this one
                reply = _packed(True, task(*args, **kwargs))
            except BaseException as error:
                reply = _packed(False, error)
            pipe.send_bytes(reply)


def _packed(succeeded: bool, result: Any) -> bytes:
    """A reply: the result, or the error with its traceback."""
    trace = "" if succeeded else "".join(traceback.format_exception(result))
    try:
        packed = pickle.dumps((succeeded, result, trace), pickle.HIGHEST_PROTOCOL)
        if not succeeded:
            pickle.loads(packed)  # many errors can be pickled but not unpickled
        return packed
    except Exception as error:
        kind = type(result).__name__
        text = f"{kind} cannot be sent back: {error}" if succeeded else f"{kind}: {result}"
        return pickle.dumps((False, RuntimeError(text), trace))


def _settle(future: Future, reply: bytes) -> None:
    """Give the future what a worker replied."""
    try:
        succeeded, result, trace = pickle.loads(reply)  # of a process that this one started
    except Exception as error:
        future.set_exception(error)
        return
    if succeeded:
        future.set_result(result)
    else:
        result.__cause__ = WorkerTraceback(trace)
        future.set_exception(result)


def _death(worker: tuple[BaseProcess, Connection] | None, error: Exception) -> str:
    if worker is None:
        return f"a worker process did not start: {str(error) or type(error).__name__}"
    process, pipe = worker
    pipe.close()
    process.join()
    return f"a worker process ended with code {process.exitcode} in the middle of a task"


def _kill_server() -> None:
    """Kill the server that multiprocessing forks workers from, and its workers."""
    server = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    if server is None:
        return
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(server, signal.SIGSTOP)  # it starts no more workers while its own are listed
        with suppress(OSError):  # a Linux that lists no children
            listed = Path(f"/proc/{server}/task/{server}/children").read_text()
            for child in map(int, listed.split()):
                os.kill(child, signal.SIGKILL)
        os.kill(server, signal.SIGKILL)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)  # multiprocessing reaps it
