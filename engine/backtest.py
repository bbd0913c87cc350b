"""backtest(): walk every strategy forward through a panel. The main flow, top to bottom."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from data_loaders import Panel, quality
from engine.planning.walk_forward import WalkForward, check_folds, fold_table
from engine.runs.ledger import TrialLedger, keep_record
from engine.runs.result import BacktestResult, save_run
from engine.runs.run_directory import RunDirectory, written
from strategies.base import LearnedStrategy, Strategy

if TYPE_CHECKING:  # what needs torch is imported where it is used: torch takes a second
    from engine.accounting.costs import Costs
    from engine.training.callbacks import Callback
    from engine.training.fit_records import FitKey, Fitted
    from engine.training.trainer import Training
    from engine.walking.decisions import Decided
    from engine.walking.learner import Learner


def backtest(
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    *,
    run_dir: str | Path | None = None,
    restart: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
    threads: int = 1,
    whole_shares: bool = False,
    ledger: TrialLedger | bool = True,
    callbacks: Sequence[Callback] = (),
) -> dict[str, BacktestResult]:
    """Walk the strategies forward through the panel, on the same dates, at the same costs.

    Args:
        strategies: one, several, or a mapping from the names to show. They are cloned; the
            ones passed in are left as they are.
        plan: refits, decisions and fills; default ``WalkForward()``.
        costs: charged in training and simulation alike; default 10 bp on value traded.
        training: how learned strategies are trained; default ``Training()``, seed 0.
        run_dir: keep each finished fit here, and the results at the end. A backtest that was
            interrupted goes on from there, to the same result bit for bit.
        restart: begin anew, whatever ``run_dir`` holds, instead of going on or refusing.
        workers: train, and decide by rules, in so many processes of this machine.
        executor: likewise on this ``concurrent.futures.Executor``, such as a Dask client's.
        progress: show a progress bar; by default where there is a terminal.
        threads: of torch and BLAS in each process. The problems are many and small: below some
            hundred assets one is the fastest, and never waits for a core that is busy.
        whole_shares: trade no fractions of shares; the result shows what that changes.
        ledger: where to write down that this was tried; by default the user's (``ledger.py``).
            False keeps no record: for tests of software, not for research.
        callbacks: told of every epoch of training: see ``callbacks.py``.

    Returns:
        {name: BacktestResult}, in the order given.

    Raises:
        ValueError: too short a history for the plan; AllocationError: weights that are NaN,
            negative, above 1 in sum (see ``Strategy.short``, ``Strategy.leverage``), of unknown
            assets, or in assets that do not trade; TrainingError: training that cannot go on;
            RunMismatch: ``run_dir`` holds another run. What was finished before is in ``run_dir``,
            and with an AllocationError in its ``finished``.
    """
    from engine.accounting.costs import Costs
    from engine.accounting.simulation import load_vectorbt
    from engine.compute.broadcast import broadcast
    from engine.compute.progress import progress_bar
    from engine.compute.threads import limited_threads
    from engine.training.trainer import Training
    from engine.walking.arguments import check_arguments, check_callbacks, named_strategies
    from engine.walking.decisions import DecisionTask, decide, portable
    from engine.walking.learner import Learner
    from engine.walking.weight_checks import AllocationError

    plan, costs, training = plan or WalkForward(), costs or Costs(), training or Training()
    check_arguments(panel, plan, costs, training, {"workers": workers, "threads": threads})
    check_callbacks(callbacks)
    named = named_strategies(strategies, panel)
    folds = plan.folds(panel.dates, max(strategy.lookback for strategy in named.values()))
    check_folds(folds, panel.dates)
    settings = {**run_settings(panel, plan, costs, training), "whole_shares": whole_shares}
    run = None
    if run_dir is not None:
        run = RunDirectory(run_dir, identity(settings, named), restart)
    learner = Learner(panel, folds, plan, costs, training, threads)
    place = broadcast(learner, workers, executor)
    learned = {name: s for name, s in named.items() if isinstance(s, LearnedStrategy)}
    results: dict[str, BacktestResult] = {}
    decisions = sum(len(fold.test) for fold in folds)
    elsewhere: dict[str, Future[Decided]] = {}
    try:
        with limited_threads(threads), place as submit:

            def hand_out(fits: dict[FitKey, Fitted] | None = None) -> None:
                """The decisions of the rules or, once there are fits, of what is learned."""
                if submit is None:
                    return
                for name, strategy in named.items():
                    if (name in learned) == (fits is not None) and portable(strategy):
                        mine = {k: fit for k, fit in (fits or {}).items() if k.name == name}
                        elsewhere[name] = submit(DecisionTask(name, strategy, mine))

            def on_last() -> None:
                hand_out()
                if submit is not None:
                    load_vectorbt()  # while others work

            def decided_by(name: str, fits: dict[FitKey, Fitted]) -> Decided:
                with progress_bar(name, decisions, "decision", progress) as bar:
                    if name not in elsewhere:
                        return decide(name, named[name], learner, fits, bar)
                    decided = elsewhere[name].result()
                    bar.update(decisions)
                    return decided

            def enter(name: str, fits: dict[FitKey, Fitted]) -> None:
                decided = decided_by(name, fits)
                results[name] = result_of(name, named[name], learner, fits, decided, settings)

            if submit is None:  # what fails at once fails before hours of training
                for name in named:
                    if name not in learned:
                        enter(name, {})
            copies = workers or int(executor is None)  # of the inputs, on this machine
            fits = learner.fit(learned, submit, run, progress, on_last, copies, callbacks)
            hand_out(fits)
            for name in named:
                if name not in results:
                    enter(name, fits)
    except AllocationError as error:
        error.finished = in_order(results, named)
        raise
    finally:
        for future in elsewhere.values():
            future.cancel()
        results = in_order(results, named)
        keep_record(results, ledger)
        if run is not None and results:
            with written(run.path):
                save_run(results, run.path)
    return results


def in_order(
    results: Mapping[str, BacktestResult], named: Mapping[str, Strategy]
) -> dict[str, BacktestResult]:
    """The results that there are, in the order in which the strategies were given."""
    return {name: results[name] for name in named if name in results}


def result_of(
    name: str,
    strategy: Strategy,
    learner: Learner,
    fits: dict[FitKey, Fitted],
    decided: Decided,
    settings: dict,
) -> BacktestResult:
    from engine.accounting.simulation import simulate

    simulated = simulate(
        decided.targets,
        learner.panel,
        learner.costs,
        learner.plan.execution_lag,
        settings["whole_shares"],
    )
    mine = {(key.fold, key.seed): fitted for key, fitted in fits.items() if key.name == name}
    mine = dict(sorted(mine.items()))

    def tagged(rows: str) -> list[dict]:
        return [
            {"fold": fold, "seed": seed, **row}
            for (fold, seed), fitted in mine.items()
            for row in getattr(fitted, rows)
        ]

    histories = [f.history.assign(fold=fold, seed=seed) for (fold, seed), f in mine.items()]
    trained = [{"phase": "training", **row} for row in tagged("solves")]
    return BacktestResult(
        name=name,
        strategy=described(strategy),
        targets=decided.targets,
        weights=simulated.weights,
        gross_returns=simulated.gross_returns,
        net_returns=simulated.net_returns,
        turnover=simulated.turnover,
        costs=simulated.costs,
        orders=simulated.orders,
        folds=fold_table(
            learner.folds,
            learner.panel.dates,
            learner.plan.execution_lag,
            learner.training.validation if mine else 0.0,
        ),
        training=pd.concat(histories, ignore_index=True) if histories else pd.DataFrame(),
        solves=pd.DataFrame(trained + decided.solves),
        checks=pd.DataFrame(tagged("checks")),
        settings={**settings, "simulation_difference": simulated.difference},
        states={key: fitted.state for key, fitted in mine.items()},
        asset_returns=learner.asset_returns.loc[simulated.weights.index],
        fractional_returns=simulated.fractional_returns,
        limits=pd.DataFrame(decided.limits),
        sensitivity=pd.DataFrame(decided.sensitivity),
        illiquidity=learner.measured.reindex(simulated.turnover.index),
    )


def identity(settings: dict, strategies: Mapping[str, Strategy]) -> dict:
    """What a run directory is told apart by."""
    parts = {name: settings[name] for name in ("panel", "plan", "costs", "training")}
    return {**parts, "strategies": {name: described(each) for name, each in strategies.items()}}


def described(strategy: Strategy) -> dict:
    """A strategy as JSON can hold it."""
    return {
        "class": f"{type(strategy).__module__}:{type(strategy).__name__}",
        "learned": isinstance(strategy, LearnedStrategy),
        "parameters": _plain(strategy.get_params()),
        "code": _source_hash(type(strategy)),  # type: ignore[arg-type]  # a class is hashable
    }


@functools.cache
def _source_hash(cls: type[Strategy]) -> str:
    """sha256 of the files that the class and its parents are written in, but for the contract."""
    modules = {parent.__module__ for parent in cls.__mro__}
    written = {m for m in modules if m.partition(".")[0] not in ("sklearn", "builtins", "abc")}
    files = {getattr(sys.modules.get(m), "__file__", None) for m in written - {"strategies.base"}}
    content = [Path(file).read_bytes() for file in sorted(filter(None, files))]
    return hashlib.sha256(b"".join(content)).hexdigest() if content else ""


def run_settings(panel: Panel, plan: WalkForward, costs: Costs, training: Training) -> dict:
    """What reproduces the run, as JSON can hold it."""
    from engine.runs.settings import describe_costs

    return {
        "panel": {
            "source": panel.source,
            "fingerprint": panel.fingerprint,
            "snapshots": dict(panel.snapshots),
            "quality": quality.check(panel).to_dict(),
            "caveats": list(panel.caveats),
            "start": str(panel.dates[0].date()),
            "end": str(panel.dates[-1].date()),
            "rows": len(panel),
            "assets": list(panel.assets),
        },
        "plan": asdict(plan),
        "costs": describe_costs(costs),
        "training": _plain({**asdict(training), "loss": repr(training.loss)}),
        "seed": training.seed,
        "periods_per_year": panel.periods_per_year,
        "versions": dict(_versions()),
    }


def _plain(parameters: dict) -> dict:
    """Parameters as JSON can hold them; anything else by its repr."""

    def plain(value: object) -> object:
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            return repr(value)

    return {name: plain(value) for name, value in parameters.items()}


@functools.cache
def _versions() -> dict[str, str]:
    packages = ("deqfolio", "torch", "numpy", "pandas", "scikit-learn", "vectorbt", "qpth", "numba")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a source tree that was never installed
    return found
