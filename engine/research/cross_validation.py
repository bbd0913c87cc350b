"""Combinatorial purged cross-validation: which model would have been chosen, and by how much luck.

Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 12. History is cut into
blocks of decisions; every choice of test blocks gives a split, trained on the rest less what
overlaps (purge) and follows closely (embargo). The tests of all splits join to several whole
paths through history, so that a model has a distribution of Sharpe ratios instead of one.

A split trains on what lies after its test, too: it selects models, and is no backtest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from data_loaders.atomic import write_text
from engine.accounting import performance
from engine.accounting.costs import Costs
from engine.accounting.simulation import Simulation, simulate
from engine.backtest import described, identity, run_settings
from engine.compute.broadcast import broadcast
from engine.compute.progress import progress_bar
from engine.compute.threads import limited_threads
from engine.planning.walk_forward import Fold, WalkForward
from engine.runs.ledger import TrialLedger, keep_record
from engine.runs.result import BacktestResult
from engine.runs.run_directory import RunDirectory, written
from engine.training.fit_records import FitKey, Fitted
from engine.training.trainer import Training
from engine.walking.arguments import check_arguments, named_strategies
from engine.walking.decisions import decide_rows, fitted_for, portable, target_frame
from engine.walking.learner import Learner
from engine.walking.questions import one_by_one
from strategies.base import LearnedStrategy, Strategy


def cross_validate(
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    folds: int = 6,
    test_folds: int = 2,
    *,
    run_dir: str | Path | None = None,
    restart: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
    threads: int = 1,
    ledger: TrialLedger | bool = True,
) -> pd.DataFrame:
    """Test strategies on every path through history.

    Args:
        strategies, panel, costs, training: as in ``backtest``. A rule with a ``fit`` of its own
            learns from what lies before each test block.
        plan: its rebalance, execution lag, purge and embargo count here.
        folds: blocks of history. Training is done folds! / (test_folds! (folds - test_folds)!)
            times for each strategy and seed: 15 times for 6 and 2.
        test_folds: blocks in each test, from 2 on.
        run_dir, restart: as in ``backtest``: finished fits are kept there, and the table is
            written to ``paths.csv`` in it.
        workers, executor: as in ``backtest``; a task is a fit, or the decisions along a path.
        progress, threads, ledger: likewise. The ledger gets the first
            path of each strategy: one configuration is one trial, and any path says the same.

    Returns:
        One row a strategy and path: sharpe, annual_return and volatility (a year, net) and
        annual_turnover.

    Raises:
        ValueError: folds too many for the history; RunMismatch and other errors of ``backtest``.
    """
    plan, costs, training = plan or WalkForward(), costs or Costs(), training or Training()
    check_arguments(panel, plan, costs, training, {"workers": workers, "threads": threads})
    training = replace(training, warm_start=False)  # splits do not follow each other in time
    named = named_strategies(strategies, panel)
    lookback = max(strategy.lookback for strategy in named.values())
    splits, paths = purged_splits(plan, panel.dates, lookback, folds, test_folds)
    learner = Learner(panel, [fold for fold, _ in splits], plan, costs, training, threads)
    learned = {name: s for name, s in named.items() if isinstance(s, LearnedStrategy)}
    place = broadcast(learner, workers, executor)
    run, how = None, {"folds": folds, "test_folds": test_folds}
    settings = run_settings(panel, plan, costs, training)
    if run_dir is not None:
        asked = identity(settings, named) | {"cross_validation": how}
        run = RunDirectory(run_dir, asked, restart)
    settings["plan"] = settings["plan"] | {"cross_validation": how}
    rows, first = [], {}
    elsewhere: dict[tuple[str, int], Future[pd.DataFrame]] = {}

    def task(name: str, path: int, fits: dict[FitKey, Fitted]) -> PathTask:
        tests = [(split, splits[split][1][block]) for split, block in paths[path]]
        used = {split for split, _ in tests}
        mine = {key: fit for key, fit in fits.items() if key.name == name and key.fold in used}
        return PathTask(name, named[name], mine, tests)

    try:
        with limited_threads(threads), place as submit:

            def hand_out(fits: dict[FitKey, Fitted] | None = None) -> None:
                """The paths of the rules or, once there are fits, of what is learned."""
                if submit is None:
                    return
                for name, strategy in named.items():
                    if (name in learned) == (fits is not None) and portable(strategy):
                        for path in range(len(paths)):
                            elsewhere[name, path] = submit(task(name, path, fits or {}))

            copies = workers or int(executor is None)
            fits = learner.fit(learned, submit, run, progress, hand_out, copies)
            hand_out(fits)
            for name, strategy in named.items():
                with progress_bar(name, len(paths), "path", progress) as bar:
                    for path in range(len(paths)):
                        if (name, path) in elsewhere:
                            targets = elsewhere[name, path].result()
                        else:
                            targets = task(name, path, fits).run(learner)
                        found = simulate(targets, panel, costs, plan.execution_lag)
                        rows.append({"strategy": name, "path": path, **_figures(found, panel)})
                        if not path:
                            first[name] = _trial(name, strategy, found, settings)
                        bar.update()
    finally:
        for future in elsewhere.values():
            future.cancel()
    keep_record(first, ledger, "cross-validation")
    table = pd.DataFrame(rows).set_index(["strategy", "path"])
    if run is not None:
        with written(run.path):
            write_text(run.path / "paths.csv", table.to_csv())
    return table


@dataclass(frozen=True)
class PathTask:
    """The decisions of a strategy along a path, to be made anywhere.

    Attributes:
        fits: of the strategy in the splits of the path, if it has any.
        tests: (split, test rows) in order of time; what is held is carried from one to the next.
    """

    name: str
    strategy: Strategy
    fits: dict[FitKey, Fitted]
    tests: list[tuple[int, np.ndarray]]

    def run(self, learner: Learner) -> pd.DataFrame:
        """Targets (K, N) by decision date."""
        targets: dict[int, np.ndarray] = {}
        quiet = progress_bar(self.name, 0, "decision", False)
        with limited_threads(learner.threads), quiet as bar:
            for split, rows in self.tests:
                before = replace(learner.folds[split], refit=int(rows[0]))
                fitted = fitted_for(self.name, self.strategy, learner, before, self.fits)
                one_by_one(decide_rows(self.name, fitted, learner, rows, targets, bar))
        return target_frame(targets, learner.panel)


def _trial(
    name: str, strategy: Strategy, found: Simulation, settings: dict[str, Any]
) -> BacktestResult:
    """A path as the ledger takes it."""
    nothing = pd.DataFrame()
    return BacktestResult(
        name,
        described(strategy),
        nothing,
        found.weights,
        found.gross_returns,
        found.net_returns,
        found.turnover,
        found.costs,
        found.orders,
        *(nothing,) * 3,
        settings,
    )


def purged_splits(
    plan: WalkForward, dates: pd.DatetimeIndex, lookback: int, folds: int, test_folds: int
) -> tuple[list[tuple[Fold, dict[int, np.ndarray]]], list[list[tuple[int, int]]]]:
    """The splits, and the paths through them.

    Returns:
        Of each split, its training rows as a ``Fold``, and {block: test rows}; of each path,
        (split, block) in order of time.
    """
    from skfolio.model_selection import CombinatorialPurgedCV

    decisions = plan.decisions(dates)
    decisions = decisions[decisions + 1 >= lookback]
    made, ends = decisions[:-1], decisions[1:] + plan.execution_lag

    def spanning(rows: int) -> int:
        """The fewest decisions that take so many rows, wherever they are."""
        counts = (n for n in range(1, len(made)) if (made[n:] - made[:-n]).min() >= rows)
        return next(counts, len(made)) if rows else 0

    if not (isinstance(folds, int) and isinstance(test_folds, int) and 2 <= test_folds < folds):
        raise ValueError(
            f"test_folds is a whole number from 2 on and below folds, got {test_folds} of {folds}"
        )
    splitter = CombinatorialPurgedCV(
        n_folds=folds,
        n_test_folds=test_folds,
        purged_size=spanning(plan.execution_lag + plan.purge),
        embargo_size=spanning(plan.embargo),
    )
    splits: list[tuple[Fold, dict[int, np.ndarray]]] = []
    for train, tests in splitter.split(np.zeros((len(made), 1))):
        number = len(splits)
        blocks = splitter.test_set_index[number]
        rows = {int(block): made[test] for block, test in zip(blocks, tests, strict=True)}
        fold = Fold(
            number, 0, made[train], ends[train], int(made[tests[0][0]]), made[np.concatenate(tests)]
        )
        splits.append((fold, rows))
    paths = [
        [(int(split), block) for block, split in enumerate(column)]
        for column in splitter.recombined_paths.T
    ]
    return splits, paths


def _figures(found: Simulation, panel: Panel) -> dict[str, float]:
    net, a_year = found.net_returns, panel.periods_per_year
    return {
        "sharpe": performance.sharpe(net, a_year),
        "annual_return": performance.annual_return(net, a_year),
        "volatility": performance.volatility(net, a_year),
        "annual_turnover": performance.yearly(found.turnover, len(net), a_year),
    }
