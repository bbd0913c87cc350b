"""Reports on the command line: read its files, write the page, summarise it in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from engine.runs.result import BacktestResult
from reports.formats import DASH, chance, number, written
from reports.metrics.catalogue import METRICS
from reports.report import check_report_path, write_data
from reports.report_data import ReportData, gather
from reports.wording import MARK, headline, risk_free, run_sentences, selection_sentence

SHOWN = (
    "annual return",
    "volatility",
    "Sharpe",
    "Sharpe s.e.",
    "max drawdown",
    "turnover/year",
    "cost drag/year",
    "effective assets",
    "beta",
    "information ratio",
)
WIDTH = 100


def write_and_summarise(
    results: Mapping[str, BacktestResult],
    out: Path,
    factors: Path | None = None,
    groups: Path | None = None,
    benchmark: str | None = None,
    about: str | None = None,
) -> str:
    """Write the report of results to ``out``; returns the summary for a terminal.

    For the files see ``read_factors`` and ``read_groups``, for the others ``write_report``.
    """
    check_report_path(out)
    table = read_factors(factors) if factors else None
    named = read_groups(groups) if groups else None
    data = gather(results, table, named, True, benchmark, about)
    path = write_data(data, out)
    return f"{terminal_summary(data)}\n\nreport: {path}"


def terminal_summary(data: ReportData) -> str:
    """The report as plain text, at most 100 columns of prose."""
    marked = data.runs.incomparable if data.runs else {}
    metrics = {
        f"{name} {MARK}" if name in marked else name: [
            written(value, METRICS[name].unit) for value in data.metrics[name]
        ]
        for name in SHOWN
        if data.metrics[name].notna().any()
    }
    said = [*run_sentences(data), headline(data).striptags(), *data.notes]
    parts = [*(textwrap.fill(each, WIDTH) for each in said), _table(data.metrics.index, metrics)]
    if data.benchmark:
        luck = data.luck.drop(index=data.benchmark)
        intervals = [
            f"{number(low)} to {number(high)}" if low == low else DASH
            for low, high in luck[["difference low", "difference high"]].to_numpy()
        ]
        columns = {
            "Sharpe difference": [number(value) for value in luck["difference"]],
            "95% interval": intervals,
            "p-value (no difference)": [chance(value) for value in luck["p"]],
            "deflated Sharpe ratio": [chance(value) for value in luck["deflated"]],
        }
        parts.append(_table(luck.index, columns))
    parts.append(textwrap.fill(selection_sentence(data), WIDTH))
    if data.first.risk_free.any():
        parts.append(textwrap.fill(risk_free(data), WIDTH))
    return "\n\n".join(part for part in parts if part)


def _table(names: pd.Index, rows: dict[str, list[str]]) -> str:
    """One column a strategy, as there are few; names are printable and at most 32 long."""
    clean = ["".join(c if c.isprintable() else "?" for c in name) for name in names]
    short = [name if len(name) <= 32 else f"{name[:31]}\N{HORIZONTAL ELLIPSIS}" for name in clean]
    return pd.DataFrame(rows, index=short).T.to_string()


def read_factors(path: Path) -> pd.DataFrame:
    """Factor returns (T, F) from a CSV file: dates first, then a column for each factor."""
    table = _read(path, "factor returns", index_col=0)
    try:
        table.index = pd.to_datetime(table.index)
        return table.astype(float)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} should hold dates in its first column and returns in the others: {error}"
        ) from error


def read_groups(path: Path) -> dict[str, str]:
    """Group by asset from a CSV file of two columns, with a heading."""
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
