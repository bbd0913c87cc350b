"""What is trained is what is decided is what is charged.

The same target weights on random markets with gaps and delistings: their turnover, costs, net
returns and holdings in training, in decisions and in the simulation are those of independent books
in shares and cash.
"""

from dataclasses import asdict
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from books import keep_books
from torch import nn

from data_loaders import Panel
from engine import Costs, NegativeOmega, NegativeSharpe, NegativeSortino, Training, WalkForward
from engine.accounting.market import Market
from engine.accounting.risk_free import RiskFree
from engine.accounting.simulation import simulate
from engine.planning.walk_forward import Fold
from engine.training.fit_records import FitKey, Fitted
from engine.training.rollout import rollout
from engine.training.trainer import build
from engine.walking.decisions import DecisionTask
from engine.walking.learner import Learner
from strategies import Constraints, ExplicitMeanVariance, LearnedStrategy, Strategy

CARRY = {"borrow": 0.3, "financing": 0.6, "cash_rate": 0.2}  # a year; large, so that they show
COSTS = {
    "free": Costs(0.0),
    "proportional": Costs(0.004, spread=0.002),
    "carry": Costs(0.002, **CARRY),
    "everything": Costs(
        0.001, 0.002, impact=0.5, fixed=2.0, minimum=7.0, **CARRY, capital=1e5
    ),
}  # fmt: skip
CASES = [(name, lag, seed) for name in COSTS for lag in range(3) for seed in range(2)]
cases = pytest.mark.parametrize(("kind", "lag", "seed"), CASES)


def market(seed, rows=90, assets=5, halts=True):
    """Random walks on irregular dates; the second asset pauses twice, the third is delisted.

    Of an odd seed the rows are six hours apart, with holes, one of them a year long.
    """
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2020-01-01", periods=2 * rows)
    if seed % 2:
        dates = pd.date_range("2020-01-01", periods=2 * rows, freq="6h")
        dates = dates.where(np.arange(2 * rows) < rows, dates + pd.DateOffset(years=1))
    dates = dates[np.sort(rng.choice(2 * rows, rows, replace=False))]
    prices = 50 * np.exp(rng.normal(0, 0.03, (rows, assets)).cumsum(axis=0))
    if halts:
        prices[20:26, 1] = prices[50:52, 1] = prices[60:, 2] = np.nan
    names = list("ABCDE")[:assets]
    volume = pd.DataFrame(rng.uniform(1e4, 1e5, (rows, assets)), dates, names)
    return Panel(pd.DataFrame(prices, dates, names), {"volume": volume})


def decisions(seed, panel, lag):
    """Rows of decisions, one to seven rows apart."""
    rng = np.random.default_rng(seed)
    rows = 3 + rng.integers(1, 8, len(panel.dates)).cumsum()
    return rows[rows + lag < len(panel.dates) - 1]


def wanted(history):
    """Weights (N,) of a date: long and short, with cash or leverage, in what trades."""
    rng = np.random.default_rng(int(history.dates[-1].timestamp()))
    return rng.normal(0.2, 0.3, len(history.assets)) * history.prices.iloc[-1].notna().to_numpy()


def books_of(panel, targets, lag, costs, **options):
    lack = Market(panel, costs).illiquidity
    lack = None if lack is None else lack.numpy()
    return keep_books(panel.prices, targets, lag, asdict(costs), lack, **options)


def between(books, rows, lag):
    """What the books say of each period from a decision's fill to the next decision's.

    Where an order waits, there is more than one fill in it.
    """
    number = np.searchsorted(rows + lag, books["row"], side="right") - 1
    count, first = len(rows), np.searchsorted(books["row"], rows + lag)
    sums = [np.bincount(number, books[name], count)[:-1] for name in ("turnover", "cost")]
    value = np.array(books["value"])[first]
    return value[1:] / value[:-1] - 1, *sums


@cases
def test_the_simulation_is_the_books(kind, lag, seed):
    panel, costs = market(seed), COSTS[kind]
    targets = {row: wanted(panel.rows(0, row + 1)) for row in decisions(seed, panel, lag)}
    frame = pd.DataFrame(targets, panel.assets).T.set_axis(panel.dates[list(targets)])
    found, books = simulate(frame, panel, costs, lag), books_of(panel, targets, lag, costs)
    np.testing.assert_allclose(found.net_returns, books["net"], atol=1e-12)
    np.testing.assert_allclose(found.gross_returns, books["gross"], atol=1e-12)
    np.testing.assert_allclose(found.turnover, books["turnover"], atol=1e-12)
    np.testing.assert_allclose(found.costs, books["cost"], atol=1e-12)
    np.testing.assert_allclose(found.weights, books["after"], atol=1e-12)


class Drawn(LearnedStrategy):
    """A network whose weights are ``wanted``, whatever it is trained on."""

    lookback = 2

    def prepare(self, history):
        return {"weights": torch.tensor(wanted(history))}

    def build(self, inputs):
        return Weights()


class Weights(nn.Module):
    def forward(self, inputs):
        return inputs["weights"]


def learner_of(panel, rows, lag, costs, gap=(), risk_free=None, fill="close"):
    """All decisions but the last are training data, all are tested; ``gap``: those left out."""
    ends = np.append(rows[1:], len(panel.dates) - 1) + lag
    kept = np.delete(np.arange(len(rows) - 1), gap)
    fold = Fold(0, 0, rows[kept], ends[kept], int(rows[-1]), rows)
    plan = WalkForward(execution_lag=lag, fill=fill)
    return Learner(panel, [fold], plan, costs, Training(), 1, risk_free), fold


def check_account(account, periods, counted):
    """Of some of the K - 1 periods between fills."""
    found = (account.net_returns, account.turnover, account.cost)
    for values, expected in zip(found, periods, strict=True):
        np.testing.assert_allclose(values, expected[list(counted)], atol=1e-12)


@pytest.mark.parametrize("gap", [(), (8, 9, 10)])
@cases
def test_training_is_the_books(kind, lag, seed, gap):
    panel, costs = market(seed), COSTS[kind]
    rows = decisions(seed, panel, lag)
    learner, fold = learner_of(panel, rows, lag, costs, gap)
    data = learner.dataset("drawn", Drawn(), fold)
    account = rollout(Weights(), data, (1, len(data)), costs)
    targets = {row: wanted(panel.rows(0, row + 1)) for row in rows}
    # Training charges fixed fees and market impact at the capital, whatever became of it.
    books = books_of(panel, targets, lag, costs, charged_at=costs.capital)
    counted = [k for k in range(1, len(rows) - 1) if k not in (*gap, *(gap[-1:] and [gap[-1] + 1]))]
    check_account(account, between(books, rows, lag), counted)
    for stop in (3, 8):  # a block is entered with the weights of the decision before it
        part = rollout(Weights(), data, (stop - 1, stop), costs)
        assert part.net_returns.item() == pytest.approx(account.net_returns[stop - 2].item())


@pytest.mark.parametrize(("kind", "lag", "seed"), [case for case in CASES if case[1]])
def test_training_at_the_open_is_the_books(kind, lag, seed):
    rng, panel, costs = np.random.default_rng(seed), market(seed), COSTS[kind]
    before = panel.prices.ffill().shift().bfill()
    opens = (before * np.exp(rng.normal(0, 0.02, before.shape))).where(panel.prices.notna())
    panel = Panel(panel.prices, {**panel.asset_features, "open": opens})
    rows = decisions(seed, panel, lag)
    learner, fold = learner_of(panel, rows, lag, costs, fill="open")
    data = learner.dataset("drawn", Drawn(), fold)
    account = rollout(Weights(), data, (1, len(data)), costs)
    targets = {row: wanted(panel.rows(0, row + 1)) for row in rows}
    books = books_of(
        panel, targets, lag, costs, charged_at=costs.capital, opens=opens.to_numpy()
    )  # fmt: skip
    check_account(account, between(books, rows, lag), range(1, len(rows) - 1))


@pytest.mark.parametrize("loss", [NegativeSharpe, NegativeSortino, NegativeOmega])
@pytest.mark.parametrize("lag", range(3))
@pytest.mark.parametrize("seed", range(2))
def test_training_and_report_have_the_same_excess_returns(loss, lag, seed):
    """Between fills, the risk-free returns of a result's rows compound to those of training."""
    panel, costs = market(seed), COSTS["carry"]
    first = panel.dates[0]
    rates = pd.Series([0.5, -0.05, 0.3], [first, *first + pd.to_timedelta(["17D", "43D"])])
    rows = decisions(seed, panel, lag)
    learner, fold = learner_of(panel, rows, lag, costs, risk_free=RiskFree(rates))
    data = learner.dataset("drawn", Drawn(), fold)
    account = rollout(Weights(), data, (1, len(data)), costs)

    fills = panel.dates[rows + lag]
    grown = (1 + RiskFree(rates).returns(panel.dates[rows[0] + lag :], fills)).cumprod()[fills]
    books = books_of(panel, {r: wanted(panel.rows(0, r + 1)) for r in rows}, lag, costs)
    net = between(books, rows, lag)[0]
    excess = (net - (np.diff(grown) / grown[:-1]).to_numpy())[1:]
    np.testing.assert_allclose(account.excess_returns, excess, atol=1e-12)
    by_hand = {
        NegativeSharpe: excess.mean() / excess.std(ddof=1) * 6,
        NegativeSortino: excess.mean() / np.sqrt(np.mean(np.minimum(excess, 0) ** 2)) * 6,
        NegativeOmega: excess[excess > 0].sum() / -excess[excess < 0].sum(),
    }
    assert -loss()(account, 36.0).item() == pytest.approx(by_hand[loss], rel=1e-9)


class Recorder(Strategy):
    """Weights as ``wanted``; notes the holdings that it is given."""

    lookback = 2
    short = True
    leverage = 10.0
    seen: ClassVar[list] = []

    def allocate(self, history, holdings):
        self.seen.append(holdings.to_numpy())
        return pd.Series(wanted(history), history.assets)


@cases
def test_decisions_see_the_holdings_of_the_books(kind, lag, seed):
    panel, costs = market(seed), COSTS[kind]
    rows = decisions(seed, panel, lag)
    learner, fold = learner_of(panel, rows, lag, costs)
    Recorder.seen.clear()
    decided = DecisionTask("recorder", Recorder(), {}, [fold]).run(learner)
    targets = {row: wanted(panel.rows(0, row + 1)) for row in rows}
    np.testing.assert_array_equal(decided.targets, list(targets.values()))
    books = books_of(panel, targets, lag, costs)
    for row, holdings in zip(rows, Recorder.seen, strict=True):
        np.testing.assert_allclose(holdings, books["holdings"][row], atol=1e-12)


@pytest.mark.parametrize("lag", range(3))
@pytest.mark.parametrize("kind", COSTS)
def test_consecutive_dates_are_the_books(kind, lag):
    """The weights of a network that trades from its holdings, decided one by one, are those that
    it has in training, and earn there what the books of the decided weights earn.

    That is so where all assets trade: what training shows the network as its holdings has every
    order filled, and decisions leave alone what does not trade.
    """
    panel, costs = market(0, halts=False), COSTS[kind]
    rows = decisions(0, panel, lag)[1:]
    rows = rows[(np.diff(rows, prepend=0) >= lag) & (rows >= 12)]
    learner, fold = learner_of(panel, rows, lag, costs)
    limits = Constraints(budget=0.8, lower=-0.3, upper=0.7, gross_limit=2.5)
    strategy = ExplicitMeanVariance(lookback=12, constraints=limits, hidden=4, inertia=3.0)
    data = learner.dataset("network", strategy, fold)
    module = build(strategy, data, learner.training)
    fits = {FitKey("network", 0, 0): Fitted(module.state_dict(), pd.DataFrame(), [], [])}
    decided = DecisionTask("network", strategy, fits, [fold]).run(learner).targets
    with torch.no_grad():
        account = rollout(module, data, (1, len(data)), costs)
    np.testing.assert_allclose(account.weights, decided.iloc[1:-1], atol=1e-8)
    books = books_of(
        panel, dict(zip(rows, decided.to_numpy(), strict=True)), lag, costs,
        charged_at=costs.capital,
    )  # fmt: skip
    value, turnover = np.array(books["value"]), np.array(books["turnover"])[1:-1]
    np.testing.assert_allclose(account.turnover, turnover, atol=1e-7)
    np.testing.assert_allclose(account.net_returns, value[2:] / value[1:-1] - 1, atol=1e-7)
    aim = decided.diff().abs().sum(axis=1).iloc[1:-1].to_numpy()
    assert np.abs(turnover - aim).max() > 1e-3  # drift is more than a rounding error here
