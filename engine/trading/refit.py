"""The refit that is due: a finished run continues with new data, and keeps what it had."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from torch import Tensor

from data_loaders import Panel
from data_loaders.validation import day
from engine.accounting.risk_free import Rates, read_risk_free
from engine.planning.walk_forward import check_folds
from engine.runs.description import described, installed_versions
from engine.runs.experiment import read_costs, read_plan
from engine.runs.result import BacktestResult
from engine.runs.run_files import (
    FILES,
    REFIT,
    contents,
    damaged,
    folder_name,
    sealed_folder,
    unsealed,
    written,
)
from engine.trading.account import OrderError
from engine.trading.todays_decision import Decider, schedule
from engine.training.fit_records import FitKey
from engine.training.settings import Training
from engine.walking.fitting import FitTask
from engine.walking.learner import Learner
from strategies.base import Strategy, is_trained, learned_inside

States = dict[tuple[int, int], dict[str, Tensor]]
FOLDER = "refits"  # in the run's folder: NAME-FOLD, each written whole or not at all


class Refit(NamedTuple):
    """What was trained.

    Attributes:
        fold: its number; date: of the refit, everything up to whose close was known.
        states: of the networks, by fold and seed.
        moved: by asset, the weights that the network of before and this one want at the last close
            of the panel, from cash.
    """

    fold: int
    date: pd.Timestamp
    states: States
    moved: pd.DataFrame


def refit(
    strategy: Strategy,
    result: BacktestResult,
    panel: Panel,
    training: Training,
    lookback: int,
    known: States,
    risk_free: Rates | None = None,
) -> Refit | None:
    """Train the fold that decides at the last close, as the backtest would; None if it is trained.

    Args:
        panel: that of the run, and what came since.
        training: of the run.
        lookback: of the most demanding strategy of the run.
        known: states by fold and seed.

    Raises:
        OrderError: the strategy is not trained, or the panel does not continue that of the run.
        TrainingError: training cannot continue.
    """
    learned = learned_inside(strategy)
    if learned is None:
        raise OrderError(f"{result.name} is a rule: it is fitted with the orders, by the plan")
    panel = panel.without_benchmark()
    plan, costs = read_plan(result.settings["plan"]), read_costs(result.settings["costs"])
    found = schedule(panel.dates, plan, pd.DatetimeIndex(result.targets.index))
    number, row = found.fold(len(panel) - 1)
    if any(fold == number for fold, _ in known):
        return None
    if not any(fold == number - 1 for fold, _ in known):
        raise OrderError(
            f"{result.name} misses more than one refit before that of {day(found.dates[row])}: "
            "run the backtest again on prices up to today"
        )
    folds = plan.folds(found.dates, lookback)[: number + 1]
    check_folds(folds, found.dates)
    if folds[number].refit != row:
        raise OrderError(f"the refit of {day(found.dates[row])} is not one of the run's plan")
    rates = read_risk_free(risk_free, costs.cash_rate, panel.dates)
    seen = panel.rows(0, row + 1)
    learner = Learner(seen, folds, plan, costs, training, 1, rates)
    states: States = {}
    for seed in range(training.seed, training.seed + training.ensemble):
        trains = is_trained(strategy)
        initial = known.get((number - 1, seed)) if training.warm_start and trains else None
        key = FitKey(result.name, number, seed)
        task = FitTask(key, clone(learned), initial, trains=trains)
        states[number, seed] = task.run(learner).state
    cash = pd.Series(0.0, panel.assets)
    before = {(number, seed): state for (fold, seed), state in known.items() if fold == number - 1}
    wanted = [
        Decider(strategy, result, panel, found, each).decide(cash).weights
        for each in (before, states)
    ]
    moved = pd.DataFrame(np.array(wanted).T, panel.assets, ["before", "after"])
    return Refit(number, found.dates[row], states, moved)


def save_refit(run: Path, strategy: Strategy, result: BacktestResult, made: Refit) -> Path:
    """Write a refit to the folder of its run: all of it or nothing."""
    from safetensors.torch import save_file

    target = run / FOLDER / folder_name(result.name) / f"{made.fold:03d}"
    about = {
        "strategy": result.name,
        "fold": made.fold,
        "date": str(made.date),
        "code": described(strategy)["code"],
        "versions": installed_versions(),
    }
    with written(run), sealed_folder(target, REFIT, about) as scratch:
        for (_, seed), state in made.states.items():
            plain = {name: value.contiguous() for name, value in state.items()}
            save_file(plain, scratch / f"state-{seed}.safetensors")
    return target


def states_of(run: Path, result: BacktestResult) -> States:
    """All states of a strategy, by fold and seed: those of the run, and of the refits since.

    Raises:
        RunDamaged: a refit is not what was written.
    """
    from safetensors.torch import load

    found: States = {key: dict(state) for key, state in result.states.items()}
    for folder in sorted((run / FOLDER / folder_name(result.name)).glob("[0-9]*")):
        index = unsealed(folder / REFIT)
        if (index.get("strategy"), index.get("fold")) != (result.name, int(folder.name)):
            raise damaged(folder)
        for name in index[FILES]:
            seed = int(name.removesuffix(".safetensors").partition("-")[2])
            found[int(folder.name), seed] = load(contents(folder, index, name))
    return found


def moved_words(moved: pd.DataFrame, most: int = 5) -> str:
    """The largest changes of weights, in words."""
    change = (moved["after"] - moved["before"]).fillna(0.0)
    largest = change.abs().sort_values(ascending=False).index[:most]
    lines: Mapping[str, float] = change[largest].to_dict()
    return ", ".join(f"{name} {value:+.2%}" for name, value in lines.items())
