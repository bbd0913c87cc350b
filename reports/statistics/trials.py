"""What was tried on the same data before, from the trial ledger."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

from engine.runs.ledger import TrialLedger, in_excess, trial_id
from engine.runs.result import BacktestResult
from engine.runs.storage import StorageError
from reports.returns_alone import has_holdings

SHOWN = 50  # the latest
PARTS = ("plan", "costs", "training")


def of_ledger(result: BacktestResult) -> pd.DataFrame | None:
    """The trials on the assets and dates of a result, as the user's ledger has them.

    None, with a warning, where it does not answer, and for returns without assets.
    """
    if not has_holdings(result):
        return None
    try:
        return TrialLedger().on_the_same(result)
    except StorageError as error:
        warnings.warn(f"trials of other runs are not counted: {error}", RuntimeWarning, 2)
        return None


def history(results: Mapping[str, BacktestResult], tried: pd.DataFrame | None) -> pd.DataFrame:
    """One row a trial, the latest first; empty without a ledger.

    Columns: last run (a date, UTC), kind, name, parameters (those in which trials of one class
    differ, and the parts of the settings in which all trials do, in words), runs, start, end,
    sharpe and active sharpe (annual), this run (whether it is one of the results), in excess
    (whether sharpe is in excess of the risk-free rate, see ``ledger.in_excess``).
    """
    if tried is None or tried.empty:
        return pd.DataFrame()
    found = tried.sort_values(["last_run", "id"], ascending=False)
    table = found[["kind", "name", "runs", "start", "end", "sharpe", "active_sharpe"]].copy()
    table = table.rename(columns={"active_sharpe": "active sharpe"})
    table.insert(0, "last run", found["last_run"].dt.strftime("%Y-%m-%d"))
    table.insert(3, "parameters", _parameters(found))
    table["this run"] = found["id"].isin(own(results))
    table["in excess"] = in_excess(found)
    return table.head(SHOWN).reset_index(drop=True)


def own(results: Mapping[str, BacktestResult]) -> set[str]:
    """The ledger's ids of the results themselves."""
    return {trial_id(result) for result in results.values() if has_holdings(result)}


def ratios(
    active: Mapping[str, float], results: Mapping[str, BacktestResult], tried: pd.DataFrame | None
) -> np.ndarray:
    """Sharpe ratios per period of active returns: of this run, and of every other trial."""
    mine = np.array(list(active.values()))
    if tried is None or tried.empty:
        return mine
    others = tried[~tried["id"].isin(own(results))]
    before = others["active_sharpe"] / np.sqrt(others["periods_per_year"].astype(float))
    return np.concatenate([mine, before.dropna().to_numpy(float)])


def _parameters(found: pd.DataFrame) -> list[str]:
    """What sets each trial apart, in words: "cap = 0.3, costs 2" (the second kind of costs)."""
    strategies = [json.loads(text) for text in found["strategy"]]
    values: dict[tuple[str, str], set[str]] = {}
    for each in strategies:
        for name, value in (each.get("parameters") or {}).items():
            values.setdefault((each["class"], name), set()).add(str(value))
    numbers = {part: pd.factorize(found[part])[0] + 1 for part in PARTS}
    words = []
    for row, each in enumerate(strategies):
        own = (each.get("parameters") or {}).items()
        said = [f"{name} = {value}" for name, value in own if len(values[each["class"], name]) > 1]
        said += [f"{part} {kinds[row]}" for part, kinds in numbers.items() if kinds.max() > 1]
        words.append(", ".join(said))
    return words
