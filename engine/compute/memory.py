"""Whether the inputs of a backtest fit in memory, checked before hours are spent."""

from __future__ import annotations

from data_loaders.machine import GIGABYTE
from strategies.base import Inputs


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
