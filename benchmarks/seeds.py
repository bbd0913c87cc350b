"""Ten seeds side by side against ten single trainings, of the demo's flagship.

    python -m benchmarks.seeds [--quick] [--seeds 10] [--threads 1]

One fold of the demo: 20 stocks, 5 years and more of weekly decisions, the default network and
training. Single trainings and the batch take turns, medians are shown, and every state is compared
bit for bit. "plain" is a single training whose equilibrium is iterated by torch operations, without
the compiled kernels. A training's epochs depend on its seed, so a single one counts as the mean of
all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from sklearn.base import clone

from data_loaders import load
from engine import Costs, Training, WalkForward, train
from engine.training.trainer import Trained, train_seeds
from engine.walking.learner import Learner
from strategies import (
    DEQMeanVariance,
    ExplicitMeanVariance,
    LearnedStrategy,
    SoftmaxAllocation,
    UnrolledMeanVariance,
)
from strategies.layers import Picard, deq

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


def compare(
    strategy: LearnedStrategy, learner: Learner, seeds: int, rounds: int, threads: int
) -> dict[str, float | bool]:
    """Median seconds of a single training and of all seeds at once, and whether bits agree."""
    samples = learner.samples(type(strategy).__name__, strategy, learner.folds[FOLD])
    training = Training()

    def single(seed: int) -> Trained:
        torch.set_num_threads(1)  # more only wait, on so small a problem
        return train(clone(strategy), samples, COSTS, replace(training, seed=seed))

    def joint() -> dict[int, Trained | Exception]:
        torch.set_num_threads(threads)
        return train_seeds(strategy, samples, COSTS, training, range(seeds))

    single(0), joint()  # compiles
    alone, together, plain = [], [], []
    for _ in range(rounds):
        taken = [timed(lambda seed=seed: single(seed)) for seed in range(seeds)]
        alone.append(sum(seconds for seconds, _ in taken) / seeds)
        seconds, found = timed(joint)
        together.append(seconds)
        with without_kernels():
            plain.append(timed(lambda: single(0))[0])
    same = all(
        torch.equal(value, found[seed].module.state_dict()[name])
        for seed, (_, one) in enumerate(taken)
        for name, value in one.module.state_dict().items()
    )
    middle = {"single": alone, "plain": plain, "together": together}
    return {**{name: statistics.median(each) for name, each in middle.items()}, "same": same}


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
    parser.add_argument("--threads", type=int, default=1, help="of the batch")
    parser.add_argument("--quick", action="store_true", help="three seeds, once")
    asked = parser.parse_args()
    seeds, rounds = (3, 1) if asked.quick else (asked.seeds, 3)
    warnings.simplefilter("ignore")
    panel = load("sp500", start="2000-01-01")
    folds = PLAN.folds(panel.dates, 253)
    learner = Learner(panel, folds, PLAN, COSTS, Training(), 1)
    print(f"{seeds} seeds side by side, on {asked.threads} threads; seconds, medians of {rounds}\n")
    print(f"{'':24}{'plain':>8}{'single':>8}{'batch':>8}{'in singles':>12}{'in plain':>10}  bits")
    for strategy in (
        DEQMeanVariance(),
        ExplicitMeanVariance(),
        UnrolledMeanVariance(steps=3),
        SoftmaxAllocation(),
    ):
        found = compare(strategy, learner, seeds, rounds, asked.threads)
        print(
            f"{type(strategy).__name__:24}{found['plain']:8.2f}{found['single']:8.2f}"
            f"{found['together']:8.2f}{found['together'] / found['single']:12.1f}"
            f"{found['together'] / found['plain']:10.1f}  "
            f"{'equal' if found['same'] else 'DIFFERENT'}",
            flush=True,
        )
    encoders(3 if asked.quick else 15)


if __name__ == "__main__":
    main()
