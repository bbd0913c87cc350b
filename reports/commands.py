"""What the command line does with results: write the report, print the summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from engine.result import BacktestResult
from reports.facts import gather
from reports.html import check_report_path, write_facts
from reports.terminal import terminal_summary


def tell(
    results: Mapping[str, BacktestResult],
    out: Path,
    factors: Path | None = None,
    groups: Path | None = None,
) -> str:
    """Write the report of results to ``out``; returns the summary for a terminal.

    Args:
        factors: CSV of factor returns: dates in the first column, one column a factor.
        groups: CSV of two columns, asset and group, with a heading.
    """
    check_report_path(out)
    table = pd.read_csv(factors, index_col=0, parse_dates=True) if factors else None
    pairs = pd.read_csv(groups, dtype=str, usecols=[0, 1]) if groups else None
    named = dict(pairs.itertuples(index=False)) if pairs is not None else None
    facts = gather(results, table, named)
    path = write_facts(facts, out)
    return f"{terminal_summary(facts)}\n\nreport: {path}"
