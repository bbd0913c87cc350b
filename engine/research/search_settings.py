"""What a search tries: the ranges of the parameters, and how trials are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST = 100_000  # trials: more would take years, and the list of them much memory


@dataclass(frozen=True)
class Search:
    """What to try, and how to judge it.

    Args:
        ranges: {parameter: range}; a range is {"low": 8, "high": 64}, with "log": True or
            "step": 8 if wanted, or a list of choices. "training.learning_rate" is a field of
            ``Training``, any other name a parameter of the strategy.
        trials: configurations to try in all; if more are asked for later, the search resumes.
        folds: validation folds. The first half of the history is trained on before the first;
            each later one also trains on the folds before it.
        pruning: give a trial up after a fold if it is below the median of the others there.
        seed: of the proposals. One process alone makes the same ones again, also if it was killed;
            several make other ones than each other, as each trial has a seed of its own.
        stale: seconds without a sign of life after which a worker's trial is given to another.

    Raises:
        ValueError: a range without room, or numbers that make no sense.
    """

    ranges: Mapping[str, Any]
    trials: int = 50
    folds: int = 3
    pruning: bool = True
    seed: int = 0
    stale: int = 60

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("there is nothing to search: give ranges, like hidden = [8, 16, 32]")
        for name, low in (("trials", 1), ("folds", 1), ("seed", 0), ("stale", 2)):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= low):
                raise ValueError(f"{name} is a whole number from {low} on, got {value!r}")
        if self.trials > MOST:
            raise ValueError(f"trials is {MOST:,} at most, got {self.trials:,}")
        for name, described in self.ranges.items():
            _check_range(name, described)


def _check_range(name: str, described: Any) -> None:
    if isinstance(described, list | tuple):
        if len(described) < 2 or any(isinstance(each, list | tuple | dict) for each in described):
            raise ValueError(f"{name}: choices are two plain values or more, got {described!r}")
        return
    if not isinstance(described, Mapping) or not {"low", "high"} <= set(described):
        raise ValueError(
            f"{name}: a range is a list of choices or {{low = 8, high = 64}}, got {described!r}"
        )
    unknown = set(described) - {"low", "high", "log", "step"}
    if unknown:
        raise ValueError(f"{name}: a range has low, high, log and step, not {sorted(unknown)}")
    low, high, step = described["low"], described["high"], described.get("step")
    for number in (low, high) if step is None else (low, high, step):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{name}: low, high and step are numbers, got {described!r}")
    if not low < high:
        raise ValueError(f"{name}: low must be below high, got {low!r} and {high!r}")
    if described.get("log") and (low <= 0 or step is not None):
        raise ValueError(f"{name}: log needs a low above 0 and no step, got {described!r}")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"{name}: step must be above 0 and fit in the range, got {step!r}")
