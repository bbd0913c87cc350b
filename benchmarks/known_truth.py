"""What learning finds where the truth is known, and what it must not find.

    python -m benchmarks.known_truth [--quick] [--seeds 10] [--only lead_lag] [--row 1/N]

Synthetic markets of 10 assets (``data_loaders/synthetic.py``): daily decisions filled at the same
close, one fit on the first 2,000 rows, the 1,500 after them are the test. Since the truth is known,
a Sharpe ratio here is that of the weights held under the true conditional means and covariance,
without the noise of the returns that happened; only the null market is judged by the returns that
happened. The long-only oracle knows the truth, and has the same cap; its aversion to risk is the
best of a grid. Each seed is that of a market and of the training on it.

Each market is prepared once for all networks that see the same of it, and the weights of the test
dates are those of consecutive dates, the same as a backtest holds:
tests/layers/optimisation/test_consecutive.py checks it.

Networks are fully invested, as the oracle is, and keep the best epoch on one validation block; what
believing it less is worth is measured in ``benchmarks/evidence.py``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.linear_model import Ridge

from data_loaders.synthetic import Market, lead_lag, null, planted
from engine import Costs, NegativeSharpe, PredictionError, Training, WalkForward, train
from engine.accounting.costs import settle
from engine.training.dataset import Dataset
from engine.walking.learner import Learner
from reports.statistics.difference_tests import sharpe_differences
from reports.wording import verdict
from strategies import (
    DEQMeanVariance,
    ExplicitMeanVariance,
    LearnedStrategy,
    PredictThenOptimize,
    SoftmaxAllocation,
)
from strategies.layers import MeanVarianceLayer
from strategies.layers.drift import drift

YEAR = 252
ROWS, TRAIN = 3500, 2000
ASSETS, CAP, LOOKBACK = 10, 0.3, 64
PLAN = WalkForward(train=TRAIN, refit=10**6, rebalance=1, execution_lag=0)
AVERSIONS = np.geomspace(10, 3000, 12)  # weights of the expected return, for the oracle
COST = 0.001
SEES = {"cap": CAP, "lookback": LOOKBACK}
FULL = {**SEES, "cash": False}
LAGS = {**FULL, "features": ("lags:1",)}
SIGNAL, LEADERS = {"signals": ("signal",)}, {"signals": ("return 0 back",)}
CHARGING = 0.3  # proportional cost of trading at the start; chosen on seeds 0 to 2
PREDICT = (1.0, 3.0, 10.0, 30.0)  # aversions of predict, then optimise
CHARGED = (0.1, 0.2, 0.3, 0.5)  # share of the cost that it is charged in its optimisation
MIRRORED = {"mirrors": 3, "mirrored_features": ("signal",)}
# A Sharpe ratio alone says little about lead-lag; chosen on another market.
WHO_FOLLOWS = NegativeSharpe() + 100 * PredictionError(scale=0.003)
PATIENT = {"epochs": 60, "patience": 20, "weight_decay": 0.01, "loss": WHO_FOLLOWS}


def true_sharpe(market: Market, weights: pd.DataFrame, cost: float = 0.0) -> float:
    """Sharpe ratio a year of weights (K, N) by decision date, under the true distribution.

    The mean of w'mu less the costs of trading, over the root of the mean of w'Sw plus the variance
    of w'mu.
    """
    held = weights.to_numpy()
    mean = (held * market.expected_returns.loc[weights.index].to_numpy()).sum(axis=1)
    risk = np.einsum("ti,ij,tj->t", held, market.covariance, held)
    traded = np.abs(np.diff(held, axis=0)).sum(axis=1).mean()
    return float((mean.mean() - cost * traded) / np.sqrt(risk.mean() + mean.var()) * YEAR**0.5)


def oracle(market: Market, dates: pd.DatetimeIndex, cap: float = CAP) -> float:
    """The highest true Sharpe ratio of  max a mu'w - 1/2 w'Sw,  1'w = 1,  0 <= w <= cap."""
    scale = np.trace(market.covariance) / len(market.covariance)
    risk = torch.tensor(market.covariance / scale)
    expected = torch.tensor(market.expected_returns.loc[dates].to_numpy())
    weights = [MeanVarianceLayer()(risk, a * expected, upper=cap).numpy() for a in AVERSIONS]
    return max(
        true_sharpe(market, pd.DataFrame(w, dates, market.expected_returns.columns))
        for w in weights
    )


class Trial:
    """A market as the networks of one kind see it: training rows, and consecutive test dates."""

    def __init__(self, market: Market, like: LearnedStrategy, plan: WalkForward = PLAN):
        panel = market.panel
        (fold,) = plan.folds(panel.dates, like.lookback)
        learner = Learner(panel, [fold], plan, Costs(0.0), Training(), 1)
        self.market, self.like, self.plan = market, like, plan
        self.fold, self.dates = fold, panel.dates[fold.test]
        self.samples = learner.dataset("all", like, fold)
        prices = torch.tensor(panel.prices.to_numpy())
        self.growth = prices[fold.test[1:]] / prices[fold.test[:-1]]  # (K - 1, N) after a decision
        drift = torch.cat([torch.full_like(self.growth[:1], torch.nan), self.growth])
        self.test = learner.stacked("all", like, fold.test) | {"drift": drift}

    def weights(
        self, strategy: LearnedStrategy, cost: float, seed: int, **training: object
    ) -> pd.DataFrame:
        """What a strategy, trained at that cost, decides on the test dates."""
        fitted = clone(strategy)
        settings = Training(seed=seed, **{"validation_blocks": 1, **training})  # type: ignore[arg-type]
        samples = self.mirrored if settings.mirrors else self.samples
        train(fitted, samples, Costs(cost), settings)
        return self.frame(fitted.weights(self.test).numpy())

    @cached_property
    def mirrored(self) -> Dataset:
        """The samples with those of mirrored panels."""
        settings = Training(**MIRRORED)  # type: ignore[arg-type]
        learner = Learner(self.market.panel, [self.fold], self.plan, Costs(0.0), settings, 1)
        return learner.training_data("all", self.like, self.fold)

    def frame(self, weights: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(weights, self.dates, self.market.panel.assets)

    def equal(self) -> pd.DataFrame:
        assets = len(self.market.panel.assets)
        return self.frame(np.full((len(self.dates), assets), 1 / assets))

    def minimum_variance(self) -> pd.DataFrame:
        covariance = self.test["covariance"]
        zero = torch.zeros(covariance.shape[:2], dtype=torch.float64)
        return self.frame(MeanVarianceLayer()(covariance, zero, upper=CAP).numpy())

    def net_returns(self, weights: pd.DataFrame, cost: float) -> pd.Series:
        """Of holding weights from each test date to the next."""
        held = torch.tensor(weights.to_numpy()[:-1])
        before = torch.cat([torch.zeros_like(held[:1]), drift(held[:-1], self.growth[:-1])])
        earned = settle(held, self.growth, before, torch.zeros_like(held[:, 0]), Costs(cost))
        return pd.Series(earned.net_returns.numpy(), self.dates[1:])


def predicted(trial: Trial) -> dict[str, pd.DataFrame]:
    """Predict, then optimise, from the signal alone, by aversion; and aware of what trading costs.

    The model is ``PredictThenOptimize``'s, and a few of its decisions are checked against it; all
    test dates are optimised at once. In "aware" a share of the cost of the turnover from what is
    held stands in the objective.
    """
    panel = trial.market.panel
    settings = {"features": ("panel",), "horizon": 1, "delay": 0, **SEES}
    known = panel.until(panel.dates[trial.fold.refit]).since(panel.dates[trial.fold.start])
    model = PredictThenOptimize(Ridge(alpha=1.0), aversion=1.0, **settings).fit(known)
    signal = panel.asset_features["signal"].loc[trial.dates].to_numpy()
    volatility = panel.returns.rolling(LOOKBACK - 1).std(ddof=0).loc[trial.dates].to_numpy()
    said = model.model_.predict(signal.reshape(-1, 1)).reshape(signal.shape) * volatility
    variance = np.square(volatility).mean(axis=1, keepdims=True)
    pull = torch.tensor(said / variance)  # q at an aversion of 1, (K, N)
    layer, covariance = MeanVarianceLayer(), trial.test["covariance"]
    found = {
        f"predict, then optimise, aversion {a:g}": trial.frame(
            layer(covariance, pull / a, upper=CAP).numpy()
        )
        for a in PREDICT
    }
    first = next(iter(found.values()))
    for row in trial.fold.test[[0, 700, -1]]:
        history = panel.rows(row + 1 - LOOKBACK, row + 1)
        alone = model.allocate(history, pd.Series(0.0, panel.assets))
        np.testing.assert_allclose(first.loc[panel.dates[row]], alone, atol=1e-7)
    aversion = 3.0
    for share in CHARGED:
        held, weights = None, []
        charge = torch.tensor(share * COST / (aversion * variance))  # (K, 1)
        for t in range(len(signal)):
            terms = {}
            if held is not None:
                grown = held * trial.test["drift"][t]
                cost = charge[t : t + 1].expand(1, ASSETS)
                terms = {"holdings": grown / grown.sum(), "turnover_cost": cost}
            asked = pull[t : t + 1] / aversion
            held = layer(covariance[t : t + 1], asked, upper=CAP, **terms)[0]
            weights.append(held.numpy())
        found[f"aware of {share:g} of the cost, aversion {aversion:g}"] = trial.frame(
            np.array(weights)
        )
    return found


class Rows(dict[tuple[str, str], float]):
    """True Sharpe ratios by table and strategy; of those whose name holds ``wanted`` only."""

    def __init__(self, market: Market, wanted: str):
        super().__init__()
        self.market, self.wanted = market, wanted

    def score(self, table: str, name: str, weigh: Callable[[], pd.DataFrame]) -> None:
        if self.wanted in name:
            self[table, name] = true_sharpe(self.market, weigh(), COST if "10 bp" in table else 0.0)


def planted_row(seed: int, wanted: str = "") -> Rows:
    """True Sharpe ratios on one market with a planted signal, by table and strategy."""
    market = planted(rows=ROWS, assets=ASSETS, seed=seed)
    trial = Trial(market, DEQMeanVariance(**FULL, **SIGNAL))
    deq, explicit = DEQMeanVariance(**FULL), ExplicitMeanVariance(**FULL)
    known = DEQMeanVariance(**FULL, **SIGNAL)
    charging = DEQMeanVariance(**FULL, **SIGNAL, proportional=CHARGING)
    free, dear = "planted signal, 0 bp", "planted signal, 10 bp"
    row = Rows(market, wanted)
    if wanted in (best := "oracle at no cost"):
        row[free, best] = row[dear, best] = oracle(market, trial.dates)
    for table, cost in ((free, 0.0), (dear, COST)):
        train_at = partial(trial.weights, cost=cost, seed=seed)
        row.score(table, "DEQMeanVariance", partial(train_at, deq))
        row.score(table, "trained on mirrors, too", partial(train_at, deq, **MIRRORED))
        row.score(table, "explicit network", partial(train_at, explicit))
        row.score(table, "signal predicted first", partial(train_at, known))
        row.score(table, "signal predicted first, untrained", partial(train_at, known, epochs=0))
        row.score(table, "1/N", trial.equal)
        row.score(table, "minimum variance", trial.minimum_variance)
    softmax, blind = SoftmaxAllocation(**SEES), DEQMeanVariance(inertia=0.0, **FULL)
    row.score(free, "without the optimiser", partial(trial.weights, softmax, 0.0, seed))
    dearly = partial(trial.weights, cost=COST, seed=seed)
    row.score(dear, "without the optimiser", partial(dearly, softmax))
    row.score(dear, "without current holdings", partial(dearly, blind))
    row.score(dear, "trained without costs", partial(dearly, deq, cost_factor=0.0))
    name = f"signal predicted first, proportional {CHARGING:g}"
    row.score(dear, name, partial(dearly, charging))
    row.score(dear, f"{name}, three blocks", partial(dearly, charging, validation_blocks=3))
    row.score(dear, f"{name}, untrained", partial(dearly, charging, epochs=0))
    if not wanted:
        for name, weights in predicted(trial).items():
            row.score(dear, name, partial(pd.DataFrame, weights))
    return row


def lead_lag_row(seed: int, wanted: str = "") -> Rows:
    """The same, where one asset follows another, at no cost."""
    market = lead_lag(rows=ROWS, assets=ASSETS, seed=seed)
    pairs = DEQMeanVariance(cell="pairs", **LAGS)
    named = DEQMeanVariance(cell="pairs", **LAGS, **LEADERS)
    trial = Trial(market, named)
    table = "lead-lag, 0 bp"
    row = Rows(market, wanted)
    if wanted in (best := "oracle at no cost"):
        row[table, best] = oracle(market, trial.dates)
    learn = partial(trial.weights, cost=0.0, seed=seed)
    patient = partial(learn, **PATIENT)
    row.score(table, "DEQ, pairs cell", partial(patient, pairs))
    row.score(table, "DEQ, pairs cell, default training", partial(learn, pairs))
    row.score(table, "DEQ, pairs cell, signal predicted first", partial(learn, named))
    row.score(
        table, "DEQ, pairs cell, signal predicted first, untrained", partial(learn, named, epochs=0)
    )
    embedded = DEQMeanVariance(embedding=8, **LAGS)
    row.score(table, "DEQ, mean-field cell, embedding", partial(patient, embedded))
    row.score(table, "explicit network", partial(patient, ExplicitMeanVariance(**LAGS)))
    row.score(table, "1/N", trial.equal)
    return row


def null_row(seed: int, wanted: str = "") -> dict[tuple[str, str], float]:
    """Where there is nothing: the Sharpe ratio of returns that happened beyond 1/N, net, and p.

    And the true difference: with equal means, less volatile assets are truly better ones.
    """
    trial = Trial(null(rows=ROWS, assets=ASSETS, seed=seed), DEQMeanVariance(**FULL))
    held = {
        "DEQMeanVariance": trial.weights(DEQMeanVariance(**FULL), COST, seed),
        "1/N": trial.equal(),
    }
    net = pd.DataFrame({name: trial.net_returns(each, COST) for name, each in held.items()})
    found = sharpe_differences(net, "1/N", YEAR).loc["DEQMeanVariance"]
    table = "null, 10 bp"
    true = [true_sharpe(trial.market, each, COST) for each in held.values()]
    happened = {(table, "difference"): found["difference"], (table, "p"): found["studentised"]}
    return {**happened, (table, "true difference"): true[0] - true[1]}


MARKETS: dict[str, Callable[[int, str], dict[tuple[str, str], float]]] = {
    "planted": planted_row,
    "lead_lag": lead_lag_row,
    "null": null_row,
}


def shown(table: pd.DataFrame) -> str:
    """Mean and spread over the seeds (rows), and the share of the oracle's."""
    if "oracle at no cost" not in table:
        return table.agg(["mean", "std", "min"]).T.round(3).to_string()
    share = table.div(table["oracle at no cost"], axis=0)
    lines = [f"{'':40}{'Sharpe':>8}{'spread':>8}{'of oracle':>11}{'least':>7}"]
    for name in table:
        mean, spread = table[name].mean(), table[name].std(ddof=1) if len(table) > 1 else np.nan
        lines.append(
            f"{name:40}{mean:8.3f}{spread:8.3f}{share[name].mean():11.1%}{share[name].min():7.0%}"
        )
    flagship = next(name for name in table if name.startswith("DEQ"))
    lines.append(f"\n{flagship} less ...{'':23}mean       t  ahead in")
    for name in table.columns.drop([flagship, "oracle at no cost"]):
        gap = table[flagship] - table[name]
        t = gap.mean() / gap.sem() if len(gap) > 1 else np.nan
        lines.append(f"{name:40}{gap.mean():8.3f}{t:8.1f}{(gap > 0).sum():7} of {len(gap)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--only", choices=list(MARKETS), help="one kind of market")
    parser.add_argument("--row", default="", help="strategies whose name holds this text only")
    asked = parser.parse_args()
    seeds = 2 if asked.quick else asked.seeds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    for kind in [asked.only] if asked.only else MARKETS:
        rows = []
        for seed in range(seeds):
            rows.append(pd.Series(MARKETS[kind](seed, asked.row)))
            said = ", ".join(f"{name} {value:.3f}" for (_, name), value in rows[-1].items())
            print(f"{kind}, seed {seed}, {time.perf_counter() - started:.0f} s: {said}", flush=True)
        found = pd.concat(rows, axis=1).T
        for title in found.columns.get_level_values(0).unique():
            table = found[title]
            if kind == "null":
                print(f"\n{title}: Sharpe ratio of DEQMeanVariance less that of 1/N\n")
                table = table.assign(
                    said=[verdict(*row) for row in table[["difference", "p"]].to_numpy()]
                )
                print(table.round(3).to_string())
                gained = table.p[table.difference > 0]
                print(
                    f"\nseeds of {seeds} with a gain at p < 0.05: {(gained < 0.05).sum()}; after "
                    f"Bonferroni, for {seeds} tests: {(seeds * gained < 0.05).sum()} (smallest p "
                    f"times {seeds}: {min(1, seeds * gained.min()):.2f}); mean difference "
                    f"{table.difference.mean():.3f}, of that true "
                    f"{table['true difference'].mean():.3f}",
                    flush=True,
                )
            else:
                print(f"\n{title}, {seeds} seeds\n\n{shown(table)}\n", flush=True)


if __name__ == "__main__":
    main()
