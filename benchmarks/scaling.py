"""How time and memory grow with N assets, B samples, L rows of lookback and T rows of prices.

    python benchmarks/scaling.py [--quick | --goals] [--only step] [--figure F]
                                 [--universe 500] [--step 3000]

Each point runs in a process of its own on synthetic prices of five factors. Memory is the peak of
the process above what it held before; time is that of the CPU, which other work on the machine
disturbs least. The exponent is the slope of a straight line through the logarithms: 1 is linear, 2
quadratic; below 1, fixed costs still count. Beside it stands that of the two largest. --only takes
one of the three things measured, step, prepare and walk. Without either and without --quick it also
walks ``--universe`` assets forward through ten years (weekly decisions, yearly refits, the default
training), and takes one step of training at ``--step`` assets, B = 16; with --goals it does that
alone.

Dense risk holds N x N numbers a date, factor risk N x K.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from data_loaders import Panel
from engine import Training, WalkForward, backtest
from strategies import DEQMeanVariance
from strategies.contract_types import stack
from strategies.layers import ActiveSet

LOOKBACK = 253
GOALS = {"walk-forward": (600.0, 6e9), "one step": (2.0, 8e9)}  # seconds, bytes

# what is varied, over which values, what else is held; the quick run takes the first three
CASES: list[tuple[str, str, str, list[int], dict]] = [
    ("step", "factor", "N", [250, 500, 1000, 2000, 3000], {"B": 16}),
    ("step", "factor", "B", [8, 16, 32, 64, 128], {"N": 500}),
    ("step", "covariance", "N", [125, 250, 500, 1000], {"B": 16}),
    ("prepare", "factor", "N", [250, 500, 1000, 2000, 3000], {"L": LOOKBACK}),
    ("prepare", "factor", "L", [64, 127, 253, 505], {"N": 500}),
    ("prepare", "covariance", "N", [250, 500, 1000, 2000], {"L": LOOKBACK}),
    ("walk", "factor", "T", [630, 756, 1008, 1512, 2520], {"N": 200}),
    ("walk", "factor", "N", [50, 100, 200, 400, 800, 1600], {"T": 756}),
]
TITLES = {
    "step": "one step of training",
    "prepare": "inputs of one date",
    "walk": "walk-forward, 2 epochs",
}


def market(rows: int, assets: int) -> Panel:
    """Random walks with five common factors, from 0.8 % to 2 % of own volatility a day."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(rows, 5)) @ rng.normal(0, 0.003, (5, assets))
    own = rng.normal(size=(rows, assets)) * rng.uniform(0.008, 0.02, assets)
    prices = 100 * np.exp(np.cumsum(3e-4 + common + own, axis=0))
    days = pd.bdate_range("2010-01-04", periods=rows, name="date")
    return Panel(pd.DataFrame(prices, days).add_prefix("S"))


def flagship(assets: int, risk: str, lookback: int = LOOKBACK) -> DEQMeanVariance:
    return DEQMeanVariance(lookback=lookback, cap=max(0.02, 2 / assets), risk=risk, cash=False)


def step(risk: str, N: int, B: int = 16) -> Callable[[], float]:
    """Forward through encoder and optimiser, backward, and a step of AdamW: the slowest of three,
    the first of which knows no earlier solution."""
    panel, strategy = market(LOOKBACK + B - 1, N), flagship(N, risk)
    inputs = stack([strategy.prepare(panel.rows(i, i + LOOKBACK)) for i in range(B)])
    network = strategy.build(inputs).double()
    optimiser = torch.optim.AdamW(network.parameters())
    inputs["row"] = torch.arange(B)
    growth = torch.randn(B, N, dtype=torch.float64) * 0.01

    def run() -> float:
        slowest = 0.0
        for _ in range(3):
            start = time.process_time()
            earned = (network(inputs) * growth).sum(1)
            optimiser.zero_grad()
            (-earned.mean() / earned.std()).backward()
            optimiser.step()
            slowest = max(slowest, time.process_time() - start)
        return slowest

    return run


def prepare(risk: str, N: int, L: int = LOOKBACK) -> Callable[[], float]:
    """Features, risk and limits of one date: the mean of three."""
    panel, strategy = market(L + 2, N), flagship(N, risk, L)
    _ = panel.returns

    def run() -> float:
        start = time.process_time()
        for i in range(3):
            strategy.prepare(panel.rows(i, i + L))
        return (time.process_time() - start) / 3

    return run


def walk(
    risk: str,
    N: int,
    T: int,
    epochs: int | None = 2,
    train: str = "1Y",
    lookback: int = 127,
) -> Callable[[], float]:
    """A whole backtest: weekly decisions, yearly refits, 10 bp."""
    panel, strategy = market(T, N), flagship(N, risk, lookback)
    training = Training(epochs=epochs or Training().epochs, validation_blocks=1)

    def run() -> float:
        start = time.process_time()
        plan = WalkForward(train=train, refit="1Y", rebalance="W-FRI")
        backtest(strategy, panel, plan, training=training, progress=False, ledger=False)
        return time.process_time() - start

    return run


MEASURES: dict[str, Callable[..., Callable[[], float]]] = {
    "step": step,
    "prepare": prepare,
    "walk": walk,
}


def measured(what: str, settings: dict) -> tuple[float, float, float]:
    """Seconds of CPU, peak memory in bytes above that before, and seconds by the clock of all
    that is done for one point, in its own process."""
    receive, send = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        torch.manual_seed(0)
        run = MEASURES[what](**settings)
        reset_peak()
        before, start = resident(), time.perf_counter()
        seconds = run()
        send.send((seconds, peak() - before, time.perf_counter() - start))

    # A fork has the imports and the compiled kernels; this process runs no thread of its own.
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    send.close()
    try:
        found = receive.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{what} {settings} ended with {process.exitcode}") from None
    process.join()
    return found


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * resource.getpagesize())


def peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


def exponent(values: list[int], found: list[float]) -> float:
    """Slope of log found over log values, by least squares."""
    return float(np.polyfit(np.log(values), np.log(np.maximum(found, 1e-9)), 1)[0])


def warm_up() -> None:
    """Compile the kernels and import what is imported late, before the forks."""
    from engine.accounting.simulation import load_vectorbt

    load_vectorbt()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the few data that this is trained on
        walk("factor", 8, 600)()


def table(quick: bool, only: str | None) -> list[dict]:
    """Measure the cases and print them as they are done."""
    print(f"{'':24}{'risk':12}{'held':10}{'varied':48}{'exponent':>8}{'last two':>10}")
    rows = []
    for what, risk, letter, values, held in CASES:
        if only not in (None, what):
            continue
        values = values[:3] if quick else values
        found = [measured(what, {"risk": risk, letter: v, **held}) for v in values]
        seconds, sizes, _ = zip(*found, strict=True)
        said = ", ".join(f"{name}={value}" for name, value in held.items())
        head = f"{TITLES[what]:24}{risk:12}{said:10}"
        shown = {
            f"{letter}": [f"{v}" for v in values],
            "seconds": [f"{s:.2g}" for s in seconds],
            "MB": [f"{size / 1e6:.0f}" for size in sizes],
        }
        found_in = {"seconds": list(seconds), "MB": [max(size, 1e6) for size in sizes]}
        for name, cells in shown.items():
            slope = ""
            if name in found_in:
                of_all = exponent(values, found_in[name])
                slope = f"{of_all:8.2f}{exponent(values[-2:], found_in[name][-2:]):10.2f}"
            print(f"{head:46}{name:8}{''.join(f'{c:>8}' for c in cells):40}{slope}", flush=True)
            head = ""
        rows.append(
            {"title": f"{TITLES[what]}, {risk}, {said}", "letter": letter, "values": values}
            | {"seconds": seconds, "bytes": sizes}
        )
    return rows


def draw(rows: list[dict], path: str) -> None:
    """Time and memory over what is varied, both axes logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    letters = list(dict.fromkeys(row["letter"] for row in rows))
    figure = Figure(figsize=(3 * len(letters), 6), layout="constrained")
    axes = figure.subplots(2, len(letters), squeeze=False)
    for number, row in enumerate(rows):
        column, style = letters.index(row["letter"]), {"color": f"C{number}", "marker": "."}
        axes[0][column].loglog(row["values"], row["seconds"], label=row["title"], **style)
        axes[1][column].loglog(row["values"], np.array(row["bytes"]) / 1e6, **style)
    for column, letter in enumerate(letters):
        axes[0][column].set(ylabel="seconds" if not column else "")
        axes[1][column].set(ylabel="MB" if not column else "", xlabel=letter)
        for each in (axes[0][column], axes[1][column]):
            for axis in (each.xaxis, each.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    figure.savefig(path)


def goal(title: str, what: str, settings: dict) -> None:
    """One large point against its goal."""
    seconds, size, clock = measured(what, settings)
    most_seconds, most_bytes = GOALS[title]
    kept = seconds <= most_seconds and size <= most_bytes
    print(
        f"{title}, {settings}: {seconds:.3g} s of CPU (goal {most_seconds:g}; the whole "
        f"measurement took {clock:.3g} s), {size / 1e9:.2f} GB (goal {most_bytes / 1e9:g}): "
        f"{'kept' if kept else 'MISSED'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--goals", action="store_true", help="the two large points only")
    parser.add_argument("--only", choices=list(MEASURES), help="measure nothing else")
    parser.add_argument("--figure", help="draw it to this file")
    parser.add_argument("--universe", type=int, default=500)
    parser.add_argument("--step", type=int, default=3000)
    asked = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("memory is read from /proc, which only Linux has")
    torch.set_num_threads(1)
    warm_up()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before; one thread; {ActiveSet()}\n")
    rows = [] if asked.goals else table(asked.quick, asked.only)
    if asked.figure:
        draw(rows, asked.figure)
    if not (asked.quick or asked.only):
        print()
        goal("one step", "step", {"risk": "factor", "N": asked.step, "B": 16})
        ten_years = {"T": 2520, "epochs": None, "train": "5Y", "lookback": LOOKBACK}
        goal("walk-forward", "walk", {"risk": "factor", "N": asked.universe, **ten_years})


if __name__ == "__main__":
    main()
