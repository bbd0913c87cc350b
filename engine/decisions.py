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
from engine.costs import drift
from engine.fitting import FitKey, Fitted
from engine.learner import Learner
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
    panel = learner.panel
    targets: dict[int, np.ndarray] = {}
    solves: list[dict] = []
    for fold in learner.folds:
        if isinstance(strategy, LearnedStrategy):
            fitted = learner.restored(name, strategy, fold, fits)
        else:
            known = panel.until(panel.dates[fold.refit]).since(panel.dates[fold.start])
            fitted = [clone(strategy).fit(known)]
        with record_solves() as record:
            for row in fold.test:
                history = panel.until(panel.dates[row]).last(strategy.lookback)
                holdings = _holdings(int(row), targets, learner)
                weights = [_allocated(name, each, history, holdings) for each in fitted]
                targets[int(row)] = np.mean(weights, axis=0)
                bar.update()
        solves += [{"fold": fold.number, "phase": "allocation", **row} for row in record.summary()]
    frame = pd.DataFrame.from_dict(targets, orient="index", columns=panel.assets)
    return Decided(frame.set_axis(panel.dates[frame.index]), solves)


def _holdings(row: int, targets: dict[int, np.ndarray], learner: Learner) -> pd.Series:
    """Weights at the close of ``row``, drifted since the last fill; zeros before the first."""
    lag, assets = learner.plan.execution_lag, learner.panel.assets
    decided = next((made for made in reversed(targets) if made + lag <= row), None)
    if decided is None:
        return pd.Series(0.0, index=assets)
    weights, fill = torch.from_numpy(targets[decided]), decided + lag
    growth = learner.valuation[row] / learner.valuation[fill]
    carried = learner.costs.carry(weights) * (row - fill) / learner.panel.periods_per_year
    return pd.Series(drift(weights, growth, carried).numpy(), index=assets)


def _allocated(name: str, strategy: Strategy, history: Panel, holdings: pd.Series) -> np.ndarray:
    """The strategy's weights (N,), or an error that says what is wrong with them."""
    day = history.dates[-1].date()

    def refuse(reason: object) -> AllocationError:
        return AllocationError(f"{name} on {day}: {reason}")

    try:
        weights = strategy.allocate(history, holdings)
    except (ValueError, RuntimeError) as error:
        raise refuse(error) from error
    if not isinstance(weights, pd.Series):
        raise refuse(f"allocate must return a Series by asset, got {type(weights).__name__}")
    if not weights.index.equals(history.assets):
        odd = [str(a) for a in weights.index.symmetric_difference(history.assets)[:5]]
        raise refuse(f"weights are not indexed by the assets: {', '.join(odd) or 'another order'}")
    values = weights.to_numpy(np.float64)
    if np.isnan(values).any() or np.isinf(values).any():
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
    untraded = held & np.isnan(history.prices.to_numpy()[-1])
    if untraded.any():
        raise refuse(f"weights in {_names(weights.index[untraded])}, which do not trade that day")
    return np.where(held, values, 0.0) / max(1.0, gross / strategy.leverage)


def _names(assets: pd.Index) -> str:
    more = f" and {len(assets) - 5} more" if len(assets) > 5 else ""
    return ", ".join(map(str, assets[:5])) + more
