"""A session: what ``backtest``, ``backtest_seeds`` and ``cross_validate`` have in common.

Arguments are checked, learned strategies are fitted, and all strategies decide: in this process, in
worker processes or on a cluster.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from data_loaders import Panel
from data_loaders.machine import check_room
from data_loaders.panel import benchmark_returns
from data_loaders.validation import day
from data_loaders.writing import write_text
from engine.accounting.bookkeeping import Ruin
from engine.accounting.costs import Costs
from engine.accounting.market import Market, level_table
from engine.accounting.risk_free import Rates, read_risk_free
from engine.accounting.simulation import (
    Simulation,
    SimulationError,
    load_vectorbt,
    nothing_filled,
    simulate,
)
from engine.compute.executors import broadcast, limited_threads
from engine.planning.walk_forward import Fold, WalkForward, fold_table
from engine.runs.description import described, identity, run_settings
from engine.runs.result import BacktestResult
from engine.runs.result_views import outcome
from engine.runs.run_directory import RunDirectory
from engine.runs.run_files import RATES, locked, written
from engine.training.callbacks import Bar, Callback
from engine.training.fit_records import FitKey, Fits, TrainingError
from engine.training.settings import Training, device_here
from engine.walking.argument_checks import (
    check_arguments,
    check_financing,
    check_unseen,
    named_strategies,
)
from engine.walking.decisions import Decided, DecisionTask
from engine.walking.fitting import Fitting, training_error
from engine.walking.learner import Learner
from strategies.base import Strategy, learned_inside

TABLES = 8  # of T x N numbers, that a run makes at least: weights, returns, orders, ...
COPIED = 2  # in each worker
SMALLER = "take fewer assets, fewer dates or fewer workers"
OWN = ("difference", "decided")  # fields of a simulation that its result has elsewhere


class Session:
    """One run over a panel. The arguments are those of ``backtest``.

    Attributes:
        named, learned: the strategies by the names to show, and what is trained of them: they
            themselves, or the learned strategies inside wrappers.
        lookback: of the most demanding strategy.
        settings: what reproduces the run, as JSON can hold it.
        fits, errors: of the fits that have ended, and of those that failed.
        raised: of the strategies that failed, by name.
    """

    learner: Learner
    run: RunDirectory | None

    def __init__(
        self,
        strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
        panel: Panel,
        plan: WalkForward | None,
        costs: Costs | None,
        training: Training | None,
        *,
        workers: int | None = None,
        executor: Executor | None = None,
        progress: bool | None = None,
        threads: int = 1,
        callbacks: Sequence[Callback] = (),
        risk_free: Rates | None = None,
    ):
        self.plan, self.costs = plan or WalkForward(), costs or Costs()
        self.training = training or Training()
        self.workers, self.executor, self.threads = workers, executor, threads
        self.progress, self.callbacks = progress, callbacks
        counts = {"workers": workers, "threads": threads}
        check_arguments(panel, self.plan, self.costs, self.training, counts, callbacks)
        held = TABLES + COPIED * (workers or 0)
        check_room("a backtest", len(panel), len(panel.assets), tables=held, remedy=SMALLER)
        self.panel, self.benchmark = panel.without_benchmark(), panel.benchmark
        self.named = named_strategies(strategies, self.panel)
        check_financing(self.named, self.costs)
        inside = {name: learned_inside(each) for name, each in self.named.items()}
        self.learned = {name: each for name, each in inside.items() if each is not None}
        if self.learned and executor is None:
            device_here(self.training.device)  # an error before hours are spent
        Market(self.panel, self.costs, self.plan.fill).quoted  # noqa: B018 - likewise
        self.lookback = max(strategy.lookback for strategy in self.named.values())
        self.risk_free = read_risk_free(risk_free, self.costs.cash_rate, panel.dates)
        self.settings = run_settings(panel, self.plan, self.costs, self.training, self.risk_free)
        self.fits: Fits = {}
        self.errors: dict[FitKey, TrainingError] = {}
        self.raised: dict[str, Exception] = {}

    @contextmanager
    def open(
        self, folds: list[Fold], run_dir: str | Path | None, restart: bool, **others: Any
    ) -> Iterator[None]:
        """Inside, fits and decisions can be made, by as many processes as were asked for.

        Args:
            folds: what is trained on, and decided.
            others: what else tells a run directory apart from that of another run.
        """
        self.run = None
        check_unseen(self.learned, folds, self.panel.dates)
        with ExitStack() as stack:
            if run_dir is not None:
                stack.enter_context(locked(Path(run_dir)))
                asked = identity(self.settings, self.named) | others
                self.run = RunDirectory(run_dir, asked, restart)
                if isinstance(rates := self.risk_free.rates, pd.Series):
                    table = rates.rename("rate").to_csv(index_label="date")
                    with written(self.run.path):
                        write_text(self.run.path / RATES, table)
            self.learner = Learner(
                self.panel, folds, self.plan, self.costs, self.training, self.threads,
                self.risk_free,
            )  # fmt: skip
            self._cancelled_at_exit: list[Future] = []
            stack.enter_context(limited_threads(self.threads))
            place = broadcast(self.learner, self.workers, self.executor)
            self.submit = stack.enter_context(place)
            try:
                yield
            finally:
                for future in self._cancelled_at_exit:
                    future.cancel()

    @property
    def seeds(self) -> range:
        """Those that a learned strategy is trained with."""
        return range(self.training.seed, self.training.seed + self.training.ensemble)

    def decisions(
        self, walks: Sequence[Sequence[Fold]], each_seed: bool = False, observed: bool = True
    ) -> Iterator[tuple[str, list[Decided]]]:
        """Fit what is learned, and decide.

        In this process rules decide before anything is trained; in other processes, once the last
        fit is submitted.

        Args:
            walks: the folds that a strategy decides in, once for each of its tasks.
            each_seed: whether each seed decides alone, in a task of its own, and a rule, which has
                no seed, once; else all decide together.
            observed: see ``DecisionTask``.

        Yields:
            The name of each strategy, and what its tasks decided.
        """
        submitted: dict[str, list[Future[Decided]]] = {}
        rules = [name for name in self.named if name not in self.learned]

        def tasks(name: str) -> list[DecisionTask]:
            seeds = [[seed] for seed in self.seeds] if each_seed else [list(self.seeds)]
            seeds = seeds if name in self.learned else seeds[:1]
            return [self._task(name, walk, own, observed) for walk in walks for own in seeds]

        def submit(names: Iterable[str]) -> None:
            for name in names:
                if self.submit is not None and _portable(self.named[name]):
                    submitted[name] = [self.submit(task) for task in tasks(name)]
                    self._cancelled_at_exit += submitted[name]

        def on_last() -> None:
            submit(rules)
            load_vectorbt()  # while others work

        def decided(name: str) -> tuple[str, list[Decided]]:
            mine = tasks(name)
            total = sum(map(len, mine))
            with Bar(name, total, "decision", self.progress) as bar:
                if name in submitted:
                    outcomes = [future.result() for future in submitted[name]]
                    bar.update(total)
                else:
                    outcomes = [task.run(self.learner, bar.update) for task in mine]
            return name, outcomes

        if self.submit is None:
            yield from map(decided, rules)
        fitting = Fitting(
            self._prepared(), self.seeds, self.learner, self.run, self.submit, self.callbacks,
            self.progress,
        )  # fmt: skip
        fitting.finish(on_last)
        self.fits, self.errors = fitting.done, self.errors | fitting.failed
        submit(self.learned)
        yield from map(decided, self.named if self.submit is not None else self.learned)

    def _prepared(self) -> dict[str, Strategy]:
        """The strategies that can prepare the first date of what they learn from; the others have
        failed before anything is trained.

        Raises:
            ValueError: the inputs of all dates do not fit in the memory of this machine.
        """
        found = {}
        for name, learned in self.learned.items():
            try:
                self.learner.first_inputs(name, learned)
            except MemoryError:
                raise
            except Exception as error:
                for key in (FitKey(name, 0, seed) for seed in self.seeds):
                    self.errors[key] = training_error(key, self.learner, error)
                    self.errors[key].__cause__ = error
            else:
                found[name] = self.named[name]
        if found and (copies := self.workers or int(self.executor is None)):
            self.learner.check_memory({name: self.learned[name] for name in found}, copies)
        return found

    def _task(
        self, name: str, folds: Sequence[Fold], seeds: Sequence[int], observed: bool
    ) -> DecisionTask:
        """The decisions of a strategy in some folds, up to the first that could not be trained."""
        decides, failed = folds, None
        if name in self.learned:
            for end, fold in enumerate(folds):
                if not all(FitKey(name, fold.number, seed) in self.fits for seed in seeds):
                    own = (key for key in self.errors if key.name == name and key.seed in seeds)
                    decides, failed = folds[:end], self.errors[min(own, key=lambda k: k[1:])]
                    break
        numbers = {fold.number for fold in decides}
        fits = {
            key: fitted
            for key, fitted in self.fits.items()
            if key.name == name and key.seed in seeds and key.fold in numbers
        }
        return DecisionTask(name, self.named[name], fits, decides, observed, failed)

    def simulated(self, name: str, decided: Decided, whole_shares: bool = False) -> Simulation:
        """What orders for the decided targets come to, up to the failure of one that failed."""
        targets, panel, lag = decided.targets, self.panel, self.plan.execution_lag
        error: Exception | None = decided.error
        failure = decided.error.failure if decided.error is not None else None
        if failure is not None:
            end = panel.dates.searchsorted(pd.Timestamp(failure["date"]), side="right")
            panel = panel.rows(0, int(end))
            rows = panel.dates.get_indexer(targets.index)
            targets = targets[(rows >= 0) & (rows + lag < len(panel))]
        found = nothing_filled(panel)
        try:
            if len(targets):
                found = simulate(
                    targets,
                    panel,
                    self.costs,
                    lag,
                    whole_shares,
                    self.plan.unpriced,
                    self.plan.fill,
                    decided.levels,
                )
        except (Ruin, SimulationError) as caught:
            error = caught
            when = day(caught.date) if isinstance(caught, Ruin) else None
            failure = {"date": when, "stage": "simulation", "reason": str(caught)}
        if error is not None:
            self.raised.setdefault(name, error)
        return found if found.failure else replace(found, failure=failure)

    def risk_free_returns(self, simulated: Simulation) -> pd.Series:
        """(T,) the risk-free returns of the same periods, see ``RiskFree.returns``."""
        dates, fills = simulated.net_returns.index, simulated.turnover.index
        return self.risk_free.returns(pd.DatetimeIndex(dates), pd.DatetimeIndex(fills))

    def result(
        self, name: str, decided: Decided, settings: dict, seed: int | None = None
    ) -> BacktestResult:
        """Simulate the decisions of a strategy; the result with all that is known about it.

        Args:
            settings: of the run, ``whole_shares`` among them.
            seed: the one whose fits decided; None: all of them.
        """
        learner = self.learner
        simulated = self.simulated(name, decided, settings["whole_shares"])
        fits = {
            key: self.fits[key]
            for key in sorted(self.fits, key=lambda key: key[1:])  # by fold and seed
            if key.name == name and seed in (None, key.seed)
        }

        def rows(kind: str) -> list[dict]:
            return [
                {"fold": key.fold, "seed": key.seed, **row}
                for key, fitted in fits.items()
                for row in getattr(fitted, kind)
            ]

        histories = [f.history.assign(fold=key.fold, seed=key.seed) for key, f in fits.items()]
        validation = self.training.validation if name in self.learned else 0.0
        solved = [{"phase": "training", **row} for row in rows("solves")]
        shown = {name: value for name, value in vars(simulated).items() if name not in OWN}
        return BacktestResult(
            name=name,
            strategy=described(self.named[name]),
            targets=decided.targets.loc[simulated.decided],
            folds=fold_table(learner.folds, self.panel.dates, self.plan.execution_lag, validation),
            training=pd.concat(histories, ignore_index=True) if histories else pd.DataFrame(),
            solves=pd.DataFrame(solved + decided.solves),
            checks=pd.DataFrame(rows("checks")),
            settings={**settings, "simulation_difference": simulated.difference},
            states={(key.fold, key.seed): fitted.state for key, fitted in fits.items()},
            asset_returns=learner.asset_returns.loc[simulated.weights.index],
            limits=pd.DataFrame(decided.limits),
            decisions=decided.decisions,
            reasons=decided.reasons,
            sensitivity=pd.DataFrame(decided.sensitivity),
            illiquidity=learner.measured.reindex(simulated.turnover.index),
            benchmark=benchmark_returns(self.benchmark, simulated.weights.index),
            risk_free=self.risk_free_returns(simulated),
            levels=level_table(decided.levels, self.panel, simulated.decided),
            **shown,
        )

    def check_some_finished(self, results: Mapping[str, BacktestResult]) -> None:
        """Warn of strategies that failed; where all did, raise the error of the first."""
        if results and not any(result.complete for result in results.values()):
            error = next(iter(self.raised.values()))
            error.finished = results  # type: ignore[attr-defined]
            raise error
        if failed := outcome(results):
            warnings.warn(failed, RuntimeWarning, stacklevel=3)


def _portable(strategy: Strategy) -> bool:
    """Whether another process can be sent the strategy: not one written at a prompt or inside a
    function, as its class is found by the name of its module."""
    try:
        sent = pickle.dumps(strategy)
    except (AttributeError, TypeError, pickle.PicklingError):
        return False
    return b"__main__" not in sent or hasattr(sys.modules["__main__"], "__file__")
