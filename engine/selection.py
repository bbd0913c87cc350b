"""Combinatorial purged cross-validation: which model would have been chosen, and by how much luck.

Lopez de Prado (2018), "Advances in Financial Machine Learning", chapter 12. History is cut into
blocks of decisions; every choice of test blocks gives a split, trained on the rest less what
overlaps (purge) and follows closely (embargo). The tests of all splits join to several whole
paths through history, so that a model has a distribution of Sharpe ratios instead of one.

A split trains on what lies after its test, too: it selects models, and is no backtest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from engine.arguments import check_arguments, named_strategies
from engine.backtest import described, identity, run_settings
from engine.costs import Costs
from engine.decisions import decide_rows, fitted_for, target_frame
from engine.delivery import workplace
from engine.learner import Learner
from engine.ledger import TrialLedger, keep_record
from engine.progress import progress_bar
from engine.result import BacktestResult
from engine.run_directory import RunDirectory, write_whole, written
from engine.simulation import Simulation, simulate
from engine.threads import limited_threads
from engine.training import Training
from engine.walk_forward import Fold, WalkForward
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
        workers, executor, progress, threads, ledger: as in ``backtest``. The ledger gets the first
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
    place = workplace(learner, workers, executor)
    run, how = None, {"folds": folds, "test_folds": test_folds}
    settings = run_settings(panel, plan, costs, training)
    if run_dir is not None:
        asked = identity(settings, named) | {"cross_validation": how}
        run = RunDirectory(run_dir, asked, restart)
    settings["plan"] = settings["plan"] | {"cross_validation": how}
    rows, first = [], {}
    with limited_threads(threads), place as submit:
        copies = workers or int(executor is None)
        fits = learner.fit(learned, submit, run, progress, copies=copies)
        for name, strategy in named.items():
            with progress_bar(name, len(paths), "path", progress) as bar:
                for path, tests in enumerate(paths):
                    targets: dict[int, np.ndarray] = {}
                    with progress_bar(name, 0, "decision", False) as quiet:
                        for split, block in tests:
                            fold, blocks = splits[split]
                            before = replace(fold, refit=int(blocks[block][0]))
                            fitted = fitted_for(name, strategy, learner, before, fits)
                            decide_rows(name, fitted, learner, blocks[block], targets, quiet)
                    found = simulate(target_frame(targets, panel), panel, costs, plan.execution_lag)
                    rows.append({"strategy": name, "path": path, **_figures(found, panel)})
                    if not path:
                        first[name] = _trial(name, strategy, found, settings)
                    bar.update()
    keep_record(first, ledger, "cross-validation")
    table = pd.DataFrame(rows).set_index(["strategy", "path"])
    if run is not None:
        with written(run.path):
            write_whole(run.path / "paths.csv", table.to_csv())
    return table


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
    net, a_year = found.net_returns.to_numpy(), panel.periods_per_year
    years, spread = len(net) / a_year, net.std(ddof=1)
    return {
        "sharpe": net.mean() / spread * a_year**0.5 if spread > 0 else float("nan"),
        "annual_return": float((1 + net).prod() ** (1 / years) - 1),
        "volatility": spread * a_year**0.5,
        "annual_turnover": found.turnover.sum() / years,
    }
