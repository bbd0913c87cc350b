"""Ten seeds: single trainings, and backtests one after the other and in two worker processes.

    python -m benchmarks.seeds [--quick] [--seeds 10] [--only runs]

Trainings are of one fold of the demo: 20 stocks, 5 years and more of weekly decisions, the default
network and training. "plain" is a training whose equilibrium is iterated by torch operations,
without the compiled kernels. A training's epochs depend on its seed, so a single one counts as the
mean of all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from sklearn.base import clone

from data_loaders import Panel, load
from engine import Costs, Training, WalkForward, backtest, backtest_seeds, train
from engine.training.trainer import Trained
from engine.walking.learner import Learner
from strategies import (
    DEQMeanVariance,
    EqualWeight,
    ExplicitMeanVariance,
    LearnedStrategy,
    SoftmaxAllocation,
    UnrolledMeanVariance,
)
from strategies.layers import Picard
from strategies.layers.equilibrium import deq_encoder as deq

COSTS = Costs(0.001)
FOLD = 2  # of six: 521 decisions
PLAN = WalkForward(train="5Y", refit="3Y", rebalance="W-FRI")


@contextmanager
def without_kernels() -> Iterator[None]:
    """Equilibria by torch operations."""
    before = deq.compilable
    deq.compilable = lambda *_: False
    try:
        yield
    finally:
        deq.compilable = before


def timed(work: Callable[[], object]) -> tuple[float, object]:
    begin = time.perf_counter()
    found = work()
    return time.perf_counter() - begin, found


def compare(strategy: LearnedStrategy, learner: Learner, seeds: int, rounds: int) -> dict:
    """Median seconds of a single training: the mean of all seeds, and by torch operations."""
    data = learner.dataset(type(strategy).__name__, strategy, learner.folds[FOLD])

    def single(seed: int) -> Trained:
        torch.set_num_threads(1)  # more only wait, on so small a problem
        return train(clone(strategy), data, COSTS, Training(seed=seed))

    single(0)  # compiles
    alone, plain = [], []
    for _ in range(rounds):
        taken = [timed(lambda seed=seed: single(seed))[0] for seed in range(seeds)]
        alone.append(sum(taken) / seeds)
        with without_kernels():
            plain.append(timed(lambda: single(0))[0])
    return {"single": statistics.median(alone), "plain": statistics.median(plain)}


def runs(panel: Panel, seeds: int, rounds: int) -> None:
    """Backtests of the flagship and 1/N: of one seed, of all seeds, and of all in two processes."""
    strategies = [DEQMeanVariance(), EqualWeight()]
    options: dict[str, Any] = {"progress": False, "ledger": False}
    asked: dict[str, Callable[[], object]] = {
        "one seed": lambda: backtest(strategies, panel, PLAN, COSTS, **options),
        f"{seeds} seeds": lambda: backtest_seeds(
            strategies, panel, PLAN, COSTS, seeds=seeds, **options
        ),
        f"{seeds} seeds, 2 workers": lambda: backtest_seeds(
            strategies, panel, PLAN, COSTS, seeds=seeds, workers=2, **options
        ),
    }
    print(f"\nbacktests of {len(PLAN.folds(panel.dates, 253))} folds; seconds, best of {rounds}\n")
    for name, work in asked.items():
        print(f"{name:24}{min(timed(work)[0] for _ in range(rounds)):8.2f}", flush=True)


def encoders(rounds: int) -> None:
    """Forward and backward of the encoder alone: is single precision worth it?"""
    kinds = {
        "float64, compiled": (torch.float64, 1e-9, True),
        "float64, 1e-5, compiled": (torch.float64, 1e-5, True),
        "float64, plain": (torch.float64, 1e-9, False),
        "float32, 1e-5, plain": (torch.float32, 1e-5, False),
    }
    print(f"\nencoder, forward + backward, one thread; ms, medians of {rounds}\n")
    print(f"{'B, N, H':14}" + "".join(f"{kind:>25}" for kind in kinds))
    torch.set_num_threads(1)
    for B, N, H in ((100, 20, 16), (100, 100, 32), (16, 500, 16)):
        x, mask = torch.randn(B, N, 21, dtype=torch.float64), torch.ones(B, N, dtype=torch.bool)
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds + 1):
            for kind, (dtype, rtol, kernels) in kinds.items():
                torch.manual_seed(0)
                solver = Picard(rtol=rtol, atol=1e-4 * rtol)
                module = deq.DEQEncoder(21, H, solver=solver).to(dtype)
                given = x.to(dtype)
                with nullcontext() if kernels else without_kernels():
                    seconds, _ = timed(lambda m=module, g=(given, mask): m(*g).sum().backward())
                taken[kind].append(seconds)
        line = "".join(f"{1e3 * statistics.median(each[1:]):25.2f}" for each in taken.values())
        print(f"{f'{B}, {N}, {H}':14}{line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="three seeds, once")
    parser.add_argument("--only", choices=["trainings", "runs", "encoders"])
    asked = parser.parse_args()
    seeds, rounds = (3, 1) if asked.quick else (asked.seeds, 3)
    warnings.simplefilter("ignore")
    panel = load("sp500", start="2000-01-01")
    if asked.only in (None, "trainings"):
        folds = PLAN.folds(panel.dates, 253)
        learner = Learner(panel, folds, PLAN, COSTS, Training(), 1)
        print(f"single trainings, mean of {seeds} seeds; seconds, medians of {rounds}\n")
        print(f"{'':24}{'plain':>8}{'single':>8}")
        for strategy in (
            DEQMeanVariance(),
            ExplicitMeanVariance(),
            UnrolledMeanVariance(steps=3),
            SoftmaxAllocation(),
        ):
            found = compare(strategy, learner, seeds, rounds)
            name = type(strategy).__name__
            print(f"{name:24}{found['plain']:8.2f}{found['single']:8.2f}", flush=True)
    if asked.only in (None, "runs"):
        runs(panel, seeds, 1 if asked.quick else 2)
    if asked.only in (None, "encoders"):
        encoders(3 if asked.quick else 15)


if __name__ == "__main__":
    main()
