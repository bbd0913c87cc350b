"""Ranges of parameters, as an experiment's file writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Trial


@dataclass(frozen=True)
class Choices:
    """One of several plain values."""

    values: tuple

    def propose(self, trial: Trial, name: str) -> Any:
        return trial.suggest_categorical(name, self.values)


@dataclass(frozen=True)
class Numbers:
    """From ``low`` to ``high``, both in it; whole numbers if both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def propose(self, trial: Trial, name: str) -> float:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(
                name, self.low, self.high, log=self.log, step=int(self.step or 1)
            )
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)


Range = Choices | Numbers


def read_range(name: str, described: Any) -> Range:
    """A list of choices, or {"low", "high"} with "log" or "step".

    Raises:
        ValueError: anything else, naming the parameter.
    """
    if isinstance(described, list | tuple):
        if len(described) < 2 or any(isinstance(each, list | tuple | dict) for each in described):
            raise ValueError(f"{name}: choices are two plain values or more, got {described!r}")
        return Choices(tuple(described))
    if not isinstance(described, Mapping) or not {"low", "high"} <= set(described):
        raise ValueError(
            f"{name}: a range is a list of choices or {{low = 8, high = 64}}, got {described!r}"
        )
    unknown = set(described) - {"low", "high", "log", "step"}
    if unknown:
        raise ValueError(f"{name}: a range has low, high, log and step, not {sorted(unknown)}")
    found = Numbers(**described)
    numbers = [found.low, found.high] + ([] if found.step is None else [found.step])
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
        raise ValueError(f"{name}: low, high and step are numbers, got {described!r}")
    if not found.low < found.high:
        raise ValueError(f"{name}: low must be below high, got {found.low!r} and {found.high!r}")
    if found.log and (found.low <= 0 or found.step is not None):
        raise ValueError(f"{name}: log needs a low above 0 and no step, got {described!r}")
    if found.step is not None and not 0 < found.step <= found.high - found.low:
        raise ValueError(f"{name}: step must be above 0 and fit in the range, got {found.step!r}")
    return found
