"""Learned risk: the realized volatility of minimum-variance portfolios out of sample.

    python -m benchmarks.risk [--quick] [--data DIR] [--develop] [--seeds 3]

Each market is cut in two: DEQMeanVariance with cleaned correlations is trained on the first half,
on the realized variance of the portfolio, and all estimators are scored on the second. Portfolios
sum to one, with weights from -1 to 1 ("long-short") or 0 to .2 ("long-only"), without costs; the
window is the same for all. In the table: realized volatility over that of Ledoit and Wolf's linear
shrinkage (below 1 is better), and the test of equal variances of
``reports/statistics/difference_tests.py``. ``--develop`` scores on the end of the first half, where
settings were chosen.

Markets: a factor market with GARCH volatilities; bundled stocks; and of DIR ten industries, hourly
prices of coins, and the implied volatility of the bundled stocks.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from benchmarks.real_markets import industries
from data_loaders import Panel, load
from engine import Costs, RealizedVariance, Training, WalkForward, train
from engine.training.rollout import row_returns
from engine.walking.learner import Learner
from reports.statistics.difference_tests import variance_differences
from strategies import DEQMeanVariance, MeanVarianceLayer
from strategies.contract_types import Inputs
from strategies.features import IMPLIED
from strategies.strategy_constraints import LIMIT

TRAINING = Training(
    loss=RealizedVariance(log=True),
    epochs=60,
    block=30,
    weight_decay=0.01,
    validation_blocks=1,
    cost_factor=0.0,
)
HALF_LIFE = 15  # rows, of the volatilities under long correlations
LINEAR = "Ledoit-Wolf, linear"


class LearnedRisk(DEQMeanVariance):
    """Minimum variance with learned risk; with ``short``, weights from -1 to 1."""

    def __init__(self, lookback: int = 253, hidden: int = 16, short: bool = True, cap: float = 0.2):
        super().__init__(
            lookback,
            hidden,
            cap,
            ridge=0.01,
            inertia=0.0,
            cash=False,
            features=("volatility",),
            risk="cleaned",
        )
        self.short = short

    def prepare(self, history: Panel) -> Inputs:
        inputs = super().prepare(history)
        if self.short:  # declared, short positions need a limit of their sum, which is not studied
            inputs[LIMIT + "lower"] = -torch.ones(len(history.assets), dtype=torch.float64)
            inputs[LIMIT + "upper"] = torch.ones(len(history.assets), dtype=torch.float64)
        return inputs


def nonlinear(returns: np.ndarray) -> np.ndarray:
    """Ledoit & Wolf (2022), "Quadratic shrinkage for large covariance matrices"."""
    rows, assets = len(returns) - 1, returns.shape[1]
    centred = returns - returns.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / rows)
    ratio, few = assets / rows, min(assets, rows)
    width = min(ratio**2, ratio**-2) ** 0.35 / assets**0.35
    inverse = 1 / values[-few:]
    apart = inverse[None, :] - inverse[:, None]
    spread = apart**2 + width**2 * inverse[None, :] ** 2
    theta = (inverse * apart / spread).mean(axis=1)
    squared = theta**2 + (inverse**2 * width / spread).mean(axis=1) ** 2
    if assets <= rows:
        part = (1 - ratio) ** 2 + 2 * ratio * (1 - ratio) * theta + ratio**2 * squared
        cleaned = 1 / (inverse * part)
    else:
        null = np.full(assets - rows, 1 / ((ratio - 1) * inverse.mean()))
        cleaned = np.append(null, 1 / (inverse * squared))
    cleaned *= values.sum() / cleaned.sum()
    return (vectors * cleaned) @ vectors.T


def exponential(returns: np.ndarray) -> np.ndarray:
    """Exponential weights with a half-life of a quarter of the window."""
    weights = 0.5 ** (np.arange(len(returns))[::-1] / (len(returns) / 4))
    return (returns.T * (weights / weights.sum())) @ returns


def recent_volatilities(returns: np.ndarray) -> np.ndarray:
    """Volatilities with exponential weights, correlations of the window shrunk linearly: as DCC,
    with correlations that do not change within the window."""
    deviations = returns.std(axis=0) + 1e-9
    weights = 0.5 ** (np.arange(len(returns))[::-1] / HALF_LIFE)
    recent = np.sqrt(weights / weights.sum() @ returns**2) + 1e-9
    return ledoit_wolf(returns / deviations)[0] * np.outer(recent, recent)


RIVALS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    LINEAR: lambda returns: ledoit_wolf(returns)[0],
    "Ledoit-Wolf, nonlinear": nonlinear,
    "exponential weights": exponential,
    "recent volatilities": recent_volatilities,
    "1/N": lambda returns: np.eye(returns.shape[1]),
}


@dataclass(frozen=True)
class Case:
    """A market, the rows of the window, and the rows from one decision to the next."""

    name: str
    panel: Panel
    window: int
    step: int


def factor_market(assets: int, rows: int, seed: int) -> Panel:
    """Five factors and specific returns, each with GARCH(1, 1) volatility; t noise, 6 degrees."""
    rng = np.random.default_rng(seed)
    loadings = 0.6 * rng.normal(size=(assets, 5)) * [0, 0.5, 0.4, 0.3, 0.2]
    loadings[:, 0] = 0.8 * rng.uniform(0.5, 1.2, assets)
    own = rng.uniform(0.5, 1.8, assets)
    shocks = rng.standard_t(6, (rows, 5 + assets)) * np.sqrt(4 / 6)
    heat, drawn = np.ones(5 + assets), np.empty_like(shocks)
    for t in range(rows):
        drawn[t] = np.sqrt(heat) * shocks[t]
        heat = 0.02 + 0.9 * heat + 0.08 * drawn[t] ** 2
    returns = 0.01 * (drawn[:, :5] @ loadings.T + drawn[:, 5:] * own)
    dates = pd.bdate_range("2000-01-03", periods=rows)
    names = [f"S{i}" for i in range(assets)]
    return Panel.from_returns(pd.DataFrame(returns, dates, names), source="factor market")


def cases(data: str | None) -> list[Case]:
    market = factor_market(100, 4000, 100)
    stocks = load("sp500", start="2000-01-01")
    found = [Case("factor market", market, rows, 5) for rows in (60, 150)]
    found += [Case("bundled stocks", stocks, rows, 5) for rows in (252, 30)]
    for path in [] if data is None else sorted(Path(data).rglob("*.csv.gz")):
        if path.name == "daily_returns.csv.gz":
            panel = industries(path.parent)
            found += [Case("ten industries", panel, rows, 5) for rows in (252, 15)]
        if path.name == "hourly_prices.csv.gz":
            found += [Case("coins, hourly", load(str(path)), rows, 12) for rows in (120, 60)]
        if path.parent.name == "implied_volatility":
            implied = pd.read_csv(path, index_col=0, parse_dates=True)
            prices = stocks.prices.loc[implied.index[0] : implied.index[-1]]
            panel = Panel(prices, {IMPLIED: implied.reindex(prices.index)})
            found += [Case("stocks with implied volatility", panel, rows, 5) for rows in (252, 30)]
    return found


def minimum_variance(covariances: np.ndarray, short: bool) -> Tensor:
    """Weights (B, N) of covariances (B, N, N)."""
    scaled = covariances / np.trace(covariances, axis1=1, axis2=2)[:, None, None]
    scaled = len(scaled[0]) * scaled + 1e-9 * np.eye(len(scaled[0]))  # where it is singular
    nothing = torch.zeros(scaled.shape[:2], dtype=torch.float64)
    limits = {"lower": -1.0, "upper": 1.0} if short else {"lower": 0.0, "upper": 0.2}
    return MeanVarianceLayer()(torch.from_numpy(scaled), nothing, **limits)


def returns_by_row(
    case: Case, short: bool, seeds: int, develop: bool
) -> tuple[pd.DataFrame, float]:
    """(T, S) returns at each row of the rows that are scored, one column an estimator; and the mean
    share of the trained state that is kept."""
    panel = case.panel.rows(0, len(case.panel) // 2) if develop else case.panel
    begin = int(len(panel) * (0.7 if develop else 0.5))
    plan = WalkForward(train=begin, refit=len(panel), rebalance=case.step)
    strategy = LearnedRisk(case.window + 1, short=short)
    fold = plan.folds(panel.dates, strategy.lookback)[0]
    learner = Learner(panel, [fold], plan, Costs(0.0), TRAINING, 1)
    data = learner.dataset("learned", strategy, fold)
    rows = fold.test[:-1]
    fills, ends = rows + plan.execution_lag, fold.test[1:] + plan.execution_lag
    ends = np.minimum(ends, len(panel) - 1)
    paths = learner.paths(fills, ends)[:, 1:]

    inputs = learner.stacked("learned", strategy, rows)
    weights, shares = [], []
    for seed in range(seeds):
        trained = train(strategy, data, Costs(0.0), replace(TRAINING, seed=seed))
        shares.append(trained.history["share"].iloc[-1])
        weights.append(strategy.weights(inputs))
    train(strategy, data, Costs(0.0), replace(TRAINING, epochs=0))
    portfolios = {"learned": torch.stack(weights).mean(0), "untrained": strategy.weights(inputs)}
    known = np.nan_to_num(panel.returns.to_numpy())
    windows = [known[row + 1 - case.window : row + 1] for row in rows]
    for name, estimator in RIVALS.items():
        portfolios[name] = minimum_variance(np.array([estimator(w) for w in windows]), short)
    found = {name: row_returns(w, paths).flatten().numpy() for name, w in portfolios.items()}
    return pd.DataFrame(found), float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", help="folder of markets")
    parser.add_argument("--develop", action="store_true", help="score within the first half")
    parser.add_argument("--seeds", type=int, default=3, help="networks, whose weights are averaged")
    parser.add_argument("--only", default="", help="markets whose name begins so")
    parser.add_argument("--quick", action="store_true", help="one seed, one market")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    chosen = [case for case in cases(given.data) if case.name.startswith(given.only)]
    for case in chosen[: 1 if given.quick else None]:
        for short in (True, False):
            found, share = returns_by_row(
                case, short, 1 if given.quick else given.seeds, given.develop
            )
            table = variance_differences(found, LINEAR)
            volatility = found.std()
            table.insert(0, "volatility", volatility[table.index] / volatility[LINEAR])
            kind = "long-short" if short else "long-only"
            print(
                f"\n{case.name}, N = {len(case.panel.assets)}, window {case.window}, {kind}; "
                f"{len(found)} rows, share {share:.2f}\n{table.round(3).to_string()}",
                flush=True,
            )


if __name__ == "__main__":
    main()
