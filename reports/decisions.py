"""Why it holds this: the records of decisions as the rows that the page shows, packed for it.

Page, sentences and exported tables are made of the same numbers, and written by the same formats:
the script of the page picks a date, and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from engine.runs.explanations import sentence
from engine.runs.result import BacktestResult
from reports.figures.axes import packed
from reports.formats import day, number, percent

LISTED = 40  # assets of a decision on the page; the others are one row
CELLS = 20_000  # decisions times assets on the page, of the subject; as many of all others
BLOCK = 50  # decisions that are unpacked together
COLUMNS = {  # of the table: column of the record, heading, format
    "held": ("Held before", percent),
    "aimed": ("Aimed at", percent),
    "traded": ("Traded", lambda value: percent(value, 2)),
    "cost": ("Cost, bp", lambda value: number(1e4 * value)),
    "forecast": ("Forecast", number),
    "beta": ("Beta", number),
    "risk": ("Share of risk", percent),
    "limit_price": ("Price of its limit", number),
}
SUMS = ("held", "aimed", "traded", "cost", "risk")  # of the assets that are not listed


def shown_decisions(
    results: Mapping[str, BacktestResult], tables: Mapping[str, pd.DataFrame], subject: str
) -> dict[str, dict[str, Any]]:
    """{strategy: what the page shows of its decisions}, the subject's first.

    Each has columns (headings), dates, total (how many there were), blocks (of ``size`` dates each,
    which the script unpacks: facts and rows) and last (facts and rows of the last date).
    """
    found = {}
    for name in sorted(tables, key=lambda each: each != subject):
        table, result = tables[name], results[name]
        dates = pd.DatetimeIndex(table.index.get_level_values("date").unique())
        assets = table.index.get_level_values("asset")[: len(table) // len(dates)].tolist()
        values = {k: column.to_numpy().reshape(len(dates), -1) for k, column in table.items()}
        cells = CELLS if name == subject else CELLS // max(1, len(tables) - 1)
        most = min(len(dates), max(2, cells // min(len(assets), LISTED)))
        places = np.unique(np.linspace(0, len(dates) - 1, most).round().astype(int))
        columns = [k for k in COLUMNS if k in values and (values[k] != 0).any()]
        facts, texts = decision_facts(result), []
        for place in places.tolist():
            rows = _rows(assets, {k: value[place] for k, value in values.items()}, columns)
            texts.append({"facts": facts.get(dates[place], []), "rows": rows})
        found[name] = {
            "columns": ["Asset", *(COLUMNS[k][0] for k in columns), "Why"],
            "dates": [day(date) for date in dates[places]],
            "total": len(result.targets),
            "size": BLOCK,
            "blocks": [packed(texts[at : at + BLOCK]) for at in range(0, len(texts), BLOCK)],
            "last": texts[-1],
        }
    return found


def _rows(
    assets: list[str], values: Mapping[str, np.ndarray], columns: list[str]
) -> list[list[str]]:
    """One row of texts for each asset of a decision, the largest first, and one for the rest."""
    size = np.fmax(np.abs(values["held"]), np.abs(values["aimed"]))
    order = np.argsort(-np.nan_to_num(size), kind="stable")
    forms = {name: COLUMNS[name][1] for name in columns}
    listed = {name: value[order[:LISTED]].tolist() for name, value in values.items()}
    rows = []
    for place, *cells in zip(order.tolist(), *listed.values()):  # noqa: B905
        line = dict(zip(listed, cells, strict=True))
        texts = [form(line[name]) for name, form in forms.items()]
        rows.append([assets[place], *texts, sentence(line)])
    if len(rest := order[LISTED:]):
        sums = [form(values[n][rest].sum()) if n in SUMS else "" for n, form in forms.items()]
        rows.append([f"{len(rest)} others", *sums, ""])
    return rows


def decision_facts(result: BacktestResult) -> dict[pd.Timestamp, list[str]]:
    """{date: sentences about the whole of a decision}."""
    decisions, limits = result.decisions, result.limits
    if not len(decisions):
        return {}
    found: dict[pd.Timestamp, list[str]] = {}
    binding = limits[limits["held"] > 0] if len(limits) else limits
    named: dict[pd.Timestamp, list[dict]] = {}
    if len(binding):
        keys = ["date", "limit"]
        mean = binding.groupby(keys, sort=False)[["held", "of", "price", "variance"]].mean()
        for line in mean.reset_index().to_dict("records"):
            named.setdefault(line["date"], []).append(line)
    means = decisions.drop(columns="sample").groupby("date").mean()
    for date, row in zip(means.index, means.to_dict("records"), strict=True):
        said = [f"Invested {percent(row['exposure'])}"]
        if row["gross"] > row["exposure"] + 1e-6:
            said[0] += f", {percent(row['gross'])} long and short"
        if np.isfinite(row.get("volatility", np.nan)):
            said[0] += (
                f", as the whole portfolio's predicted volatility is {percent(row['volatility'])}"
            )
        said[0] += "."
        if np.isfinite(row.get("steps", np.nan)):
            said.append(
                f"The equilibrium took {number(row['steps'], 0)} steps, each of which left "
                f"{percent(row['contraction'], 0)} of the residual at most."
            )
        if date in named:
            said.append(f"Limits that bind: {', '.join(map(_limit, named[date]))}.")
        found[date] = said
    return found


def _limit(line: Mapping[str, Any]) -> str:
    price = number(abs(line["price"]) / line["variance"]) if line["variance"] > 0 else "unknown"
    if line["of"] == 1:
        return f"{line['limit']} at a price of {price}"
    held, of = number(line["held"], 0), number(line["of"], 0)
    return f"{line['limit']} of {held} of {of} weights at a price of up to {price}"
