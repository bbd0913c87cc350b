"""The report in a terminal: a sentence, two tables, and how much could be luck."""

from __future__ import annotations

import textwrap

import pandas as pd

from reports.catalogue import METRICS
from reports.facts import Facts
from reports.formats import DASH, chance, number, written
from reports.wording import headline, selection_sentence

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


def terminal_summary(facts: Facts) -> str:
    """What those who never leave the terminal need; plain text, at most 100 columns of prose."""
    names = [_short(name) for name in facts.metrics.index]
    metrics = {
        name: [written(value, METRICS[name].unit) for value in facts.metrics[name]]
        for name in SHOWN
        if facts.metrics[name].notna().any()
    }
    parts = [_wrapped(headline(facts).striptags()), _table(names, metrics)]
    if facts.benchmark:
        luck = facts.luck.drop(index=facts.benchmark)
        parts.append(
            _table(
                [_short(name) for name in luck.index],
                {
                    "Sharpe difference": list(map(number, luck["difference"])),
                    "95% interval": [
                        f"{number(low)} to {number(high)}" if low == low else DASH
                        for low, high in luck[["difference low", "difference high"]].to_numpy()
                    ],
                    "by chance in": list(map(chance, luck["p"])),
                    "deflated": list(map(chance, luck["deflated"])),
                },
            )
        )
    parts.append(_wrapped(selection_sentence(facts)))
    return "\n\n".join(part for part in parts if part)


def _table(names: list[str], columns: dict[str, list[str]]) -> str:
    """Rows by column names, right-aligned; strategies are columns, as there are few."""
    frame = pd.DataFrame(columns, index=names).T
    return frame.to_string()


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH)


def _short(name: str) -> str:
    """Names in a terminal: printable, of bearable length."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 32 else clean[:31] + "\N{HORIZONTAL ELLIPSIS}"
