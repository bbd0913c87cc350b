"""A report of returns alone: in excess of the risk-free rate that is given, from any file."""

import json

import numpy as np
import pandas as pd
import pytest
from report_results import make_result

from data_loaders import DataError
from deqfolio.command_line import main
from reports import summary_table, write_report
from reports.report_data import gather
from reports.return_series import results_of

DATES = pd.bdate_range("2021-01-04", periods=120)  # a Monday; the period before it is a day
FUND = pd.Series(0.002 * np.sin(2.3 * np.arange(120)) + 0.0004, DATES, name="fund")
INDEX = pd.Series(0.003 * np.sin(1.9 * np.arange(120)) + 0.0002, DATES, name="index")


@pytest.mark.parametrize("dated", [False, True])
def test_ratios_of_returns_alone_by_hand(dated):
    rate = pd.Series([0.03, 0.05], DATES[[0, 60]]) if dated else 0.03
    days = np.append(1, np.diff(DATES) / np.timedelta64(1, "D"))
    a_year = np.where(dated & (np.arange(120) > 60), 0.05, 0.03)
    found = gather(results_of({"fund": FUND, "index": INDEX}, rate), benchmark="index")
    fund, index = (line - a_year * days / 365.25 for line in (FUND, INDEX))
    assert found.metrics.loc["fund", "Sharpe"] == pytest.approx(
        fund.mean() / fund.std() * 252**0.5, rel=1e-12
    )
    slope, intercept = np.polyfit(index, fund, 1)
    assert found.metrics.loc["fund", "beta"] == pytest.approx(slope, rel=1e-9)
    assert found.metrics.loc["fund", "alpha"] == pytest.approx(252 * intercept, rel=1e-9)
    # The same benchmark as a series that is no strategy.
    again = gather(results_of(FUND, rate), benchmark=INDEX)
    assert again.metrics.loc["fund", "Sharpe"] == found.metrics.loc["fund", "Sharpe"]
    assert again.luck.loc["fund", "p"] == pytest.approx(found.luck.loc["fund", "p"], abs=0.05)


def test_results_of_a_backtest_keep_their_rate(tmp_path):
    with pytest.raises(ValueError, match=r"have the risk-free rate that they were run with"):
        write_report({"A": make_result("A")}, tmp_path / "page.html", risk_free=0.02)
    assert not list(tmp_path.iterdir())


def test_a_file_of_returns_or_of_values_is_reported_as_the_returns(tmp_path):
    """The command and ``write_report``; values are rounded by a division and a product."""
    random = np.random.default_rng(0)
    dates = pd.bdate_range("2018-01-01", periods=600, name="date")
    returns = pd.DataFrame(random.normal(5e-4, 0.01, (600, 2)), dates, ["mine", "theirs"])
    index = (30 * (1 + pd.Series(random.normal(3e-4, 0.01, 600), dates)).cumprod()).rename("SPY")
    index.to_csv(tmp_path / "spy.csv")
    returns.to_csv(tmp_path / "returns.csv")
    (7 * (1 + returns).cumprod()).to_csv(tmp_path / "values.csv")
    write_report(returns, tmp_path / "series.html", benchmark=index, tried=False)
    expected = json.loads((tmp_path / "series.json").read_text())["metrics"]
    for name, options in (("returns", []), ("values", ["--about", "mine"])):
        out = tmp_path / f"{name}.html"
        words = ["report", str(tmp_path / f"{name}.csv"), "--out", str(out), *options]
        assert main([*words, "--benchmark", str(tmp_path / "spy.csv")]) == 0
        found = json.loads(out.with_suffix(".json").read_text())["metrics"]
        if name == "returns":
            assert list(found) == ["mine", "theirs", "SPY"]
            known = {k: value for k, value in expected["mine"].items() if value is not None}
            assert {k: found["mine"][k] for k in known} == pytest.approx(known, rel=1e-9, abs=1e-12)
        else:  # the first row of values earned nothing
            own = summary_table(results_of(returns.iloc[1:]))
            assert found["mine"]["Sharpe"] == pytest.approx(own.loc["mine", "Sharpe"])


def test_what_is_no_file_of_returns_says_so(tmp_path, capsys):
    assert main(["report", str(tmp_path / "no.csv")]) == 1
    assert "there is no folder of a run, and no file of returns" in capsys.readouterr().err


def test_session_dates_in_utc_are_taken_without_their_zone():
    dates = pd.bdate_range("2018-01-01", periods=60, tz="UTC")
    (result,) = results_of(pd.Series(0.001, dates, name="a")).values()
    assert result.net_returns.index.tz is None
    with pytest.raises(DataError, match="time zone"):
        results_of(pd.Series(0.001, dates + pd.Timedelta("16h"), name="a"))
