"""Who a report is about, and what it is compared with."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pandas as pd

from data_loaders import Panel
from data_loaders.files import is_file_name
from data_loaders.panel import prices_from
from data_loaders.suggestions import known_names
from engine.runs.result import BacktestResult, outcome
from reports.benchmark_series import aligned, benchmark_of, check_coverage, read_benchmark
from reports.returns_alone import has_holdings

EQUAL_WEIGHT = "EqualWeight"
Given: TypeAlias = "str | Path | pd.Series | None"


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

    For the arguments see ``reports.write_report``. In place of a subject or a benchmark that did
    not finish, there is the one by default; a note says so.

    Raises:
        ValueError: there is no result, or none of that name, or 1/N was asked for and is not known;
            DataError: a benchmark that cannot be read, or does not cover the dates.
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
    from reports.equal_weight import equal_weight_of  # torch takes a second to import

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
