"""The numbers beside the page: one JSON file, and a folder of tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from data_loaders.writing import safe_csv
from engine.runs.result import BacktestResult
from reports.metrics.catalogue import METRICS
from reports.report_data import ReportData
from reports.wording import headline, selection_sentence

NAMED = (
    "metrics", "luck", "trailing", "stress", "years", "sweep", "assets", "groups", "profits",
    "group_profits", "capacity", "whole",
)  # fmt: skip
LISTED = (  # their index says nothing
    "drawdowns", "history", "folds", "seeds", "seed_tests", "limits", "sensitivity", "factors",
    "epochs", "solves", "checks", "trips",
)  # fmt: skip
TABLES = dict.fromkeys(NAMED, True) | dict.fromkeys(LISTED, False)  # {name in the data: named}


def as_json(data: ReportData) -> str:
    """All data, unrounded; what is not defined is null."""
    runs = {}
    if data.runs is not None:
        rows = data.runs.table.reset_index().to_dict("records")
        runs = {"runs differ in": rows, "not comparable between runs": data.runs.incomparable}
    whole: dict[str, Any] = {
        "headline": headline(data).striptags(),
        "luck in words": selection_sentence(data),
        "subject": data.subject,
        "benchmark": data.benchmark,
        "notes": list(data.notes),
        "trials": data.trials,
        "failures": failures(data).set_index("strategy").to_dict("index"),
        "probability of overfitting": data.overfitting.probability,
        "superior ability p": data.superior,
        "months": {name: _rows(table, True) for name, table in data.months.items()},
        **{name: _rows(getattr(data, name), index) for name, index in TABLES.items()},
        **runs,
        "definitions": {name: metric.definition for name, metric in METRICS.items()},
        **settings({**data.failed, **data.results}, data.first.settings),
    }
    return json.dumps(_plain(whole), indent=1, allow_nan=False, default=str)


def as_csv(data: ReportData) -> dict[str, str]:
    """{file name: text}: the tables, returns, turnover, costs and target weights by date."""
    results = {**data.results, **data.failed}
    frames = {name: _indexed(getattr(data, name), index) for name, index in TABLES.items()}
    frames["months"] = _stacked(data.months).rename(columns=str)
    for field in ("net_returns", "gross_returns", "risk_free", "turnover", "costs"):
        lines = pd.DataFrame({name: getattr(result, field) for name, result in results.items()})
        frames[field] = _indexed(lines.rename_axis("date"), True)
    frames["targets"] = _stacked({n: r.targets for n, r in results.items()})
    for field in ("orders", "round_trips", "delays", "levels"):
        frames[field] = getattr(data.first, field)
    frames["failures"] = failures(data)
    for field in ("by_date", "by_fold", "by_horizon", "by_group", "volatility"):
        parts = {n: getattr(q, field) for n, q in data.forecasts.items() if len(getattr(q, field))}
        frames[f"forecast_{field}"] = (
            pd.concat(parts, names=["strategy"]).reset_index() if parts else pd.DataFrame()
        )
    return {
        f"{name}.csv": safe_csv(frame, index=False, float_format="%.12g")
        for name, frame in frames.items()
        if len(frame)
    }


def as_parquet(data: ReportData) -> dict[str, bytes]:
    """{file name: content}: the decisions of all strategies, see ``positions_by_decision``."""
    if not data.decisions:
        return {}
    table = pd.concat(data.decisions, names=["strategy"]).reset_index()
    return {"decisions.parquet": table.to_parquet(index=False)}


def failures(data: ReportData) -> pd.DataFrame:
    """One row a strategy that failed or was ruined: strategy, date, stage, reason."""
    rows = [
        {"strategy": name, **result.failure}
        for name, result in {**data.results, **data.failed}.items()
        if result.failure is not None
    ]
    return pd.DataFrame(rows, columns=["strategy", "date", "stage", "reason"])


def settings(results: Mapping[str, BacktestResult], shared: Mapping[str, Any]) -> dict[str, Any]:
    """All settings once, and for each strategy its parameters and the settings it differs in."""
    strategies = {}
    for name, result in results.items():
        own = {key: value for key, value in result.settings.items() if shared.get(key) != value}
        strategies[name] = {**result.strategy, "settings": own}
    return {"settings": shared, "strategies": strategies}


def _stacked(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    parts = [_indexed(frame.assign(strategy=name), True) for name, frame in frames.items()]
    return pd.concat(parts) if parts else pd.DataFrame()


def _indexed(frame: pd.DataFrame, index: bool) -> pd.DataFrame:
    """With the index as the first column, under a name that no column has."""
    if not index or not len(frame.columns):
        return frame
    name = str(frame.index.name or "name")
    while name in frame.columns:
        name += " "
    return frame.rename_axis(name).reset_index()


def _rows(frame: pd.DataFrame, index: bool) -> Any:
    """{index: row} where the index says something, else a list of rows."""
    if not index:
        return frame.to_dict("records")
    return {str(name): dict(row) for name, row in frame.iterrows()}


def _plain(value: Any) -> Any:
    """What JSON can hold: NaN and NaT are null, numbers and dates are Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NaT or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return str(value) if isinstance(value, pd.Timestamp) else value
