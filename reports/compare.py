"""Several runs as one: all their strategies over the dates that all have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from engine.runs.result import BacktestResult
from engine.runs.saved_run import load_run
from reports.run_differences import described, same_market


class NoCommonDates(ValueError):
    """The results to compare have no period in common; the message names their spans."""


def read_runs(folders: list[Path]) -> dict[str, BacktestResult]:
    """The results of all runs, cut to their common dates, by names that are unique.

    A strategy whose name occurs in several runs is shown as "run: name", with the folder's
    name for the run; one that did the same in an earlier run is left out. ``settings`` of each say
    what the runs differ in, for the report.

    Raises:
        FileNotFoundError: a folder holds no run.
        NoCommonDates: no period lies in all results.
    """
    runs = {_title(folder, folders): load_run(folder) for folder in folders}
    kept: list[tuple[str, BacktestResult]] = []
    for title, run in runs.items():
        for result in run.values():
            if not any(_same(result, known) for _, known in kept):
                kept.append((title, result))
    names = [result.name for _, result in kept]
    merged = {}
    for title, result in kept:
        shown = f"{title}: {result.name}" if names.count(result.name) > 1 else result.name
        merged[shown] = replace(result, name=shown, settings={**result.settings, "run": title})
    cut = common_span(merged)
    if sum(any(result.complete for result in run.values()) for run in runs.values()) < 2:
        return cut
    found = _differences(runs)
    return {n: replace(r, settings={**r.settings, "runs": found}) for n, r in cut.items()}


def _differences(runs: Mapping[str, Mapping[str, BacktestResult]]) -> dict[str, Any]:
    """What ``run_differences.differences`` needs, as JSON can hold it."""
    runs = {title: {n: r for n, r in run.items() if r.complete} for title, run in runs.items()}
    runs = {title: run for title, run in runs.items() if run}
    lines = [next(iter(run.values())).net_returns.index for run in runs.values()]
    span = pd.DatetimeIndex([max(line[0] for line in lines), min(line[-1] for line in lines)])
    within = [line[(line >= span[0]) & (line <= span[1])] for line in lines]
    return {
        "runs": {title: described(run, span) for title, run in runs.items()},
        "same_market": same_market(runs, span),
        "same_dates": all(line.equals(within[0]) for line in within),
    }


def common_span(results: Mapping[str, BacktestResult]) -> dict[str, BacktestResult]:
    """The results from the latest start to the earliest end; costs before that are left out.

    Only dates that all have are compared by their differences; the cut makes the levels
    comparable as well. Of other calendars the first period may begin before the common start, and
    is left out.
    """
    complete = {name: result for name, result in results.items() if result.complete}
    if not complete:
        return dict(results)
    start = max(result.net_returns.index[0] for result in complete.values())
    end = min(result.net_returns.index[-1] for result in complete.values())
    if start > end:
        spans = ", ".join(
            f"{name} from {result.net_returns.index[0]} to {result.net_returns.index[-1]}"
            for name, result in complete.items()
        )
        raise NoCommonDates(f"the results have no dates in common: {spans}")
    dates = [result.net_returns.index for result in complete.values()]
    within = [line[(line >= start) & (line <= end)] for line in dates]
    later = start if all(line.equals(within[0]) for line in within) else start + pd.Timedelta("1ns")
    begins = {n: start if r.net_returns.index[0] == start else later for n, r in complete.items()}
    cut = {name: _cut(result, begins[name], end) for name, result in complete.items()}
    return {name: cut.get(name, result) for name, result in results.items()}


def _cut(result: BacktestResult, start: pd.Timestamp, end: pd.Timestamp) -> BacktestResult:
    dates = result.net_returns.index
    if dates[0] == start and dates[-1] == end:
        return result
    cut = {}
    for name, table in vars(result).items():
        if isinstance(getattr(table, "index", None), pd.DatetimeIndex):
            cut[name] = table.loc[start:end]
        elif isinstance(table, pd.DataFrame) and "date" in table:
            cut[name] = table[table["date"].between(start, end)]
    if len(result.folds):
        tested = pd.to_datetime(result.folds["test_end"])
        cut["folds"] = result.folds[(tested >= start).to_numpy()]
    return replace(result, **cut)


def _same(one: BacktestResult, other: BacktestResult) -> bool:
    """Whether both are the same strategy and earned the same."""
    return one.strategy == other.strategy and one.net_returns.equals(other.net_returns)


def _title(folder: Path, folders: list[Path]) -> str:
    """The folder's name, or its path where the name is not unique."""
    name = folder.resolve().name
    names = [other.resolve().name for other in folders]
    return name if names.count(name) == 1 else str(folder)
