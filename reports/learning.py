"""What the learned strategies did: training, solves, agreement with qpth; summed over folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from engine.accounting.performance import sharpe
from engine.runs.result import BacktestResult


def seeds(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """One row a learned configuration that was run with several seeds: its Sharpe ratios."""
    same: dict[str, dict[Any, float]] = {}
    for result in results.values():
        if len(result.training):
            who = f"{result.strategy.get('class')} {result.strategy.get('parameters')}"
            ratio = sharpe(result.net_returns, result.settings["periods_per_year"])
            same.setdefault(who, {})[result.settings.get("seed")] = ratio
    rows = [
        {
            "configuration": who,
            "seeds": len(found),
            "lowest": min(found.values()),
            "median": float(np.median(list(found.values()))),
            "highest": max(found.values()),
        }
        for who, found in same.items()
        if len(found) > 1
    ]
    return pd.DataFrame(rows)


def _by(frame: pd.DataFrame, *keys: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Groups in order of appearance, by those of ``keys`` that the frame has."""
    known = [key for key in keys if key in frame]
    for values, part in frame.groupby(known, sort=False, dropna=False):
        yield dict(zip(known, values, strict=True)), part


def solves(solves: pd.DataFrame) -> pd.DataFrame:
    """One row a phase and kind of solve, over all folds."""
    if not len(solves):
        return solves
    rows = []
    for which, part in _by(solves, "phase", "solve"):
        samples = part["samples"].sum()
        rows.append(
            {
                **which,
                "samples": samples,
                "mean_steps": (part["mean_steps"] * part["samples"]).sum() / max(samples, 1),
                "most_steps": part["most_steps"].max(),
                "residual": part["residual"].max(),
                "failures": part["failures"].sum(),
            }
        )
    return pd.DataFrame(rows)


def checks(checks: pd.DataFrame) -> pd.DataFrame:
    """One row a time of comparison: the largest differences to qpth, over all folds."""
    if not len(checks):
        return checks
    rows = [
        {**which, "samples": part["samples"].sum(), **part[["weights", "gradients"]].max()}
        for which, part in _by(checks, "when")
    ]
    return pd.DataFrame([row for row in rows if row["samples"]])
