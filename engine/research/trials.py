"""The trials of a search: proposed and judged one by one, in any number of processes at once.

A trial fills a slot, a number from 0 on. A process claims the first open slot and runs a new trial
for it; none is enqueued, as two processes may take the same one out of a queue in SQLite. If a
worker is lost, its slot is open again, and the next to be claimed. What is proposed for a slot
depends on the seed, the slot, and the trials that have ended.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from data_loaders import Panel
from engine.accounting.costs import Costs
from engine.accounting.performance import sharpe
from engine.accounting.risk_free import Rates
from engine.backtest import backtest
from engine.compute.executors import TASK_LOCK
from engine.compute.worker_pool import is_alive
from engine.planning.walk_forward import WalkForward
from engine.runs.ledger import TrialLedger
from engine.runs.result import BacktestResult
from engine.runs.result_views import why_failed
from engine.runs.storage import Claims, connect_arguments, storage_errors
from engine.training.fit_records import TrainingError
from engine.training.settings import Training
from engine.walking.weight_checks import AllocationError
from strategies.base import Strategy

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

TRAINING = "training."  # ranges so named are of ``Training``, others of the strategy
MOST = 100_000  # trials: more would take years, and the list of them much memory
DRAWS = 10  # of a proposal at most; where all are known, the last one is a duplicate
PAUSE = 0.5  # seconds between looks at what other workers do


@dataclass(frozen=True)
class Search:
    """What to try, and how to judge it.

    Args:
        ranges: {parameter: range}; a range is {"low": 8, "high": 64}, with "log": True or
            "step": 8 if wanted, or a list of choices. "training.learning_rate" is a field of
            ``Training``, any other name a parameter of the strategy.
        trials: configurations to try in all; if more are asked for later, the search resumes.
        folds: validation folds. The first half of the history is trained on before the first;
            each later one also trains on the folds before it.
        pruning: give a trial up after a fold if it is below the median of the others there.
        seed: of the proposals. One process alone makes the same ones again, also if it was killed;
            several make other ones than each other, as each trial has a seed of its own.
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
        if self.trials > MOST:
            raise ValueError(f"trials is {MOST:,} at most, got {self.trials:,}")
        for name, described in self.ranges.items():
            _check_range(name, described)


def _check_range(name: str, described: Any) -> None:
    if isinstance(described, list | tuple):
        if len(described) < 2 or any(isinstance(each, list | tuple | dict) for each in described):
            raise ValueError(f"{name}: choices are two plain values or more, got {described!r}")
        return
    if not isinstance(described, Mapping) or not {"low", "high"} <= set(described):
        raise ValueError(
            f"{name}: a range is a list of choices or {{low = 8, high = 64}}, got {described!r}"
        )
    unknown = set(described) - {"low", "high", "log", "step"}
    if unknown:
        raise ValueError(f"{name}: a range has low, high, log and step, not {sorted(unknown)}")
    low, high, step = described["low"], described["high"], described.get("step")
    for number in (low, high) if step is None else (low, high, step):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{name}: low, high and step are numbers, got {described!r}")
    if not low < high:
        raise ValueError(f"{name}: low must be below high, got {low!r} and {high!r}")
    if described.get("log") and (low <= 0 or step is not None):
        raise ValueError(f"{name}: log needs a low above 0 and no step, got {described!r}")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"{name}: step must be above 0 and fit in the range, got {step!r}")


class Surplus(Exception):
    """A trial whose slot another trial has filled; it is not run."""


@dataclass(frozen=True)
class Trials:
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
    risk_free: Rates | None = None

    def judge(self, slot: int, trial: Trial) -> float:
        """The net Sharpe ratio of a proposal over the validation folds, in order of time."""
        from optuna import TrialPruned

        ended = ended_slots(trial.study)
        if slot in ended or "slot" in trial.user_attrs:  # waiting since an earlier version
            raise Surplus
        trial.set_user_attr("slot", slot)
        trial.set_user_attr("worker", f"{socket.gethostname()} {os.getpid()}")
        judged: list[BacktestResult] = []
        try:
            chosen = propose(trial, slot, self.search.ranges, self.search.seed)
            for earlier in ended.values():
                if earlier.params == chosen:
                    return _as_before(earlier, trial)
            trained = {name for name in chosen if name.startswith(TRAINING)}
            training = replace(
                self.training, **{name.removeprefix(TRAINING): chosen.pop(name) for name in trained}
            )
            strategy = clone(self.strategy).set_params(**chosen)
            for number, (first, last) in enumerate(self.folds):
                plan = replace(self.plan, train=first, refit=len(self.history))
                seen = self.history.until(self.history.dates[last])
                with TASK_LOCK, warnings.catch_warnings():  # a worker may have several threads
                    warnings.filterwarnings("ignore", "0 of 1 strategies finished")
                    found = backtest(
                        {"trial": strategy}, seen, plan, self.costs, training,
                        progress=False, ledger=False, risk_free=self.risk_free,
                    )  # fmt: skip
                judged.append(found["trial"])
                if judged[-1].ruined:
                    raise ValueError(f"the trial {why_failed(judged[-1])}")
                value = sharpe(_joined(judged).excess_returns, self.history.periods_per_year)
                if np.isnan(value):  # of returns without a spread
                    continue
                trial.report(value, number)
                if trial.should_prune() and number + 1 < len(self.folds):
                    raise TrialPruned
            if np.isnan(value):
                raise ValueError("no Sharpe ratio is defined: nothing was held but cash")
        except (ValueError, TrainingError, AllocationError) as error:
            trial.set_user_attr("error", str(error))
            judged += getattr(error, "finished", {}).values()  # it was tried, too
            raise
        finally:
            if judged:
                self.record(judged)
        return value

    def record(self, judged: list[BacktestResult]) -> None:
        settings = {**judged[-1].settings, "plan": self.plan.described()}
        whole = replace(_joined(judged), settings=settings, name=type(self.strategy).__name__)
        TrialLedger(self.url).record({whole.name: whole}, kind="sweep")

    @contextmanager
    def study(self) -> Iterator[Study]:
        """The study in the storage, created if it is not there."""
        import optuna
        from sqlalchemy.exc import DBAPIError

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
        with storage_errors(self.url), warnings.catch_warnings():
            # heartbeats and options of the sampler may change in a later version
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            for attempt in range(5):
                try:
                    storage = optuna.storages.RDBStorage(
                        self.url,
                        engine_kwargs=connect_arguments(self.url),
                        heartbeat_interval=max(1, self.search.stale // 4),
                        grace_period=self.search.stale,
                    )
                    break
                except DBAPIError:  # another process creates the tables at the same moment
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


def propose(trial: Trial, slot: int, described: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The values for a trial, within ranges that are described as in ``Search``; stored with it.

    Optuna's tree-structured Parzen estimator draws each value from the trials that have ended. Of
    several processes each has other random numbers, as no two have the same slot, and what is known
    already, or is being tried for an earlier slot, is drawn again.
    """
    from optuna.samplers import PartialFixedSampler, TPESampler
    from optuna.trial import TrialState

    study = trial.study
    known = [
        each.params
        for each in study.get_trials(deepcopy=False)
        if each.params and each.user_attrs.get("slot") != slot
        and (each.state.is_finished() or each.user_attrs.get("slot", slot) < slot)
        and each.state != TrialState.WAITING
    ]  # fmt: skip
    ranges = {name: _distribution(each) for name, each in described.items()}
    frozen = study._storage.get_trial(trial._trial_id)
    for draw in range(DRAWS):
        own_seed = np.random.SeedSequence((seed, slot, draw)).generate_state(1)[0]
        sampler = TPESampler(seed=int(own_seed), constant_liar=True)
        chosen = {
            name: sampler.sample_independent(study, frozen, name, range_)
            for name, range_ in ranges.items()
        }
        if chosen not in known:
            break
    study.sampler = PartialFixedSampler(chosen, sampler)
    return {name: trial._suggest(name, range_) for name, range_ in ranges.items()}


def _distribution(described: Any) -> BaseDistribution:
    """Of a range of ``Search``: whole numbers where both ends of it are."""
    from optuna import distributions

    if not isinstance(described, Mapping):
        return distributions.CategoricalDistribution(tuple(described))
    low, high, step = described["low"], described["high"], described.get("step")
    log = described.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=log, step=int(step or 1))
    return distributions.FloatDistribution(low, high, log=log, step=step)


def work(task: Trials, done: Callable[[int], None] = lambda ended: None) -> None:
    """Run trials until all have ended, here or in other processes."""
    import optuna

    state = optuna.trial.TrialState
    checked: set[int] = set()  # trials of others that were given a heartbeat
    claims = Claims(task.url, task.search.stale)
    errors = (ValueError, TrainingError, AllocationError, Surplus)
    with task.study() as study:
        while True:
            optuna.storages.fail_stale_trials(study)
            _fail_dead(study)
            done(len(ended_slots(study)))
            missing = missing_slots(study, task.search.trials)
            open_ = (slot for slot, attempt in missing if claims.mine(task.name, slot, attempt))
            if (slot := next(open_, None)) is not None:
                study.optimize(partial(task.judge, slot), n_trials=1, catch=errors)
            elif missing:  # another process has claimed them
                time.sleep(PAUSE)
            elif running := study.get_trials(deepcopy=False, states=(state.RUNNING,)):
                # A trial without any heartbeat is never stale, even if its worker was killed before
                # the first: each is given one, once, and is stale after that without further ones.
                for trial in running:
                    if trial.number not in checked:
                        study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
                        checked.add(trial.number)
                time.sleep(PAUSE)
            else:
                return


def _fail_dead(study: Study) -> None:
    """End the trials that run in a process of this machine that is no more."""
    from optuna.exceptions import OptunaError
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        host, _, process = trial.user_attrs.get("worker", "").rpartition(" ")
        if host != socket.gethostname() or is_alive(int(process)):
            continue
        with suppress(ValueError, OptunaError):  # another process does so at the same moment
            study.tell(trial.number, state=TrialState.FAIL)


def _as_before(earlier: FrozenTrial, trial: Trial) -> float:
    """What a trial of the same configuration found; it is not run again."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    for fold, value in sorted(earlier.intermediate_values.items()):
        trial.report(value, fold)
    if earlier.state == TrialState.PRUNED:
        raise TrialPruned
    if earlier.value is None:
        raise ValueError(earlier.user_attrs["error"])
    return earlier.value


def ended_slots(study: Study) -> dict[int, Any]:
    """{slot: the trial that ended it}; one that failed without a reason was interrupted."""
    from optuna.trial import TrialState

    ended: dict[int, Any] = {}
    for trial in study.get_trials(deepcopy=False):
        judged = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        failed = trial.state == TrialState.FAIL and "error" in trial.user_attrs
        if "slot" in trial.user_attrs and (judged or failed):
            ended.setdefault(trial.user_attrs["slot"], trial)
    return dict(sorted(ended.items()))


def missing_slots(study: Study, trials: int) -> list[tuple[int, int]]:
    """(slot, attempts so far) of the slots that no trial has ended or is working on."""
    from optuna.trial import TrialState

    attempts: dict[int, int] = dict.fromkeys(range(trials), 0)
    under_way = set(ended_slots(study))
    for trial in study.get_trials(deepcopy=False):
        slot = trial.user_attrs.get("slot")
        if slot in attempts:
            attempts[slot] += 1
            if trial.state == TrialState.RUNNING:
                under_way.add(slot)
    return [(slot, count) for slot, count in attempts.items() if slot not in under_way]


def _joined(judged: list[BacktestResult]) -> BacktestResult:
    """The last result with the returns, weights and turnover of all, one after the other."""
    names = ("net_returns", "risk_free", "weights", "turnover")
    return replace(
        judged[-1], **{name: pd.concat([getattr(each, name) for each in judged]) for name in names}
    )
