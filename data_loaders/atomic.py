"""Atomic writes: a file or folder appears whole or, if anything goes wrong, not at all."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path, durable: bool = False) -> Iterator[Path]:
    """A path beside ``path`` to write to, renamed to ``path`` when the block ends without an error.

    The block creates a file or a folder there. Until it has ended, whatever was at ``path`` stays
    as it was; a process that is killed leaves it so too, and a hidden file named ".NAME-*.part"
    (see ``remove_unfinished`` and ``remove_abandoned``). Several processes may write the same path:
    the last one wins.

    Args:
        durable: flush to the disk before the renaming and after it, to survive a power failure.
    """
    scratch = _scratch(path)
    try:
        yield scratch
        if durable:
            _flush(scratch)
        if path.is_dir():  # not removed first: a process that is killed leaves all of one
            old = _scratch(path)
            path.replace(old)
            scratch.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            scratch.replace(path)
        if durable:
            _flush(path.parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True) if scratch.is_dir() else scratch.unlink(True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in a folder that nobody else is writing to."""
    for scratch in folder.glob(".*.part"):
        shutil.rmtree(scratch, ignore_errors=True) if scratch.is_dir() else scratch.unlink(True)


def remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine that were killed while writing ``path`` left beside it.

    For a folder that others may be writing to.
    """
    for scratch in path.parent.glob(f".{glob.escape(path.name)}-{_machine()}-*.part"):
        if not _runs(int(scratch.name.split("-")[-2])):
            shutil.rmtree(scratch, ignore_errors=True) if scratch.is_dir() else scratch.unlink(True)


def _scratch(path: Path) -> Path:
    """A path beside ``path`` that nobody else has, and that says who is writing."""
    unique = uuid.uuid4().hex[:8]
    return path.with_name(f".{path.name}-{_machine()}-{os.getpid()}-{unique}.part")


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _runs(process: int) -> bool:
    """Whether a process of this machine runs; where that cannot be asked, it is taken to."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
