"""The same backtest from several seeds: how much of a result is the luck of the start?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from data_loaders import Panel
from engine.accounting.costs import Costs
from engine.backtest import identity, result_of, run_settings
from engine.compute.broadcast import broadcast
from engine.compute.progress import progress_bar
from engine.compute.threads import limited_threads
from engine.planning.walk_forward import WalkForward, check_folds
from engine.runs.ledger import TrialLedger, keep_record
from engine.runs.result import BacktestResult
from engine.runs.run_directory import RunDirectory
from engine.training.callbacks import Callback
from engine.training.trainer import Training
from engine.walking.arguments import check_arguments, check_callbacks, named_strategies
from engine.walking.decisions import deciding
from engine.walking.learner import Learner
from engine.walking.questions import in_step
from strategies.base import LearnedStrategy, Strategy


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
    ledger: TrialLedger | bool = True,
    callbacks: Sequence[Callback] = (),
) -> dict[int, dict[str, BacktestResult]]:
    """One backtest for each seed from ``training.seed`` on, each to the bits that it has alone.

    Faster than one after the other: dates are prepared once, the seeds of a fold are trained side
    by side (see ``LearnedStrategy.build``), and rules, which have no seed, decide once. Unlike
    ``Training.ensemble``, which holds the mean of all seeds, each seed holds its own weights.

    Args:
        seeds: how many.
        strategies, panel, plan, costs, training, ...: as in ``backtest``. The fits in ``run_dir``
            are those of an ensemble of as many seeds; results are not written there.

    Returns:
        {seed: {name: BacktestResult}}

    Raises:
        ValueError: an ensemble, or no seed; and the errors of ``backtest``.
    """
    plan, costs, training = plan or WalkForward(), costs or Costs(), training or Training()
    if training.ensemble != 1 or seeds < 1:
        raise ValueError(
            f"each of the seeds, of which there must be 1 at least, holds its own weights: give "
            f"seeds={seeds} or Training(ensemble={training.ensemble}), not both"
        )
    check_arguments(panel, plan, costs, training, {"workers": workers, "threads": threads})
    check_callbacks(callbacks)
    named = named_strategies(strategies, panel)
    folds = plan.folds(panel.dates, max(strategy.lookback for strategy in named.values()))
    check_folds(folds, panel.dates)
    together = replace(training, ensemble=seeds)
    settings = {**run_settings(panel, plan, costs, together), "whole_shares": whole_shares}
    run = None
    if run_dir is not None:
        run = RunDirectory(run_dir, identity(settings, named), restart)
    learner = Learner(panel, folds, plan, costs, together, threads)
    place = broadcast(learner, workers, executor)
    learned = {name: s for name, s in named.items() if isinstance(s, LearnedStrategy)}
    decisions = sum(len(fold.test) for fold in folds)
    results: dict[int, dict[str, BacktestResult]] = {seed: {} for seed in learner.seeds}
    with limited_threads(threads), place as submit:
        copies = workers or int(executor is None)
        fits = learner.fit(learned, submit, run, progress, copies=copies, callbacks=callbacks)
        owns = {seed: learner.of_seed(seed) for seed in results}
        for name, strategy in named.items():
            asked = owns if name in learned else {training.seed: owns[training.seed]}
            with progress_bar(name, len(asked) * decisions, "decision", progress) as bar:
                found = in_step(
                    [deciding(name, strategy, own, fits, bar) for own in asked.values()]
                )
            decided_by = dict(zip(asked, found, strict=True))
            for seed, own in owns.items():
                decided = decided_by.get(seed, found[0])
                mine = {key: fitted for key, fitted in fits.items() if key.seed == seed}
                said = {**settings, **run_settings(panel, plan, costs, own.training)}
                results[seed][name] = result_of(name, strategy, own, mine, decided, said)
    for by_name in results.values():
        keep_record(by_name, ledger)
    return results
