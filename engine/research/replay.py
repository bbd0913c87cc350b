"""A replay: the decisions of a finished run, made again, with all that was computed on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from data_loaders import Panel
from data_loaders.plugins import load_object
from data_loaders.validation import day
from engine.planning.walk_forward import Fold, WalkForward
from engine.runs.description import described
from engine.runs.experiment import read_costs, read_plan
from engine.runs.result import BacktestResult
from engine.runs.result_views import why_failed
from engine.training.fit_records import FitKey, Fitted
from engine.training.settings import Training
from engine.walking.decisions import DecisionTask
from engine.walking.learner import Learner
from strategies.base import Strategy
from strategies.layers.optimisation.explanation import Explanation, explanations

SAME = 1e-9  # of a weight: what another batch size or machine may change by rounding


@dataclass(frozen=True)
class Replay:
    """What was computed at each decision.

    Attributes:
        explanations: by decision date; of a strategy with several seeds one for each, in order.
    """

    explanations: dict[pd.Timestamp, list[Explanation]]

    @cached_property
    def by_asset(self) -> pd.DataFrame:
        """Rows by date, seed (its number, from 0) and asset, see ``Explanation.by_asset``."""
        return self._joined({k: each.by_asset for k, each in self._numbered()}, "asset")

    @cached_property
    def solves(self) -> pd.DataFrame:
        """Rows by date, seed and kind of solve: steps, residual, converged."""
        return self._joined({k: each.solves for k, each in self._numbered()}, "solve")

    @cached_property
    def multipliers(self) -> pd.DataFrame:
        """Rows by date and seed, columns the limits of sums, see ``Explanation.multipliers``."""
        found = pd.DataFrame({k: each.multipliers for k, each in self._numbered()}).T
        return found.rename_axis(index=["date", "seed"])

    def _numbered(self) -> Iterable[tuple[tuple[pd.Timestamp, int], Explanation]]:
        for date, found in self.explanations.items():
            for number, each in enumerate(found):
                yield (date, number), each

    @staticmethod
    def _joined(frames: dict, last: str) -> pd.DataFrame:
        return pd.concat(frames, names=["date", "seed", last])


def replay(
    result: BacktestResult,
    panel: Panel,
    strategy: Strategy | None = None,
    dates: Iterable[pd.Timestamp | str] | None = None,
) -> Replay:
    """Decide again as in a finished run, from the fitted states, and keep what was computed.

    The weights are compared with those that were traded, on all dates.

    Args:
        panel: of the run.
        strategy: that ran; needed where a parameter is no plain value (``Constraints``, a
            strategy inside a wrapper).
        dates: decisions to keep; default all. P takes N x N numbers for each.

    Raises:
        ValueError: another panel or strategy, dates without a decision, a strategy that solves no
            mean-variance problem, or weights that differ from those that were traded.
    """
    settings = result.settings
    if not len(result.targets):
        raise ValueError(f"{result.name} has decided nothing: {why_failed(result)}")
    ran = settings["panel"]
    if panel.fingerprint != ran["fingerprint"]:
        raise ValueError(
            f"this is not the panel of the run, which was {ran['source']}, {ran['start']} to "
            f"{ran['end']}: load the same, or the snapshot that it was stored as"
        )
    panel = panel.without_benchmark()
    strategy = _strategy_of(result, strategy)
    plan, rows = read_plan(settings["plan"]), panel.dates.get_indexer(result.targets.index)
    folds = [_fold(result, panel, plan, number, rows) for number in result.folds.index]
    folds = [fold for fold in folds if len(fold.test)]
    asked = set(rows if dates is None else panel.dates.get_indexer(pd.DatetimeIndex(list(dates))))
    if unknown := asked - set(rows):
        raise ValueError(
            f"{len(unknown)} of the dates are no decisions of {result.name}; its decisions are "
            f"result.targets.index, from {day(result.targets.index[0])}"
        )
    kept: dict[pd.Timestamp, list[Explanation]] = {}

    def keep(row: int, details: list) -> None:
        if row in asked and (found := explanations(details, list(panel.assets))):
            kept[panel.dates[row]] = found

    fits = {
        FitKey(result.name, fold, seed): Fitted(state, pd.DataFrame(), [], [])
        for (fold, seed), state in result.states.items()
    }
    learner = Learner(panel, folds, plan, read_costs(settings["costs"]), Training(), 1)
    task = DecisionTask(result.name, strategy, fits, folds, observed=False, on_details=keep)
    decided = task.run(learner)
    if decided.error is not None:
        raise decided.error
    _check_traded(result, decided.targets)
    if not kept:
        raise ValueError(
            f"{result.name} solves no mean-variance problem, so there is nothing to look into: "
            "its weights are result.targets"
        )
    return Replay(kept)


def _strategy_of(result: BacktestResult, given: Strategy | None) -> Strategy:
    """The strategy that ran, with its parameters."""
    ran = result.strategy
    objects = any(str(value).endswith((">", ")")) for value in ran["parameters"].values())
    if given is None and not objects:  # which are known by their repr alone
        try:
            cls: Any = load_object(ran["class"])
            given = cls(**ran["parameters"])
        except (TypeError, ValueError):
            given = None
    if given is None or described(given)["parameters"] != ran["parameters"]:
        raise ValueError(
            f"{result.name} ran as {ran['class']} with {ran['parameters']}: give it as the second "
            "argument, result.replay(panel, strategy)"
        )
    return clone(given)


def _fold(
    result: BacktestResult, panel: Panel, plan: WalkForward, number: int, rows: np.ndarray
) -> Fold:
    """A fold as it was; the training decisions are the last of those whose labels were known."""
    was, dates = result.folds.loc[number], panel.dates
    decisions = plan.decisions(dates)
    ends = decisions[1:] + plan.execution_lag
    last = -1 if pd.isna(was["labels_end"]) else int(dates.searchsorted(was["labels_end"]))
    known = np.flatnonzero(ends <= last)
    known = known[len(known) - int(was["training"]) :]
    start, refit, first, end = (
        int(dates.searchsorted(was[name]))
        for name in ("train_start", "train_end", "test_start", "test_end")
    )
    test = decisions[(decisions >= first) & (decisions <= min(end, rows.max(initial=-1)))]
    return Fold(number, start, decisions[:-1][known], ends[known], refit, test)


def _check_traded(result: BacktestResult, found: pd.DataFrame) -> None:
    """ValueError where weights differ from what was traded."""
    traded = result.targets
    again = found.reindex(traded.index)
    same = (again - traded).abs().le(SAME) | (again.isna() & traded.isna())
    if not same.to_numpy().all():
        date, asset = same.stack()[lambda s: ~s].index[0]
        raise ValueError(
            f"on {day(date)} the replay holds {again.loc[date, asset]:.9g} of {asset}, and "
            f"{traded.loc[date, asset]:.9g} was traded: the code, or a package, has changed since; "
            "run the backtest again"
        )
