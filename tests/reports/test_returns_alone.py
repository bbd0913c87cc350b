"""A report of returns alone is in excess of the risk-free rate that is given with them."""

import numpy as np
import pandas as pd
import pytest
from report_results import make_result

from reports import write_report
from reports.report_data import gather
from reports.returns_alone import as_results

DATES = pd.bdate_range("2021-01-04", periods=120)  # a Monday; the period before it is a day
FUND = pd.Series(0.002 * np.sin(2.3 * np.arange(120)) + 0.0004, DATES, name="fund")
INDEX = pd.Series(0.003 * np.sin(1.9 * np.arange(120)) + 0.0002, DATES, name="index")


@pytest.mark.parametrize("dated", [False, True])
def test_ratios_of_returns_alone_by_hand(dated):
    rate = pd.Series([0.03, 0.05], DATES[[0, 60]]) if dated else 0.03
    days = np.append(1, np.diff(DATES) / np.timedelta64(1, "D"))
    a_year = np.where(dated & (np.arange(120) > 60), 0.05, 0.03)
    found = gather(as_results({"fund": FUND, "index": INDEX}, rate), benchmark="index")
    fund, index = (line - a_year * days / 365.25 for line in (FUND, INDEX))
    assert found.metrics.loc["fund", "Sharpe"] == pytest.approx(
        fund.mean() / fund.std() * 252**0.5, rel=1e-12
    )
    slope, intercept = np.polyfit(index, fund, 1)
    assert found.metrics.loc["fund", "beta"] == pytest.approx(slope, rel=1e-9)
    assert found.metrics.loc["fund", "alpha"] == pytest.approx(252 * intercept, rel=1e-9)
    # The same benchmark as a series that is no strategy.
    again = gather(as_results(FUND, rate), benchmark=INDEX)
    assert again.metrics.loc["fund", "Sharpe"] == found.metrics.loc["fund", "Sharpe"]
    assert again.luck.loc["fund", "p"] == pytest.approx(found.luck.loc["fund", "p"], abs=0.05)


def test_results_of_a_backtest_keep_their_rate(tmp_path):
    with pytest.raises(ValueError, match=r"have the risk-free rate that they were run with"):
        write_report({"A": make_result("A")}, tmp_path / "page.html", risk_free=0.02)
    assert not list(tmp_path.iterdir())
