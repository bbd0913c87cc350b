"""Who a report is about, what it is compared with, and on which dates: where calendars differ,
returns are compounded onto those that all have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.files import is_file_name
from data_loaders.reading.returns import prices_from
from data_loaders.suggestions import known_names
from engine.accounting.simulation import simulate
from engine.runs.description import described
from engine.runs.experiment import read_costs
from engine.runs.result import BacktestResult
from engine.runs.result_views import outcome
from reports.return_series import (
    aligned,
    benchmark_of,
    check_coverage,
    has_holdings,
    read_benchmark,
)
from strategies.baselines import EqualWeight

EQUAL_WEIGHT = "EqualWeight"
SIMULATED = (
    "fills", "most_invested", "delays", "weights", "gross_returns", "net_returns", "turnover",
    "costs", "fractional_returns",
)  # fmt: skip
LEARNED = ("training", "solves", "checks", "limits", "sensitivity")
Given: TypeAlias = "str | Path | pd.Series | None"
COMPOUNDED = ("net_returns", "gross_returns", "risk_free")


class Comparison(NamedTuple):
    """The results of a report, the benchmark among them; notes say how it was found."""

    results: dict[str, BacktestResult]
    subject: str
    benchmark: str | None
    notes: tuple[str, ...] = ()


def finished(
    results: Mapping[str, BacktestResult], subject: str | None, benchmark: Given
) -> tuple[Comparison, dict[str, BacktestResult]]:
    """The comparison of the strategies that finished or were ruined, and the other results.

    In place of a subject or a benchmark that did not finish, there is the one by default; a note
    says so. For the arguments see ``reports.write_report``.

    Raises:
        ValueError: there is no result, or none of that name, or 1/N is not known.
    """
    failed = {name: result for name, result in results.items() if not result.complete}
    complete = {name: result for name, result in results.items() if result.complete}
    if not complete:
        reason = outcome(results) if results else "results are empty"
        raise ValueError(f"there is no result to report: {reason}")
    versus = None if isinstance(benchmark, str) and benchmark in failed else benchmark
    found = _compared(complete, None if subject in failed else subject, versus)
    if found.benchmark in failed:  # 1/N that failed, and was computed
        computed = replace(found.results[found.benchmark], name="1/N")
        others = {n: r for n, r in found.results.items() if n != found.benchmark}
        found = found._replace(results={**others, "1/N": computed}, benchmark="1/N")
    notes = [f"{said}."] if (said := outcome(results)) else []
    if (asked := subject or next(iter(results))) in failed:
        notes.append(f"{asked} did not finish: the report is about {found.subject}.")
    if versus is not benchmark and found.benchmark:
        notes.append(f"{benchmark} did not finish: the comparison is with {found.benchmark}.")
    return found._replace(notes=(*notes, *found.notes)), failed


def _compared(
    results: dict[str, BacktestResult], subject: str | None, benchmark: Given
) -> Comparison:
    """The subject and the benchmark that were asked for, or the first strategy and 1/N."""
    _check_subject(subject, results)
    first = results[subject or next(iter(results))]
    declared = first.settings.get("panel", {}).get("benchmark") if len(first.benchmark) else None
    benchmark = declared if benchmark is None else benchmark
    if benchmark is None:
        return _by_default(results, subject)
    if isinstance(benchmark, str) and benchmark in results:
        about = subject or next((name for name in results if name != benchmark), benchmark)
        if about == benchmark:
            raise ValueError(
                f"{benchmark} would be compared with itself: name another benchmark, or subject"
            )
        return Comparison(results, about, benchmark)
    if isinstance(benchmark, str) and benchmark == EQUAL_WEIGHT:  # has another name, or was not run
        found = _by_default(results, subject)
        if found.benchmark is None or class_of(found.results[found.benchmark]) != EQUAL_WEIGHT:
            raise ValueError(
                "1/N was not run, and cannot be computed from these results: run EqualWeight with "
                "the strategies, or name another benchmark"
            )
        return found
    about = subject or next(iter(results))
    prices, kind = _prices(benchmark, declared, results, about)
    line, said = aligned(prices, results[about])
    name = line.name
    while name in results:
        name += " (benchmark)"
    note = f"Compared with {name}, {kind}, held without costs. {said}"
    return Comparison({**results, name: replace(line, name=name)}, about, name, (note,))


def _check_subject(subject: str | None, names: Collection[str]) -> None:
    if subject is not None and subject not in names:
        raise ValueError(f"the report has no strategy {subject!r}{known_names(subject, names)}")


def check_comparison(
    names: Collection[str], tested: Panel, subject: str | None, benchmark: str | None
) -> None:
    """Refuse before a run what ``finished`` would refuse after it.

    ``names`` are those of the strategies, ``tested`` is the panel from the first fill on.
    """
    own = tested.benchmark
    _check_subject(subject, names)
    if benchmark in names:
        if benchmark == (subject or next(iter(names))) and (subject or len(names) == 1):
            raise ValueError(f"{benchmark} would be compared with itself: name another benchmark")
    elif own is not None and benchmark in (None, own.name):
        check_coverage(own.dropna(), tested.dates)
    elif benchmark is not None and is_file_name(benchmark):
        check_coverage(read_benchmark(benchmark), tested.dates)
    elif benchmark is not None:
        raise _unknown(benchmark, [*names, *([] if own is None else [str(own.name)])])


def _unknown(benchmark: Given, known: Collection[str]) -> ValueError:
    return ValueError(
        f"benchmark {str(benchmark)!r} is no strategy or benchmark of the run, and no file"
        f"{known_names(benchmark, known)}"
    )


def class_of(result: BacktestResult) -> str:
    """The name of the strategy's class, without its module."""
    return re.split(r"[.:]", str(result.strategy.get("class", "")))[-1]


def _by_default(results: dict[str, BacktestResult], subject: str | None) -> Comparison:
    """Against 1/N, computed where it is missing; else against the next strategy."""
    equal = next((name for name, r in results.items() if class_of(r) == EQUAL_WEIGHT), None)
    about = subject or next((name for name in results if name != equal), equal)
    assert about is not None
    rival = next((name for name in results if name != about), None)
    if equal is not None and about != equal:
        return Comparison(results, about, equal)
    if equal is not None or not has_holdings(results[about]):
        return Comparison(results, about, rival)
    found, reason = equal_weight_of(results[about])
    if found is not None:
        name = found.name if found.name not in results else "1/N"
        note = (
            f"{name} (1/N) was not run: it was computed from the returns of the assets, at the "
            f"fills and costs of {about}."
        )
        return Comparison({**results, name: found}, about, name, (note,))
    if rival is None:
        return Comparison(results, about, None)
    note = (
        f"1/N was not run, and cannot be computed, as {reason}: {about} is compared with the next "
        f"strategy, {rival}."
    )
    return Comparison(results, about, rival, (note,))


def _prices(
    benchmark: Given, declared: str | None, results: Mapping[str, BacktestResult], about: str
) -> tuple[pd.Series, str]:
    """Prices of a benchmark that is no strategy, and where they are from, in words."""
    if isinstance(benchmark, pd.Series):
        return benchmark_of(benchmark), "a series"
    if declared is not None and benchmark == declared:
        line = results[about].benchmark
        known = line.dropna()
        if len(known) and known.index[0] == line.index[0]:
            prices = (1 + known).cumprod().rename(declared)  # bought at 1 at the first fill
        else:
            prices = prices_from(known.to_frame(declared))[declared]
        return prices, "a column of the prices that no strategy can hold"
    if isinstance(benchmark, Path) or is_file_name(str(benchmark)):
        return read_benchmark(str(benchmark)), f"from {Path(str(benchmark)).name}"
    raise _unknown(benchmark, [*results, *([declared] if declared else [])])


def equal_weight_of(result: BacktestResult) -> tuple[BacktestResult | None, str]:
    """1/N at the fills and costs of a result; or None, and why it cannot be computed exactly.

    It equals what ``backtest`` would have found where each asset traded on every date.
    """
    settings = result.settings
    if reason := _lacking(result):
        return None, reason
    dates = pd.DatetimeIndex(result.asset_returns.index)
    prices = prices_from(result.asset_returns.iloc[1:]).set_axis(dates)
    panel = Panel(prices)
    weight = 1 / len(panel.assets)
    filled = _fill_dates(result)
    assert filled is not None  # or something is lacking
    targets = pd.DataFrame(weight, filled, panel.assets)
    done = simulate(targets, panel, read_costs(settings["costs"]), lag=0)
    simulated = {name: getattr(done, name) for name in SIMULATED}
    return replace(
        result,
        name=EQUAL_WEIGHT,
        strategy=described(EqualWeight()),
        targets=targets.set_axis(result.targets.index),
        orders=done.orders.iloc[:0],  # in shares, which need prices
        states={},
        failure=None,
        settings={**settings, "simulation_difference": done.difference},
        **simulated,
        **dict.fromkeys(LEARNED, pd.DataFrame()),
    ), ""


def _fill_dates(result: BacktestResult) -> pd.DatetimeIndex | None:
    """The date (K,) of each decision's fill; None where the result does not say it."""
    on_time = not len(result.levels) and not len(result.delays)
    if on_time and len(result.targets) == len(result.turnover):
        return pd.DatetimeIndex(result.turnover.index)
    dates, decided = pd.DatetimeIndex(result.asset_returns.index), result.targets.index
    lag = result.settings["plan"]["execution_lag"]
    if (decided < dates[0]).sum() > 1:
        return None
    rows = np.where(decided < dates[0], 0, dates.searchsorted(decided) + lag)
    return dates[rows] if rows[-1] < len(dates) else None


def _lacking(result: BacktestResult) -> str:
    """Why 1/N cannot be computed exactly, in words; empty if it can."""
    settings, costs = result.settings, result.settings.get("costs", {})
    if not (has_holdings(result) and len(result.asset_returns) and len(result.turnover)):
        return "the results hold no returns of the assets"
    if settings.get("plan", {}).get("fill", "close") != "close":
        return "orders are filled at other prices than closes"
    if _fill_dates(result) is None:
        return "the results do not say when each decision is filled"
    if result.turnover.index[0] != result.asset_returns.index[0]:
        return "the results do not begin with their first fill"
    table = (settings.get("panel", {}).get("quality") or {}).get("assets", [])
    first, last = (str(when.date()) for when in (result.targets.index[0], result.weights.index[-1]))
    throughout = [
        row["gaps"] == 0 and str(row["first"]) <= first and str(row["last"]) >= last
        for row in table
    ]
    if len(throughout) != len(result.asset_returns.columns) or not all(throughout):
        return "not every asset has a price on every date"
    if settings.get("universe", True):
        return "the universe changed, or the run does not say whether it did"
    if costs.get("impact"):
        return "market impact needs the volumes"
    if settings.get("whole_shares"):
        return "whole shares need the prices"
    if costs.get("class"):
        return "the costs are of a class of the user's own"
    return ""


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
    same = all(len(each) == len(common) for each in rows.values())
    if not same and not all(line[0] == common[0] for line in dates.values()):
        common, start = common[1:], common[0]
        rows = {name: each[each > start] for name, each in rows.items()}
    first = next(iter(results))
    year = results[first].settings["periods_per_year"]
    year *= len(common) / max(1, len(rows[first]))
    found = dict(results)
    for name, result in results.items():
        if len(result.net_returns) == len(common) and same:
            continue
        lines = {k: line for k in COMPOUNDED if len(line := getattr(result, k))}
        if same:
            found[name] = replace(result, **{k: line.loc[common] for k, line in lines.items()})
            continue
        ends = common.searchsorted(rows[name])  # the period that each row falls in
        for k, line in lines.items():
            growth = np.ones(len(common))
            np.multiply.at(growth, ends, 1 + line.loc[rows[name]].to_numpy(dtype=float))
            lines[k] = pd.Series(growth - 1, common, name=line.name)
        found[name] = replace(
            result, settings=result.settings | {"periods_per_year": year}, **lines
        )
    return found
