"""Strategies on the command line: the list, a description, and a file to start one's own from."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

from strategies.base import Strategy
from strategies.registry import REQUIRED, known_strategies, load_strategy, parameters_of


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
