"""The report in a terminal: one sentence, two tables, and how much could be luck."""

from __future__ import annotations

import textwrap

import pandas as pd

from reports.formats import DASH, chance, number, written
from reports.metrics.catalogue import METRICS
from reports.report_data import ReportData
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
