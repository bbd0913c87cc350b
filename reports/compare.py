"""Several runs as one: all their strategies over the dates that all have; and what the runs differ
in, and which of their figures that makes incomparable."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_loaders.suggestions import listed
from engine.runs.result import BacktestResult
from engine.runs.run_directory import load_run
from reports.formats import day
from reports.metrics.catalogue import GROUPS

ASPECTS = {  # the first prefix of a setting's path that fits names what it is part of
    "panel.": "data",
    "universe": "data",
    "dates": "dates",
    "periods_per_year": "calendar",
    "rows": "calendar",
    "plan.execution_lag": "lag",
    "plan.": "plan",
    "costs.": "costs",
    "whole_shares": "costs",
    "risk_free": "risk-free rate",
    "seed": "seeds",
    "training.seed": "seeds",
    "training.ensemble": "seeds",
    "training.": "training",
    "code.": "code",
    "versions.": "package versions",
}
NET = {"net", "excess", "months", "years", "joint", "other", "fit", "costs"}  # inputs of metrics
IN_EXCESS = {"excess", "untraded", "fit"}
PER_PERIOD = {"value at risk, 5%", "expected shortfall, 5%", "Sharpe above 0", "turnover/rebalance"}


class NoCommonDates(ValueError):
    """The results to compare have no period in common; the message names their spans."""


def read_runs(folders: list[Path]) -> dict[str, BacktestResult]:
    """The results of all runs, cut to their common dates, by names that are unique.

    A strategy whose name occurs in several runs is shown as "run: name"; one that did the same in
    an earlier run is left out. ``settings`` of each say what the runs differ in.

    Raises:
        NoCommonDates: no period lies in all results.
    """
    titles = [folder.resolve().name for folder in folders]
    runs = {
        title if titles.count(title) == 1 else str(folder): load_run(folder)
        for title, folder in zip(titles, folders, strict=True)
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
    finished = {title: {n: r for n, r in run.items() if r.complete} for title, run in runs.items()}
    finished = {title: run for title, run in finished.items() if run}
    *ends, same_dates = _shared(
        [next(iter(r.values())).net_returns.index for r in finished.values()]
    )
    span = pd.DatetimeIndex(ends)
    found = {  # what ``differences`` needs, as JSON can hold it
        "runs": {title: settings_of(run, span) for title, run in finished.items()},
        "same_market": same_market(finished, span),
        "same_dates": same_dates,
    }
    return {n: replace(r, settings={**r.settings, "runs": found}) for n, r in cut.items()}


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


@dataclass(frozen=True)
class RunDifferences:
    """The settings in which runs differ, and the figures that this makes incomparable."""

    table: pd.DataFrame  # rows: the settings that differ, by (aspect, setting); columns: runs
    incomparable: Mapping[str, list[str]]  # {metric: the aspects for which it cannot be compared}

    @property
    def differing(self) -> list[str]:
        """The aspects that differ, in the order of ``ASPECTS``."""
        return list(dict.fromkeys(self.table.index.get_level_values(0)))

    @property
    def agreeing(self) -> list[str]:
        """The other aspects."""
        return [each for each in dict.fromkeys(ASPECTS.values()) if each not in self.differing]

    @property
    def reasons(self) -> list[str]:
        """The aspects for which some figure cannot be compared."""
        found = {reason for reasons in self.incomparable.values() for reason in reasons}
        return [each for each in self.differing if each in found]


def flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as rows of (path, value), without what the page shows elsewhere."""
    for key, value in settings.items():
        if key in ("caveats", "quality", "simulation_difference", "run", "runs"):
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{path}{key}", listed(value, most=12)
        else:
            yield f"{path}{key}", str(value)


def settings_of(results: Mapping[str, BacktestResult], span: pd.DatetimeIndex) -> dict[str, str]:
    """The settings of a run by their paths, its dates, calendar and code.

    Args:
        span: the first and last date that all runs have.
    """
    first = next(iter(results.values()))
    dates = first.net_returns.index
    shared = int(((dates >= span[0]) & (dates <= span[-1])).sum())
    found = {key: text for key, text in flat(first.settings) if key != "panel.snapshots"}
    found["dates"] = f"{day(dates[0])} to {day(dates[-1])}"
    found["rows"] = f"{shared:,} from {day(span[0])} to {day(span[-1])}"
    for result in results.values():
        name = str(result.strategy.get("class", "")).rpartition(":")[2]
        found[f"code.{name}"] = str(result.strategy.get("code", ""))[:12]
    return found


def differences(
    runs: Mapping[str, Mapping[str, str]], same_market: bool, same_dates: bool
) -> RunDifferences:
    """What the runs differ in, of their ``settings_of``.

    Args:
        same_market: whether the assets had the same returns on the common dates.
        same_dates: whether all have the same dates in the common span.
    """
    rows = {}
    for key in dict.fromkeys(key for run in runs.values() for key in run):
        aspect = next((a for prefix, a in ASPECTS.items() if key.startswith(prefix)), None)
        values = {title: run.get(key, "not recorded") for title, run in runs.items()}
        if key.startswith("code.") and "not recorded" in values.values():
            continue  # a strategy of one run alone
        if aspect and (len(set(values.values())) > 1 or (key == "rows" and not same_dates)):
            rows[aspect, key] = values
    order = list(dict.fromkeys(ASPECTS.values()))
    ranked = sorted(rows, key=lambda row: order.index(row[0]))
    places = [[key[level] for key in ranked] for level in range(2)]
    index = pd.MultiIndex.from_arrays(places, names=["aspect", "setting"])
    table = pd.DataFrame([rows[key] for key in ranked], index=index, columns=list(runs))
    aspects, found = {aspect for aspect, _ in rows}, {}
    for group, metrics in GROUPS.items():
        for metric in metrics:
            inputs = set(metric.inputs.split())
            a_period = (
                group == "Single periods" or metric.unit == "periods" or metric.name in PER_PERIOD
            )
            hit = {
                "data": not same_market,
                "costs": bool(inputs & NET),
                "lag": bool(inputs & (NET | {"gross", "untraded"})),
                "risk-free rate": bool(inputs & IN_EXCESS),
                "calendar": a_period,
                "plan": metric.name == "turnover/rebalance" and ("plan", "plan.rebalance") in rows,
            }
            if reasons := [each for each, affected in hit.items() if affected and each in aspects]:
                found[metric.name] = reasons
    return RunDifferences(table, found)


def same_market(runs: Mapping[str, Mapping[str, BacktestResult]], span: pd.DatetimeIndex) -> bool:
    """Whether the assets of all runs are the same, with the same returns on common dates.

    The first row is left out, whose period begins before the dates in common.
    """
    tables = [next(iter(run.values())).asset_returns for run in runs.values()]
    if not all(len(table.columns) for table in tables):
        return False
    first, *others = (table.loc[span[0] : span[-1]] for table in tables)
    return all(
        list(first.columns) == list(other.columns)
        and first.index.equals(other.index)
        and np.allclose(first.to_numpy()[1:], other.to_numpy()[1:], rtol=0, atol=1e-12)
        for other in others
    )
