"""The files of a run: written whole, by one process at a time, and sealed with their hashes.

RUN/experiment.toml            the experiment, if it was run from the command line
RUN/plan.json                  the identity of the run: fingerprint of the panel, plan, costs, ...
RUN/code.json                  hashes of the experiment, and of the files that it names
RUN/risk_free.csv              the yearly risk-free rates by date, if they were given as a series
RUN/fits/NAME-FOLD-SEED/       a finished fit, written whole or not at all
RUN/refits/NAME/FOLD/          a fit made later, on new data (see trading/refit.py)
RUN/checkpoints/NAME-...       the progress of an unfinished fit; removed when it ends
RUN/00-NAME/ ..., run.json     the results (see result.py)
RUN/paths.csv, run.json        those of a cross-validation

A sealed file is JSON with its own hash, and with those of the files beside it: stored numbers are
read back only if they are the ones that were stored. What version 0.1 wrote has no hashes, and is
read as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from data_loaders.writing import atomic

EXPERIMENT = "experiment.toml"
PLAN = "plan.json"
RATES = "risk_free.csv"
RECORD = "record.json"
REFIT = "refit.json"
PATHS = "paths.csv"
RUN = "run.json"
CODE = "code.json"
LOCK = ".lock"
SEAL, FILES = "sha256", "files"


class RunDamaged(ValueError):
    """A file of a run is missing, or holds something else than what was written."""


class RunInUse(RuntimeError):
    """Another process is writing to the directory."""


class RunNotWritten(OSError):
    """The disk is full, or the directory may not be written; the message says what is kept."""


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Raise errors of writing below ``path`` as one sentence with the remedy.

    Raises:
        RunNotWritten: the system refused it, whichever library asked.
    """
    try:
        yield
    except RunNotWritten:
        raise
    except Exception as error:
        reason = str(error)
        if not (isinstance(error, OSError) or "os error" in reason):  # of safetensors
            raise
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise RunNotWritten(
            f"{path} cannot be written ({reason}); what was finished before is kept: make "
            "room, and the same call resumes"
        ) from error


_held: set[tuple[Path, int]] = set()  # run directories, and the threads that have locked them


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A block that alone writes to a run directory, which is created if it does not exist.

    It may be entered again inside. The system takes the lock from a process that ends, however it
    ends, so none is ever stale. Where a file system has no locks, there is none.

    Raises:
        RunInUse: another process, or another thread, is in such a block.
        RunNotWritten: it is a file, or cannot be written.
    """
    for place in (path, *path.parents):
        if place.is_file():
            raise RunNotWritten(f"{place} is a file, not a folder; choose another directory")
    key = path.resolve(), threading.get_ident()
    if key in _held:
        yield
        return
    with written(path):
        path.mkdir(parents=True, exist_ok=True)
        file = _acquired(path / LOCK)
    _held.add(key)
    try:
        yield
    finally:
        _held.remove(key)
        with suppress(OSError):
            (path / LOCK).unlink(missing_ok=True)
        file.close()


def _acquired(path: Path) -> IO[str]:
    """The lock file, locked; it says who has it."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            owner = "another process"
            with file, suppress(ValueError, KeyError, TypeError):
                known = json.load(file)
                owner = f"process {known['process']} on {known['host']}, since {known['since']}"
            raise RunInUse(
                f"{path.parent} is in use by {owner}: wait for it to end, or choose another folder"
            ) from None
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


def folder_name(name: str) -> str:
    """The name of a strategy as that of a folder."""
    return "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in name)[:80]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def seal_of(value: dict[str, Any]) -> str:
    """The hash of what JSON can hold."""
    return digest(json.dumps(value, sort_keys=True).encode())


def sealed(value: dict[str, Any], folder: Path | None = None, names: Iterable[str] = ()) -> str:
    """The JSON of ``value`` with its hash, and with those of files ``names`` in ``folder``."""
    plain = json.loads(json.dumps(value, allow_nan=False))
    if folder is not None:
        plain[FILES] = {name: digest((folder / name).read_bytes()) for name in sorted(names)}
    return json.dumps({**plain, SEAL: seal_of(plain)}, indent=2, allow_nan=False)


@contextmanager
def sealed_folder(target: Path, index: str, about: dict[str, Any]) -> Iterator[Path]:
    """A folder that is written whole or not at all: what the block puts into the folder that it is
    given, and ``about`` it, sealed, in the file ``index``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as scratch:
        scratch.mkdir()
        yield scratch
        names = [path.name for path in scratch.iterdir()]
        (scratch / index).write_text(sealed(about, scratch, names))


def unsealed(path: Path) -> dict[str, Any]:
    """What a sealed file holds.

    Raises:
        RunDamaged: it is missing, or not what was written.
    """
    return opened(contents(path.parent, {}, path.name), path)


def opened(text: str | bytes, path: Path) -> dict[str, Any]:
    """What a sealed text holds, which is in ``path``.

    Raises:
        RunDamaged: it is not what was written.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise damaged(path) from None
    if not isinstance(found, dict):
        raise damaged(path)
    own = found.pop(SEAL, None)
    if own != seal_of(found) and (own is not None or FILES in found):
        raise damaged(path)
    return found


def contents(folder: Path, index: dict[str, Any], name: str) -> bytes:
    """A file beside its index, as it was written.

    Raises:
        RunDamaged: it is missing, or not what was written.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunDamaged(f"{path} is missing") from None
    if FILES in index and index[FILES].get(name) != digest(content):
        raise damaged(path)
    return content


def damaged(path: Path) -> RunDamaged:
    return RunDamaged(f"{path} is damaged: it does not hold what was written")
