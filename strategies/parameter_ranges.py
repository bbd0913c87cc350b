"""Which values a strategy's parameters may have, said once and checked before anything is run.

``ranges = {"count": at_least(1), "share": above(0, 1), "side": one_of("long", "short")}`` in the
body of a Strategy; its base classes' ranges hold, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from numbers import Real

from sklearn.base import BaseEstimator

from data_loaders.suggestions import did_you_mean


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, without ``low`` itself where ``open``; or some words."""

    low: float = -math.inf
    high: float = math.inf
    open: bool = False
    words: tuple[str, ...] = ()

    def holds(self, value: object) -> bool:
        if self.words:
            return value in self.words
        if not isinstance(value, Real) or isinstance(value, bool):
            return False
        number = float(value)  # NaN is in no range
        return self.low <= number <= self.high and not (self.open and number == self.low)

    def __str__(self) -> str:
        if self.words:
            return f"one of {', '.join(self.words)}"
        if self.open:
            return f"above {self.low:g}" + (f" up to {self.high:g}" if self.high < math.inf else "")
        if self.high < math.inf:
            return f"from {self.low:g} to {self.high:g}"
        return f"at least {self.low:g}"


def at_least(low: float, high: float = math.inf) -> Range:
    """Numbers from ``low`` on, up to ``high``, both included."""
    return Range(low, high)


def above(low: float, high: float = math.inf) -> Range:
    """Numbers above ``low``, up to ``high``, which is included."""
    return Range(low, high, open=True)


def one_of(*words: str) -> Range:
    """One of these words."""
    return Range(words=words)


def check_ranges(strategy: BaseEstimator, ranges: Mapping[str, Range]) -> None:
    """ValueError where a parameter is out of its range, or None though its annotation is a type
    without None.

    The constructor's own come first: properties such as ``leverage`` follow from them.
    """
    given = signature(type(strategy)).parameters
    types = {k: getattr(p.annotation, "__name__", p.annotation) for k, p in given.items()}
    for name in sorted(ranges, key=lambda name: name not in types):
        allowed, value = ranges[name], getattr(strategy, name, None)
        needed = types.get(name) in ("bool", "int", "float", "str")
        if (needed or value is not None) and not allowed.holds(value):
            raise ValueError(
                f"{type(strategy).__name__}: {name} should be {allowed}, got {value!r}"
                f"{did_you_mean(value, allowed.words)}"
            )


def shown_parameters(strategy: BaseEstimator) -> dict[str, str]:
    """A strategy's class, and its parameters by name, as text to compare."""
    given = strategy.get_params(deep=False)
    return {"class": type(strategy).__name__} | {name: repr(each) for name, each in given.items()}
