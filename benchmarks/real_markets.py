"""The whole shelf on real markets, net of 10 bp, over several seeds; every strategy as it comes.

    python -m benchmarks.real_markets [--quick] [--data DIR] [--seeds 10] [--only NAME,NAME]

Bundled stocks: 20 survivors, hand-picked, from 2000; weekly decisions filled a session later,
trained on 5 years and more, refitted every 3 years. And every market of these that DIR, or a folder
in it, holds:

    the paper's data (``benchmarks/e2e_dro.py``)    weekly, its four windows, no lag
    daily_returns.csv.gz                            ten US industries from 1990, in excess of the
                                                    risk-free rate; as the bundled stocks
    hourly_prices.csv.gz                            coins; daily decisions, two months of training
                                                    and more, refitted every month

Learned strategies are trained from each seed; rules and estimators have none, and no spread. The
last table is of all markets together (``reports/statistics/pooled_tests.py``). A run that was
interrupted goes on from where it was.
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
from reports.statistics.difference_tests import sharpe_differences
from reports.statistics.pooled_tests import pooled_difference
from strategies import (
    DEQMeanVariance,
    EqualWeight,
    ExplicitMeanVariance,
    MinimumVariance,
    RiskParity,
    SoftmaxAllocation,
    Strategy,
    UnrolledMeanVariance,
    Untrained,
    VolatilityManaged,
    Wrapper,
    known_strategies,
)
from strategies.base import learned_inside

COSTS = Costs(commission=0.001)
BENCHMARK = "EqualWeight"
LONG = "1826D"
UNTRAINED = "DEQMeanVariance untrained"
RIVALS = (UNTRAINED, BENCHMARK, "RiskParity", "MinimumVariance", "MinimumVariance with cash")
COLUMNS = {"Sharpe": "{:.3f}", "spread": "{:.3f}", "turnover": "{:.1%}", "drawdown": "{:.1%}"}


@dataclass(frozen=True)
class RealMarket:
    """A panel, how it is walked, and the window of a strategy's history there."""

    name: str
    panel: Panel
    plan: WalkForward
    lookback: int


def markets(data: str | None) -> list[RealMarket]:
    """The bundled stocks, and every market that ``data`` or a folder in it holds."""
    plan = WalkForward(train="5Y", refit="3Y", rebalance="W-FRI")
    found = [RealMarket("bundled stocks", load("sp500", start="2000-01-01"), plan, 253)]
    if data is None:
        return found
    for folder in (Path(data), *sorted(path for path in Path(data).iterdir() if path.is_dir())):
        if (folder / "assets_weekly_returns.csv.gz").exists():
            found.append(RealMarket("E2E-DRO stocks", load_paper(folder)[0], PAPER_PLAN, 105))
        if (folder / "daily_returns.csv.gz").exists():
            found.append(RealMarket("ten industries", industries(folder), plan, 253))
        if (folder / "hourly_prices.csv.gz").exists():
            hourly = WalkForward(train="60D", refit="30D", rebalance="D")
            panel = load(str(folder / "hourly_prices.csv.gz"))
            found.append(RealMarket("coins", panel, hourly, 253))
    return found


def industries(folder: Path) -> Panel:
    """Ten US industries, daily from 1990: returns less the risk-free rate, so that cash earns 0."""
    returns, factors = (
        pd.read_csv(folder / name, index_col="date", parse_dates=True)
        for name in ("daily_returns.csv.gz", "factors_and_riskfree_daily.csv.gz")
    )
    excess = returns.sub(factors["RF"], axis=0).dropna(how="all").loc["1990":]
    return Panel.from_returns(excess, source="ten US industries in excess of the risk-free rate")


def shelf(lookback: int) -> dict[str, Strategy]:
    """All strategies with a name, the flagship's siblings and untrained start, and baselines that
    may hold cash as it does, with this lookback."""
    siblings = (ExplicitMeanVariance, UnrolledMeanVariance, SoftmaxAllocation)
    found = {}
    for name, cls in ({each.__name__: each for each in siblings} | known_strategies()).items():
        if not issubclass(cls, Wrapper):
            found[name] = _looking_back(cls(), lookback)
    found[UNTRAINED] = Untrained(_looking_back(DEQMeanVariance(), lookback))
    for cls in (EqualWeight, RiskParity, MinimumVariance):
        found[f"{cls.__name__} with cash"] = VolatilityManaged(_looking_back(cls(), lookback))
    return found


def _looking_back(strategy: Strategy, lookback: int) -> Strategy:
    known = "lookback" in strategy.get_params()
    return strategy.set_params(lookback=lookback) if known else strategy


def runs(
    market: RealMarket,
    strategies: Mapping[str, Strategy],
    seeds: int,
    folder: Path,
    training: Mapping[str, Training] | None = None,
    costs: Costs = COSTS,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row a strategy and seed, those of a fixed rule once; and excess returns by strategy.

    Args:
        folder: of the run directories.
        training: by strategy, where it is not the default; seeds count from its own.

    Returns:
        Columns strategy, seed, Sharpe (net, a year), turnover (a decision), drawdown, p (of the
        difference in Sharpe to 1/N, Ledoit and Wolf 2008), nothing (share of the fits of which
        nothing was learned). A strategy whose training failed is printed, and has no row. The
        returns (T, S) are the mean over the seeds.
    """
    base = EqualWeight()
    year = market.panel.periods_per_year
    rows, returns = [], {}
    for name, strategy in strategies.items():
        learned = learned_inside(strategy) is not None and not isinstance(strategy, Untrained)
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
        every = [results[name].excess_returns.iloc[1:] for results in found.values()]
        returns[name] = sum(every[1:], start=every[0]) / len(every)
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
                "nothing": float("nan"),
            }
            if learned:
                fits = results[name].training_summary()
                row["nothing"] = (~fits["learned"]).mean()
            if name != BENCHMARK:
                row["p"] = sharpe_differences(net, BENCHMARK, year)["studentised"].iloc[0]
            rows.append(row)
    return pd.DataFrame(rows), pd.DataFrame(returns)


def pooled(returns: Mapping[str, pd.DataFrame], years: Mapping[str, float]) -> str:
    """The flagship less each rival, over all markets that have both."""
    flagship = DEQMeanVariance.__name__
    lines = [f"{flagship + ' less ...':30}{'mean':>8}{'95% interval':>18}{'p':>7}  by market"]
    for rival in RIVALS:
        both = {name: frame for name, frame in returns.items() if {rival, flagship} <= set(frame)}
        if both:
            found = pooled_difference(both, flagship, rival, years)
            apart = ", ".join(f"{name} {value:.3f}" for name, value in found.by_market.items())
            interval = f"{found.low:.3f} to {found.high:.3f}"
            lines.append(f"{rival:30}{found.difference:8.3f}{interval:>18}{found.p:7.3f}  {apart}")
    return "\n".join(lines)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over the seeds, and the spread of Sharpe among them; best first."""
    grouped = found.groupby("strategy", sort=False)
    means = grouped[["Sharpe", "turnover", "drawdown"]].mean()
    means.insert(1, "spread", grouped["Sharpe"].std())
    means["median p"] = grouped["p"].median()
    means["nothing learned"] = grouped["nothing"].mean()
    means["seeds"] = grouped.size()
    means = means.sort_values("Sharpe", ascending=False)
    means.insert(0, "rank", range(1, len(means) + 1))
    return means


def shown(means: pd.DataFrame) -> str:
    texts = means.astype(object)
    for column, form in {**COLUMNS, "median p": "{:.2f}", "nothing learned": "{:.0%}"}.items():
        texts[column] = [form.format(v) if v == v else "-" for v in means[column]]
    return texts.rename_axis(None).to_string()


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", help="folder of markets")
    parser.add_argument("--only", default="", help="strategies by name, with commas between")
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
    only = set(filter(None, given.only.split(",")))
    returns, years = {}, {}
    for market in markets(given.data):
        begin = time.perf_counter()
        chosen = {k: v for k, v in shelf(market.lookback).items() if not only or k in only}
        found, returns[market.name] = runs(market, chosen, given.seeds, given.runs / "real_markets")
        years[market.name] = market.panel.periods_per_year
        print(
            f"\n{market.name}, net of 10 bp; p against 1/N; {time.perf_counter() - begin:.0f} s\n"
        )
        print(shown(table(found)), flush=True)
    print("\nall markets, resampled by week\n\n" + pooled(returns, years))
    long = {
        name: frame
        for name, frame in returns.items()
        if frame.index[-1] - frame.index[0] > pd.Timedelta(LONG)
    }
    if 0 < len(long) < len(returns):
        print(f"\nthe {len(long)} of more than five years\n\n" + pooled(long, years))


if __name__ == "__main__":
    main()
