"""The same backtest from several seeds: how much of a result is due to the seed?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from data_loaders import Panel
from engine.accounting.costs import Costs
from engine.accounting.risk_free import Rates
from engine.planning.walk_forward import WalkForward, check_folds
from engine.runs.description import run_settings
from engine.runs.ledger import TrialLedger, keep_record
from engine.runs.result import BacktestResult
from engine.runs.result_views import Results, SeedResults
from engine.training.callbacks import Callback
from engine.training.settings import Training
from engine.walking.session import Session
from strategies.base import Strategy


def backtest_seeds(
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    seeds: int = 10,
    *,
    run_dir: str | Path | None = None,
    restart: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: bool | None = None,
    threads: int = 1,
    whole_shares: bool = False,
    risk_free: Rates | None = None,
    ledger: TrialLedger | bool = True,
    callbacks: Sequence[Callback] = (),
) -> SeedResults[BacktestResult]:
    """One backtest for each seed from ``training.seed`` on, bitwise identical to that seed's own.

    Dates are prepared once for all seeds, and rules, which have no seed, decide once. Unlike
    ``Training.ensemble``, which holds the mean of all seeds, each seed holds its own weights.

    Args:
        seeds: how many.
        strategies, panel, plan, costs, training, ...: as in ``backtest``. The fits in ``run_dir``
            are those of an ensemble of as many seeds; results are not written there.

    Returns:
        {seed: {name: BacktestResult}}; a strategy that fails with one seed does not stop the
        others, as in ``backtest``.

    Raises:
        ValueError: an ensemble, or no seed; and the errors of ``backtest``, where every strategy
            failed with every seed.
    """
    single = training or Training()
    if single.ensemble != 1 or seeds < 1:
        raise ValueError(
            f"each of the seeds, of which there must be 1 at least, holds its own weights: give "
            f"seeds={seeds} or Training(ensemble={single.ensemble}), not both"
        )
    session = Session(
        strategies, panel, plan, costs, replace(single, ensemble=seeds), workers=workers,
        executor=executor, progress=progress, threads=threads, callbacks=callbacks,
        risk_free=risk_free,
    )  # fmt: skip
    folds = session.plan.folds(panel.dates, session.lookback)
    check_folds(folds, panel.dates)
    numbers = range(single.seed, single.seed + seeds)
    results = SeedResults[BacktestResult]({seed: Results() for seed in numbers})

    with session.open(folds, run_dir, restart):
        for name, decided in session.decisions([folds], each_seed=True):
            for k, seed in enumerate(numbers):
                alone = replace(single, seed=seed)
                settings = run_settings(
                    panel, session.plan, session.costs, alone, session.risk_free
                )
                settings["whole_shares"] = whole_shares
                outcome = decided[min(k, len(decided) - 1)]
                results[seed][name] = session.result(name, outcome, settings, seed)
    for seed, by_name in results.items():
        results[seed] = Results({name: by_name[name] for name in session.named})
        keep_record(results[seed], ledger)
    every = {
        f"{name} (seed {seed})" if name in session.learned else name: result
        for seed, by_name in results.items()
        for name, result in by_name.items()
    }
    session.check_some_finished(every)
    return results
