"""What several runs differ in, and which of their figures that makes incomparable."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from data_loaders.suggestions import listed
from engine.runs.result import BacktestResult
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


def described(results: Mapping[str, BacktestResult], span: pd.DatetimeIndex) -> dict[str, str]:
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
    """What the runs differ in, of their ``described`` settings.

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
    return RunDifferences(table, _incomparable(set(rows), same_market))


def _incomparable(rows: Collection[tuple[str, str]], same_market: bool) -> dict[str, list[str]]:
    """{metric: the aspects for which it cannot be compared}, of the settings that differ."""
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
    return found


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
