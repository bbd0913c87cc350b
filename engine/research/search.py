"""search(): choose a strategy's parameters on history that ends before the first test decision.

Optuna proposes; every proposal is judged by its net Sharpe ratio on validation folds, cut from
the training span of the plan's first fold. The test periods of the plan are never seen, so the
backtest of the winner is out of sample. Every trial is recorded in the trial ledger.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.plugins import shown_module
from data_loaders.suggestions import did_you_mean
from engine.accounting.costs import Costs
from engine.accounting.risk_free import Rates, read_risk_free
from engine.compute.executors import client_of
from engine.compute.worker_pool import local_processes, start_server
from engine.planning.walk_forward import WalkForward
from engine.research.trials import PAUSE, TRAINING, Search, Trials, ended_slots, work
from engine.runs.storage import storage_url
from engine.training.callbacks import Bar
from engine.training.settings import Training
from strategies.base import Strategy

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["Search", "SearchError", "SearchResult", "search", "validation_folds"]


class SearchError(RuntimeError):
    """No configuration could be judged; the message says why."""


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        best: {parameter: value}, named as the ranges are.
        value: its Sharpe ratio a year, net and in excess of the risk-free rate, over all
            validation folds. It is the best of all that were tried, so expect less of it later.
        trials: one row a trial: state ("complete", "pruned", "failed", or "duplicate" of an earlier
            configuration, which is not run again), value (the ratio up to the last fold that was
            judged), the parameters, fold_0, fold_1, ... (the ratio up to and with that fold),
            seconds, error. Where no ratio is defined, as of cash, the trial has failed.
        name: of the study in the storage.
        until: the last date that the search has seen.
    """

    best: dict[str, Any]
    value: float
    trials: pd.DataFrame
    name: str
    until: pd.Timestamp

    def __repr__(self) -> str:
        return f"<SearchResult {self.name}>\n{self.summary()}"

    def summary(self, most: int = 5) -> str:
        """The best trials and the data they were judged on, as text."""
        ended = self.trials["state"].value_counts().to_dict()
        counted = ", ".join(f"{count} {state}" for state, count in ended.items())
        leaders = self.trials[self.trials["state"] == "complete"].nlargest(most, "value")
        shown = leaders.drop(columns=["state", "seconds", "error"])
        return (
            f"{len(self.trials)} trials ({counted}), judged by the net Sharpe ratio on validation "
            f"folds up to {self.until.date()}; nothing later was seen\n\n"
            f"{shown.to_string(float_format=lambda x: f'{x:.4g}')}\n\n"
            "value: the net Sharpe ratio a year over the validation folds (fold_k: up to and with "
            "fold k). The best of many looks better than it is"
        )


def search(
    strategy: Strategy,
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    *,
    ranges: Search,
    risk_free: Rates | None = None,
    storage: str | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> SearchResult:
    """Search for the best parameters of a strategy, without looking at the plan's test periods.

    Every trial is stored when it ends. A search that was stopped resumes where it was; several
    processes, on several machines, share one if they use the same storage.

    Args:
        strategy, panel, plan, costs, training, risk_free: as in ``backtest``.
        ranges: what to try.
        storage: URL of a database; by default that of the trial ledger.
        workers: run trials in so many processes of this machine.
        executor: run them on this ``concurrent.futures.Executor``, such as a Dask client's; its
            workers must reach the storage.

    Raises:
        ValueError: an unknown parameter, or a history too short for the folds.
        StorageError: the storage does not answer; the trials that had ended are stored.
        SearchError: every trial failed.
    """
    if workers is not None and executor is not None:
        raise ValueError("give workers or an executor, not both")
    task = trials_of(
        strategy, panel, plan, costs, training, ranges=ranges, risk_free=risk_free, storage=storage
    )
    with task.study() as study:
        _spread(task, workers, executor, progress)
        return _found(study, task)


def trials_of(
    strategy: Strategy,
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    *,
    ranges: Search,
    risk_free: Rates | None = None,
    storage: str | None = None,
) -> Trials:
    """What a search is to try, with the name that tells it apart; nothing is tried yet."""
    plan, costs, training = plan or WalkForward(), costs or Costs(), training or Training()
    _check_names(strategy, ranges)
    first = plan.folds(panel.dates, strategy.lookback)[0]
    history = panel.until(panel.dates[first.refit])
    url = storage_url(storage)
    identity = [
        history.fingerprint, plan.described(), asdict(costs), repr(training),
        shown_module(type(strategy).__module__), repr(strategy.get_params()), dict(ranges.ranges),
        ranges.folds, ranges.pruning, ranges.seed,
    ]  # fmt: skip
    rates = read_risk_free(risk_free, costs.cash_rate, history.dates)
    if rates.described() != costs.cash_rate:
        identity.append(rates.described())
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
    name = f"{type(strategy).__name__}-{digest.hexdigest()[:12]}"
    return Trials(
        strategy, history, validation_folds(first.train, first.refit, ranges.folds),
        plan, costs, training, ranges, name, url, risk_free,
    )  # fmt: skip


def validation_folds(train: np.ndarray, refit: int, folds: int) -> list[tuple[int, int]]:
    """First and last row of each validation fold: the later half of the training decisions.

    Args:
        train: rows of the decisions of the first fold of a plan; refit: the row it ends at.
    """
    half = train[len(train) // 2 :]
    if len(half) < 3 * folds:
        raise ValueError(
            f"{len(train)} decisions before the first test are too few for {folds} validation "
            "folds; give the plan a longer train span, or fewer folds"
        )
    edges = [int(part[0]) for part in np.array_split(half, folds)] + [refit]
    return list(pairwise(edges))


def _spread(
    task: Trials, workers: int | None, executor: Executor | None, progress: bool | None
) -> None:
    """``work`` in this process or on each worker; if the pool breaks, the rest in this process."""
    with Bar("search", task.search.trials, "trial", progress) as bar:
        if workers is None and executor is None:
            work(task, bar.reach)
            return
        try:
            if workers is not None:
                start_server("optuna", "vectorbt")
                with local_processes(workers) as pool:
                    _wait([pool.submit(work, task) for _ in range(workers)], task, bar.reach)
            elif executor is not None:
                client = client_of(executor)
                count = getattr(executor, "_max_workers", None) or 1
                count = len(client.ncores()) if client is not None else count
                _wait([executor.submit(work, task) for _ in range(count)], task, bar.reach)
        except BrokenExecutor:
            warnings.warn("a worker was lost; its trial is run again here", stacklevel=3)
            work(task, bar.reach)


def _wait(futures: list, task: Trials, show: Callable[[int], None]) -> None:
    with task.study() as study:
        while not all(future.done() for future in futures):
            show(len(ended_slots(study)))
            time.sleep(PAUSE)
        for future in futures:
            future.result()
        show(len(ended_slots(study)))


def _found(study: Study, task: Trials) -> SearchResult:
    rows: list[dict[str, Any]] = []
    known: set[str] = set()  # configurations of earlier slots
    for slot, trial in list(ended_slots(study).items())[: task.search.trials]:
        values = dict(sorted(trial.intermediate_values.items()))
        configuration = json.dumps(trial.params, sort_keys=True, default=str)
        state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        rows.append(
            {
                "trial": slot,
                "state": "duplicate" if configuration in known else state,
                "value": values[max(values)] if values else np.nan,
                **trial.params,
                **{f"fold_{number}": value for number, value in values.items()},
                "seconds": trial.duration.total_seconds() if trial.duration else np.nan,
                "error": trial.user_attrs.get("error", ""),
            }
        )
        known.add(configuration)
    table = pd.DataFrame(rows).set_index("trial")
    complete = table[table["state"] == "complete"]
    if complete.empty:
        reason = next((text for text in table["error"] if text), "all were pruned")
        raise SearchError(f"none of {len(table)} trials could be judged to the end: {reason}")
    winner = int(complete["value"].idxmax())  # of equal ones the first
    best = ended_slots(study)[winner].params
    until = task.history.dates[-1]
    return SearchResult(
        dict(best), float(complete.loc[winner, "value"]), table, study.study_name, until
    )


def _check_names(strategy: Strategy, ranges: Search) -> None:
    own = strategy.get_params()
    known = {*own, *(TRAINING + item.name for item in fields(Training))}
    for name in ranges.ranges:
        if name not in known:
            hint = did_you_mean(name, known) or ";"
            raise ValueError(
                f"{type(strategy).__name__} has no parameter {name!r} to search{hint} "
                f"it has {', '.join(own)}, and those of training are named training.NAME"
            )
