"""Decisions: what each strategy wants to hold, date by date, from what was known then."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from tqdm.auto import tqdm

from data_loaders import Panel
from engine.costs import Costs
from engine.fitting import FitKey, Fitted
from engine.learner import Learner
from engine.progress import progress_bar
from engine.threads import limited_threads
from engine.training import Training
from engine.walk_forward import Fold, WalkForward
from strategies.base import (
    Inputs,
    LearnedStrategy,
    SolveRecord,
    Strategy,
    record_solves,
    stack,
)


class AllocationError(ValueError):
    """A strategy gave weights that cannot be held; the message names strategy, date, assets.

    ``finished`` holds the results of the strategies that were done before, by name.
    """

    finished: Mapping = MappingProxyType({})


DUST = 1e-9  # a weight that no order fills exactly


class Decided(NamedTuple):
    targets: pd.DataFrame  # (K, N) by decision date
    solves: list[dict]
    limits: list[dict]
    sensitivity: list[dict]


def decide(
    name: str, strategy: Strategy, learner: Learner, fits: dict[FitKey, Fitted], bar: tqdm
) -> Decided:
    """The weights of every test decision, in order of time, each from what was known then."""
    targets: dict[int, np.ndarray] = {}
    solves: list[dict] = []
    limits: list[dict] = []
    looks: list[dict] = []
    for fold in learner.folds:
        fitted = fitted_for(name, strategy, learner, fold, fits)
        with record_solves(limits=True) as record:
            decide_rows(name, fitted, learner, fold.test, targets, bar, record, limits)
        solves += [{"fold": fold.number, "phase": "allocation", **row} for row in record.summary()]
        looks += learner.sensitivity(name, fitted, fold)
    return Decided(target_frame(targets, learner.panel), solves, limits, looks)


@dataclass(frozen=True)
class DecisionTask:
    """All decisions of a strategy that the engine does not train, to be made anywhere."""

    name: str
    strategy: Strategy
    panel: Panel
    folds: list[Fold]
    plan: WalkForward
    costs: Costs
    training: Training
    threads: int

    def run(self) -> Decided:
        learner = Learner(
            self.panel, self.folds, self.plan, self.costs, self.training, self.threads
        )
        with limited_threads(self.threads), progress_bar(self.name, 0, "decision", False) as bar:
            return decide(self.name, self.strategy, learner, {}, bar)


def portable(strategy: Strategy) -> bool:
    """Whether another process can be sent the strategy: not one written at a prompt or inside a
    function, as its class is found by the name of its module."""
    try:
        sent = pickle.dumps(strategy)
    except (AttributeError, TypeError, pickle.PicklingError):
        return False
    return b"__main__" not in sent or hasattr(sys.modules["__main__"], "__file__")


def fitted_for(
    name: str, strategy: Strategy, learner: Learner, fold: Fold, fits: dict[FitKey, Fitted]
) -> list[Strategy]:
    """What decides in a fold: one strategy, or one for each seed that was trained."""
    if isinstance(strategy, LearnedStrategy):
        return learner.restored(name, strategy, fold, fits)
    dates = learner.panel.dates
    return [clone(strategy).fit(learner.panel.until(dates[fold.refit]).since(dates[fold.start]))]


def decide_rows(
    name: str,
    fitted: list[Strategy],
    learner: Learner,
    rows: np.ndarray,
    targets: dict[int, np.ndarray],
    bar: tqdm,
    record: SolveRecord | None = None,
    limits: list[dict] | None = None,
) -> None:
    """Add the weights (N,) of some rows to ``targets``, which holds those of the rows before.

    What held the weights goes from ``record``, if it notes that, to ``limits``, with its date.
    """
    lookback = fitted[0].lookback
    for row in map(int, rows):
        history = learner.known(row, lookback)
        holdings = _holdings(row, targets, learner)
        inputs = learner.inputs(name, fitted[0], row)
        weights = [allocated(name, each, history, holdings, inputs) for each in fitted]
        targets[row] = weights[0] if len(weights) == 1 else np.mean(weights, axis=0)
        if record is not None and record.limits and limits is not None:
            date = learner.panel.dates[row]
            limits += [{"date": date, **line} for sample in record.limits for line in sample]
            record.limits.clear()
        bar.update()


def target_frame(targets: dict[int, np.ndarray], panel: Panel) -> pd.DataFrame:
    """Targets (K, N) by decision date."""
    return pd.DataFrame(
        np.array(list(targets.values())), panel.dates[list(targets)], columns=panel.assets
    )


def _holdings(row: int, targets: dict[int, np.ndarray], learner: Learner) -> pd.Series:
    """Weights at the close of ``row``, drifted since the last fill; zeros before the first."""
    lag, assets = learner.plan.execution_lag, learner.panel.assets
    decided = next((made for made in reversed(targets) if made + lag <= row), None)
    if decided is None:
        return pd.Series(0.0, index=assets)
    weights, fill, prices = targets[decided], decided + lag, learner.valuation_array
    held = weights * (prices[row] / prices[fill])  # as ``costs.drift``, which is slow for one row
    total = held.sum() + (1 - weights.sum())
    if learner.costs.holding:
        years = (row - fill) / learner.panel.periods_per_year
        total += learner.costs.carry(torch.from_numpy(weights)).item() * years
    return pd.Series(held / total, index=assets, copy=False)


def allocated(
    name: str,
    strategy: Strategy,
    history: Panel,
    holdings: pd.Series,
    inputs: Inputs | None = None,
) -> np.ndarray:
    """The strategy's weights (N,), or an error that says what is wrong with them.

    ``inputs``: what a network makes of ``history``, where that is known already.
    """

    def refuse(reason: object) -> AllocationError:
        return AllocationError(f"{name} on {history.dates[-1].date()}: {reason}")

    try:
        if inputs is None:
            weights = strategy.allocate(history, holdings)
        else:
            assert isinstance(strategy, LearnedStrategy)  # see Learner.inputs
            weights = pd.Series(strategy.weights(stack([inputs]))[0].numpy(), history.assets)
    except (ValueError, RuntimeError) as error:
        raise refuse(error) from error
    if not isinstance(weights, pd.Series):
        raise refuse(f"allocate must return a Series by asset, got {type(weights).__name__}")
    if weights.index is not history.assets and not weights.index.equals(history.assets):
        odd = [str(a) for a in weights.index.symmetric_difference(history.assets)[:5]]
        raise refuse(f"weights are not indexed by the assets: {', '.join(odd) or 'another order'}")
    values = weights.to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise refuse(f"weights of {_names(weights.index[~np.isfinite(values)])} are not finite")
    if not strategy.short and (values < -DUST).any():
        raise refuse(
            f"negative weights of {_names(weights.index[values < -DUST])}; a strategy that sells "
            "short says so with short = True"
        )
    gross = np.abs(values).sum()
    if gross > strategy.leverage + DUST:
        raise refuse(
            f"{'absolute ' * strategy.short}weights sum to {gross:.6f}, the most is "
            f"{strategy.leverage:g}; a strategy with leverage says so with leverage = ..."
        )
    held = np.abs(values) > DUST
    untraded = held & ~history.last_members
    if untraded.any():
        raise refuse(
            f"weights in {_names(weights.index[untraded])}, which do not trade that day or are "
            "not in the universe"
        )
    return np.where(held, values, 0.0) / max(1.0, gross / strategy.leverage)


def _names(assets: pd.Index) -> str:
    more = f" and {len(assets) - 5} more" if len(assets) > 5 else ""
    return ", ".join(map(str, assets[:5])) + more
