"""Decisions: what each strategy wants to hold, date by date, from what was known then."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from tqdm.auto import tqdm

from data_loaders import Panel
from engine.fitting import FitKey, Fitted
from engine.learner import Learner
from engine.walk_forward import Fold
from strategies.base import LearnedStrategy, Strategy, record_solves


class AllocationError(ValueError):
    """A strategy gave weights that cannot be held; the message names strategy, date, assets.

    ``finished`` holds the results of the strategies that were done before, by name.
    """

    finished: Mapping = MappingProxyType({})


DUST = 1e-9  # a weight that no order fills exactly


class Decided(NamedTuple):
    targets: pd.DataFrame  # (K, N) by decision date
    solves: list[dict]


def decide(
    name: str, strategy: Strategy, learner: Learner, fits: dict[FitKey, Fitted], bar: tqdm
) -> Decided:
    """The weights of every test decision, in order of time, each from what was known then."""
    targets: dict[int, np.ndarray] = {}
    solves: list[dict] = []
    for fold in learner.folds:
        fitted = fitted_for(name, strategy, learner, fold, fits)
        with record_solves() as record:
            decide_rows(name, fitted, learner, fold.test, targets, bar)
        solves += [{"fold": fold.number, "phase": "allocation", **row} for row in record.summary()]
    return Decided(target_frame(targets, learner.panel), solves)


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
) -> None:
    """Add the weights (N,) of some rows to ``targets``, which holds those of the rows before."""
    lookback = fitted[0].lookback
    for row in map(int, rows):
        history = learner.known(row, lookback)
        holdings = _holdings(row, targets, learner)
        weights = [allocated(name, each, history, holdings) for each in fitted]
        targets[row] = weights[0] if len(weights) == 1 else np.mean(weights, axis=0)
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


def allocated(name: str, strategy: Strategy, history: Panel, holdings: pd.Series) -> np.ndarray:
    """The strategy's weights (N,), or an error that says what is wrong with them."""

    def refuse(reason: object) -> AllocationError:
        return AllocationError(f"{name} on {history.dates[-1].date()}: {reason}")

    try:
        weights = strategy.allocate(history, holdings)
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
    untraded = held & ~history.members.to_numpy()[-1]
    if untraded.any():
        raise refuse(
            f"weights in {_names(weights.index[untraded])}, which do not trade that day or are "
            "not in the universe"
        )
    return np.where(held, values, 0.0) / max(1.0, gross / strategy.leverage)


def _names(assets: pd.Index) -> str:
    more = f" and {len(assets) - 5} more" if len(assets) > 5 else ""
    return ", ".join(map(str, assets[:5])) + more
