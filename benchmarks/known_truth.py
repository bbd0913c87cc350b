"""What learning finds where the truth is known, and what it must not find.

    python -m benchmarks.known_truth [--quick] [--seeds 10]

Synthetic markets of 10 assets (``data_loaders/synthetic.py``): daily decisions filled at the same
close, one fit on the first 2,000 rows, the rest is the test. Since the truth is known, a Sharpe
ratio here is that of the weights held under the true conditional means and covariance, without the
noise of the returns that happened; only the null market is judged by the returns that happened.
The long-only oracle knows the truth, and has the same cap; its aversion to risk is the best of a
grid.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge

from data_loaders.synthetic import Market, lead_lag, null, planted
from engine import Costs, NegativeSharpe, PredictionError, Training, WalkForward, backtest
from reports.statistics import sharpe_differences
from strategies import (
    DEQMeanVariance,
    EqualWeight,
    ExplicitMeanVariance,
    MinimumVariance,
    PredictThenOptimize,
    SoftmaxAllocation,
    Strategy,
    UnrolledMeanVariance,
)
from strategies.layers import MeanVarianceLayer

YEAR = 252
ROWS, TRAIN = 5000, 2000
CAP = 0.3
PLAN = WalkForward(train=TRAIN, refit=10**6, rebalance=1, execution_lag=0)
AVERSIONS = np.geomspace(10, 3000, 12)  # weights of the expected return, for the oracle
COMMON = {"cap": CAP, "lookback": 64}
SEES = {"features": ("prices", "panel")}
LAGS = {"features": ("lags:1",)}


def true_sharpe(market: Market, weights: pd.DataFrame, cost: float = 0.0) -> float:
    """Sharpe ratio a year of weights (K, N) by decision date, under the true distribution.

    The mean of w'mu less the costs of trading, over the root of the mean of w'Sw plus the variance
    of w'mu.
    """
    held = weights.to_numpy()
    mean = (held * market.expected_returns.loc[weights.index].to_numpy()).sum(axis=1)
    risk = np.einsum("ti,ij,tj->t", held, market.covariance, held)
    traded = np.abs(np.diff(held, axis=0)).sum(axis=1).mean()
    return float((mean.mean() - cost * traded) / np.sqrt(risk.mean() + mean.var()) * YEAR**0.5)


def oracle(market: Market, dates: pd.DatetimeIndex, cap: float = CAP) -> float:
    """The highest true Sharpe ratio of  max a mu'w - 1/2 w'Sw,  1'w = 1,  0 <= w <= cap."""
    scale = np.trace(market.covariance) / len(market.covariance)
    risk = torch.tensor(market.covariance / scale)
    expected = torch.tensor(market.expected_returns.loc[dates].to_numpy())
    weights = [MeanVarianceLayer()(risk, a * expected, upper=cap).numpy() for a in AVERSIONS]
    return max(
        true_sharpe(market, pd.DataFrame(w, dates, market.expected_returns.columns))
        for w in weights
    )


def walk(
    market: Market, strategies: dict[str, Strategy], cost: float, training: Training
) -> dict[str, pd.DataFrame]:
    """The weights that each strategy decides on in the test rows."""
    results = backtest(
        strategies, market.panel, PLAN, Costs(cost), training, progress=False, ledger=False
    )
    return {name: result.targets for name, result in results.items()}


def shares_of_the_oracle(
    make: Callable[..., Market],
    strategies: dict[str, Strategy],
    cost: float,
    seeds: int,
    training: dict,
) -> pd.DataFrame:
    """One row a seed of market and training: the oracle's ratio at no cost, and each strategy's."""
    rows = []
    for seed in range(seeds):
        market = make(rows=ROWS, assets=10, seed=seed)
        held = walk(market, strategies, cost, Training(seed=seed, **training))
        dates = next(iter(held.values())).index
        found = {name: true_sharpe(market, weights, cost) for name, weights in held.items()}
        rows.append({"oracle": oracle(market, dates), **found})
    return pd.DataFrame(rows)


def null_gains(seeds: int, training: dict) -> pd.DataFrame:
    """One row a seed: the realised Sharpe ratio beyond 1/N where there is nothing, and its p."""
    rows = []
    for seed in range(seeds):
        market = null(rows=ROWS, assets=10, seed=seed)
        results = backtest(
            [DEQMeanVariance(**COMMON, **SEES), EqualWeight()],
            market.panel,
            PLAN,
            training=Training(seed=seed, **training),
            progress=False,
            ledger=False,
        )
        net = pd.DataFrame({name: result.net_returns for name, result in results.items()})
        found = sharpe_differences(net, "EqualWeight", YEAR).loc["DEQMeanVariance"]
        rows.append({"difference": found["difference"], "p": found["p"]})
    return pd.DataFrame(rows)


def report(title: str, table: pd.DataFrame) -> None:
    print(f"\n{title}\n")
    share = table.div(table["oracle"], axis=0)
    print(f"{'':28}{'Sharpe':>8}{'spread':>8}{'of oracle':>11}")
    for name in table:
        mean, spread = table[name].mean(), table[name].std(ddof=1) if len(table) > 1 else np.nan
        print(f"{name:28}{mean:8.2f}{spread:8.2f}{share[name].mean():11.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="two seeds")
    asked = parser.parse_args()
    seeds = 2 if asked.quick else asked.seeds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = time.perf_counter()

    learned = {
        "DEQMeanVariance": DEQMeanVariance(**COMMON, **SEES),
        "explicit network": ExplicitMeanVariance(**COMMON, **SEES),
        "1 step": UnrolledMeanVariance(steps=1, **COMMON, **SEES),
        "3 steps": UnrolledMeanVariance(steps=3, **COMMON, **SEES),
        "30 steps": UnrolledMeanVariance(steps=30, **COMMON, **SEES),
        "without the optimiser": SoftmaxAllocation(**COMMON, **SEES),
    }
    rules = {"1/N": EqualWeight(), "minimum variance": MinimumVariance(**COMMON)}
    tuned = {
        f"predict, aversion {aversion:g}": PredictThenOptimize(
            Ridge(alpha=1.0), aversion=aversion, features=("panel",), **COMMON
        )
        for aversion in (1.0, 3.0, 10.0, 30.0)
    }
    for cost in (0.0, 0.001):
        table = shares_of_the_oracle(planted, learned | rules | tuned, cost, seeds, {})
        report(f"planted signal, {cost * 1e4:.0f} bp; oracle at no cost", table)
    table = shares_of_the_oracle(planted, learned, 0.001, seeds, {"cost_factor": 0.0})
    report("planted signal, 10 bp, trained without costs", table)

    pairs = {
        "DEQ, pairs cell": DEQMeanVariance(cell="pairs", **COMMON, **LAGS),
        "DEQ, graph cell": DEQMeanVariance(cell="graph", embedding=8, **COMMON, **LAGS),
        "DEQ, mean-field cell": DEQMeanVariance(embedding=8, **COMMON, **LAGS),
        "explicit network": ExplicitMeanVariance(**COMMON, **LAGS),
    }
    # A Sharpe ratio alone says little of who follows whom; chosen on the market of seed 0.
    both = NegativeSharpe() + 100 * PredictionError(scale=0.003)
    patient = {"epochs": 60, "patience": 20, "weight_decay": 0.01, "loss": both}
    report("lead-lag, 0 bp", shares_of_the_oracle(lead_lag, pairs | rules, 0.0, seeds, patient))

    gains = null_gains(seeds, {})
    print("\nnull market, 10 bp: Sharpe ratio of DEQMeanVariance less that of 1/N\n")
    print(gains.round(3).to_string())
    print(f"\nseeds with p < 0.05 and a gain: {((gains.p < 0.05) & (gains.difference > 0)).sum()}")
    print(f"\n{seeds} seeds, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
