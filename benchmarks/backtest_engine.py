"""The engine's own time: against vectorbt's for the same orders, on import, and with two workers.

    python benchmarks/backtest_engine.py [--quick]

vectorbt's own time is `Portfolio.from_orders` with target percentages, cash sharing and the `auto`
call sequence, as its users write it, and its order records and value; best of five. The strategy's
time is what is spent in `allocate`, the plug-in's own pandas; the engine's is the rest: cuts
of the panel, holdings, checks of the weights, accounting, vectorbt's execution and the comparison.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from data_loaders import Panel, load
from engine import BacktestResult, Costs, Training, WalkForward, backtest
from strategies import DEQMeanVariance, EqualWeight, InverseVolatility, Strategy

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

    result = backtest(strategy, panel, plan, progress=False)[name]  # and its first imports
    times = []
    type(strategy).allocate = timed
    for _ in range(rounds):
        inside[0] = 0.0
        whole = best(lambda: backtest(strategy, panel, plan, progress=False), 1)
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


def imports() -> None:
    print("\nimport, a fresh process each, best of three")
    for module in ("torch", "sklearn.base", "strategies.base", "engine"):
        seconds = best(lambda m=module: subprocess.run([sys.executable, "-c", f"import {m}"]), 3)
        print(f"  {module:<16}{seconds:5.2f} s")


def workers(quick: bool) -> None:
    """The demo in one process and in two, alternately; and with several seeds a fold."""
    panel = load("sp500", start="2000-01-01")
    plan = WalkForward(train="5Y", refit="3Y", rebalance="W-FRI")
    print("\nthe demo, from start to end (each worker takes seconds to start)")
    for seeds in (1,) if quick else (1, 4):
        training = Training(ensemble=seeds)

        def run(count: int, training: Training = training) -> float:
            begin = time.perf_counter()
            strategy = DEQMeanVariance()
            backtest(strategy, panel, plan, Costs(), training, workers=count, progress=False)
            return time.perf_counter() - begin

        pairs = [(run(1), run(2)) for _ in range(1 if quick else 2)]
        one, two = (min(times) for times in zip(*pairs, strict=True))
        print(f"  {seeds} seeds: 1 worker {one:.1f} s, 2 workers {two:.1f} s, {one / two:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no large panel, short training")
    quick = parser.parse_args().quick
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
