"""Backtests on bars within a day and on other calendars, with figures worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel
from deqfolio import main
from engine import Costs, Training, WalkForward, backtest, check_strategy, load_run
from engine.accounting import performance
from engine.walking.learner import Learner
from reports import summary_table
from strategies import DEQMeanVariance, EqualWeight, Strategy


class AllCash(Strategy):
    lookback = 1

    def allocate(self, history, holdings):
        return pd.Series(0.0, history.assets)


CALENDARS = {
    "hours": pd.date_range("2021-01-01", periods=2000, freq="h"),
    "hours of sessions": pd.DatetimeIndex(
        [
            day + pd.Timedelta(hours=9.5 + hour)
            for day in pd.bdate_range("2021", periods=80)
            for hour in range(7)
        ]
    ),
    "sessions with a hole of a year": pd.bdate_range("2018", periods=500).delete(
        np.arange(200, 460)
    ),
    "weeks": pd.date_range("2018-01-05", periods=120, freq="W-FRI"),
    "quarters": pd.date_range("2000-03-31", periods=60, freq="QE"),
}


def market(dates, seed=0, assets=2):
    moves = np.random.default_rng(seed).normal(1e-4, 0.01, (len(dates), assets))
    return Panel(pd.DataFrame(100 * np.exp(moves.cumsum(axis=0)), dates).add_prefix("S"))


@pytest.mark.parametrize("name", CALENDARS)
def test_cash_earns_its_rate_a_year_on_any_calendar(name):
    """5% a year, paid as simple interest on what the last fill left in cash."""
    panel, every = market(CALENDARS[name]), 2 if name == "quarters" else 10
    plan = WalkForward(train=every, refit=1000, rebalance=every)
    result = backtest([AllCash()], panel, plan, Costs(0.0, cash_rate=0.05), progress=False)
    net = next(iter(result.values())).net_returns
    first = panel.dates.get_loc(net.index[0])
    fills = panel.dates[first::every]
    fills = fills.append(panel.dates[-1:]) if fills[-1] != panel.dates[-1] else fills
    years = np.diff(fills.values) / np.timedelta64(1, "s") / (365.25 * 86400)
    earned = (1 + 0.05 * years).prod()
    assert performance.wealth(net.to_numpy())[-1] == pytest.approx(earned, rel=1e-12)
    elapsed = (net.index[-1] - net.index[0]) / pd.Timedelta(days=365.25)
    assert earned ** (1 / elapsed) - 1 == pytest.approx(0.05, abs=0.0013)
    row = summary_table(result)["annual return"]
    assert row.iloc[0] == pytest.approx(earned ** (1 / elapsed) - 1, rel=1e-10)


def test_the_sharpe_ratio_of_hours_is_annualised_by_their_number():
    panel = market(CALENDARS["hours"])
    plan = WalkForward(train=100, refit=3000, rebalance=24, execution_lag=0)
    result = backtest([EqualWeight()], panel, plan, Costs(0.0), progress=False)
    net = next(iter(result.values())).net_returns
    year = next(iter(result.values())).settings["periods_per_year"]
    assert year == 24 * 365
    by_hand = net.mean() / net.std(ddof=1) * np.sqrt(24 * 365)
    assert performance.sharpe(net, year) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "rebalance", "a_year"),
    [
        ("hours", "D", 365),
        ("hours", 5, 24 * 365 / 5),
        ("hours of sessions", 14, 126),
        ("weeks", 2, 26),
    ],
)
def test_holding_periods_of_training_are_counted_per_year(name, rebalance, a_year):
    panel = market(CALENDARS[name])
    plan = WalkForward(train=len(panel) * 3 // 4, refit=len(panel), rebalance=rebalance)
    strategy = DEQMeanVariance(lookback=24, cap=0.6)
    folds = plan.folds(panel.dates, strategy.lookback)
    learner = Learner(panel, folds, plan, Costs(0.0), Training(), 1)
    assert learner.dataset("DEQ", strategy, folds[0]).per_year == pytest.approx(a_year, rel=1e-12)


def test_a_strategy_learns_on_hours():
    panel = market(CALENDARS["hours"][:744], assets=3)
    plan = WalkForward(train="20D", refit="5D", rebalance="D")
    strategy = DEQMeanVariance(lookback=24, hidden=4, cap=0.6, cash=False)
    costs = Costs(0.0005, cash_rate=0.05)
    found = backtest([strategy], panel, plan, costs, Training(epochs=2), progress=False)
    result = next(iter(found.values()))
    assert (result.targets.index.hour == 23).all()
    assert len(result.folds) == 2
    assert result.training["loss"].notna().all()
    np.testing.assert_allclose(result.targets.sum(axis=1), 1.0, atol=1e-6)


def test_a_strategy_is_checked_on_hours():
    assert check_strategy(EqualWeight(), market(CALENDARS["hours"][:1200]))["passed"].all()


def test_hours_from_a_file_to_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    market(CALENDARS["hours"][:1000]).prices.rename_axis("date").to_csv("hours.csv")
    words = ["backtest", "--data", "hours.csv", "--strategy", "EqualWeight", "--out", "run"]
    words += ["--train", "48h", "--refit", "10D"]
    given = ["--rebalance", "W-SUN 16:00", "--holiday", "next", "--periods-per-year"]
    assert main([*words, *given, "8766"]) == 0
    result = load_run("run")["EqualWeight"]
    assert set(result.targets.index.strftime("%a %H:%M")) == {"Sun 16:00"}
    assert result.settings["periods_per_year"] == 8766
    page = (tmp_path / "run" / "report.html").read_text()
    assert "A year has 8,766 rows" in page
    assert "Over 935 periods (0.11 years)" in page  # from row 65, on Sunday at 17:00
    assert (tmp_path / "run" / "experiment.toml").read_text().count("periods_per_year = 8766") == 1
    assert main([*words, *given, "8760"]) == 1
    assert "run holds another run: panel changed since" in capsys.readouterr().err
    days = "2021-01-05,2021-01-20 12:00"
    assert main([*words[:-4], "--out", "listed", *words[-4:-2], "--refit", "40D",
                 "--rebalance", days]) == 0  # fmt: skip
    listed = load_run("listed")["EqualWeight"].targets.index
    assert list(listed) == [pd.Timestamp("2021-01-05 23:00"), pd.Timestamp("2021-01-20 12:00")]
    assert main([*words[:-5], "none", *words[-4:], "--periods-per-year", "0"]) == 1
    assert "periods_per_year=0.0 should be a number" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
