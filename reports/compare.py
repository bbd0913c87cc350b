"""Several runs as one: all their strategies over the dates that all have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

    A strategy whose name occurs in several runs is shown as "run: name"; one that did the same in
    an earlier run is left out. ``settings`` of each say what the runs differ in.

    Raises:
        NoCommonDates: no period lies in all results.
    """
    ends = [folder.resolve().name for folder in folders]
    runs = {
        end if ends.count(end) == 1 else str(folder): load_run(folder)
        for end, folder in zip(ends, folders, strict=True)
    }
    kept: list[tuple[str, BacktestResult]] = []
    for title, run in runs.items():
        for one in run.values():
            did = one.strategy, one.net_returns
            if not any(did[0] == r.strategy and did[1].equals(r.net_returns) for _, r in kept):
                kept.append((title, one))
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
    dates = [next(iter(run.values())).net_returns.index for run in runs.values()]
    *span, same_dates = _shared(dates)
    return {
        "runs": {title: described(run, pd.DatetimeIndex(span)) for title, run in runs.items()},
        "same_market": same_market(runs, pd.DatetimeIndex(span)),
        "same_dates": same_dates,
    }


def common_span(results: Mapping[str, BacktestResult]) -> dict[str, BacktestResult]:
    """The results from the latest start to the earliest end; costs before that are left out.

    Of other calendars the first period may begin before the common start, and is left out.
    """
    dates = {name: r.net_returns.index for name, r in results.items() if r.complete}
    if not dates:
        return dict(results)
    start, end, same = _shared(dates.values())
    if start > end:
        spans = ", ".join(f"{name} from {d[0]} to {d[-1]}" for name, d in dates.items())
        raise NoCommonDates(f"the results have no dates in common: {spans}")
    later = start if same else start + pd.Timedelta("1ns")
    begins = {name: start if each[0] == start else later for name, each in dates.items()}
    return {n: _cut(r, begins[n], end) if n in begins else r for n, r in results.items()}


def _shared(dates: Collection[pd.Index]) -> tuple[pd.Timestamp, pd.Timestamp, bool]:
    """The latest start, the earliest end, and whether all have the same dates in between."""
    start, end = max(each[0] for each in dates), min(each[-1] for each in dates)
    within = [each[(each >= start) & (each <= end)] for each in dates]
    return start, end, all(each.equals(within[0]) for each in within)


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
