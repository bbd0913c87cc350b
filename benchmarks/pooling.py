"""What starting from several markets is worth: untrained, trained alone, zero-shot, fine-tuned.

    python -m benchmarks.pooling [--seeds 3] [--quick] [--data DIR]

Planted markets of ``benchmarks/known_truth.py`` at 10 bp, none of whose features is named: one
state is pretrained on five others up to the same date, and tested on the 1,500 rows after it;
Sharpe ratios are those under the true means and covariance. With ``--data``, the bundled stocks and
ten US industries, too: one state is pretrained on both up to 2011, and tested from 2012 on each.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import pandas as pd
import torch

from benchmarks.known_truth import ASSETS, COST, FULL, PLAN, ROWS, Trial, true_sharpe
from benchmarks.real_markets import industries
from data_loaders import load
from data_loaders.synthetic import planted
from engine import Costs, Training, WalkForward, backtest, pretrain
from engine.accounting.performance import sharpe
from strategies import DEQMeanVariance, Pretrained, Untrained

OTHERS = 5
FIRST = 300  # seed of the first planted market; those of other benchmarks lie below
UNTIL, SUBSETS = "2011-12-31", 2


def kept(history: pd.DataFrame) -> str:
    """What validation on all markets says of a pretraining."""
    end = history.iloc[-1]
    return (
        f"{end['epoch']} epochs, gain {end['validation_gain']:.3f} with an error of "
        f"{end['validation_error']:.3f}, share {end['share']:.2f}"
    )


def on_planted(seeds: int, folder: Path) -> None:
    plain, costs, file = DEQMeanVariance(**FULL), Costs(COST), folder / "planted"
    markets = [planted(ROWS, ASSETS, FIRST + seed) for seed in range(OTHERS + seeds)]
    trials = [Trial(market, plain) for market in markets[OTHERS:]]
    until = trials[0].market.panel.dates[trials[0].fold.refit] - pd.Timedelta("1D")
    others = [market.panel for market in markets[:OTHERS]]
    history = pretrain(plain, others, file, until=until, plan=PLAN, costs=costs)
    print(f"pretrained on {OTHERS} planted markets: {kept(history)}")
    start = Pretrained(plain, str(file))
    rows = []
    for seed, trial in enumerate(trials):
        weights = {
            "untrained": trial.weights(plain, COST, seed, epochs=0),
            "alone": trial.weights(plain, COST, seed, validation_blocks=3),
            "zero-shot": trial.weights(start, COST, seed, epochs=0),
            "fine-tuned": trial.weights(start, COST, seed, validation_blocks=3),
        }
        rows.append({k: true_sharpe(trial.market, each, COST) for k, each in weights.items()})
        print(FIRST + OTHERS + seed, {k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
    print(pd.DataFrame(rows).agg(["mean", "std", "min"]).round(3).to_string(), flush=True)


def on_real(data: Path, seeds: int, folder: Path) -> None:
    plan = WalkForward(train="5Y", refit="3Y", rebalance="W-FRI")
    panels = {
        "bundled stocks": load("sp500", start="2000-01-01"),
        "ten industries": industries(data / "industries10"),
    }
    plain, file = DEQMeanVariance(features=("prices",)), str(folder / "real")
    history = pretrain(
        plain, list(panels.values()), file, until=UNTIL, plan=plan, sub_universes=SUBSETS
    )
    print(f"\npretrained on both up to {UNTIL}: {kept(history)}")
    start = Pretrained(plain, file)
    strategies = {
        "untrained": Untrained(plain),
        "alone": plain,
        "zero-shot": Untrained(start),
        "fine-tuned": start,
    }
    for name, panel in panels.items():
        train = int(panel.dates.searchsorted(pd.Timestamp(UNTIL) + pd.Timedelta("1D")))
        walk = WalkForward(train=train, refit="3Y", rebalance="W-FRI")
        training = Training(ensemble=seeds)
        found = backtest(strategies, panel, walk, training=training, ledger=False, progress=False)
        year = panel.periods_per_year
        said = {k: round(sharpe(each.net_returns.iloc[1:], year), 3) for k, each in found.items()}
        print(name, "from", found["alone"].targets.index[0].date(), said, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one market, one seed")
    parser.add_argument("--data", type=Path, metavar="DIR", help="with industries10 in it")
    given = parser.parse_args()
    seeds = 1 if given.quick else given.seeds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        on_planted(seeds, Path(folder))
        if given.data is not None:
            on_real(given.data, seeds, Path(folder))


if __name__ == "__main__":
    main()
