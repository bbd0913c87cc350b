"""What a search tries: the ranges of the parameters, and how proposals are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.research.ranges import Range, read_range


@dataclass(frozen=True)
class Search:
    """What to try, and how to judge it.

    Args:
        ranges: {parameter: range}; a range is {"low": 8, "high": 64}, with "log": True or
            "step": 8 if wanted, or a list of choices. "training.learning_rate" is a field of
            ``Training``, any other name a parameter of the strategy.
        trials: configurations to try in all; asked for more later, the search goes on.
        folds: validation folds. The first half of the history is trained on before the first;
            each later one also trains on the folds before it.
        pruning: give a trial up after a fold if it is below the median of the others there.
        seed: of the proposals. One process alone makes the same ones again, also if interrupted.
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
        for name, described in self.ranges.items():
            read_range(name, described)

    @property
    def read(self) -> dict[str, Range]:
        return {name: read_range(name, described) for name, described in self.ranges.items()}
