"""load_strategy("MinimumVariance" | "my_alpha.fast:Fast"): a strategy class by name."""

from __future__ import annotations

import difflib
import importlib

from strategies.base import Strategy
from strategies.baselines import EqualWeight, InverseVolatility, MinimumVariance
from strategies.deq import DEQMeanVariance

STRATEGIES: dict[str, type[Strategy]] = {
    cls.__name__: cls for cls in (DEQMeanVariance, EqualWeight, InverseVolatility, MinimumVariance)
}


def load_strategy(name: str) -> type[Strategy]:
    """The class of that name: one of ours, or ``module:Class`` for anyone's.

    Raises:
        ValueError: an unknown name (with the nearest one), a module that cannot be imported,
            or a class that is no Strategy.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    module_name, colon, class_name = name.partition(":")
    if not colon:
        lower = {known.lower(): known for known in STRATEGIES}
        near = difflib.get_close_matches(name.lower(), lower, n=1)
        hint = f"did you mean {lower[near[0]]}? " if near else ""
        raise ValueError(
            f"unknown strategy {name!r}: {hint}known are {', '.join(STRATEGIES)}; "
            "your own is named module:Class"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"strategy {name!r}: cannot import {module_name}: {error}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ValueError(f"strategy {name!r}: {module_name} has no Strategy named {class_name!r}")
    return found
