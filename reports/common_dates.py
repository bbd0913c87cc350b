"""Results on the dates that all have: where calendars differ, returns are compounded onto them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import numpy as np
import pandas as pd

from engine.runs.result import BacktestResult

COMPOUNDED = ("net_returns", "gross_returns", "risk_free")


def on_common_dates(results: Mapping[str, BacktestResult]) -> dict[str, BacktestResult]:
    """The results with returns over the same periods, so that they can be compared in pairs.

    Where calendars differ, returns are compounded from one common date to the next; the first of
    these is kept only if all begin on it. ``periods_per_year`` is then that of the first result
    times the share of its rows that are left.
    """
    dates = {name: pd.DatetimeIndex(r.net_returns.index) for name, r in results.items()}
    if not dates:
        return {}
    common = reduce(lambda one, other: one.intersection(other), dates.values())
    span = common if len(common) else [pd.NaT, pd.NaT]
    rows = {n: line[(line >= span[0]) & (line <= span[-1])] for n, line in dates.items()}
    if all(len(each) == len(common) for each in rows.values()):
        return {name: _taken(result, common) for name, result in results.items()}
    if not all(line[0] == common[0] for line in dates.values()):
        common, start = common[1:], common[0]
        rows = {name: each[each > start] for name, each in rows.items()}
    first = next(iter(results))
    year = results[first].settings["periods_per_year"]
    year *= len(common) / max(1, len(rows[first]))
    return {name: _compounded(r, rows[name], common, year) for name, r in results.items()}


def _taken(result: BacktestResult, common: pd.DatetimeIndex) -> BacktestResult:
    if len(result.net_returns) == len(common):
        return result
    return replace(result, **{name: line.loc[common] for name, line in _lines(result).items()})


def _compounded(
    result: BacktestResult, rows: pd.DatetimeIndex, common: pd.DatetimeIndex, year: float
) -> BacktestResult:
    """The returns of ``rows`` compounded up to each common date."""
    ends = common.searchsorted(rows)  # the period that each row falls in
    changed = {}
    for name, line in _lines(result).items():
        growth = np.ones(len(common))
        np.multiply.at(growth, ends, 1 + line.loc[rows].to_numpy(dtype=float))
        changed[name] = pd.Series(growth - 1, common, name=line.name)
    return replace(result, settings={**result.settings, "periods_per_year": year}, **changed)


def _lines(result: BacktestResult) -> dict[str, pd.Series]:
    return {name: line for name in COMPOUNDED if len(line := getattr(result, name))}
