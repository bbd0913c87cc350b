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
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_loaders import Panel
from engine.accounting.costs import Costs
from engine.accounting.risk_free import Rates
from engine.planning.walk_forward import Fold, WalkForward
from engine.runs.description import described
from engine.runs.ledger import TrialLedger, keep_record
from engine.runs.result import BacktestResult
from engine.runs.result_views import why_failed
from engine.runs.run_directory import save_paths
from engine.runs.run_files import written
from engine.training.settings import Training
from engine.walking.decisions import Decided
from engine.walking.session import Session
from strategies.base import Strategy

MOST = 10_000  # splits: more would take years


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
    risk_free: Rates | None = None,
    ledger: TrialLedger | bool = True,
) -> pd.DataFrame:
    """Test strategies on every path through history.

    Args:
        strategies, panel, costs, training, risk_free: as in ``backtest``. A rule with a ``fit`` of
            its own learns from what lies before each test block.
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
        One row a strategy and path: sharpe, annual_return and volatility (a year, net),
        annual_turnover and failure: why the path could not be followed to its end (its figures are
        then NaN) or was ruined; "" for most.

    Raises:
        ValueError: folds too many for the history; RunMismatch and other errors of ``backtest``.
    """
    if isinstance(training, Training):
        training = replace(training, warm_start=False)  # splits do not follow each other in time
    session = Session(
        strategies, panel, plan, costs, training, workers=workers, executor=executor,
        progress=progress, threads=threads, risk_free=risk_free,
    )  # fmt: skip
    plan = session.plan
    splits, paths = purged_splits(plan, panel.dates, session.lookback, folds, test_folds)
    how = {"folds": folds, "test_folds": test_folds}
    settings = {**session.settings, "plan": session.settings["plan"] | {"cross_validation": how}}

    walks = []
    for path in paths:
        parts = []
        for split, block in path:  # a split's fold with one of its test blocks alone
            fold, blocks = splits[split]
            parts.append(replace(fold, refit=int(blocks[block][0]), test=blocks[block]))
        walks.append(parts)

    rows: dict[tuple[str, int], dict[str, float | str]] = {}
    first = {}
    with session.open([fold for fold, _ in splits], run_dir, restart, cross_validation=how):
        for name, decided in session.decisions(walks, observed=False):
            for number, outcome in enumerate(decided):
                found = _result(name, session, outcome, settings)
                figures = found.figures
                figures["annual_turnover"] = figures.pop("turnover")
                failure = why_failed(found) if found.failure is not None else ""
                rows[name, number] = {**figures, "failure": failure}
                if number == 0:
                    first[name] = found
    session.check_some_finished(first)
    keep_record({name: first[name] for name in session.named}, ledger, "cross-validation")
    keys = [(name, path) for name in session.named for path in range(len(paths))]
    index = pd.MultiIndex.from_tuples(keys, names=["strategy", "path"])
    table = pd.DataFrame([rows[key] for key in keys], index)
    if session.run is not None:
        with written(session.run.path):
            save_paths(table, session.run.path)
    return table


def _result(
    name: str, session: Session, decided: Decided, settings: dict[str, Any]
) -> BacktestResult:
    """What a strategy earned along a path, as the ledger takes it."""
    nothing, found = pd.DataFrame(), session.simulated(name, decided)
    return BacktestResult(
        name,
        described(session.named[name]),
        nothing,
        found.weights,
        found.gross_returns,
        found.net_returns,
        found.turnover,
        found.costs,
        found.orders,
        *(nothing,) * 3,
        settings,
        risk_free=session.risk_free_returns(found),
        failure=found.failure,
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
    if (count := comb(folds, test_folds)) > MOST:
        raise ValueError(
            f"test_folds={test_folds} of folds={folds} are {count:,} splits, each of which is "
            f"trained on: take fewer folds, {MOST:,} splits at most"
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
