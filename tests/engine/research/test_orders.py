import numpy as np
import pandas as pd
import pytest
from markets import random_walks
from random_brackets import RandomBrackets, market

from engine import Costs, Training, WalkForward, backtest
from engine.research.orders import OrderError, read_holdings, todays_orders
from strategies import DEQMeanVariance, EqualWeight

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
NOTHING = pd.Series(dtype=float)


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


@pytest.fixture(scope="module")
def results(panel):
    strategies = [EqualWeight(), DEQMeanVariance(64, hidden=4, cap=0.5)]
    return backtest(strategies, panel, PLAN, Costs(0.01), Training(epochs=1, block=20))


def orders(results, panel, name="EqualWeight", shares=NOTHING, capital=1e6, **rest):
    strategy = {
        "EqualWeight": EqualWeight(),
        "DEQMeanVariance": DEQMeanVariance(64, hidden=4, cap=0.5),
    }[name]
    today = rest.pop("today", panel.dates[-1] + pd.Timedelta("1D"))
    return todays_orders(strategy, results[name], panel, shares, capital, today, **rest)


def test_the_first_purchase_spends_the_capital_and_no_more(results, panel):
    found = orders(results, panel, fractions=True)
    assert found.date == panel.dates[-1]
    np.testing.assert_allclose(found.table["value"], 1e6 / 1.01 / 4)
    assert found.cash == pytest.approx(0, abs=1e-6)
    whole = orders(results, panel)
    assert (whole.table["order"] % 1 == 0).all()
    assert 0 <= whole.cash < whole.table["price"].sum()


def test_orders_lead_from_the_holdings_to_the_target(results, panel):
    shares = pd.Series({"A3": 4000.0, "A1": 100.0})
    found = orders(results, panel, shares=shares, fractions=True)
    held = shares.reindex(panel.assets).fillna(0)
    pd.testing.assert_series_equal(
        found.table["held"] + found.table["order"], found.table["wanted"], check_names=False
    )
    pd.testing.assert_series_equal(found.table["held"], held, check_names=False)
    after = found.table["wanted"] * found.table["price"]
    np.testing.assert_allclose(after / after.sum(), 0.25)
    assert found.cash == pytest.approx(0, abs=1e-6)


def test_a_learned_strategy_decides_with_its_last_state(results, panel):
    found = orders(results, panel.until(panel.dates[-2]), "DEQMeanVariance")
    result = results["DEQMeanVariance"]
    last = result.targets.index[-1]
    then = {"today": last, "capital": 1e6}
    shares = result.weights.loc[last] * then["capital"] / panel.prices.loc[last]
    again = orders(results, panel.until(last), "DEQMeanVariance", shares=shares, **then)
    np.testing.assert_allclose(again.table["weight"], result.targets.loc[last], atol=1e-10)
    from_cash = orders(results, panel.until(last), "DEQMeanVariance", **then)
    assert np.abs(from_cash.table["weight"] - again.table["weight"]).max() > 1e-3  # it knows
    assert 0.5 < found.table["weight"].sum() < 1
    assert found.cash == pytest.approx(1e6 * (1 - found.table["weight"].sum()), rel=1e-3)


def test_orders_that_would_rest_on_the_wrong_thing_are_refused(results, panel):
    late = panel.dates[-1] + pd.Timedelta("9D")
    with pytest.raises(OrderError, match="stale on"):
        orders(results, panel, today=late)
    with pytest.raises(OrderError, match="holdings of assets the run does not know: ZZZ"):
        orders(results, panel, shares=pd.Series({"ZZZ": 1.0}))
    with pytest.raises(OrderError, match="more than the capital 10.00"):
        orders(results, panel, shares=pd.Series({"A1": 1000.0}), capital=10)
    for none in (0, -5, float("nan"), float("inf")):
        with pytest.raises(OrderError, match="amount of money above 0"):
            orders(results, panel, capital=none)
    with pytest.raises(OrderError, match="other assets: A4"):
        orders(results, random_walks(880, 5))
    longer = random_walks(1300, 4)
    with pytest.raises(OrderError, match="its refit was due on"):
        orders(results, longer, "DEQMeanVariance", today=longer.dates[-1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file of holdings .*held.csv"),
        (b"", "held.csv is not a readable CSV file"),
        (b"asset,shares\n\xe9,1\n", "held.csv is not a readable CSV file"),
        (b"a,b\nA0,1\n", "needs the columns asset,shares; it has a,b"),
        (b"asset,shares\nA0,one\n", "A0 is there twice, or its shares are no number"),
    ],
)
def test_holdings_that_cannot_be_read_are_refused_in_words(tmp_path, content, message):
    path = tmp_path / "held.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OrderError, match=message):
        read_holdings(path)


def test_protective_orders_are_named():
    bars, _ = market(3, rows=120)
    strategy, plan = RandomBrackets(3), WalkForward(train=20, rebalance=3, refit=60)
    results = backtest(strategy, bars, plan, progress=False, ledger=False)
    today = bars.dates[-1]
    found = todays_orders(strategy, results["RandomBrackets"], bars, NOTHING, 1e6, today).table
    cash = pd.Series(0.0, bars.assets)
    expected = strategy.allocate(bars, cash)
    for name in ("stop", "trailing", "take_profit", "limit"):
        wanted = pd.Series(getattr(expected, name), dtype=float).reindex(bars.assets)
        pd.testing.assert_series_equal(found[name], wanted, check_names=False)
