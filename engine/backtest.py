"""backtest(): walk every strategy forward through a panel. The main flow, top to bottom."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from tqdm.auto import tqdm

from data_loaders import Panel
from engine.costs import Costs, drift
from engine.result import BacktestResult
from engine.simulation import simulate
from engine.threads import limited_threads
from engine.training import Samples, Training, TrainingError, train
from engine.walk_forward import Fold, WalkForward
from strategies.base import LearnedStrategy, Strategy, record_solves, stack


class AllocationError(ValueError):
    """A strategy gave weights that cannot be held; the message names strategy, date, assets."""


def backtest(
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
    panel: Panel,
    plan: WalkForward | None = None,
    costs: Costs | None = None,
    training: Training | None = None,
    progress: bool | None = None,
    threads: int = 1,
) -> dict[str, BacktestResult]:
    """Walk the strategies forward through the panel, on the same dates, at the same costs.

    Args:
        strategies: one, several, or a mapping from the names to show. They are cloned; the
            ones passed in are left as they are.
        plan: refits, decisions and fills; default ``WalkForward()``.
        costs: charged in training and simulation alike; default 10 bp on value traded.
        training: how learned strategies are trained; default ``Training()``, seed 0.
        progress: show a progress bar; by default where there is a terminal.
        threads: of torch and BLAS. The problems are many and small: below some hundred assets
            one is the fastest, and never waits for a core that is busy.

    Returns:
        {name: BacktestResult}, in the order given.

    Raises:
        ValueError: too short a history for the plan; AllocationError: weights that are NaN,
            negative, above 1 in sum, of unknown assets, or in assets that do not trade.
    """
    plan, costs, training = plan or WalkForward(), costs or Costs(), training or Training()
    named = _named(strategies)
    lookback = max(strategy.lookback for strategy in named.values())
    folds = plan.folds(panel.dates, lookback)
    results = {}
    for name, strategy in named.items():
        with (
            tqdm(
                total=sum(len(fold.test) for fold in folds),
                desc=name,
                unit="decision",
                disable=None if progress is None else not progress,
            ) as bar,
            limited_threads(threads),
        ):
            results[name] = _walk(name, strategy, panel, folds, plan, costs, training, bar)
    return results


def _walk(
    name: str,
    strategy: Strategy,
    panel: Panel,
    folds: list[Fold],
    plan: WalkForward,
    costs: Costs,
    training: Training,
    bar: tqdm,
) -> BacktestResult:
    targets: dict[int, np.ndarray] = {}
    histories, solves, checks, states = [], [], [], {}
    valuation = torch.from_numpy(panel.prices.ffill().fillna(1.0).to_numpy())
    prepare = _preparer(strategy, panel)

    for fold in folds:
        fitted = clone(strategy)
        if isinstance(fitted, LearnedStrategy):
            samples = _samples(fold, panel, plan, valuation, prepare)
            try:
                trained = train(fitted, samples, costs, training, _epoch_on(bar, fold, folds))
            except (ValueError, RuntimeError) as error:
                day = panel.dates[fold.refit].date()
                raise TrainingError(f"{name}, refit of {day}: {error}") from error
            histories.append(trained.history.assign(fold=fold.number))
            solves += [{"fold": fold.number, "phase": "training", **row} for row in trained.solves]
            checks += [{"fold": fold.number, **row} for row in trained.checks]
            states[fold.number] = {k: v.clone() for k, v in fitted.module_.state_dict().items()}
        else:
            fitted.fit(panel.until(panel.dates[fold.refit]).since(panel.dates[fold.start]))
        with record_solves() as record:
            for row in fold.test:
                history_then = panel.until(panel.dates[row]).last(fitted.lookback)
                holdings = _holdings(row, targets, plan.execution_lag, valuation, panel.assets)
                targets[int(row)] = _allocated(name, fitted, history_then, holdings)
                bar.update()
        rows = record.summary()
        solves += [{"fold": fold.number, "phase": "allocation", **row} for row in rows]

    decided = pd.DataFrame.from_dict(targets, orient="index", columns=panel.assets)
    decided.index = panel.dates[decided.index]
    simulated = simulate(decided, panel, costs, plan.execution_lag)
    return BacktestResult(
        name=name,
        strategy={
            "class": f"{type(strategy).__module__}:{type(strategy).__name__}",
            "learned": isinstance(strategy, LearnedStrategy),
            "parameters": _plain(strategy.get_params()),
        },
        targets=decided,
        weights=simulated.weights,
        gross_returns=simulated.gross_returns,
        net_returns=simulated.net_returns,
        turnover=simulated.turnover,
        costs=simulated.costs,
        orders=simulated.orders,
        folds=_fold_table(folds, panel),
        training=pd.concat(histories, ignore_index=True) if histories else pd.DataFrame(),
        solves=pd.DataFrame(solves),
        checks=pd.DataFrame(checks),
        settings={
            "panel": {
                "source": panel.source,
                "fingerprint": panel.fingerprint,
                "caveats": list(panel.caveats),
                "start": str(panel.dates[0].date()),
                "end": str(panel.dates[-1].date()),
                "rows": len(panel),
                "assets": list(panel.assets),
            },
            "plan": asdict(plan),
            "costs": asdict(costs),
            "training": {**asdict(training), "loss": repr(training.loss)},
            "seed": training.seed,
            "periods_per_year": panel.periods_per_year,
            "simulation_difference": simulated.difference,
            "versions": _versions(),
        },
        states=states,
    )


def _preparer(strategy: Strategy, panel: Panel) -> Callable:
    """prepare(row), each computed once and from the rows up to it alone."""
    known: dict[int, dict[str, torch.Tensor]] = {}

    def prepare(row: int) -> dict[str, torch.Tensor]:
        assert isinstance(strategy, LearnedStrategy)
        if row not in known:
            known[row] = strategy.prepare(panel.until(panel.dates[row]).last(strategy.lookback))
        return known[row]

    return prepare


def _samples(
    fold: Fold, panel: Panel, plan: WalkForward, valuation: torch.Tensor, prepare: Callable
) -> Samples:
    """The training decisions of a fold; their labels end at the refit or before."""
    if not len(fold.train):
        raise ValueError(
            f"fold {fold.number} has no training decision before {panel.dates[fold.refit].date()}: "
            "the plan's train span must be longer than the strategy's lookback"
        )
    fills = fold.train + plan.execution_lag
    years = (panel.dates[fold.ends[-1]] - panel.dates[fills[0]]).days / 365.25
    return Samples(
        inputs=stack([prepare(int(row)) for row in fold.train])
        | {"row": torch.from_numpy(fold.train)},
        growth=valuation[fold.ends] / valuation[fills],
        rows=fold.train,
        ends=fold.ends,
        per_year=len(fold.train) / years,
    )


def _holdings(
    row: int, targets: dict[int, np.ndarray], lag: int, valuation: torch.Tensor, assets: pd.Index
) -> pd.Series:
    """Weights at the close of ``row``, drifted since the last fill; zeros before the first."""
    decided = next((made for made in reversed(targets) if made + lag <= row), None)
    if decided is None:
        return pd.Series(0.0, index=assets)
    growth = valuation[row] / valuation[decided + lag]
    return pd.Series(drift(torch.from_numpy(targets[decided]), growth).numpy(), index=assets)


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
    if (values < -1e-9).any():
        raise refuse(
            f"negative weights of {_names(weights.index[values < -1e-9])}; short positions are not "
            "simulated"
        )
    if values.sum() > 1 + 1e-9:
        raise refuse(f"weights sum to {values.sum():.6f}; leverage above 1 is not simulated")
    untraded = (values > 1e-9) & history.prices.iloc[-1].isna().to_numpy()
    if untraded.any():
        raise refuse(f"weights in {_names(weights.index[untraded])}, which do not trade that day")
    values = np.where(values < 1e-9, 0.0, values)  # dust, which no order fills exactly
    return values / max(1.0, values.sum())


def _names(assets: pd.Index) -> str:
    more = f" and {len(assets) - 5} more" if len(assets) > 5 else ""
    return ", ".join(map(str, assets[:5])) + more


def _named(
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy],
) -> dict[str, Strategy]:
    if isinstance(strategies, Strategy):
        strategies = [strategies]
    if isinstance(strategies, Mapping):
        named = dict(strategies)
    else:
        named = {}
        for strategy in strategies:
            base = name = type(strategy).__name__
            number = 2
            while name in named:
                name, number = f"{base} {number}", number + 1
            named[name] = strategy
    if not named:
        raise ValueError("there is no strategy to test")
    for name, strategy in named.items():
        if not isinstance(strategy, Strategy):
            raise TypeError(f"{name!r} is {strategy!r}, expected an instance of Strategy")
    return named


def _fold_table(folds: list[Fold], panel: Panel) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "train_start": [panel.dates[f.start] for f in folds],
            "train_end": [panel.dates[f.refit] for f in folds],
            "test_start": [panel.dates[f.test[0]] for f in folds],
            "test_end": [panel.dates[f.test[-1]] for f in folds],
            "decisions": [len(f.test) for f in folds],
        },
        index=pd.Index([f.number for f in folds], name="fold"),
    )


def _epoch_on(bar: tqdm, fold: Fold, folds: list[Fold]) -> Callable[[dict], None]:
    def show(row: dict) -> None:
        steps = {s["solve"]: f"{s['mean_steps']:.1f}" for s in row["solves"]}
        bar.set_postfix(
            fold=f"{fold.number + 1}/{len(folds)}",
            epoch=row["epoch"],
            loss=f"{row['loss']:.3f}",
            validation=f"{row['validation_loss']:.3f}",
            steps=steps.get("fixed point", "-"),
        )

    return show


def _plain(parameters: dict) -> dict:
    """Parameters as JSON can hold them; anything else by its repr."""

    def plain(value: object) -> object:
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            return repr(value)

    return {name: plain(value) for name, value in parameters.items()}


def _versions() -> dict[str, str]:
    packages = ("deqfolio", "torch", "numpy", "pandas", "scikit-learn", "vectorbt", "qpth", "numba")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a source tree that was never installed
    return found
