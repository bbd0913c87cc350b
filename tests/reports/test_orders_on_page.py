"""Orders on the page and beside it: their reasons, and several fills on one date."""

from dataclasses import replace

import pandas as pd
import pytest
from random_brackets import RandomBrackets, market

from engine import Costs, WalkForward, backtest
from reports import write_report
from reports.metrics.trading import delay_sentences, trip_summary
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


def test_round_trips_and_profits_are_on_the_page_and_in_the_files(results, tmp_path):
    subject = results["RandomBrackets"]
    groups = {"A": "one", "B": "one", "C": "<two>"}
    page = write_report(results, tmp_path / "page.html", subject="RandomBrackets", groups=groups)
    text, trips = page.read_text(), subject.round_trips
    closed = trips[trips["reason"] != "open"]
    assert f"{len(closed)} positions or parts of positions" in text
    assert "&lt;two&gt;" in text
    table = pd.read_csv(tmp_path / "page-tables" / "round_trips.csv")
    assert table["profit"].to_numpy() == pytest.approx(trips["profit"].to_numpy(float))
    gained = 1e6 * ((1 + subject.net_returns).prod() - 1)
    for name in ("profits", "group_profits"):
        table = pd.read_csv(tmp_path / "page-tables" / f"{name}.csv")
        assert table["profit"].sum() == pytest.approx(gained)
    assert set(table["group"]) == {"one", "<two>", "no group"}
    found = trip_summary(subject).iloc[0]
    assert found["won"] == (closed["profit"] > 0).mean()
    assert found["realised"] + found["open"] == pytest.approx(gained)


def test_orders_that_found_no_price_are_counted_and_named(results, tmp_path):
    when = pd.Timestamp("2020-03-02")
    rows = [("waited", "A"), ("waited", "A"), ("cancelled", "<B>"), ("delisted", "C")]
    delays = pd.DataFrame(
        {"decided": when, "due": when, "filled": pd.NaT, "asset": asset, "outcome": outcome}
        for outcome, asset in rows
    )
    assert delay_sentences(delays) == [
        "2 orders waited, and were filled at the first price after the gap: A.",
        "1 order was cancelled: <B>.",
        "1 order was dropped, as the asset never traded again: C.",
    ]
    assert delay_sentences(pd.DataFrame()) == []
    given = {"RandomBrackets": replace(results["RandomBrackets"], delays=delays)}
    text = write_report(given, tmp_path / "page.html").read_text()
    assert "1 order was cancelled: &lt;B&gt;." in text
    assert len(pd.read_csv(tmp_path / "page-tables" / "delays.csv")) == 4
