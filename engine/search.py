"""search(): choose a strategy's parameters on history that ends before the first test decision.

Optuna proposes; every proposal is judged by its net Sharpe ratio on validation folds, cut from
what the plan would train its first fold on. The test periods of the plan are never seen, so the
backtest of the winner is out of sample. What was tried goes to the trial ledger.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from data_loaders import Panel
from engine.backtest import backtest
from engine.cluster import client_of
from engine.costs import Costs
from engine.delivery import TURN
from engine.ledger import TrialLedger
from engine.processes import local_processes
from engine.progress import progress_bar
from engine.ranges import Range, read_range
from engine.result import BacktestResult
from engine.storage import Claims, connect_arguments, reported, storage_url
from engine.training import Training, TrainingError
from engine.walk_forward import WalkForward
from engine.weights import AllocationError
from strategies.base import Strategy

if TYPE_CHECKING:
    from optuna import Study, Trial

TRAINING = "training."  # ranges so named are of ``Training``, others of the strategy
PAUSE = 0.5  # seconds between looks at what other workers do


class SearchError(RuntimeError):
    """No configuration could be judged; the message says why."""


class _Surplus(Exception):
    """A trial that two workers made at once; it is not run."""


@dataclass(frozen=True)
class Search:
    """What to try, and how to judge it.

    Args:
        ranges: {parameter: range}; a range is {"low": 8, "high": 64}, with "log": True or
            "step": 8 if wanted, or a list of choices. "training.learning_rate" is a field of
            ``Training``, any other name a parameter of the strategy.
        trials: configurations to try in all; asked for more later, the search goes on.
        folds: validation folds. The first half of the history is trained on before the first;
            each later one also trains on the folds before it.
        pruning: give a trial up after a fold if it is below the median of the others there.
        seed: of the proposals. One process alone makes the same ones again, also if interrupted.
        stale: seconds without a sign of life after which a worker's trial is given to another.

    Raises:
        ValueError: a range without room, or numbers that make no sense.
    """

    ranges: Mapping[str, Any]
    trials: int = 50
    folds: int = 3
    pruning: bool = True
    seed: int = 0
    stale: int = 60

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("there is nothing to search: give ranges, like hidden = [8, 16, 32]")
        for name, low in (("trials", 1), ("folds", 1), ("seed", 0), ("stale", 2)):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= low):
                raise ValueError(f"{name} is a whole number from {low} on, got {value!r}")
        for name, described in self.ranges.items():
            read_range(name, described)

    @property
    def read(self) -> dict[str, Range]:
        return {name: read_range(name, described) for name, described in self.ranges.items()}


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: {parameter: value}, named as the ranges are.
        value: its net Sharpe ratio a year over all validation folds.
        trials: one row a trial: state ("complete", "pruned", "failed"), value, the parameters,
            fold_0, fold_1, ... (the ratio up to and with that fold), seconds, error.
        name: of the study in the storage.
        until: the last date that was seen.
    """

    best: dict[str, Any]
    value: float
    trials: pd.DataFrame
    name: str
    until: pd.Timestamp

    def summary(self, most: int = 5) -> str:
        """The best trials, and what they were judged on, for a terminal."""
        ended = self.trials["state"].value_counts().to_dict()
        counted = ", ".join(f"{count} {state}" for state, count in ended.items())
        leaders = self.trials[self.trials["state"] == "complete"].nlargest(most, "value")
        shown = leaders.drop(columns=["state", "seconds", "error"])
        return (
            f"{len(self.trials)} trials ({counted}), judged by the net Sharpe ratio on validation "
            f"folds up to {self.until.date()}; nothing later was seen\n\n"
            f"{shown.to_string(float_format=lambda x: f'{x:.4g}')}"
        )


@dataclass(frozen=True)
class _Task:
    """All that a worker needs; the panel ends before the first test decision."""

    strategy: Strategy
    history: Panel
    folds: list[tuple[int, int]]  # first and last row of each validation fold
    plan: WalkForward
    costs: Costs
    training: Training
    search: Search
    name: str
    url: str

    def configured(self, chosen: Mapping[str, Any]) -> tuple[Strategy, Training]:
        trained = {k.removeprefix(TRAINING): v for k, v in chosen.items() if k.startswith(TRAINING)}
        others = {k: v for k, v in chosen.items() if not k.startswith(TRAINING)}
        strategy: Strategy = clone(self.strategy).set_params(**others)
        return strategy, replace(self.training, **trained)

    def judge(self, trial: Trial) -> float:
        """The net Sharpe ratio of a proposal over the validation folds, in order of time."""
        with TURN:  # a worker of a cluster may have several threads
            return self._judge(trial)

    def _judge(self, trial: Trial) -> float:
        from optuna import TrialPruned

        if trial.user_attrs.get("slot") in (None, *_slots(trial.study)):
            raise _Surplus
        chosen = {name: each.propose(trial, name) for name, each in self.search.read.items()}
        strategy, training = self.configured(chosen)
        judged: list[BacktestResult] = []
        try:
            for number, (first, last) in enumerate(self.folds):
                plan = replace(self.plan, train=first, refit=len(self.history))
                seen = self.history.until(self.history.dates[last])
                found = backtest(
                    {"trial": strategy}, seen, plan, self.costs, training,
                    progress=False, ledger=False,
                )  # fmt: skip
                judged.append(found["trial"])
                value = _sharpe(_joined(judged), self.history.periods_per_year)
                trial.report(value, number)
                if trial.should_prune() and number + 1 < len(self.folds):
                    raise TrialPruned
        except (ValueError, TrainingError, AllocationError) as error:
            trial.set_user_attr("error", str(error))
            raise
        finally:
            if judged:
                self.record(judged)
        return value

    def record(self, judged: list[BacktestResult]) -> None:
        last = judged[-1]
        settings = {**last.settings, "plan": asdict(self.plan)}
        turnover = pd.concat([each.turnover for each in judged])
        whole = replace(last, net_returns=_joined(judged), turnover=turnover, settings=settings)
        whole = replace(whole, name=type(self.strategy).__name__)
        TrialLedger(self.url).record({whole.name: whole}, kind="sweep")

    @contextmanager
    def study(self) -> Iterator[Study]:
        """The study in the storage, made if it is not there."""
        import optuna
        from sqlalchemy.exc import DBAPIError

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
        with reported(self.url), quiet_optuna():
            again = optuna.storages.RetryHeartbeatStaleTrialCallback()
            for attempt in range(5):
                try:
                    storage = optuna.storages.RDBStorage(
                        self.url,
                        engine_kwargs=connect_arguments(self.url),
                        heartbeat_stale_trial_callback=again,
                        heartbeat_interval=max(1, self.search.stale // 4),
                        grace_period=self.search.stale,
                    )
                    break
                except DBAPIError:  # another process makes the tables at the same moment
                    if attempt == 4:
                        raise
                    time.sleep(PAUSE)
            try:
                yield optuna.create_study(
                    storage=storage,
                    study_name=self.name,
                    direction="maximize",
                    load_if_exists=True,
                    pruner=pruner if self.search.pruning else optuna.pruners.NopPruner(),
                )
            finally:
                storage.remove_session()
                storage.engine.dispose()


def search(
    strategy: Strategy,
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    *,
    ranges: Search,
    storage: str | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
) -> SearchResult:
    """Search for the best parameters of a strategy, without a look at the plan's test periods.

    Every trial is stored as it ends. A search that was stopped goes on where it was; several
    processes, on several machines, share one if they use the same storage.

    Args:
        strategy, panel, plan, costs, training: as in ``backtest``.
        ranges: what to try.
        storage: URL of a database; by default that of the trial ledger.
        workers: processes of this machine. executor: a ``concurrent.futures.Executor``, such as
            a Dask client's; its workers must reach the storage.

    Raises:
        ValueError: a parameter that is not there, or a history too short for the folds.
        StorageError: the storage does not answer; what had ended is safe.
        SearchError: every trial failed.
    """
    plan, costs, training = plan or WalkForward(), costs or Costs(), training or Training()
    if workers is not None and executor is not None:
        raise ValueError("give workers or an executor, not both")
    _check_names(strategy, ranges)
    first = plan.folds(panel.dates, strategy.lookback)[0]
    history = panel.until(panel.dates[first.refit])
    url = storage_url(storage)
    identity = [
        history.fingerprint, asdict(plan), asdict(costs), repr(training),
        type(strategy).__module__, repr(strategy.get_params()), dict(ranges.ranges),
        ranges.folds, ranges.pruning, ranges.seed,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
    name = f"{type(strategy).__name__}-{digest.hexdigest()[:12]}"
    task = _Task(
        strategy, history, validation_folds(first.train, first.refit, ranges.folds),
        plan, costs, training, ranges, name, url,
    )  # fmt: skip
    with task.study() as study:
        claims = Claims(url, ranges.stale)
        while len(_slots(study)) < ranges.trials:
            for slot, attempt in _missing(study, ranges.trials):
                if claims.mine(name, slot, attempt):
                    study.enqueue_trial({}, user_attrs={"slot": slot})
            _spread(task, workers, executor, progress)
        return _found(study, task)


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


def work(task: _Task, done: Callable[[int], None] = lambda ended: None) -> None:
    """Run trials until all have ended, here or in other processes."""
    import optuna

    state = optuna.trial.TrialState
    with task.study() as study:
        while True:
            optuna.storages.fail_stale_trials(study)
            ended = len(_slots(study))
            done(ended)
            if study.get_trials(deepcopy=False, states=(state.WAITING,)):
                # Proposals depend on the seed and on what has ended: the same after a stop.
                seed = task.search.seed * 100_003 + ended
                study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
                errors = (ValueError, TrainingError, AllocationError, _Surplus)
                study.optimize(task.judge, n_trials=1, catch=errors)
            elif study.get_trials(deepcopy=False, states=(state.RUNNING,)):
                time.sleep(PAUSE)
            else:
                return


def _spread(
    task: _Task, workers: int | None, executor: Executor | None, progress: bool | None
) -> None:
    """``work`` here, or on each worker; what is left of a pool that broke is done here."""
    with progress_bar("search", task.search.trials, "trial", progress) as bar:
        if workers is None and executor is None:
            work(task, bar.reach)
            return
        try:
            if workers is not None:
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


def _wait(futures: list, task: _Task, show: Callable[[int], None]) -> None:
    with task.study() as study:
        while not all(future.done() for future in futures):
            show(len(_slots(study)))
            time.sleep(PAUSE)
        for future in futures:
            future.result()
        show(len(_slots(study)))


def _slots(study: Study) -> dict[int, Any]:
    """{slot: the trial that ended it}; failed without a reason is not ended but interrupted."""
    from optuna.trial import TrialState

    ended: dict[int, Any] = {}
    for trial in study.get_trials(deepcopy=False):
        judged = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        failed = trial.state == TrialState.FAIL and "error" in trial.user_attrs
        if "slot" in trial.user_attrs and (judged or failed):
            ended.setdefault(trial.user_attrs["slot"], trial)
    return dict(sorted(ended.items()))


def _missing(study: Study, trials: int) -> list[tuple[int, int]]:
    """(slot, attempts so far) of the slots that have neither ended nor are under way."""
    from optuna.trial import TrialState

    attempts: dict[int, int] = dict.fromkeys(range(trials), 0)
    under_way = set(_slots(study))
    for trial in study.get_trials(deepcopy=False):
        slot = trial.user_attrs.get("slot")
        if slot in attempts:
            attempts[slot] += 1
            if trial.state in (TrialState.WAITING, TrialState.RUNNING):
                under_way.add(slot)
    return [(slot, count) for slot, count in attempts.items() if slot not in under_way]


def _found(study: Study, task: _Task) -> SearchResult:
    rows = []
    for slot, trial in list(_slots(study).items())[: task.search.trials]:
        values = dict(sorted(trial.intermediate_values.items()))
        rows.append(
            {
                "trial": slot,
                "state": {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),
                "value": values[max(values)] if values else np.nan,
                **trial.params,
                **{f"fold_{number}": value for number, value in values.items()},
                "seconds": trial.duration.total_seconds() if trial.duration else np.nan,
                "error": trial.user_attrs.get("error", ""),
            }
        )
    table = pd.DataFrame(rows).set_index("trial")
    complete = table[table["state"] == "complete"]
    if complete.empty:
        reason = next((text for text in table["error"] if text), "all were pruned")
        raise SearchError(f"none of {len(table)} trials could be judged to the end: {reason}")
    winner = int(complete["value"].idxmax())
    best = _slots(study)[winner].params
    until = task.history.dates[-1]
    return SearchResult(
        dict(best), float(complete.loc[winner, "value"]), table, study.study_name, until
    )


def _check_names(strategy: Strategy, ranges: Search) -> None:
    import difflib

    own = strategy.get_params(deep=False)
    known = {*own, *(TRAINING + item.name for item in fields(Training))}
    for name in ranges.ranges:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(
                f"{type(strategy).__name__} has no parameter {name!r} to search: {hint}"
                f"it has {', '.join(own)}, and those of training are named training.NAME"
            )


def _joined(judged: list[BacktestResult]) -> pd.Series:
    return pd.concat([each.net_returns for each in judged])


def _sharpe(returns: pd.Series, periods_per_year: float) -> float:
    """A year; 0 where nothing was ever held."""
    spread = returns.std(ddof=1)
    return float(returns.mean() / spread * periods_per_year**0.5) if spread > 0 else 0.0


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Without notes that heartbeats and the sampler's options may change in a later version."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
