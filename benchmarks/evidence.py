"""What believing training as far as its validation blocks support it gains, and what it costs.

    python -m benchmarks.evidence [--seeds 10] [--quick]

Synthetic markets of ``benchmarks/known_truth.py`` at 10 bp, with a planted signal and with none.
Sharpe ratios are those of the weights under the true means and covariance: of the untrained
network, of the best epoch as it is, and of what is kept, a share of the way between them
(``engine/training/evidence.py``). Seeds from 100 on are of markets that no default was chosen on.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from sklearn.base import clone

from benchmarks.known_truth import ASSETS, CAP, COST, LOOKBACK, ROWS, Trial, true_sharpe
from data_loaders.synthetic import Market, null, planted
from engine import Costs, Training, train
from strategies import DEQMeanVariance

FIRST = 100
MARKETS: dict[str, Callable[..., Market]] = {"planted": planted, "null": null}


def row(market: Market, seed: int) -> dict[str, float]:
    """What one market's training comes to."""
    like = DEQMeanVariance(lookback=LOOKBACK, cap=CAP)
    trial = Trial(market, like)

    def score(**settings: Any) -> tuple[float, Any]:
        strategy = clone(like)
        trained = train(strategy, trial.samples, Costs(COST), Training(seed=seed, **settings))
        found = true_sharpe(market, trial.frame(strategy.weights(trial.test).numpy()), COST)
        return found, (strategy, trained)

    untrained, _ = score(epochs=0)
    kept, (strategy, trained) = score()
    strategy.module_.load_state_dict(trained.best_state)
    best = true_sharpe(market, trial.frame(strategy.weights(trial.test).numpy()), COST)
    found = trained.history.iloc[-1]
    names = {"gain": "validation_gain", "error": "validation_error", "share": "share"}
    return {"untrained": untrained, "best epoch": best, "kept": kept} | {
        short: float(found[name]) for short, name in names.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one seed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for kind, make in MARKETS.items():
        seeds = range(FIRST, FIRST + (1 if given.quick else given.seeds))
        rows = {}
        for seed in seeds:
            rows[seed] = row(make(rows=ROWS, assets=ASSETS, seed=seed), seed)
            print(kind, seed, {k: round(v, 3) for k, v in rows[seed].items()}, flush=True)
        table = pd.DataFrame(rows).T
        print(f"\n{kind}: means of {len(table)}\n{table.mean().round(3).to_string()}\n")


if __name__ == "__main__":
    main()
