"""E2E-DRO reproduced: Costa & Iyengar (2022), arXiv:2206.05134, on the authors' data.

    python examples/replicate_e2e_dro.py --data DIR [--robust] [--solver qpth] [--deq]

DIR holds assets_weekly_returns.csv.gz, factors_weekly.csv.gz and published_weekly_returns.csv.

Every model is a ``Strategy`` that the engine walks forward, so that no row of the future can be
reached. The factors of week t are known at its close, with the returns of week t; the weights
decided there earn the returns of week t + 1 (no lag, no costs, as in the paper). ``fit`` gets the
rows up to its refit; a training sample at week t needs the returns of weeks t + 1 to t + 14, so the
last one is 14 weeks before. Learning rate and epochs are chosen once, on the rows known at the
first refit, by the paper's four expanding folds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from torch import Tensor, nn

from data_loaders import Panel
from data_loaders.reading.returns import prices_from
from engine import Costs, Training, WalkForward, backtest, backtest_seeds
from engine.planning.walk_forward import Fold
from reports.statistics.difference_tests import sharpe_differences
from strategies import DEQMeanVariance, EqualWeight, Strategy
from strategies.contract_types import Inputs, stack
from strategies.linear_mean_variance import LOWEST, LinearMeanVariance, LinearNetwork

WINDOW = 104  # weeks of residuals
AHEAD = 14  # weeks of returns in the loss of a decision
PREDICTION = 0.5 / 20  # weight of the prediction error in the loss
GAMMA = 0.04551476985216141  # drawn by the authors: torch.manual_seed(1000), uniform(.02, .1)
DELTA = 0.3115527927875519  # drawn next: uniform(.1, .5) * (1 - 1 / sqrt(104))
RATES = (0.005, 0.0125, 0.02)
EPOCHS = (30, 40, 50)
WEEKS = 52

MODELS = {  # name of the paper's column: what is learned, and the radius of the robust layer
    "po_net": ("nothing", 0.0),
    "nom_net": ("all", 0.0),
    "nom_net_learn_gamma": ("gamma", 0.0),
    "nom_net_learn_theta": ("theta", 0.0),
    "dr_po_net": ("nothing", DELTA),
    "dr_net": ("all", DELTA),
    "dr_net_learn_delta": ("delta", DELTA),
    "dr_net_learn_gamma": ("gamma", DELTA),
    "dr_net_learn_theta": ("theta", DELTA),
}
FIXED = ("ew_net", "po_net", "dr_po_net")  # nothing is learned: reproduced week by week


def load_paper(folder: str | Path) -> tuple[Panel, pd.DataFrame]:
    """The weekly panel, with the factors as its market features, and the published returns."""
    folder = Path(folder)
    returns, factors, published = (
        pd.read_csv(folder / name, index_col=0, parse_dates=True)
        for name in (
            "assets_weekly_returns.csv.gz",
            "factors_weekly.csv.gz",
            "published_weekly_returns.csv",
        )
    )
    # The base row that prices start from is a week without factors: leave it out.
    prices = prices_from(returns).iloc[1:]
    return Panel(prices, market_features=factors, source="E2E-DRO, weekly"), published


class PaperWindows(WalkForward):
    """The paper's walk: four windows of 10%, each after an expanding refit, weekly decisions."""

    def folds(self, dates: pd.DatetimeIndex, lookback: int) -> list[Fold]:
        pairs = len(dates) - 1  # of a week's factors and the next week's returns
        cuts = [round(pairs * share) for share in (0.6, 0.7, 0.8, 0.9, 1.0)]
        folds = []
        for number, (start, stop) in enumerate(pairwise(cuts)):
            train = np.arange(lookback - 1, start)  # a decision's label ends a week later
            folds.append(Fold(number, 0, train, train + 1, start, np.arange(start, stop)))
        return folds


PLAN = PaperWindows(train=680, refit=114, rebalance=1, execution_lag=0)


class PaperModel(Strategy):
    """A linear model trained as in the paper: full batches, Adam, a fixed number of epochs.

    Args:
        learn: as in ``LinearMeanVariance``, or "nothing": predict, then optimise.
        delta: radius of the robust layer; 0 for the nominal one.
        rate, epochs: of Adam.
        solver: of the nominal problems: "active_set", or "qpth", called as its users would.
    """

    lookback = WINDOW + 1

    def __init__(
        self,
        learn: str = "all",
        delta: float = 0.0,
        rate: float = 0.0125,
        epochs: int = 30,
        solver: str = "active_set",
    ):
        self.learn = learn
        self.delta = delta
        self.rate = rate
        self.epochs = epochs
        self.solver = solver

    def fit(self, history: Panel) -> PaperModel:
        self.linear_, network = self.untrained(history)
        if self.learn != "nothing":
            samples = Samples(self.linear_, history, WINDOW)
            for _ in self.train(network, samples, self.epochs):
                pass
        self.linear_.module_ = network
        return self

    def allocate(self, history: Panel, holdings: pd.Series) -> pd.Series:
        return self.linear_.allocate(history, holdings)

    def untrained(self, history: Panel) -> tuple[LinearMeanVariance, LinearNetwork]:
        """The model at its start: least squares on every pair that is known."""
        linear = LinearMeanVariance(
            self.lookback,
            GAMMA,
            self.delta,
            "all" if self.learn == "nothing" else self.learn,
        )
        factors = torch.tensor(history.market_features.to_numpy()[:-1])
        returns = torch.tensor(history.returns.to_numpy()[1:])
        inputs = stack([linear.prepare(history.last(self.lookback))])
        pairs = torch.cat([returns, factors], dim=1)
        network = linear.build({**inputs, "pair": pairs})
        if self.solver == "qpth":
            network.optimiser = PlainQpth()
        return linear, network

    def train(self, network: LinearNetwork, samples: Samples, epochs: int) -> Iterator[None]:
        """One step of Adam on all samples an epoch; yields after each."""
        trained = [p for p in network.parameters() if p.requires_grad]
        adam = torch.optim.Adam(trained, lr=self.rate)
        for _ in range(epochs):
            adam.zero_grad()
            samples.loss(network).backward()
            adam.step()
            with torch.no_grad():
                for name, (letter, *_) in network.letters().items():
                    if name != "theta":
                        letter.clamp_(min=LOWEST)
            yield


class PlainQpth(nn.Module):
    """qpth with its defaults, for  min 1/2 z'Pz - q'z,  1'z = 1,  z >= 0."""

    def forward(self, risk: Tensor, expected_return: Tensor, **limits: object) -> Tensor:
        from qpth.qp import QPFunction

        batch, assets = expected_return.shape
        signs = -torch.eye(assets, dtype=risk.dtype).expand(batch, -1, -1)
        ones = torch.ones(batch, 1, assets, dtype=risk.dtype)
        zeros = torch.zeros_like(expected_return)
        return QPFunction(verbose=-1)(risk, -expected_return, signs, zeros, ones, ones[..., 0])


class Samples:
    """The decisions from row ``first`` on whose next 14 weeks lie in ``history``."""

    def __init__(self, linear: LinearMeanVariance, history: Panel, first: int):
        rows = range(first, len(history) - AHEAD)
        self.inputs: Inputs = stack(
            [linear.prepare(history.until(history.dates[row]).last(WINDOW + 1)) for row in rows]
        )
        self.inputs["row"] = torch.tensor(rows)
        returns = torch.tensor(history.returns.to_numpy())
        self.ahead = torch.stack([returns[row + 1 : row + 1 + AHEAD] for row in rows])  # (K, 14, N)

    def loss(self, network: LinearNetwork) -> Tensor:
        earned = (self.ahead @ network(self.inputs).unsqueeze(-1)).squeeze(-1)  # (K, 14)
        predicted = network.theta(self.inputs["features"])
        error = ((predicted - self.ahead[:, 0]) ** 2).mean(dim=1)
        return (-earned.mean(dim=1) / earned.std(dim=1) + PREDICTION * error).mean()


def cross_validated(model: PaperModel, history: Panel) -> tuple[PaperModel, pd.DataFrame]:
    """The model with the learning rate and the epochs that did best on four expanding folds.

    Returns:
        The model, and the mean validation loss by rate (rows) and epochs (columns).
    """
    pairs = len(history) - 1
    table = pd.DataFrame(0.0, RATES, EPOCHS)
    for share in (0.2, 0.4, 0.6, 0.8):
        known = history.until(history.dates[round(pairs * share)])
        linear, _ = model.untrained(known)
        tests = history.until(history.dates[round(pairs * (share + 0.2))])
        validation = Samples(linear, tests, len(known) - 1)
        training = Samples(linear, known, WINDOW)
        for rate in RATES:
            trial = clone(model).set_params(rate=rate)
            _, network = trial.untrained(known)
            for epoch, _ in enumerate(trial.train(network, training, max(EPOCHS)), 1):
                if epoch in EPOCHS:
                    with torch.no_grad():
                        table.loc[rate, epoch] += validation.loss(network).item() / 4
    best_rate, best_epochs = np.unravel_index(table.to_numpy().argmin(), table.shape)
    chosen = {"rate": RATES[best_rate], "epochs": EPOCHS[best_epochs]}
    return clone(model).set_params(**chosen), table


def performance(returns: pd.Series) -> dict[str, float]:
    """The paper's measures: geometric return a year, volatility (ddof 0) a year, their ratio."""
    growth = float((1 + returns).prod() ** (WEEKS / len(returns)) - 1)
    volatility = float(returns.std(ddof=0) * WEEKS**0.5)
    return {"return": growth, "volatility": volatility, "Sharpe": growth / volatility}


def reproduce(
    panel: Panel, published: pd.DataFrame, names: list[str]
) -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    """Run models of the paper.

    Returns:
        One row a model, published and ours; and our weekly returns by model.
    """
    known = panel.until(panel.dates[PLAN.folds(panel.dates, WINDOW + 1)[0].refit])
    rows, weekly = {}, {}
    for name in names:
        begin = time.process_time()
        strategy: Strategy = EqualWeight()
        if name != "ew_net":
            strategy = PaperModel(*MODELS[name])
            if name not in FIXED:
                strategy, _ = cross_validated(strategy, known)
        chosen = time.process_time()
        (result,) = backtest(strategy, panel, PLAN, Costs(0), progress=False).values()
        end = time.process_time()
        ours = result.net_returns.reindex(published.index)
        charged = (1 + ours) * (1 - 0.001 * result.turnover.reindex(ours.index, fill_value=0)) - 1
        paper, own = performance(published[name]), performance(ours)
        weekly[name] = ours
        compared = pd.DataFrame({"model": ours, "1/N": published["ew_net"]})
        rows[name] = {
            "SR paper": paper["Sharpe"],
            "SR ours": own["Sharpe"],
            "difference": own["Sharpe"] - paper["Sharpe"],
            "Ret paper": 100 * paper["return"],
            "Ret ours": 100 * own["return"],
            "Vol paper": 100 * paper["volatility"],
            "Vol ours": 100 * own["volatility"],
            "correlation": ours.corr(published[name]),
            "largest gap": (ours - published[name]).abs().max(),
            "1/HHI": 1 / (result.targets**2).sum(axis=1).mean(),
            "turnover": result.turnover.mean(),
            "SR 10 bp": performance(charged)["Sharpe"],
            "p": _p_value(compared, "1/N") if name != "ew_net" else np.nan,
            "rate": getattr(strategy, "rate", np.nan) if name not in FIXED else np.nan,
            "epochs": getattr(strategy, "epochs", np.nan) if name not in FIXED else np.nan,
            "choosing, CPU s": chosen - begin,
            "walking, CPU s": end - chosen,
        }
    return pd.DataFrame(rows).T, weekly


def side_by_side(panel: Panel, published: pd.DataFrame) -> pd.DataFrame:
    """The nominal model, all four windows, 50 epochs at the rate chosen above, by both solvers."""
    rows = {}
    for solver in ("active_set", "qpth"):
        begin, used = time.perf_counter(), time.process_time()
        model = PaperModel("all", rate=0.02, epochs=50, solver=solver)
        (result,) = backtest(model, panel, PLAN, Costs(0), progress=False).values()
        seconds, used = time.perf_counter() - begin, time.process_time() - used
        ours = result.net_returns.reindex(published.index)
        rows[solver] = {
            "seconds": seconds,
            "CPU seconds": used,  # the same on a machine that is busy with other work
            "SR": performance(ours)["Sharpe"],
            "correlation": ours.corr(published["nom_net"]),
        }
    return pd.DataFrame(rows)


def flagship(panel: Panel, seeds: int) -> pd.DataFrame:
    """DEQMeanVariance on the same data, walk and decisions, at 0 and 10 bp; one row a run.

    Fully invested, as the paper's models are, and with the best epoch of one validation block.
    """
    rows, training = [], Training(validation_blocks=1)
    for cost in (0.0, 0.001):
        strategies = [DEQMeanVariance(lookback=WINDOW + 1, cash=False), EqualWeight()]
        costs = Costs(commission=cost)
        by_seed = backtest_seeds(strategies, panel, PLAN, costs, training, seeds, progress=False)
        for seed, results in by_seed.items():
            net = {name: result.net_returns for name, result in results.items()}
            returns = pd.DataFrame(net).iloc[1:].rename(columns={"EqualWeight": "1/N"})
            found = performance(returns["DEQMeanVariance"])
            rows.append(
                {
                    "bp": 1e4 * cost,
                    "seed": seed,
                    "Ret": 100 * found["return"],
                    "Vol": 100 * found["volatility"],
                    "SR": found["Sharpe"],
                    "SR of 1/N": performance(returns["1/N"])["Sharpe"],
                    "turnover": results["DEQMeanVariance"].turnover.iloc[1:].mean(),
                    "p": _p_value(returns, "1/N"),
                }
            )
    return pd.DataFrame(rows)


def _p_value(returns: pd.DataFrame, benchmark: str) -> float:
    """Of "the same Sharpe ratio as the benchmark", Ledoit and Wolf (2008)."""
    return float(sharpe_differences(returns, benchmark, WEEKS)["studentised"].iloc[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="The table of E2E-DRO (arXiv:2206.05134), again.")
    parser.add_argument("--data", metavar="DIR", required=True, help="folder of the CSV files")
    parser.add_argument("--robust", action="store_true", help="and the robust end-to-end models")
    parser.add_argument("--solver", choices=("active_set", "qpth"), default="active_set")
    parser.add_argument("--deq", action="store_true", help="DEQMeanVariance on the same data")
    parser.add_argument("--seeds", type=int, default=10, help="of DEQMeanVariance")
    if not any(word.startswith(("--data", "-h", "--help")) for word in sys.argv[1:]):
        print("The paper's data are not part of this repository; name their folder:")
        parser.print_help()  # and go on, where all benchmarks are run one after the other
        return
    given = parser.parse_args()
    torch.set_num_threads(1)
    panel, published = load_paper(given.data)
    if given.deq:
        _print_flagship(flagship(panel, given.seeds))
        return
    # What is imported and compiled once is not part of any time below.
    backtest(PaperModel("nothing"), panel, PLAN, Costs(0), progress=False)
    if given.solver == "qpth":
        print("Nominal end to end, four windows of 50 epochs, one thread:")
        print(side_by_side(panel, published).round(3).to_string())
        return
    names = ["ew_net", "po_net", "nom_net", "nom_net_learn_gamma", "nom_net_learn_theta"]
    names += [name for name in MODELS if name.startswith("dr_") and (given.robust or name in FIXED)]
    table, _ = reproduce(panel, published, names)
    shown = table.drop(columns="largest gap").round(3).astype(str)
    shown.insert(8, "largest gap", table["largest gap"].map("{:.1e}".format))
    print(shown.T.to_string())


def _print_flagship(runs: pd.DataFrame) -> None:
    print(runs.round(3).to_string(index=False))
    for cost, part in runs.groupby("bp"):
        found, base = part["SR"], part["SR of 1/N"].iloc[0]
        print(
            f"\n{cost:.0f} bp, {len(part)} seeds: Sharpe {found.mean():.3f} ({found.min():.3f} to "
            f"{found.max():.3f}, deviation {found.std():.3f}), 1/N {base:.3f}; turnover "
            f"{part['turnover'].mean():.1%} a week; p against 1/N: median "
            f"{part['p'].median():.2f}, least {part['p'].min():.2f}"
        )


if __name__ == "__main__":
    main()
