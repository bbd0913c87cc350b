"""Constraints that no assets and no date could meet are refused when they are made.

The functions take a ``Constraints``, a ``Group`` or an ``Exposure`` of ``constraints.py``, which
calls them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date as Date
from numbers import Real
from typing import Any

import pandas as pd

from strategies.layers.optimisation.arguments import budget_ends

NOT_NEGATIVE = ("gross_limit", "turnover_limit", "turnover_cost", "tracking")


def check_row(row: Any) -> None:
    """ValueError where a group or an exposure could not be met by any weights."""
    kind = type(row).__name__.lower()
    if not (isinstance(row.name, str) and row.name):
        raise ValueError(f"a {kind} needs a name, got {row.name!r}")
    where = f"{kind} {row.name!r}"
    for side in ("lower", "upper"):
        _number(f"{where}: {side}", getattr(row, side), infinite=True)
    if row.lower > row.upper:
        raise ValueError(f"{where}: lower {row.lower:g} is above upper {row.upper:g}")


def check_assets(group: Any) -> None:
    """ValueError where a group's assets are not a list of names."""
    if isinstance(group.assets, str) or not all(isinstance(each, str) for each in group.assets):
        raise ValueError(f"group {group.name!r}: assets is a list of names, got {group.assets!r}")
    if not group.assets:
        raise ValueError(f"group {group.name!r} has no assets")


def check_by_asset(name: str, values: object) -> None:
    """ValueError where ``values`` are not numbers by asset, like ``{"AAPL": 0.05}``."""
    if not isinstance(values, Mapping):
        raise ValueError(f'{name} is a table by asset, like {{"AAPL": 0.05}}, got {values!r}')
    for asset, value in values.items():
        _number(f"{name} of {asset}", value, infinite=name in ("floors", "caps"))


def check_constraints(constraints: Any) -> None:
    """ValueError where a limit is not a number, or two limits contradict each other."""
    for name in ("lower", "upper"):
        _number(name, getattr(constraints, name), infinite=True)
    budget = constraints.budget
    for each in budget.values() if isinstance(budget, Mapping) else [budget]:
        least, most = budget_ends(each)
        for end in (least, most):
            _number("budget", end)
        if least > most:
            raise ValueError(f"budget: the least, {least:g}, is above the most, {most:g}")
        nearest = max(least, -most, 0.0)  # to zero that the sum can be
        if constraints.gross_limit is not None and constraints.gross_limit < nearest:
            raise ValueError(
                f"the budget of {nearest if least > 0 else -nearest:g} cannot be held within a "
                f"gross_limit of {constraints.gross_limit:g}"
            )
    for name in NOT_NEGATIVE:
        value = getattr(constraints, name)
        if value is not None:
            _number(name, value)
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value:g}")
    for name in ("floors", "caps", "benchmark"):
        check_by_asset(name, getattr(constraints, name))
    if constraints.lower > constraints.upper:
        raise ValueError(f"lower {constraints.lower:g} is above upper {constraints.upper:g}")
    for asset in {**constraints.floors, **constraints.caps}:
        floor, cap = (
            constraints.floors.get(asset, constraints.lower),
            constraints.caps.get(asset, constraints.upper),
        )
        if floor > cap:
            raise ValueError(f"{asset} has a floor of {floor:g} above its cap of {cap:g}")
    if bool(constraints.benchmark) != (constraints.tracking > 0):
        raise ValueError("a benchmark goes with a positive tracking, and the reverse")
    names = [row.name for row in constraints.rows]
    if len(set(names)) < len(names):
        raise ValueError(f"groups and exposures need different names, got {names}")


def budget_by_date(budget: Mapping[Any, Any]) -> dict[pd.Timestamp, Any]:
    """A budget by date, in order; pairs wherever one of them is a pair, so that dates stack."""
    try:
        dates = [pd.Timestamp(date) for date in budget if isinstance(date, str | Date)]
    except ValueError:
        dates = []
    sound = len(set(dates)) == len(budget) and not any(pd.isna(date) or date.tz for date in dates)
    if not (dates and sound):
        raise ValueError(
            "a budget by date has dates without a time zone, each of them once, like "
            f"{{'2005-01-01': 1.0, '2008-09-15': 0.5}}, got {list(budget)[:5]!r}"
        )
    ends = dict(sorted(zip(dates, map(budget_ends, budget.values()), strict=True)))
    pairs = any(least != most for least, most in ends.values())
    return {date: each if pairs else each[0] for date, each in ends.items()}


def check_keys(where: str, given: object, known: Sequence[str], needed: Sequence[str]) -> None:
    """ValueError where a group or exposure of a file has an unknown key, or lacks a needed one."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is a table with {', '.join(known)}, got {given!r}")
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")
    for key in needed:
        if key not in given:
            raise ValueError(f"{where} needs {key}")


def _number(what: str, value: object, infinite: bool = False) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{what} should be a number, got {value!r}")
    if math.isnan(value) or (math.isinf(value) and not infinite):
        raise ValueError(f"{what} should be a number, got {float(value)}")
