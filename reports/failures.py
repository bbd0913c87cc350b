"""Strategies that did not finish: they stand in the tables, and others are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from engine.runs.result import BacktestResult, outcome
from reports.comparison import Comparison, Given, compared


def finished(
    results: Mapping[str, BacktestResult], subject: str | None, benchmark: Given
) -> tuple[Comparison, dict[str, BacktestResult]]:
    """The comparison of those that finished or were ruined, see ``compared``, and the others.

    In place of a subject or a benchmark that did not finish, there is the one by default; a note
    says so.

    Raises:
        ValueError: none finished, and those of ``compared``.
    """
    failed = {name: result for name, result in results.items() if not result.complete}
    complete = {name: result for name, result in results.items() if result.complete}
    if results and not complete:
        raise ValueError(f"there is no result to report: {outcome(results)}")
    versus = None if isinstance(benchmark, str) and benchmark in failed else benchmark
    found = compared(complete, None if subject in failed else subject, versus)
    if found.benchmark in failed:  # 1/N that failed, and was computed
        computed = replace(found.results[found.benchmark], name="1/N")
        others = {n: r for n, r in found.results.items() if n != found.benchmark}
        found = found._replace(results={**others, "1/N": computed}, benchmark="1/N")
    notes = []
    if (asked := subject or next(iter(results), None)) in failed:
        notes.append(f"{asked} did not finish: the report is about {found.subject}.")
    if versus is not benchmark and found.benchmark:
        notes.append(f"{benchmark} did not finish: the comparison is with {found.benchmark}.")
    if said := outcome(results):
        notes.insert(0, f"{said}.")
    return found._replace(notes=(*notes, *found.notes)), failed
