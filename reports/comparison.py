"""Who a report is about, and what it is compared with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pandas as pd

from data_loaders import Panel
from data_loaders.files import is_file_name
from data_loaders.panel import prices_from
from data_loaders.suggestions import known_names
from engine.runs.result import BacktestResult
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


def compared(
    results: Mapping[str, BacktestResult], subject: str | None = None, benchmark: Given = None
) -> Comparison:
    """The subject and the benchmark that were asked for, or the first strategy and 1/N.

    Args:
        subject: a name in the results; by default the first that is not the benchmark.
        benchmark: a name in the results; the name of the panel's benchmark; a series or a file of
            prices or returns; "EqualWeight": 1/N, which is computed where it is missing. By default
            the panel's benchmark, else 1/N, else the next strategy.

    Raises:
        ValueError: there is no result, or none of that name, or 1/N was asked for and is not known;
            DataError: a benchmark that cannot be
            read, or does not cover the dates.
    """
    results = dict(results)
    if not results:
        raise ValueError("there is no result to report: results are empty")
    if subject is not None and subject not in results:
        raise ValueError(f"the report has no strategy {subject!r}{known_names(subject, results)}")
    declared = _declared(results[subject or next(iter(results))])
    benchmark = declared if benchmark is None else benchmark
    if benchmark is None:
        return _by_default(results, subject)
    if isinstance(benchmark, str) and benchmark in results:
        return _with_strategy(results, subject, benchmark)
    if isinstance(benchmark, str) and benchmark == EQUAL_WEIGHT:
        return _with_equal_weight(results, subject)
    about = subject or next(iter(results))
    prices = _prices(benchmark, declared, results, about)
    found, said = aligned(prices, results[about])
    name = found.name
    while name in results:
        name += " (benchmark)"
    if isinstance(benchmark, pd.Series):
        kind = "a series"
    elif benchmark == declared:
        kind = "a column of the prices that no strategy can hold"
    else:
        kind = f"from {Path(benchmark).name}"
    note = f"Compared with {name}, {kind}, held without costs. {said}"
    results[name] = replace(found, name=name)
    return Comparison(results, about, name, (note,))


def _declared(result: BacktestResult) -> str | None:
    """The name of the benchmark of the panel, if it has one."""
    return result.settings.get("panel", {}).get("benchmark") if len(result.benchmark) else None


def check_comparison(
    names: Iterable[str], tested: Panel, subject: str | None, benchmark: str | None
) -> None:
    """Refuse before a run what ``compared`` would refuse after it.

    Args:
        names: of the strategies.
        tested: the panel from the first fill on.

    Raises:
        ValueError: there is no strategy or benchmark of that name; DataError: a benchmark that
            cannot be read, or does not cover the dates.
    """
    names = list(names)
    own = tested.benchmark
    if subject is not None and subject not in names:
        raise ValueError(f"the report has no strategy {subject!r}{known_names(subject, names)}")
    if benchmark in names:
        if benchmark == (subject or names[0]) and (subject or len(names) == 1):
            raise ValueError(f"{benchmark} would be compared with itself: name another benchmark")
        return
    if own is not None and benchmark in (None, own.name):
        check_coverage(own.dropna(), tested.dates)
    elif benchmark is not None and is_file_name(benchmark):
        check_coverage(read_benchmark(benchmark), tested.dates)
    elif benchmark is not None:
        known = [*names, *([] if own is None else [str(own.name)])]
        raise ValueError(
            f"benchmark {benchmark!r} is no strategy or benchmark of the run, and no file"
            f"{known_names(benchmark, known)}"
        )


def class_of(result: BacktestResult) -> str:
    """The name of the strategy's class, without its module."""
    return re.split(r"[.:]", str(result.strategy.get("class", "")))[-1]


def _with_strategy(
    results: dict[str, BacktestResult], subject: str | None, benchmark: str
) -> Comparison:
    rivals = [name for name in results if name != benchmark]
    about = subject or (rivals or [benchmark])[0]
    if about == benchmark:
        raise ValueError(
            f"{benchmark} would be compared with itself: name another benchmark, or subject"
        )
    return Comparison(results, about, benchmark)


def _with_equal_weight(results: dict[str, BacktestResult], subject: str | None) -> Comparison:
    """Against 1/N, which has another name or was not run."""
    found = _by_default(results, subject)
    if found.benchmark is None or class_of(found.results[found.benchmark]) != EQUAL_WEIGHT:
        raise ValueError(
            "1/N was not run, and cannot be computed from these results: run EqualWeight with the "
            "strategies, or name another benchmark"
        )
    return found


def _by_default(results: dict[str, BacktestResult], subject: str | None) -> Comparison:
    """Against 1/N, computed where it is missing; else against the next strategy."""
    equal = next(
        (name for name, result in results.items() if class_of(result) == EQUAL_WEIGHT), None
    )
    about = subject or next((name for name in results if name != equal), equal)
    assert about is not None
    rivals = [name for name in results if name != about]
    if about == equal:
        return Comparison(results, about, rivals[0] if rivals else None)
    if equal is not None:
        return Comparison(results, about, equal)
    if not has_holdings(results[about]):
        return Comparison(results, about, rivals[0] if rivals else None)
    from reports.equal_weight import equal_weight_of  # torch takes a second to import

    found, reason = equal_weight_of(results[about])
    if found is not None:
        name = found.name if found.name not in results else "1/N"
        note = (
            f"{name} (1/N) was not run: it was computed from the returns of the assets, at the "
            f"fills and costs of {about}."
        )
        return Comparison({**results, name: found}, about, name, (note,))
    if not rivals:
        return Comparison(results, about, None)
    note = (
        f"1/N was not run, and cannot be computed, as {reason}: {about} is compared with the next "
        f"strategy, {rivals[0]}."
    )
    return Comparison(results, about, rivals[0], (note,))


def _prices(
    benchmark: Given, declared: str | None, results: Mapping[str, BacktestResult], about: str
) -> pd.Series:
    """Prices of a benchmark that is no strategy.

    Raises:
        ValueError: it names nothing; DataError: see ``benchmark_of``.
    """
    if isinstance(benchmark, pd.Series):
        return benchmark_of(benchmark)
    if declared is not None and benchmark == declared:
        line = results[about].benchmark
        known = line.dropna()
        if len(known) and known.index[0] == line.index[0]:
            return (1 + known).cumprod().rename(declared)  # bought at 1 at the first fill
        return prices_from(known.to_frame(declared))[declared]
    if isinstance(benchmark, Path) or is_file_name(str(benchmark)):
        return read_benchmark(str(benchmark))
    known = [*results, *([declared] if declared else [])]
    raise ValueError(
        f"benchmark {str(benchmark)!r} is no strategy or benchmark of the run, and no file"
        f"{known_names(benchmark, known)}"
    )
