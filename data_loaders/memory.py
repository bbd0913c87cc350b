"""How much memory is free, and whether a table would fit into it."""

from __future__ import annotations

from pathlib import Path

from data_loaders.validation import DataError

GIGABYTE = 1e9
CGROUP = Path("/sys/fs/cgroup")  # of a container, version 2


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
    found = (_of_machine(), _of_container(), _of_limit())
    known = [free for free in found if free is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _of_container() -> int | None:
    try:
        most = (CGROUP / "memory.max").read_text().strip()
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    taken = [line.split()[1] for line in lines if line.startswith("anon ")]  # not the page cache
    return max(0, int(most) - int(taken[0])) if most.isdecimal() and taken else None


def _of_limit() -> int | None:
    """What ``ulimit -v`` leaves."""
    try:
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError, ValueError):  # Windows, macOS
        return None
    if most == resource.RLIM_INFINITY:
        return None
    return max(0, most - pages * resource.getpagesize())
