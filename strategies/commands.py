"""What the command line says and writes about strategies: the list, and one to start from."""

from __future__ import annotations

from pathlib import Path

from strategies.registry import known_strategies


def listing() -> str:
    """Every strategy by name, with the first line of its docstring and its parameters."""
    lines = []
    for name, cls in known_strategies().items():
        said = (cls.__doc__ or "without a docstring").strip().splitlines()[0]
        parameters = cls().get_params(deep=False)
        shown = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        lines += [f"{name}: {said}", f"    {shown or 'no parameters'}", ""]
    return "\n".join(lines)


def write_new(name: str) -> list[Path]:
    """Write NAME.py, a strategy to start from, and test_NAME.py, its test.

    Raises:
        FileExistsError: one of them is there.
    """
    files = {Path(f"{name}.py"): STRATEGY, Path(f"test_{name}.py"): STRATEGY_TEST}
    for path in files:
        if path.exists():
            raise FileExistsError(f"{path} exists already; choose another name")
    for path, text in files.items():
        path.write_text(text.replace("NAME", name))
    return list(files)


STRATEGY = '''"""Alpha: replace this idea, holding what rose most in the last quarter, by yours."""

import pandas as pd

from data_loaders import Panel
from strategies import Strategy


class Alpha(Strategy):
    """Hold what rose most in the last quarter, equally."""

    def __init__(self, lookback: int = 64, count: int = 5):
        self.lookback = lookback  # rows of history that allocate() is handed
        self.count = count

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        """Target weights by asset at the last date of history; the rest to 1 is cash."""
        growth = (history.prices.iloc[-1] / history.prices.iloc[0]).where(history.trades_throughout)
        return (growth.rank(ascending=False) <= self.count) / self.count
'''

STRATEGY_TEST = """from data_loaders import load
from engine import check_strategy
from NAME import Alpha


def test_alpha_is_honest():
    check_strategy(Alpha(), load("sp500", start="2016-01-01"))
"""
