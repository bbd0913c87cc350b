"""Strategies by name, described, and begun: ours, installed plug-ins, anyone's ``module:Class``."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_loaders.plugins import installed, load_object
from data_loaders.suggestions import did_you_mean, known_names
from strategies.ablations import ExplicitMeanVariance, SoftmaxAllocation, UnrolledMeanVariance
from strategies.base import Strategy
from strategies.baselines import (
    EqualWeight,
    InverseVolatility,
    MaximumDiversification,
    MeanVariance,
    MinimumVariance,
    Momentum,
    RiskParity,
)
from strategies.deq import DEQMeanVariance
from strategies.estimators import (
    EstimatorStrategy,
    HierarchicalRiskParity,
    PredictThenOptimize,
)
from strategies.linear_mean_variance import LinearMeanVariance
from strategies.wrappers.learned import Pretrained, Untrained
from strategies.wrappers.order_filters import LargestPositions, NoTradeBand, StopLoss
from strategies.wrappers.sub_portfolios import Blend, Staggered, VolatilityManaged
from strategies.wrappers.wrapper import Wrapper

REQUIRED = inspect.Parameter.empty  # in place of a default
GROUP = "deqfolio.strategies"  # entry points of installed plug-ins

OURS: dict[str, type[Strategy]] = {
    cls.__name__: cls
    for cls in (
        Blend,
        DEQMeanVariance,
        EqualWeight,
        EstimatorStrategy,
        ExplicitMeanVariance,
        HierarchicalRiskParity,
        InverseVolatility,
        LargestPositions,
        LinearMeanVariance,
        MaximumDiversification,
        MeanVariance,
        MinimumVariance,
        Momentum,
        NoTradeBand,
        PredictThenOptimize,
        Pretrained,
        RiskParity,
        SoftmaxAllocation,
        Staggered,
        StopLoss,
        UnrolledMeanVariance,
        Untrained,
        VolatilityManaged,
    )
}


def known_strategies() -> dict[str, type[Strategy]]:
    """Every strategy that has a name of its own: ours, then those of installed packages."""
    plugged = {name: point.load() for name, point in installed(GROUP).items()}
    return {**plugged, **OURS}


def strategy_names() -> list[str]:
    """Their names, without importing those of installed packages."""
    return [*OURS, *(name for name in installed(GROUP) if name not in OURS)]


def load_strategy(name: str) -> type[Strategy]:
    """The class of that name, or of ``module:Class``, or of ``path/to/file.py:Class``.

    Raises:
        ValueError: an unknown name (with the nearest one), a module that cannot be imported,
            or a class that is not a Strategy.
    """
    if not isinstance(name, str):  # in a file of settings
        raise ValueError(f"a strategy is named by text, got {name!r}")
    module_name, colon, class_name = name.rpartition(":")
    if class_name in OURS and module_name.split(".")[0] in ("", "strategies"):
        return OURS[class_name]  # also by the module that an earlier version had it in
    found: object
    if not colon:
        known = known_strategies()
        if name not in known:
            raise ValueError(
                f"unknown strategy {name!r}{known_names(name, known)}; your own is named "
                "module:Class or file.py:Class"
            )
        found = known[name]
    else:
        try:
            found = load_object(name)
        except ValueError as error:
            raise ValueError(f"strategy {name!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ValueError(f"strategy {name!r}: {module_name} has no Strategy named {class_name!r}")
    return found


def create_strategy(name: str, parameters: dict[str, Any] | None = None) -> Strategy:
    """An instance of the strategy of that name.

    Args:
        parameters: those of the strategies in a wrapper are a name, or a mapping with ``class``
            and parameters; ``strategy__cap`` is one of theirs, as in ``set_params``.

    Raises:
        ValueError: as ``load_strategy``, or a parameter that it does not have, or of another
            type than its default, or out of its range.
    """
    cls, given = load_strategy(name), parameters or {}
    defaults = parameters_of(cls)
    inner: dict[str, Any] = {}
    if issubclass(cls, Wrapper):
        inner = {key: value for key, value in given.items() if "__" in key}
    parameters = {key: _read(cls, key, v) for key, v in given.items() if key not in inner}
    for key, value in parameters.items():
        _check_type(cls, key, value, defaults)
    needed = [key for key, default in defaults.items() if default is REQUIRED]
    lacking = [key for key in needed if key not in parameters]
    if lacking:
        raise ValueError(
            f"{cls.__name__} needs {', '.join(lacking)}: --set {cls.__name__}.{lacking[0]}=VALUE"
        )
    made = cls(**parameters)
    if inner:
        made.set_params(**inner)
    made.check_parameters()
    return made


def _check_type(cls: type[Strategy], key: str, value: Any, defaults: dict[str, Any]) -> None:
    """Refuse a parameter that there is not, or of another type than its default."""
    if key not in defaults:
        raise ValueError(
            f"{cls.__name__} has no parameter {key!r}"
            f"{did_you_mean(key, defaults) or ';'} it has {', '.join(defaults) or 'none'}"
        )
    default = defaults[key]
    if default is None or default is REQUIRED:
        return
    kind: Any = type(default)
    if isinstance(default, float):
        kind = int | float
    elif isinstance(default, tuple | list):
        kind = tuple | list
    elif not isinstance(default, int | str):  # an object
        kind = object
    if not isinstance(value, kind) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise ValueError(
            f"{cls.__name__}: {key}={value!r} should be of the type of its default, {default!r}"
        )


def _read(cls: type[Strategy], key: str, value: Any) -> Any:
    """A parameter as it is given; of a wrapper's strategies, what the names stand for."""
    if not issubclass(cls, Wrapper) or key not in ("strategy", "strategies"):
        return value
    if key == "strategies" and isinstance(value, Mapping):
        return {name: _read(cls, "strategy", each) for name, each in value.items()}
    if isinstance(value, str):
        return create_strategy(value)
    if isinstance(value, Mapping) and "class" in value:
        return create_strategy(value["class"], {k: v for k, v in value.items() if k != "class"})
    return value


def parameters_of(cls: type[Strategy]) -> dict[str, Any]:
    """Each parameter's default, or REQUIRED."""
    return {name: found.default for name, found in inspect.signature(cls).parameters.items()}


def listing() -> str:
    """Every strategy by name, with its docstring's first line, its parameters and their ranges."""
    lines = []
    for name, cls in known_strategies().items():
        text = inspect.cleandoc(cls.__doc__ or "without a docstring").splitlines()[0]
        lines += [f"{name}: {text}", *_parameters(cls), ""]
    return "\n".join(lines)


def description(name: str) -> str:
    """One strategy: its whole docstring, its parameters and their ranges."""
    cls = load_strategy(name)
    text = inspect.cleandoc(cls.__doc__ or "without a docstring")
    return "\n".join([f"{cls.__name__}: {text}", "", *_parameters(cls)])


def _parameters(cls: type[Strategy]) -> list[str]:
    ranges = cls.all_ranges()
    shown = [
        key
        + ("" if default is REQUIRED else f"={default!r}")
        + (f" ({ranges[key]})" if key in ranges else "")
        for key, default in parameters_of(cls).items()
    ]
    lines = textwrap.wrap("; ".join(shown) or "no parameters", 92, break_on_hyphens=False)
    return ["    " + line for line in lines]


def write_new(name: str) -> list[Path]:
    """Write NAME.py, a strategy to start from, and test_NAME.py, its test.

    Raises:
        FileExistsError: one of them exists.
    """
    files = {Path(f"{name}.py"): STRATEGY, Path(f"test_{name}.py"): STRATEGY_TEST}
    for path in files:
        if path.exists():
            raise FileExistsError(f"{path} exists already; choose another name")
    for path, text in files.items():
        path.write_text(text.replace("NAME", name))
    return list(files)


STRATEGY = '''"""Alpha: replace this idea, to hold what rose most in the last quarter, by yours."""

import pandas as pd

from deqfolio import Panel, Strategy


class Alpha(Strategy):
    """Hold what rose most in the last quarter, equally."""

    def __init__(self, lookback: int = 64, count: int = 5):
        self.lookback = lookback  # rows of history that allocate() is given
        self.count = count

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        """Target weights by asset at the last date of history; the remainder is cash."""
        growth = (history.prices.iloc[-1] / history.prices.iloc[0]).where(history.trades_throughout)
        return (growth.rank(ascending=False) <= self.count) / self.count
'''

STRATEGY_TEST = """from deqfolio import check_strategy, load
from NAME import Alpha


def test_alpha_does_not_look_ahead():
    check_strategy(Alpha(), load("sp500", start="2016-01-01"))
"""
