"""Reports on the command line: read its files, write the report, return the summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from engine.runs.result import BacktestResult
from reports.report import check_report_path, write_data
from reports.report_data import gather
from reports.terminal import terminal_summary


def write_and_summarise(
    results: Mapping[str, BacktestResult],
    out: Path,
    factors: Path | None = None,
    groups: Path | None = None,
    benchmark: str | None = None,
    about: str | None = None,
) -> str:
    """Write the report of results to ``out``; returns the summary for a terminal.

    Args:
        factors: CSV file of factor returns: dates in the first column, one column for each factor.
        groups: CSV file with the columns asset and group.
        benchmark, about: as ``benchmark`` and ``subject`` of ``write_report``.
    """
    check_report_path(out)
    table = read_factors(factors) if factors else None
    named = read_groups(groups) if groups else None
    data = gather(results, table, named, True, benchmark, about)
    path = write_data(data, out)
    return f"{terminal_summary(data)}\n\nreport: {path}"


def read_factors(path: Path) -> pd.DataFrame:
    """Factor returns (T, F) from a CSV file: dates in its first column, then one for each factor.

    Raises:
        ValueError: the file cannot be read, or contains something else.
    """
    table = _read(path, "factor returns", index_col=0)
    try:
        table.index = pd.to_datetime(table.index)
        return table.astype(float)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} should hold dates in its first column and returns in the others: {error}"
        ) from error


def read_groups(path: Path) -> dict[str, str]:
    """Group by asset from a CSV file of two columns, with a heading.

    Raises:
        ValueError: the file cannot be read, or has another number of columns.
    """
    table = _read(path, "groups", dtype=str)
    if table.shape[1] != 2:
        raise ValueError(f"{path} has {table.shape[1]} columns, expected two: asset and group")
    return dict(table.itertuples(index=False))


def _read(path: Path, what: str, **how: Any) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"there is no file of {what} {path}")
    try:
        return pd.read_csv(path, **how)
    except ValueError as error:  # torn lines, no lines, another encoding
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a readable CSV file of {what}: {reason}") from error
