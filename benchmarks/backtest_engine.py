"""The engine's own time: on minute bars, against vectorbt's, on import, and with two workers.

    python benchmarks/backtest_engine.py [--quick]

vectorbt's own time is `Portfolio.from_orders` with target percentages, cash sharing and the `auto`
call sequence, as its users write it, and its order records and value; best of five. The strategy's
time is what is spent in `allocate`, the plug-in's own pandas; the engine's is the rest: cuts
of the panel, holdings, checks of the weights, accounting, vectorbt's execution and the comparison.
Minute bars come first, as the peak of memory is that of the process, and in seconds of the CPU.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from data_loaders import Panel, load
from engine import BacktestResult, WalkForward, backtest
from strategies import EqualWeight, InverseVolatility, Strategy

LINE = "{:<46}{:>10}{:>10}{:>10}{:>10}{:>9}"


class Held(Strategy):
    """Constant weights: what is left is the engine's own time."""

    lookback = 1

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        if not hasattr(self, "weights_"):
            self.weights_ = pd.Series(1 / len(history.assets), history.assets)
        return self.weights_


def best(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def vectorbt_alone(result: BacktestResult, panel: Panel, lag: int) -> float:
    """Seconds that vectorbt takes for the result's orders."""
    import vectorbt

    rows = panel.dates.get_indexer(result.targets.index) + lag
    prices = panel.prices.ffill().iloc[rows[0] :].set_axis(range(len(panel.assets)), axis=1)
    size = np.full(prices.shape, np.nan)
    size[rows - rows[0]] = result.targets * 0.999  # leaves cash for the fees

    def run() -> None:
        portfolio = vectorbt.Portfolio.from_orders(
            prices,
            size=size,
            size_type="targetpercent",
            direction="longonly",
            fees=0.001,
            init_cash=1e6,
            cash_sharing=True,
            group_by=True,
            call_seq="auto",
            freq="1D",
        )
        assert len(portfolio.orders.values)
        assert len(portfolio.value())

    return best(run, 5)


def measure(title: str, strategy: Strategy, panel: Panel, plan: WalkForward, rounds: int) -> None:
    name, inside = type(strategy).__name__, [0.0]
    allocate = type(strategy).allocate

    def timed(self, history, holdings):
        begin = time.perf_counter()
        weights = allocate(self, history, holdings)
        inside[0] += time.perf_counter() - begin
        return weights

    result = backtest(strategy, panel, plan, progress=False, ledger=False)[name]  # and imports
    times = []
    type(strategy).allocate = timed
    for _ in range(rounds):
        inside[0] = 0.0
        whole = best(lambda: backtest(strategy, panel, plan, progress=False, ledger=False), 1)
        times.append((whole, inside[0]))
    type(strategy).allocate = allocate
    whole, inside[0] = min(times)
    alone = vectorbt_alone(result, panel, plan.execution_lag)
    own = whole - inside[0]
    print(
        LINE.format(
            f"{title}, {name}",
            *(f"{1e3 * t:.0f} ms" for t in (alone, whole, inside[0], own)),
            f"{own / alone:.1f}x",
        ),
        flush=True,
    )


def minute_bars() -> None:
    """100,000 minutes of 30 assets, a decision a day: at most 10 s and 1 GB are wanted."""
    rows, assets, session = 100_000, 30, 390
    opens = pd.bdate_range("2020-01-01 09:30", periods=-(-rows // session))
    minutes = pd.to_timedelta(np.arange(1, session + 1), unit="min")
    dates = pd.DatetimeIndex(np.add.outer(opens, minutes).ravel()[:rows])
    walks = np.random.default_rng(0).normal(0, 5e-4, (rows, assets)).cumsum(axis=0)
    prices = pd.DataFrame(100 * np.exp(walks), dates).add_prefix("A")
    plan = WalkForward(train="30D", refit="90D", rebalance="D")
    print(f"\n{rows} minute bars of {assets} assets, a decision a day, one fresh process")
    before = peak()
    for strategy in (EqualWeight(), InverseVolatility(lookback=session + 1)):
        begin = time.process_time()
        result = backtest(strategy, Panel(prices), plan, progress=False, ledger=False)
        seconds = time.process_time() - begin
        for name, found in result.items():
            print(
                f"  {name:<20}{len(found.targets)} decisions {seconds:5.1f} s of CPU, peak "
                f"{peak():.2f} GB ({before:.2f} of them for the packages and the prices)"
            )


def peak() -> float:
    """Most memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def imports() -> None:
    print("\nimport, a fresh process each, best of three")
    for module in ("torch", "sklearn.base", "strategies.base", "engine"):
        seconds = best(lambda m=module: subprocess.run([sys.executable, "-c", f"import {m}"]), 3)
        print(f"  {module:<16}{seconds:5.2f} s")


def workers(quick: bool) -> None:
    """`deqfolio demo` alone and with two workers, alternately: imports, report and all."""

    def run(*words: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "deqfolio", "demo", "--out", f"{folder}/run", *words]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            ledger = os.environ | {"DEQFOLIO_STORAGE": f"sqlite:///{folder}/trials.sqlite3"}
            return best(lambda: subprocess.run(command, check=True, env=ledger, **quiet), 1)

    pairs = [(run(), run("--workers", "2")) for _ in range(1 if quick else 3)]
    alone, two = (min(times) for times in zip(*pairs, strict=True))
    load = os.getloadavg()[0]
    print(f"\nthe demo: {alone:.1f} s, with 2 workers {two:.1f} s, {alone / two:.2f}x")
    print(f"  (load {load:.1f} on {os.cpu_count()} cores: about 2 is what this itself makes)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no large panel, short training")
    quick = parser.parse_args().quick
    minute_bars()
    print(LINE.format("", "vectorbt", "in all", "strategy", "engine", "engine/vb"))
    stocks = load("sp500", start="2000-01-01")
    weekly = WalkForward(train="1Y", refit="1Y", rebalance="W-FRI")
    for strategy in (Held(), EqualWeight(), InverseVolatility()):
        measure(f"{len(stocks.assets)} assets, {stocks.dates[-1].year - 1999} years, weekly",
                strategy, stocks, weekly, 3)  # fmt: skip
    if not quick:
        rng = np.random.default_rng(0)
        walks = 100 * np.exp(rng.normal(0, 0.01, (2520, 500)).cumsum(axis=0))
        wide = Panel(
            pd.DataFrame(walks, pd.bdate_range("2010-01-04", periods=2520)).add_prefix("A")
        )
        daily = WalkForward(train=1, refit="1Y", rebalance="D")
        for strategy in (Held(), EqualWeight()):
            measure("500 assets, 10 years, daily", strategy, wide, daily, 1)
    imports()
    workers(quick)


if __name__ == "__main__":
    main()
