"""What the command line does with results: write the report, print the summary."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from engine.ledger import TrialLedger
from engine.result import BacktestResult
from engine.storage import StorageError
from reports.facts import chosen, gather
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
    facts = gather(results, table, named, _tried(results))
    path = write_facts(facts, out)
    return f"{terminal_summary(facts)}\n\nreport: {path}"


def _tried(results: Mapping[str, BacktestResult]) -> pd.DataFrame | None:
    """The trials on the same assets and period, as the ledger has them; None without a ledger."""
    try:
        return TrialLedger().on_the_same(results[chosen(results)[0]])
    except StorageError as error:
        warnings.warn(f"trials of other runs are not counted: {error}", RuntimeWarning, 2)
        return None
