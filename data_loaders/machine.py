"""What the machine offers: memory that is free, and a place that can be written for kernels."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from data_loaders.validation import DataError

GIGABYTE = 1e9
CGROUP = Path("/sys/fs/cgroup")  # of a container, version 2
VARIABLE = "NUMBA_CACHE_DIR"


def check_room(
    name: str,
    rows: int,
    columns: int,
    tables: int = 1,
    remedy: str = "read fewer columns, or fewer dates",
) -> None:
    """Refuse numbers that would not fit, before they are made.

    Args:
        tables: of so many rows and columns, which are held at once.
        remedy: ends the sentence of the error.
    """
    needed = 8 * rows * columns * tables
    free = free_memory() if needed > GIGABYTE / 10 else None
    if free is not None and needed > free:
        raise DataError(
            f"{name}: {f'{tables} tables of ' * (tables > 1)}{rows:,} rows of {columns:,} columns "
            f"take {needed / GIGABYTE:.3g} GB of memory, and {free / GIGABYTE:.3g} GB are free; "
            f"{remedy}"
        )


def free_memory() -> int | None:
    """Bytes that this process can still take without swapping; None if the system does not say."""
    known = []
    with suppress(OSError):  # not Linux
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        known += [1024 * int(each) for each in free[:1]]
    with suppress(OSError):  # no container
        most = (CGROUP / "memory.max").read_text().strip()
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        anon = [line.split()[1] for line in lines if line.startswith("anon ")]  # no page cache
        known += [max(0, int(most) - int(each)) for each in anon[:1] if most.isdecimal()]
    with suppress(ImportError, OSError, ValueError):  # Windows, macOS
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)  # ulimit -v
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        if limit != resource.RLIM_INFINITY:
            known.append(max(0, limit - pages * resource.getpagesize()))
    return min(known, default=None)


def writable_cache() -> str:
    """Set NUMBA_CACHE_DIR where Numba's own places cannot be written; call it before importing it.

    Numba keeps compiled kernels there, beside the source file, or in the user's cache folder, and
    raises an error where it can write to none of them, even if all is compiled there already: as
    in a container with a read-only root file system. Then they go to a temporary folder, which
    begins with what a NUMBA_CACHE_DIR that cannot be written holds.

    Returns its folder, empty where Numba chooses.
    """
    given = os.environ.get(VARIABLE, "")
    if given and _can_write(Path(given)):
        return given
    if not given:
        own = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "numba"
        found = find_spec("numba")
        package = Path(str(found.origin)).parent if found is not None else own
        if _can_write(own) or _can_write(package):
            return ""
    place = _private_folder()
    if given and Path(given).is_dir():
        shutil.copytree(given, place, dirs_exist_ok=True)
    os.environ[VARIABLE] = str(place)
    if (numba := sys.modules.get("numba")) is not None:
        numba.config.CACHE_DIR = str(place)
    return str(place)


def _private_folder() -> Path:
    """A temporary folder of this user, the same each time: code is loaded from it, so that one that
    others can write to is not taken."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = Path(tempfile.gettempdir()) / f"deqfolio-kernels-{user}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        about = place.lstat()
        safe = stat.S_ISDIR(about.st_mode) and about.st_uid == user and not about.st_mode & 0o077
        if safe or not hasattr(os, "getuid"):
            return place
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="deqfolio-kernels-"))


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return False
