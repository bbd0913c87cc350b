"""Cash is no skill: ratios are of returns in excess of the risk-free rate, wherever they are made.

A strategy holds a share of equal weights and cash for the rest, which earns 5% a year. Its excess
return is that share of the excess of equal weights, so that all shares have the same Sharpe ratio,
and that of cash alone is not defined.
"""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from books import keep_books
from markets import random_walks

from engine import Costs, RunMismatch, WalkForward, backtest, backtest_seeds, cross_validate
from engine.accounting import performance
from engine.accounting.risk_free import read_rates
from engine.research.search import Search, search
from engine.runs.run_directory import load_run
from reports import summary_table
from reports.formats import DASH
from reports.metrics.catalogue import GROUPS, metric_table
from reports.metrics.periods import fold_returns, rolling_sharpe
from reports.report import render
from reports.report_data import gather
from reports.wording import headline, risk_free, terminal_summary
from strategies import Strategy

PLAN = WalkForward(train="1Y", refit="1Y", rebalance="W-FRI")
COSTS = Costs(0.0005, cash_rate=0.05)


class Part(Strategy):
    lookback = 1

    def __init__(self, share=1.0):
        self.share = share

    def allocate(self, history, holdings):
        return pd.Series(self.share / len(history.assets), history.assets)


PARTS = {"cash": Part(0.0), "a tenth": Part(0.1), "all": Part(1.0)}


@pytest.fixture(scope="module")
def panel():
    return random_walks(640, 4, seed=3)


@pytest.fixture(scope="module")
def results(panel):
    return backtest(PARTS, panel, PLAN, COSTS, ledger=False)


@pytest.fixture(scope="module")
def monthly(panel):
    dates = pd.date_range(panel.dates[0] - pd.DateOffset(months=1), panel.dates[-1], freq="MS")
    return pd.Series(0.03 + 0.02 * np.sin(np.arange(len(dates))), dates)


@pytest.mark.parametrize("share", ["a tenth", "all"])
def test_excess_returns_are_those_of_independent_books(panel, results, share):
    """The risk-free return is what books of nothing but cash earn in the same row."""
    targets = results[share].targets
    rows = panel.dates.get_indexer(targets.index)

    def net(weights):
        decided = dict(zip(rows, weights, strict=True))
        return np.array(keep_books(panel.prices, decided, 1, dataclasses.asdict(COSTS))["net"])

    excess = net(targets.to_numpy()) - net(0 * targets.to_numpy())
    np.testing.assert_allclose(results[share].excess_returns, excess, atol=1e-12)
    ratio = excess.mean() / excess.std(ddof=1) * 252**0.5
    assert summary_table(results).loc[share, "Sharpe"] == pytest.approx(ratio, rel=1e-9)
    assert abs(ratio) < 2


def test_a_tenth_in_stocks_has_the_sharpe_ratio_of_all(results):
    data = gather({name: results[name] for name in ("a tenth", "all")}, benchmark="all")
    tenth, whole = data.metrics["Sharpe"]
    assert tenth == pytest.approx(whole, rel=5e-3)
    found = data.luck.loc["a tenth"]
    assert found["difference"] == pytest.approx(tenth - whole, abs=1e-12)
    assert found["p"] > 0.5
    assert "less than 0.01" in headline(data)
    assert "risk-free rate, 5.00% a year." in " ".join(terminal_summary(data).split())
    assert data.metrics.loc["a tenth", "beta"] == pytest.approx(0.1, rel=0.01)
    assert data.metrics.loc["a tenth", "alpha"] == pytest.approx(0, abs=1e-4)
    # With interest as skill it would be far better.
    net = results["a tenth"].net_returns
    assert performance.sharpe(net, 252) > whole + 2


RATIOS = [
    *(m.name for m in GROUPS["Return for risk"] if m.name != "Calmar"),
    "Treynor",
    "R squared",
]


@pytest.mark.parametrize("rate", [None, 0.0, 0.02, 0.08, "monthly"])
def test_of_cash_alone_no_ratio_is_defined(panel, monthly, rate):
    rate = monthly if isinstance(rate, str) else rate
    found = backtest(PARTS, panel, PLAN, COSTS, ledger=False, risk_free=rate)
    table = metric_table(found, "all")
    assert (table.loc["all", RATIOS[:4]].notna()).all()
    skill = "Cash earned 5.00%: what it earned above" in risk_free(
        SimpleNamespace(first=found["all"])
    )
    assert skill == (rate is not None and np.mean(rate) < 0.05)
    undefined = table.loc["cash", [name for name in RATIOS if name != "Omega"]]
    assert undefined.isna().all(), undefined
    assert not table.loc["cash", "Omega"] > 0  # nothing above the risk-free rate, or nothing below
    assert table.loc["cash", "annual return"] == pytest.approx(0.05, abs=2e-3)


def test_a_varying_risk_free_asset_has_no_ratio(monthly, results):
    """What earns the risk-free rate itself, up to rounding, whatever the rate does."""
    rates = monthly.reindex(results["all"].net_returns.index, method="ffill") / 252
    noise = np.random.default_rng(0).normal(0, 1e-17, len(rates))
    net = {"net_returns": rates + noise, "gross_returns": rates, "risk_free": rates}
    own = dataclasses.replace(results["all"], **net, costs=0 * results["all"].costs)
    assert (own.excess_returns == 0).all()
    table = metric_table({"bills": own, "all": results["all"]}, "all").loc["bills"]
    assert table[RATIOS].isna().all()


def test_a_year_in_cash_has_no_ratio_of_its_own(results):
    """The rounding of interest is no return: by fold, and in a moving window."""
    made = results["all"]
    net = made.net_returns.copy()
    net[:150] = made.risk_free[:150] * (1 + 1e-12 * (-1.0) ** np.arange(150))
    excess = dataclasses.replace(made, net_returns=net).excess_returns
    starts = pd.Series(net.index[[0, 150]])
    (_, in_cash), (_, invested) = fold_returns(net, excess, starts, 252)
    assert np.isnan(in_cash)
    assert np.isfinite(invested)
    assert rolling_sharpe(excess, 50, 252)[:101].isna().all()
    assert rolling_sharpe(excess, 50, 252)[101:].notna().all()


def test_undefined_is_a_dash_on_the_page(results):
    page = render(gather({name: results[name] for name in ("all", "cash")}, benchmark="cash"))
    assert "in excess of the risk-free rate, 5.00% a year" in page
    summary = page.partition('<section id="summary"')[2]
    row = re.search(r"<tr[^>]*><th scope=.row.>(<[^>]*>)*cash.*?</tr>", summary, re.S)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row.group())
    assert [re.sub("<[^>]*>", "", cell) for cell in cells[2:4]] == [DASH, DASH]


def test_a_search_does_not_choose_cash_for_its_interest(panel, tmp_path):
    found = search(
        Part(), panel, PLAN, COSTS, ranges=Search({"share": [0.0, 1.0]}, trials=3, folds=1),
        storage=f"sqlite:///{tmp_path}/trials.sqlite3",
    )  # fmt: skip
    values = found.trials.groupby("share")["value"].first()
    assert np.isnan(values[0.0])
    assert 0 < values[1.0] < 3
    assert found.best == {"share": 1.0}


def test_cross_validation_and_seeds_know_the_rate(panel, results, monthly):
    table = cross_validate(PARTS, panel, PLAN, COSTS, ledger=False)["sharpe"].unstack()[0]
    assert np.isnan(table["cash"])
    assert table["a tenth"] == pytest.approx(table["all"], rel=5e-3)
    asked = {"risk_free": monthly, "ledger": False}
    one = backtest(Part(), panel, PLAN, COSTS, **asked)["Part"]
    many = backtest_seeds(Part(), panel, PLAN, COSTS, seeds=1, **asked)[0]["Part"]
    assert many.risk_free.equals(one.risk_free)
    assert many.settings["risk_free"] == one.settings["risk_free"]
    assert one.settings["risk_free"]["mean"] == pytest.approx(monthly.mean())


def test_the_rate_is_kept_with_the_run(panel, monthly, tmp_path):
    asked = {"strategies": Part(), "panel": panel, "plan": PLAN, "costs": COSTS, "ledger": False}
    made = backtest(**asked, run_dir=tmp_path, risk_free=monthly)["Part"]
    kept = load_run(tmp_path)["Part"]
    pd.testing.assert_series_equal(kept.risk_free, made.risk_free, check_freq=False)
    assert kept.excess_returns.to_list() == made.excess_returns.to_list()
    stored = read_rates(tmp_path / "risk_free.csv")
    again = backtest(**asked, run_dir=tmp_path, risk_free=stored)["Part"]
    assert again.settings["risk_free"] == made.settings["risk_free"]
    for other in (None, 0.03, monthly * 1.01):
        with pytest.raises(RunMismatch, match="risk_free changed since"):
            backtest(**asked, run_dir=tmp_path, risk_free=other)


def test_the_default_is_the_cash_rate_given_or_not(panel, tmp_path):
    asked = {"strategies": Part(), "panel": panel, "plan": PLAN, "costs": COSTS, "ledger": False}
    backtest(**asked, run_dir=tmp_path)
    backtest(**asked, run_dir=tmp_path, risk_free=0.05)  # the same run


def test_an_older_result_takes_its_cash_rate(results):
    made = results["all"]
    settings = {key: value for key, value in made.settings.items() if key != "risk_free"}
    older = dataclasses.replace(made, settings=settings, risk_free=pd.Series(dtype=float))
    assert older.risk_free.to_list() == made.risk_free.to_list()
    assert made.risk_free.iloc[1:].min() > 0


def test_nothing_is_begun_with_rates_that_end_too_early(panel, monthly, tmp_path):
    with pytest.raises(ValueError, match="the risk-free rates end on"):
        backtest(Part(), panel, PLAN, COSTS, run_dir=tmp_path / "run", risk_free=monthly[:5])
    assert not (tmp_path / "run").exists()
