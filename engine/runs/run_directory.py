"""A run directory: finished fits are kept, whatever happens to the process; one writer at a time.

RUN/experiment.toml            the experiment, if it was run from the command line
RUN/plan.json                  the identity of the run: fingerprint of the panel, plan, costs, ...
RUN/code.json                  hashes of the experiment, and of the files that it names
RUN/risk_free.csv              the yearly risk-free rates by date, if they were given as a series
RUN/fits/NAME-FOLD-SEED/       a finished fit, written whole or not at all
RUN/refits/NAME/FOLD/          a fit made later, on new data (see trading/refit.py)
RUN/checkpoints/NAME-...       the progress of an unfinished fit; removed when it ends
RUN/00-NAME/ ..., run.json     the results (see result.py)
RUN/paths.csv, run.json        those of a cross-validation
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import IO

import pandas as pd

from data_loaders.writing import remove_unfinished, write_text
from engine.runs.sealed_files import (
    FILES,
    RunDamaged,
    contents,
    damaged,
    sealed,
    sealed_folder,
    unsealed,
)
from engine.training.fit_records import FitKey, Fitted

EXPERIMENT = "experiment.toml"
PLAN = "plan.json"
RATES = "risk_free.csv"
RECORD = "record.json"
REFIT = "refit.json"
PATHS = "paths.csv"
RUN = "run.json"
CODE = "code.json"
LOCK = ".lock"


class RunMismatch(ValueError):
    """The directory holds another run than this one."""


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


class RunDirectory:
    """Keeps finished fits.

    Args:
        path: the directory; created if it does not exist.
        identity: of the run, by part; plain JSON.
        restart: remove the fits that this or another run left here.

    Raises:
        RunMismatch: the directory belongs to another run; the message names what differs.
        RunNotWritten: it cannot be created.
    """

    def __init__(self, path: str | Path, identity: dict, restart: bool = False):
        self.path = Path(path)
        plan = self.path / PLAN
        identity = json.loads(json.dumps(identity))
        if plan.exists():
            before = _plan(plan, restart)
            changed = [
                key for key in {**before, **identity} if before.get(key) != identity.get(key)
            ]
            if changed and not restart and holds_work(self.path):
                raise RunMismatch(
                    f"{self.path} holds another run: {', '.join(sorted(changed))} changed since; "
                    "choose another directory, or restart (all its finished fits are then lost)"
                )
            if restart or changed:
                for folder in ("fits", "checkpoints"):
                    shutil.rmtree(self.path / folder, ignore_errors=True)
                for name in (RUN, PATHS):
                    (self.path / name).unlink(missing_ok=True)
        elif holds_work(self.path):
            raise RunMismatch(f"{self.path} holds files that are no run; choose another directory")
        for place in (self.path, self.path / "fits", self.path / "checkpoints"):
            remove_unfinished(place)
        with written(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(plan, sealed(identity, self.path))

    def finished(self, keys: list[FitKey]) -> dict[FitKey, Fitted]:
        """Those of the fits that are stored here, in the order of ``keys``.

        One that is not what was stored is removed, so that it is trained again.
        """
        from safetensors.torch import load

        found = {}
        for key in keys:
            place = self._place(key)
            if not place.is_dir():
                continue
            try:
                record = unsealed(place / RECORD)
                if record.get("key") != list(key):  # of another fit
                    raise damaged(place)
                names = ("state", "history.parquet")
                state, history = (contents(place, record, name) for name in names)
                table = pd.read_parquet(BytesIO(history))
                found[key] = Fitted(load(state), table, record["solves"], record["checks"])
            except RunDamaged as error:
                warnings.warn(f"{error}; this fit is trained again", RuntimeWarning, stacklevel=4)
                shutil.rmtree(place)
        return found

    def store(self, key: FitKey, fitted: Fitted) -> None:
        """Store a finished fit: all of it or, if the process dies, nothing."""
        from safetensors.torch import save_file

        place = self._place(key)
        record = {"key": key, "solves": fitted.solves, "checks": fitted.checks}
        state = {name: tensor.contiguous() for name, tensor in fitted.state.items()}
        with written(self.path), sealed_folder(place, RECORD, record) as scratch:
            save_file(state, scratch / "state")
            fitted.history.to_parquet(scratch / "history.parquet")
        self.checkpoint(key).unlink(missing_ok=True)

    def checkpoint(self, key: FitKey) -> Path:
        """The file for the progress of a fit; its folder is created."""
        folder = self.path / "checkpoints"
        with written(self.path):
            folder.mkdir(exist_ok=True)
        return folder / f"{self._place(key).name}.pt"

    def tidy(self) -> None:
        """Remove the folder of checkpoints, if it is empty."""
        folder = self.path / "checkpoints"
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _place(self, key: FitKey) -> Path:
        return self.path / "fits" / f"{folder_name(key.name)}-{key.fold}-{key.seed}"


def folder_name(name: str) -> str:
    """The name of a strategy as that of a folder."""
    return "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in name)[:80]


def _plan(path: Path, restart: bool) -> dict:
    """The identity of the run that a folder holds; none where it is lost and not needed."""
    try:
        found = unsealed(path)
    except RunDamaged as error:
        if restart:
            return {}
        raise RunDamaged(f"{error}; restart the run, or choose another directory") from None
    return {name: value for name, value in found.items() if name != FILES}


def holds_work(path: Path) -> bool:
    """Whether the directory holds anything that another run must not overwrite."""
    if (path / PLAN).exists():
        results = any((path / name).exists() for name in (RUN, PATHS))
        return results or any((path / "fits").glob("[!.]*"))
    names = {item.name for item in path.iterdir()} if path.exists() else set()
    return any(
        name not in (EXPERIMENT, CODE, LOCK) and not name.endswith(".part") for name in names
    )
