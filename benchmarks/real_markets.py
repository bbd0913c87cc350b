"""The whole shelf on real markets, net of 10 bp, over several seeds; every strategy as it comes.

    python -m benchmarks.real_markets [--quick] [--data DIR] [--seeds 10] [--runs DIR]

Bundled stocks: 20 survivors, hand-picked, from 2000; weekly decisions filled a session later,
trained on 5 years and more, refitted every 3 years. The paper's data (``benchmarks/e2e_dro.py``),
where DIR holds them: weekly, its four windows, no lag. Learned strategies are trained from each
seed; rules and estimators have none, and no spread. A run that was interrupted goes on from where
it was.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from benchmarks.e2e_dro import PLAN as PAPER_PLAN
from benchmarks.e2e_dro import load_paper
from data_loaders import Panel, load
from engine import Costs, Training, TrainingError, WalkForward, backtest_seeds
from engine.accounting.performance import max_drawdown, sharpe
from reports.statistics.sharpe_tests import sharpe_differences
from strategies import (
    EqualWeight,
    ExplicitMeanVariance,
    LearnedStrategy,
    SoftmaxAllocation,
    Strategy,
    UnrolledMeanVariance,
    Wrapper,
    known_strategies,
)

COSTS = Costs(commission=0.001)
BENCHMARK = "EqualWeight"
COLUMNS = {"Sharpe": "{:.3f}", "spread": "{:.3f}", "turnover": "{:.1%}", "drawdown": "{:.1%}"}


@dataclass(frozen=True)
class RealMarket:
    """A panel, how it is walked, and the window of a strategy's history there."""

    name: str
    panel: Panel
    plan: WalkForward
    lookback: int


def markets(data: str | None) -> list[RealMarket]:
    """The bundled stocks, and the paper's data where ``data`` is their folder."""
    plan = WalkForward(train="5Y", refit="3Y", rebalance="W-FRI")
    found = [RealMarket("bundled stocks", load("sp500", start="2000-01-01"), plan, 253)]
    if data is not None:
        found.append(RealMarket("E2E-DRO stocks", load_paper(data)[0], PAPER_PLAN, 105))
    return found


def shelf(lookback: int) -> dict[str, Strategy]:
    """All strategies with a name, and the flagship's siblings, with this lookback."""
    siblings = (ExplicitMeanVariance, UnrolledMeanVariance, SoftmaxAllocation)
    found = {}
    for name, cls in ({each.__name__: each for each in siblings} | known_strategies()).items():
        if issubclass(cls, Wrapper):
            continue
        strategy = cls()
        if "lookback" in strategy.get_params():
            strategy.set_params(lookback=lookback)
        found[name] = strategy
    return found


def runs(
    market: RealMarket,
    strategies: Mapping[str, Strategy],
    seeds: int,
    folder: Path,
    training: Mapping[str, Training] | None = None,
    costs: Costs = COSTS,
) -> pd.DataFrame:
    """One row a strategy and seed, those of a fixed rule once.

    Args:
        folder: of the run directories.
        training: by strategy, where it is not the default; seeds count from its own.

    Returns:
        Columns strategy, seed, Sharpe (net, a year), turnover (a decision), drawdown, p (of the
        difference in Sharpe to 1/N, Ledoit and Wolf 2008). A strategy whose training failed is
        printed, and has no row.
    """
    base = EqualWeight()
    year = market.panel.periods_per_year
    rows = []
    for name, strategy in strategies.items():
        learned = isinstance(strategy, LearnedStrategy)
        try:
            found = backtest_seeds(
                {name: strategy, BENCHMARK: base},
                market.panel,
                market.plan,
                costs,
                (training or {}).get(name, Training()),
                seeds if learned else 1,
                run_dir=folder / "_".join([*market.name.split(), *name.split()]),
                progress=False,
                ledger=False,
            )
        except TrainingError as error:
            print(f"\n{market.name}: no result of {name}: {error}", flush=True)
            continue
        for seed, results in found.items():
            net = pd.DataFrame({key: each.net_returns for key, each in results.items()}).iloc[1:]
            row = {
                "strategy": name,
                "seed": seed,
                "Sharpe": sharpe(net[name], year),
                # The first fill buys everything, whatever the strategy.
                "turnover": results[name].turnover.iloc[1:].mean(),
                "drawdown": max_drawdown(net[name]),
                "p": float("nan"),
            }
            if name != BENCHMARK:
                row["p"] = sharpe_differences(net, BENCHMARK, year)["studentised"].iloc[0]
            rows.append(row)
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over the seeds, and the spread of Sharpe among them; best first."""
    grouped = found.groupby("strategy", sort=False)
    means = grouped[["Sharpe", "turnover", "drawdown"]].mean()
    means.insert(1, "spread", grouped["Sharpe"].std())
    means["median p"] = grouped["p"].median()
    means["seeds"] = grouped.size()
    means = means.sort_values("Sharpe", ascending=False)
    means.insert(0, "rank", range(1, len(means) + 1))
    return means


def shown(means: pd.DataFrame) -> str:
    texts = means.astype(object)
    for column, form in {**COLUMNS, "median p": "{:.2f}"}.items():
        texts[column] = [form.format(v) if v == v else "-" for v in means[column]]
    return texts.rename_axis(None).to_string()


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", help="folder of the paper's CSV files")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"))
    given = parser.parse_args()
    given.seeds = 1 if given.quick else given.seeds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    return given


def main() -> None:
    given = arguments(__doc__)
    for market in markets(given.data):
        begin = time.perf_counter()
        found = runs(market, shelf(market.lookback), given.seeds, given.runs / "real_markets")
        print(
            f"\n{market.name}, net of 10 bp; p against 1/N; {time.perf_counter() - begin:.0f} s\n"
        )
        print(shown(table(found)))


if __name__ == "__main__":
    main()
