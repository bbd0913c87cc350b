"""Whether the inputs of a backtest fit in memory, checked before hours are spent."""

from __future__ import annotations

from pathlib import Path

from strategies.base import Inputs

GIGABYTE = 1e9
CGROUP = Path("/sys/fs/cgroup")  # of a container, version 2


def check_memory(
    name: str, prepared: Inputs, dates: int, copied: int, free: int | None, copies: int = 1
) -> int:
    """The number of bytes that the prepared inputs of a strategy take; refused if they do not fit.

    The inputs of each date are kept, and a training step copies those of its rows several times.

    Args:
        name: of the strategy, for the message.
        prepared: its inputs of one date.
        dates: how many dates are prepared.
        copied: how many dates' inputs a training step takes in addition.
        free: bytes, or None if that is not known: then nothing is refused.
        copies: number of processes that each hold all of it.

    Raises:
        ValueError: with how much is needed, how much is free, and the remedy.
    """
    sizes = {key: value.numel() * value.element_size() for key, value in prepared.items()}
    per_date = sum(sizes.values())
    needed = copies * per_date * (dates + copied)
    if free is None or needed <= free:
        return needed
    largest = max(sizes, key=sizes.__getitem__)
    shape = " x ".join(map(str, prepared[largest].shape))
    raise ValueError(
        f"{name} would keep {needed / GIGABYTE:.3g} GB of inputs in memory, and "
        f"{free / GIGABYTE:.3g} GB are free: {per_date / 1e6:.3g} MB a date, most of it "
        f"{largest!r} ({shape}), for {dates} dates and, for steps of training, {copied} more"
        f"{f', in each of {copies} processes: take fewer workers' * (copies > 1)}; take a smaller "
        'form of the risk where the strategy has one (risk="factor"), fewer assets, rarer '
        "decisions or a rolling window of training"
    )


def free_memory() -> int | None:
    """Bytes that this process can still take without swapping; None if the system does not say."""
    known = [free for free in (_of_machine(), _of_container()) if free is not None]
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
