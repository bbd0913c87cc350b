"""One writer at a time for a run folder."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

LOCK = ".lock"


class RunInUse(RuntimeError):
    """Another process is writing to the folder."""


_held: dict[tuple[Path, int], int] = {}  # how often a thread of this process has the lock


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """A block that alone writes to a folder; it may be entered again inside.

    The system takes the lock from a process that ends, however it ends, so none is ever stale.
    Where a file system has no locks, there is none.

    Raises:
        RunInUse: another process, or another thread, is in such a block.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = folder.resolve(), threading.get_ident()
    if key in _held:
        _held[key] += 1
        try:
            yield
        finally:
            _held[key] -= 1
        return
    file = _acquired(folder / LOCK)
    _held[key] = 1
    try:
        yield
    finally:
        del _held[key]
        with suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
        file.close()


def _acquired(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            owner = file.read()
            file.close()
            raise RunInUse(f"{path.parent} is in use by {_shown(owner)}: wait for it to end, or "
                           "choose another folder") from None  # fmt: skip
        except OSError:  # this file system has no locks
            pass
        with suppress(OSError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                break
        file.close()  # whoever had it removed it in between
    file.truncate(0)
    started = datetime.now().astimezone().isoformat(timespec="minutes")
    json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": started}, file)
    file.flush()
    return file


def _lock(file: IO[str]) -> None:
    """Lock a file, or raise BlockingIOError where another process has done so."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(1 << 20)  # a place that nobody reads
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError:
            raise BlockingIOError from None
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _shown(owner: str) -> str:
    try:
        known = json.loads(owner)
        return f"process {known['process']} on {known['host']}, since {known['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
