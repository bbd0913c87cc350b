"""What many backtests of a large universe take on a cluster: measured pieces, and a model of them.

    python -m benchmarks.cluster_cost [--assets 3000] [--runs 1000] [--workers 1 8 64 500] [--check]

A run walks DEQMeanVariance forward through ten years: weekly decisions, five years of training
before the first of yearly refits, the default training without an early stop. The pieces are
measured here, on one thread of the CPU, on synthetic prices of five factors, in the first fold:

    deliver      the panel to bytes, and back on a worker; once for each worker, run and panel
    prepare      the inputs of one date; once for each date of a run on each worker that has a fit
    begin        what a fit does once: scalers, the untrained network's loss, the cross-check of the
                 solver; by training decision
    epoch        an epoch, its validation with it; by training decision
    decide       one decision, and what the network looks at in it (the report's sensitivities)
    once         checks of the data, the books and vectorbt's orders of a run
    start        a worker's imports; once for each worker

and a run costs dates x prepare + training decisions x (begin + epochs x epoch) + decisions x decide
+ once. With more workers than runs, folds are spread as well; a run then ends with its longest
fold, which prepares its own dates, and with the decisions, whose worker prepares all. The network
moves the panel at ``--bandwidth``, to one worker after the other. Money is hours of workers times
``--price``. The model leaves out stragglers, retries and the scheduler. With --check one such run
is made, with six epochs, and its time stands beside the model's.
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from benchmarks.scaling import flagship, market
from engine import Costs, Training, WalkForward, backtest
from engine.accounting.simulation import load_vectorbt, simulate
from engine.compute.executors import Parcel
from engine.planning.walk_forward import Fold
from engine.runs.description import run_settings
from engine.training.fit_records import FitKey
from engine.walking.decisions import DecisionTask
from engine.walking.fitting import FitTask
from engine.walking.learner import Learner

ROWS = 2520
PLAN = WalkForward(train="5Y", refit="1Y", rebalance="W-FRI")
EPOCHS = 1, 3  # of the two fits that what is done once and what each epoch takes are read off
CHECKED = 6  # epochs of the run that the model is held against


def seconds(work: Callable[[], object]) -> float:
    """Of the CPU: what else the machine does is left out."""
    start = time.process_time()
    work()
    return time.process_time() - start


@dataclass(frozen=True)
class Pieces:
    """Seconds of the CPU, and bytes."""

    panel: int
    pack: float
    unpack: float
    prepare: float
    begin: float
    epoch: float
    decide: float
    once: float
    start: float
    result: int  # bytes of one fit that come back


@dataclass(frozen=True)
class Shape:
    """Of one run."""

    dates: int
    trained: list[int]  # training decisions of each fold
    decisions: int


def shape(folds: list[Fold]) -> Shape:
    used = {int(row) for fold in folds for rows in (fold.train, fold.test) for row in rows}
    decisions = sum(len(fold.test) for fold in folds)
    return Shape(len(used), [len(fold.train) for fold in folds], decisions)


def measure(assets: int, rows: int = ROWS) -> tuple[Pieces, Shape]:
    """All pieces at so many assets."""
    panel, strategy = market(rows, assets), flagship(assets, "factor")
    folds = PLAN.folds(panel.dates, strategy.lookback)
    parcel = Parcel(Learner(panel, folds, PLAN, Costs(), Training(), 1))
    pack = seconds(lambda: parcel.content)
    unpack = seconds(lambda: pickle.loads(parcel.content))
    checks = seconds(lambda: run_settings(panel, PLAN, Costs(), Training()))

    first, key = folds[0], FitKey("run", 0, 0)
    dates = np.union1d(first.train, first.test)
    learners = [
        Learner(panel, [first], PLAN, Costs(), Training(epochs=n, patience=n), 1) for n in EPOCHS
    ]
    dated = [seconds(lambda each=each: each.stacked("run", strategy, dates)) for each in learners]
    fit = FitTask(key, strategy)
    found = fit.run(learners[0])  # loads what is loaded late
    short, long = (seconds(lambda each=each: fit.run(each)) for each in learners)
    epoch = (long - short) / (EPOCHS[1] - EPOCHS[0])
    task = DecisionTask("run", strategy, {key: found}, [first])
    start = time.process_time()
    decided = task.run(learners[0])
    deciding = (time.process_time() - start) / len(task)
    load_vectorbt()
    tested = np.concatenate([fold.test for fold in folds])
    wanted = np.resize(decided.targets.to_numpy(), (len(tested), assets))
    targets = pd.DataFrame(wanted, panel.dates[tested], panel.assets)
    simulating = seconds(lambda: simulate(targets, panel, Costs(), PLAN.execution_lag))
    code = "import torch._dynamo, torch.nn.utils, strategies.registry"
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    pieces = Pieces(
        panel=len(parcel.content),
        pack=pack,
        unpack=unpack,
        prepare=min(dated) / len(dates),
        begin=(short - EPOCHS[0] * epoch) / len(first.train),
        epoch=epoch / len(first.train),
        decide=deciding,
        once=checks + simulating,
        start=time.perf_counter() - begun,
        result=len(pickle.dumps(found)),
    )
    return pieces, shape(folds)


def fit_time(pieces: Pieces, decisions: int, epochs: int) -> float:
    """Seconds of fits on so many training decisions, whose inputs are prepared."""
    return decisions * (pieces.begin + epochs * pieces.epoch)


def run_time(pieces: Pieces, run: Shape, epochs: int) -> float:
    """Seconds of one run on one worker."""
    trained = fit_time(pieces, sum(run.trained), epochs)
    return trained + run.dates * pieces.prepare + run.decisions * pieces.decide + pieces.once


def fold_time(pieces: Pieces, run: Shape, epochs: int) -> float:
    """Seconds of a run whose every fit has a worker of its own: the longest, and what follows."""
    longest = run.trained[-1] * pieces.prepare + fit_time(pieces, run.trained[-1], epochs)
    return longest + run.dates * pieces.prepare + run.decisions * pieces.decide + pieces.once


def model(pieces: Pieces, run: Shape, epochs: int, runs: int, workers: int, rate: float) -> float:
    """Seconds until all runs are done; ``rate``: bytes a second of the network."""
    sent = pieces.pack + workers * pieces.panel / rate + pieces.unpack + pieces.start
    alone = run_time(pieces, run, epochs)
    if workers <= runs:
        return sent + -(-runs // workers) * alone
    share = min(workers // runs, len(run.trained))
    return sent + max(alone / share, fold_time(pieces, run, epochs))


def check(pieces: Pieces, run: Shape, assets: int) -> None:
    """A real run beside the model."""
    training, panel = Training(epochs=CHECKED, patience=CHECKED), market(ROWS, assets)

    def real() -> None:
        strategy = flagship(assets, "factor")
        backtest(strategy, panel, PLAN, training=training, progress=False, ledger=False)

    found, said = seconds(real), run_time(pieces, run, CHECKED)
    print(
        f"with {CHECKED} epochs       {found:9.1f} s     the model says {said:.1f} s "
        f"({said / found - 1:+.0%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 500])
    parser.add_argument("--epochs", type=int, default=Training().epochs, help="that a fit takes")
    parser.add_argument("--bandwidth", type=float, default=1e8, help="bytes a second")
    parser.add_argument("--price", type=float, default=0.04, help="of a core for an hour")
    parser.add_argument("--check", action="store_true", help=f"make one run, of {CHECKED} epochs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    measure(20)  # compiles and imports
    pieces, run = measure(asked.assets)
    print(f"{asked.assets} assets, {ROWS} rows, one thread; seconds of the CPU")
    print(f"panel               {pieces.panel / 1e6:9.1f} MB, sent once to each worker")
    print(f"  to bytes          {pieces.pack:9.3f} s     back {pieces.unpack:.3f} s")
    print(f"prepare one date    {pieces.prepare:9.4f} s     x {run.dates}")
    trained = sum(run.trained)
    print(f"begin, a decision   {pieces.begin:9.4f} s     x {trained}")
    print(f"epoch, a decision   {pieces.epoch:9.4f} s     x {trained} x {asked.epochs} epochs")
    print(f"decide once         {pieces.decide:9.4f} s     x {run.decisions}")
    print(f"checks and books    {pieces.once:9.3f} s")
    print(f"a fit comes back as {pieces.result / 1e3:9.1f} kB    x {len(run.trained)}")
    print(f"start of a worker   {pieces.start:9.2f} s by the clock")
    alone, longest = (each(pieces, run, asked.epochs) for each in (run_time, fold_time))
    print(f"one run             {alone:9.1f} s     its longest fit {longest:.1f} s")
    if asked.check:
        check(pieces, run, asked.assets)
    print(f"\n{asked.runs} runs, {asked.bandwidth / 1e6:g} MB/s, {asked.price:g} an hour and core")
    print(f"{'workers':>8}{'hours':>10}{'core hours':>12}{'money':>10}")
    for workers in asked.workers:
        took = model(pieces, run, asked.epochs, asked.runs, workers, asked.bandwidth) / 3600
        total = took * workers
        print(f"{workers:8}{took:10.2f}{total:12.1f}{total * asked.price:10.2f}")


if __name__ == "__main__":
    main()
