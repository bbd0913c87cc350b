"""Orders on the page and beside it: their reasons, and several fills on one date."""

import pandas as pd
import pytest
from random_brackets import RandomBrackets, market

from engine import Costs, WalkForward, backtest
from reports import write_report
from strategies import EqualWeight


@pytest.fixture(scope="module")
def results():
    panel, _ = market(7, rows=200)
    plan = WalkForward(train=20, rebalance=3, refit=60)
    strategies = [RandomBrackets(7), EqualWeight()]
    return backtest(strategies, panel, plan, Costs(0.001), progress=False, ledger=False)


def test_reasons_are_on_the_page_and_in_the_files(results, tmp_path):
    subject = results["RandomBrackets"]
    assert subject.fills.index.has_duplicates  # a stop and a fill at the close of one date
    page = write_report(results, tmp_path / "page.html", subject="RandomBrackets")
    text = page.read_text()
    for reason in ("decision", "limit", "stop", "trailing", "take-profit"):
        assert f'<td class="left">{reason}</td>' in text
    orders = pd.read_csv(tmp_path / "page-tables" / "orders.csv")
    assert list(orders["reason"]) == list(subject.orders["reason"])
    turnover = pd.read_csv(tmp_path / "page-tables" / "turnover.csv", index_col="date")
    assert turnover["RandomBrackets"].dropna().to_numpy() == pytest.approx(
        subject.turnover.to_numpy()
    )
    paid = subject.orders["fees"].groupby(subject.orders["date"]).sum()
    value = (1 + subject.net_returns).cumprod() * 1e6
    assert subject.costs.index.is_unique
    net = (1 + subject.gross_returns + subject.carry) * (
        1 - subject.costs.reindex(value.index, fill_value=0.0)
    ) - 1
    pd.testing.assert_series_equal(net, subject.net_returns, check_names=False)
    assert (paid / value.shift(1, fill_value=1e6)).sum() == pytest.approx(
        subject.costs.sum(), rel=0.02
    )  # of the value before the fill, which is not that of the close before
