"""Sweeps and the page's tables of costs against books kept in shares and cash."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from books import keep_books

from data_loaders import Panel
from engine import Costs, WalkForward, backtest, cost_sweep
from engine.accounting.market import Market
from engine.research.cost_sweep import Resimulation
from reports.metrics import catalogue, trading
from strategies import Strategy

PLAN = WalkForward(train=60, refit=400, rebalance=7)
LOANS = {"borrow": 0.05, "financing": 0.09, "cash_rate": 0.03}
TERMS = {
    "commission": Costs(0.003),
    "spread": Costs(0.001, spread=0.004),
    "impact": Costs(0.001, impact=0.3, capital=1e6),
    "fixed": Costs(0.001, fixed=20.0, capital=1e5),
    "minimum": Costs(0.001, spread=0.002, minimum=30.0, capital=1e5),
    "borrow": Costs(0.001, borrow=0.05),
    "financing": Costs(0.001, financing=0.09),
    "cash_rate": Costs(0.001, cash_rate=0.03),
    "all": Costs(0.001, 0.002, 0.3, 5.0, 20.0, **LOANS, capital=1e5),
    "free": Costs(0.0, **LOANS),
}


class Drawn(Strategy):
    """Random weights: of a date long and short, with cash, of another with leverage."""

    lookback, short, leverage = 2, True, 3.0

    def allocate(self, history, holdings):
        rng = np.random.default_rng(int(history.dates[-1].timestamp()))
        return pd.Series(rng.normal(0.25, 0.3, len(history.assets)), history.assets)


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    dates = pd.bdate_range("2015-01-01", periods=400)
    names = list("ABC")
    prices = 40 * np.exp(rng.normal(0.001, 0.015, (400, 3)).cumsum(axis=0))
    volume = pd.DataFrame(rng.uniform(1e5, 1e6, (400, 3)), dates, names)
    return Panel(pd.DataFrame(prices, dates, names), {"volume": volume})


def run(panel, costs, **rest):
    return backtest(Drawn(), panel, PLAN, costs, progress=False, ledger=False, **rest)["Drawn"]


def books(panel, result, costs):
    lack = Market(panel, costs).illiquidity
    lack = None if lack is None else lack.numpy()
    rows = panel.dates.get_indexer(result.targets.index)
    targets = dict(zip(rows.tolist(), result.targets.to_numpy(), strict=True))
    return keep_books(panel.prices, targets, 1, asdict(costs), lack)


def sharpe(result, net):
    excess = np.array(net) - result.risk_free.to_numpy()
    return excess.mean() / excess.std(ddof=1) * result.settings["periods_per_year"] ** 0.5


def elapsed(result):
    dates = result.net_returns.index
    return (dates[-1] - dates[0]).days / 365.25


@pytest.mark.parametrize("term", TERMS)
def test_each_cost_term_is_that_of_the_books(panel, term):
    costs = TERMS[term]
    result, own = run(panel, costs), 1e4 * costs.rate
    points_tried = [own, *({0, 25} - {own})]
    table = cost_sweep(result, points_tried)
    assert table["sharpe"].iloc[0] == pytest.approx(sharpe(result, result.net_returns), abs=1e-12)
    for points in points_tried:
        part = points / own if own else 0.0
        commission = costs.commission * part if own else points / 1e4
        other = replace(costs, commission=commission, spread=costs.spread * part)
        kept = books(panel, result, other)
        assert table.loc[points, "sharpe"] == pytest.approx(sharpe(result, kept["net"]), abs=1e-11)
        a_year = sum(kept["cost"]) / elapsed(result)
        assert table.loc[points, "annual_cost"] == pytest.approx(a_year, abs=1e-12)
    page = trading.sharpe_by_cost({"one": result})["one"]
    for points in page.index:
        assert page[points] == pytest.approx(
            cost_sweep(result, [points])["sharpe"].iloc[0], abs=1e-12
        )
    assert page[round(own, 6)] == pytest.approx(sharpe(result, result.net_returns), abs=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_costs_of_trading_and_carry_are_apart(panel, term):
    costs = TERMS[term]
    result = run(panel, costs)
    free = books(panel, result, costs)
    carried = (1 + np.array(free["net"])) / (
        1 - pd.Series(free["cost"], result.costs.index).reindex(result.net_returns.index).fillna(0)
    ) - 1 - np.array(free["gross"])  # fmt: skip
    np.testing.assert_allclose(result.carry, carried, atol=1e-13)
    without = run(panel, replace(costs, borrow=0.0, financing=0.0, cash_rate=0.0))
    np.testing.assert_allclose(without.carry, 0.0, atol=1e-14)
    table = catalogue.metric_table({"one": result}, None).loc["one"]
    assert table["cost drag/year"] >= 0
    assert (table["cost drag/year"] > 0) == (term != "free")
    alone = (1 + result.gross_returns).prod() ** (1 / elapsed(result)) - 1
    total = alone + table["carry/year"] - table["cost drag/year"]
    assert table["annual return"] == pytest.approx(total, abs=1e-12)
    signs = {"borrow": -1, "financing": -1, "cash_rate": 1, "all": None, "free": None}
    sign = signs.get(term, 0)
    if sign is not None:
        assert np.sign(round(table["carry/year"], 12)) == sign


def test_nothing_is_left_at_the_break_even_cost(panel):
    result = run(panel, TERMS["all"])
    again = Resimulation(result)
    rate = trading.break_even_cost(again)
    assert 0 < rate < again.dearest
    part = rate / TERMS["all"].rate
    dear = replace(TERMS["all"], commission=0.001 * part, spread=0.002 * part)
    assert np.prod(1 + np.array(books(panel, result, dear)["net"])) == pytest.approx(1, abs=1e-6)
    table = catalogue.metric_table({"one": result}, None)
    assert table.loc["one", "break-even cost"] == rate


def test_whole_shares_stay_whole(panel):
    result = run(panel, Costs(0.002, capital=3e3), whole_shares=True)
    assert (result.net_returns - result.fractional_returns).abs().max() > 1e-5
    again = Resimulation(result).at(0.002)
    np.testing.assert_allclose(again.net_returns, result.net_returns, atol=1e-12)


def test_a_ruin_at_dearer_costs_ends_with_nothing(panel):
    again = Resimulation(run(panel, Costs(0.001, fixed=20.0, capital=2e4)))
    net = again.at(0.09).net_returns
    (end,) = np.flatnonzero(net == -1)
    assert (net.iloc[end + 1 :] == 0).all()


def test_what_cannot_be_simulated_again_says_why(panel):
    result = run(panel, Costs(0.001))
    later = {name: getattr(result, name).iloc[5:] for name in ("net_returns", "asset_returns")}
    for changed, said in (
        ({"asset_returns": pd.DataFrame()}, "no returns of the assets"),
        (later, "does not begin with its first fill"),
        ({"turnover": 0 * result.turnover}, "nothing was traded"),
        ({"failure": {"date": None, "stage": "fit", "reason": "?"}}, "did not finish"),
    ):
        with pytest.raises(ValueError, match=f"Drawn cannot be simulated .*: .*{said}"):
            cost_sweep(replace(result, **changed))
    with pytest.raises(ValueError, match="at least one cost"):
        cost_sweep(result, [])
