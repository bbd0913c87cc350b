"""Who is compared with what: benchmarks given as names, series and files, and returns alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_results import make_result, text_of

from data_loaders import DataError, Panel
from deqfolio.results import write_and_summarise
from engine import Costs, WalkForward, backtest
from reports import write_report
from reports.benchmark import on_common_dates
from reports.report import render
from reports.report_data import gather
from reports.return_series import benchmark_of, read_benchmark, result_of_returns, results_of
from reports.wording import headline, not_shown
from strategies import EqualWeight, InverseVolatility, MinimumVariance

PLAN = WalkForward(train="1Y", refit="1Y", rebalance="ME")
DAYS = pd.bdate_range("2020-01-06", periods=6, name="date")


def market(rows: int = 420, seed: int = 1) -> Panel:
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2019-01-01", periods=rows, name="date")
    prices = 100 * np.exp(rng.normal(3e-4, 0.01, (rows, 4)).cumsum(axis=0))
    return Panel(pd.DataFrame(prices, dates, ["A", "B", "SPY", "C"]), benchmark="SPY")


@pytest.fixture(scope="module")
def panel() -> Panel:
    return market()


@pytest.fixture(scope="module")
def results(panel):
    """Without 1/N, on a panel without a benchmark."""
    strategies = [MinimumVariance(lookback=40, cap=0.6), InverseVolatility(lookback=40)]
    plain = Panel(panel.prices)
    return backtest(
        strategies, plain, PLAN, Costs(0.002, borrow=0.01), ledger=False, progress=False
    )


# Known answers


def test_beta_and_active_return_by_hand():
    """Twice the benchmark plus 1% a day: beta 2, alpha a day of 1%."""
    benchmark = np.array([0.01, -0.02, 0.03, 0.0, 0.02, -0.01])
    ours = pd.Series(2 * benchmark + 0.01, DAYS, name="ours")
    data = gather(results_of(ours), benchmark=pd.Series(benchmark, DAYS, name="index"))
    row = data.metrics.loc["ours"]
    assert (data.subject, data.benchmark) == ("ours", "index")
    assert row["beta"] == pytest.approx(2, rel=1e-12)
    assert row["alpha"] == pytest.approx(0.01 * 252, rel=1e-9)
    years = 7 / 365.25 * 6 / 5  # five periods in seven days, and the first
    growth = [np.prod(1 + line) ** (1 / years) - 1 for line in (ours, benchmark)]
    assert row["active return"] == pytest.approx(growth[0] - growth[1], rel=1e-12)


def test_prices_and_returns_of_a_benchmark_say_the_same():
    benchmark = pd.Series([0.01, -0.02, 0.03, 0.0, 0.02, -0.01], DAYS, name="index")
    prices = pd.concat([pd.Series([1.0], [DAYS[0] - pd.Timedelta("3D")]), 1 + benchmark]).cumprod()
    ours = pd.Series([0.03, 0.01, -0.02, 0.0, 0.02, 0.01], DAYS, name="ours")
    by_returns = gather(results_of(ours), benchmark=benchmark)
    by_prices = gather(results_of(ours), benchmark=(50 * prices).rename("index"))
    pd.testing.assert_frame_equal(by_returns.metrics, by_prices.metrics, rtol=1e-9)
    net = by_returns.results["index"].net_returns
    np.testing.assert_allclose(net, benchmark, rtol=1e-12)


def test_other_calendars_are_compounded_onto_the_dates_of_the_run():
    """A holiday on the third day, and a Saturday row of the benchmark."""
    ours = pd.Series([0.01, 0.02, -0.01, 0.03, 0.00, 0.01], DAYS, name="ours")
    saturday = pd.Timestamp("2020-01-11")
    dates = DAYS.delete(2).insert(4, saturday)
    assert list(dates) == sorted(dates)
    prices = pd.Series([100.0, 110, 121, 121, 133.1, 146.41], dates, name="index")
    prices = pd.concat([pd.Series([100.0], [pd.Timestamp("2020-01-03")]), prices]).rename("index")
    data = gather(results_of(ours), benchmark=prices)
    pair = on_common_dates({name: data.results[name] for name in ("ours", "index")})
    np.testing.assert_allclose(pair["index"].net_returns, [0.1, 0.0, 0.21])
    compounded = [0.99 * 1.03 - 1, 0.00, 0.01]
    np.testing.assert_allclose(pair["ours"].net_returns, compounded, atol=1e-15)
    assert pair["ours"].settings["periods_per_year"] == pytest.approx(252 * 3 / 4)
    assert "has a value on 5 of the 6 dates. On the other 1 it has none" in data.notes[0]
    assert "1 of its rows lie between the dates" in data.notes[0]
    assert data.notes[1] == "The comparison begins on 2020-01-09."
    active = np.array(compounded) - [0.1, 0.0, 0.21]
    year = np.sqrt(252 * 3 / 4)
    ratio = active.mean() / active.std(ddof=1) * year
    assert data.metrics.loc["ours", "information ratio"] == pytest.approx(ratio, rel=1e-12)


def test_weekly_and_daily_results_are_paired_by_weeks():
    daily = result_of_returns(pd.Series(0.01, pd.bdate_range("2020-01-06", periods=15)), "daily")
    weekly = result_of_returns(
        pd.Series([0.5, 0.04, 0.05], pd.bdate_range("2020-01-10", periods=3, freq="W-FRI")),
        "weekly",
    )
    pair = on_common_dates({"daily": daily, "weekly": weekly})
    np.testing.assert_allclose(pair["daily"].net_returns, [1.01**5 - 1] * 2)
    np.testing.assert_allclose(pair["weekly"].net_returns, [0.04, 0.05])


# The panel's benchmark, and 1/N


def test_the_panels_benchmark_is_the_default(panel):
    found = backtest(
        [InverseVolatility(lookback=40), EqualWeight()], panel, PLAN, ledger=False, progress=False
    )
    data = gather(found)
    assert (data.subject, data.benchmark) == ("InverseVolatility", "SPY")
    prices = panel.benchmark[data.first.net_returns.index]
    expected = prices / prices.shift(1) - 1
    expected.iloc[0] = 0.0
    np.testing.assert_allclose(data.results["SPY"].net_returns, expected, rtol=1e-9, atol=1e-15)
    ours = data.first.net_returns
    slope = np.cov(ours, expected)[0, 1] / expected.var()
    assert data.metrics.loc["InverseVolatility", "beta"] == pytest.approx(slope, rel=1e-9)
    other = gather(found, benchmark="EqualWeight", subject="InverseVolatility")
    assert other.benchmark == "EqualWeight"
    assert list(other.results) == list(found)
    page = text_of(render(data))
    assert "SPY, a column of the prices that no strategy can hold, held without" in page


def test_a_missing_one_over_n_is_the_one_that_backtest_would_have_found(results, panel):
    data = gather(results)
    assert (data.subject, data.benchmark) == ("MinimumVariance", "EqualWeight")
    assert "EqualWeight (1/N) was not run: it was computed" in data.notes[0]
    costs = Costs(0.002, borrow=0.01)
    run = backtest(EqualWeight(), Panel(panel.prices), PLAN, costs, ledger=False, progress=False)
    found, expected = data.results["EqualWeight"], run["EqualWeight"]
    for name in ("net_returns", "gross_returns", "weights", "turnover", "costs", "targets"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.index.equals(other.index)
        # 1/N over the dates that all strategies need: the longest lookback decides them
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)
    assert data.trials == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"universe": True}, "the universe changed"),
        ({"whole_shares": True}, "whole shares need the prices"),
        ({"costs": {"commission": 0.001, "impact": 1.0}}, "market impact needs the volumes"),
        ({"costs": {"class": "mine:Costs"}}, "a class of the user's own"),
        ({"panel": {}}, "not every asset has a price on every date"),
    ],
)
def test_where_one_over_n_is_not_known_the_page_says_so(results, change, reason):
    changed = {n: replace(r, settings={**r.settings, **change}) for n, r in results.items()}
    data = gather(changed)
    assert data.benchmark == "InverseVolatility"
    assert reason in data.notes[0]


# Returns alone


def test_a_report_of_returns_alone(tmp_path):
    rng = np.random.default_rng(0)
    dates = pd.bdate_range("2020-01-01", periods=300)
    frame = pd.DataFrame(rng.normal(4e-4, 0.01, (300, 2)), dates, ["fund", "rival"])
    path = write_report(frame, tmp_path / "r.html", benchmark="rival")
    text = " ".join(text_of(path.read_text()).split())
    assert re.search(r"of rival , at a Sharpe ratio [\d.]+ (higher|lower): a difference", text)
    assert "Weights, turnover, costs, orders and training: only returns were given." in text
    for absent in ("Weights over time", "Turnover and costs", "net of costs", "after costs"):
        assert absent not in text
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["metrics"]["fund"]["turnover/year"] is None
    assert told["metrics"]["fund"]["volatility"] == pytest.approx(frame["fund"].std() * 252**0.5)
    one = gather(results_of(frame["fund"]))
    assert (one.subject, one.benchmark) == ("fund", None)
    assert "only returns were given" in " ".join(not_shown(one))
    assert list(results_of({"x": frame["fund"]})) == ["x"]


def test_a_benchmark_of_a_real_run_has_no_holdings_and_the_page_holds(results, tmp_path):
    net = next(iter(results.values())).net_returns
    index = pd.Series(np.linspace(100, 120, len(net)) + np.sin(np.arange(len(net))), net.index)
    index.rename("index").to_csv(tmp_path / "index.csv")
    told = write_and_summarise(
        results,
        tmp_path / "r.html",
        benchmark=str(tmp_path / "index.csv"),
        about="InverseVolatility",
    )
    assert "InverseVolatility" in told.split("\n\n")[0]
    text = text_of((tmp_path / "r.html").read_text())
    assert "Compared with index, from index.csv, held without costs." in text
    assert "Weights over time" in text


# What is refused, in one sentence


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            np.linspace(0.01, 0.02, 30),
            r"prices or returns: name the series or column close or return",
        ),
        ([1.0, 1.01, 0.99] * 10, r"prices or returns"),
        ([1.2, -3.0, 2.5, 0.0] * 10, r"divide percent by 100"),
        (["a"] * 30, "are no numbers"),
        ([np.nan] * 30, "has no value"),
    ],
)
def test_a_series_that_can_be_read_in_two_ways_is_refused(values, said):
    dates = pd.bdate_range("2020-01-01", periods=len(values))
    with pytest.raises(DataError, match=said):
        benchmark_of(pd.Series(values, dates, name="S"))


def test_its_name_says_what_a_series_is():
    dates = pd.bdate_range("2020-01-01", periods=30)
    low = pd.Series([0.01, 0.0101, 0.0102] * 10, dates)
    assert benchmark_of(low.rename("close")).tolist() == low.tolist()
    np.testing.assert_allclose(benchmark_of(low.rename("return")).pct_change().dropna(), low)


@pytest.mark.parametrize(
    ("dates", "said"),
    [
        (pd.bdate_range("2020-03-02", "2020-12-31"), "begins on 2020-03-02: the comparison needs"),
        (pd.bdate_range("2019-12-02", "2020-06-30"), "ends on 2020-06-30"),
        (pd.bdate_range("2019-12-02", "2020-12-31") + pd.Timedelta("16h"), "has 0 of the"),
        (
            pd.bdate_range("2019-12-02", "2020-03-31").union(
                pd.bdate_range("2020-06-01", "2020-12-31")
            ),
            "has no value between 2020-03-31 and 2020-06-01",
        ),
    ],
)
def test_a_benchmark_that_does_not_cover_the_dates_is_refused(dates, said, tmp_path):
    ours = results_of(pd.Series(0.01, pd.bdate_range("2020-01-06", "2020-12-31"), name="ours"))
    index = pd.Series(np.linspace(100, 120, len(dates)), dates, name="index")
    with pytest.raises(DataError, match=said) as raised:
        write_report({"ours": ours["ours"]}, tmp_path / "r.html", benchmark=index)
    assert ('another benchmark, as "EqualWeight"' in str(raised.value)) == ("has 0" not in said)
    assert list(tmp_path.iterdir()) == []


def test_one_over_n_by_name_is_computed_where_it_was_not_run(results, panel):
    only = {"MinimumVariance": results["MinimumVariance"]}
    data, default = gather(only, benchmark="EqualWeight"), gather(only)
    assert (data.subject, data.benchmark) == ("MinimumVariance", "EqualWeight")
    pd.testing.assert_frame_equal(data.metrics, default.metrics)
    unknown = {n: replace(r, settings={**r.settings, "universe": True}) for n, r in only.items()}
    with pytest.raises(ValueError, match="1/N was not run, and cannot be computed .*: run Equal"):
        gather(unknown, benchmark="EqualWeight")


def test_names_files_and_other_things_that_are_no_benchmark(tmp_path):
    made = {"one": make_result("one", 300), "two": make_result("two", 300, cls="x:Y")}
    for given, said in (
        ({"benchmark": "tow"}, r"'tow' is no strategy .* did you mean 'two'"),
        ({"subject": "on"}, r"no strategy 'on'; did you mean 'one'"),
        ({"benchmark": "one", "subject": "one"}, "compared with itself"),
        ({"benchmark": tmp_path / "none.csv"}, "none.csv"),
    ):
        with pytest.raises(ValueError, match=said):
            write_report(made, tmp_path / "r.html", tried=False, **given)
    (tmp_path / "two.csv").write_text("date,A,B\n2020-01-01,1,2\n2020-01-02,1,2\n")
    with pytest.raises(DataError, match="holds 2 columns"):
        read_benchmark(tmp_path / "two.csv")
    for given, said in ((3, "got int"), ({"a": 3}, "got int")):
        with pytest.raises(TypeError, match=said):
            write_report(given, tmp_path / "r.html")
    assert [item.name for item in tmp_path.iterdir()] == ["two.csv"]


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (
            pd.Series([1.2, -3.0, 2.5, 0.3] * 10, pd.bdate_range("2020-01-01", periods=40)),
            "percent",
        ),
        (pd.Series([0.1, np.nan, 0.1], DAYS[:3]), "has no finite return on 2020-01-07"),
        (pd.Series([0.1, -1.5], DAYS[:2]), "below -100% on 2020-01-07"),
        (pd.Series([np.nan], DAYS[:1]), "has no return"),
        (pd.Series([0.1, 0.2]), "must hold dates"),
    ],
)
def test_returns_that_are_none_are_refused(returns, said):
    with pytest.raises(DataError, match=said):
        result_of_returns(returns)


def test_the_first_row_of_pct_change_is_left_out():
    prices = pd.Series([100.0, 101, 102.01], DAYS[:3], name="x")
    assert result_of_returns(prices.pct_change()).net_returns.tolist() == pytest.approx([0.01] * 2)


def test_a_benchmark_is_bought_at_the_first_fill_at_the_last_price_known_then():
    """The run begins on a day on which the benchmark has no price; 1/N counts as no trial."""
    results = {
        "Tried": make_result("Tried", 60, seed=1, cls="x:Tried"),
        "EqualWeight": make_result("EqualWeight", 60, seed=2),
    }
    dates = results["Tried"].net_returns.index
    earlier = pd.bdate_range(end=dates[0], periods=4)[:-1]
    values = [50.0, 60.0, 100.0, *np.linspace(110, 168, 59)]
    prices = pd.Series(values, [*earlier, *dates[1:]], name="index")
    data = gather(results, benchmark=prices)
    net = data.results["index"].net_returns
    assert net.index.equals(dates)
    np.testing.assert_allclose(net.iloc[:3], [0.0, 0.1, 111 / 110 - 1], atol=1e-15)
    assert data.trials == 1


def test_a_benchmark_has_the_risk_free_returns_of_its_own_periods():
    ours = result_of_returns(pd.Series(0.01, DAYS, name="ours"), risk_free=0.05)
    prices = pd.Series([100.0, 101, 102, 103, 104], DAYS.delete(2), name="index")
    data = gather({"ours": ours}, benchmark=prices)  # its first price has no price before it
    found, whole = data.results["index"].risk_free, ours.risk_free
    assert list(found.index) == list(DAYS[[1, 3, 4, 5]])
    expected = [whole.iloc[1], (1 + whole.iloc[2]) * (1 + whole.iloc[3]) - 1, *whole.iloc[4:]]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_year_of_returns_is_a_year_that_passed():
    """A hole of a year in daily rows: the headline's years are those of the annual return."""
    days = pd.bdate_range("2018-01-01", periods=261 * 4)
    kept = days[:500].union(days[761:])
    net = pd.Series(np.random.default_rng(0).normal(5e-4, 0.01, len(kept)), kept, name="ours")
    data = gather(results_of(net))
    years = (kept[-1] - kept[0]).days / 365.25 * len(kept) / (len(kept) - 1)
    growth = (1 + net).prod() ** (1 / years) - 1
    assert data.metrics.loc["ours", "annual return"] == pytest.approx(growth, rel=1e-12)
    assert years == pytest.approx(4, abs=0.02)
    assert "Over 4.0 years ours returned" in headline(data).striptags()
    bought = replace(data.results["ours"], turnover=pd.Series([1.0], kept[:1]))
    assert bought.rows_per_year == pytest.approx(len(kept) / ((kept[-1] - kept[0]).days / 365.25))
