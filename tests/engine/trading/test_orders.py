from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from markets import random_walks
from random_brackets import RandomBrackets, market

from data_loaders import Panel
from engine import Costs, Training, WalkForward, backtest
from engine.trading.account import Account, OrderError, read_holdings
from engine.trading.orders import OrderRules, todays_orders
from engine.trading.todays_decision import NoDecision
from strategies import DEQMeanVariance, EqualWeight, MinimumVariance, Strategy, VolatilityManaged

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
NOTHING = pd.Series(dtype=float)


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


@pytest.fixture(scope="module")
def results(panel):
    strategies = [EqualWeight(), DEQMeanVariance(64, hidden=4, cap=0.5)]
    return backtest(strategies, panel, PLAN, Costs(0.01), Training(epochs=1, block=20))


@pytest.fixture(scope="module")
def longer(panel):
    """The same prices, and twenty days more."""
    return random_walks(900, 4)


def orders(results, panel, name="EqualWeight", shares=NOTHING, capital=1e6, **rest):
    strategy = {
        "EqualWeight": EqualWeight(),
        "DEQMeanVariance": DEQMeanVariance(64, hidden=4, cap=0.5),
    }[name]
    today = rest.pop("today", panel.dates[-1] + pd.Timedelta("1D"))
    rules = OrderRules(
        **{"anyway": True, "lot": 0.0 if rest.pop("fractions", False) else 1.0} | rest
    )
    account = Account(shares, capital=capital)
    return todays_orders(strategy, results[name], panel, account, today, rules)


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
        with pytest.raises(OrderError, match=r"amount of money above 0|are amounts of money"):
            orders(results, panel, capital=none)
    with pytest.raises(OrderError, match="other assets: A4"):
        orders(results, random_walks(880, 5))
    why = {"date": None, "stage": "fit", "reason": "a singular matrix"}
    with pytest.raises(OrderError, match="EqualWeight did not come to .*: a singular matrix; the"):
        orders({"EqualWeight": replace(results["EqualWeight"], failure=why)}, panel)
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
    found = todays_orders(
        strategy, results["RandomBrackets"], bars, Account(cash=1e6), today, OrderRules(anyway=True)
    ).table
    cash = pd.Series(0.0, bars.assets)
    expected = strategy.allocate(bars, cash)
    for name in ("stop", "trailing", "take_profit", "limit"):
        wanted = pd.Series(getattr(expected, name), dtype=float).reindex(bars.assets)
        pd.testing.assert_series_equal(found[name], wanted, check_names=False)


def changed(panel, name, how):
    prices = panel.prices.copy()
    how(prices, panel.prices.columns.get_loc(name))
    return panel.replaced(prices=prices)


def ends(rows):
    def how(prices, column):
        prices.iloc[-rows:, column] = np.nan

    return how


def test_a_stale_asset_is_refused_by_name_or_kept_as_it_is(results, longer):
    """The rest is fresh: an old price of one asset sells nothing."""
    shares = pd.Series({"A0": 1000.0, "A1": 1000.0, "A2": 1000.0, "A3": 1000.0})
    for rows, words in ((1, "1 session ago"), (7, "suspended"), (12, "delisted")):
        short = changed(longer, "A2", ends(rows))
        with pytest.raises(OrderError, match=f"A2 has its last price on .*{words}"):
            orders(results, short, shares=shares)
        with pytest.raises(OrderError, match="Nothing is ordered"):
            orders(results, short)  # it would be bought if its price were known
        found = orders(results, short, shares=shares, allow_stale=("A2",)).table
        assert found.loc["A2", "order"] == 0
        assert "last price on" in found.loc["A2", "reason"]
        last = short.prices["A2"].last_valid_index()
        assert found.loc["A2", "price_date"] == last
        assert found.loc["A2", "price"] == short.prices.at[last, "A2"]
        assert (found["order"].drop("A2") != 0).all()
    found = orders(results, changed(longer, "A2", ends(2)), max_age=pd.Timedelta("3D"))
    assert found.table.loc["A2", "order"] == 0  # 1/N does not hold what misses a price
    with pytest.raises(OrderError, match="the run does not know: ZZ"):
        orders(results, longer, allow_stale=("ZZ",))


def test_what_is_kept_and_what_is_bought_never_cost_more_than_there_is(results, longer):
    shares = pd.Series({"A2": 8000.0})
    short = changed(longer, "A2", ends(3))
    found = orders(results, short, shares=shares, allow_stale=("A2",), fractions=True)
    assert found.table.loc["A2", "order"] == 0
    assert found.cash >= 0
    assert found.table["after"].sum() <= 1
    assert "the cash suffices for" in found.table.loc["A0", "reason"]


class HalfWithoutA2(Strategy):
    lookback = 2

    def allocate(self, history, holdings):
        return pd.Series([0.2, 0.2, 0.0, 0.1], history.assets)


def test_beside_what_is_kept_no_more_is_bought_than_was_decided(results, longer):
    """Half is to be invested: a fifth in A2, which is to be sold and cannot be, counts in it."""
    short, shares = changed(longer, "A2", ends(3)), pd.Series({"A2": 1000.0})
    account = Account(shares, capital=5e3 * short.prices["A2"].ffill().iloc[-1])
    rules = OrderRules(anyway=True, lot=0.0, allow_stale=("A2",), accept_changes=True)
    today = short.dates[-1] + pd.Timedelta("1D")
    result = results["EqualWeight"]
    found = todays_orders(HalfWithoutA2(), result, short, account, today, rules).table
    np.testing.assert_allclose(found["weight"], [0.2, 0.2, 0.2, 0.1])  # A2 stays as it is
    np.testing.assert_allclose(found["before"], [0.0, 0.0, 0.2, 0.0])
    left = 1 - found["cost"].sum() / account.capital
    np.testing.assert_allclose(found["after"].sum(), 0.5 * left, rtol=1e-9)
    bought = found["after"].drop("A2")
    np.testing.assert_allclose(bought / bought.sum(), [0.4, 0.4, 0.2], rtol=1e-9)


def test_splits_and_rewritten_prices_since_the_run_are_refused(results, longer):
    def split(prices, column):
        prices.iloc[890:, column] /= 2

    def restated(prices, column):
        prices.iloc[:, column] /= 10

    def rewritten(prices, column):
        prices.iloc[500:, column] *= 1.01

    for how, words in (
        (split, "A1: possible split, .*2 for 1"),
        (restated, "A1 on .* times 0.1: a split, another currency"),
        (rewritten, "A1: the return of .* in the run and is"),
    ):
        odd = changed(longer, "A1", how)
        with pytest.raises(OrderError, match=f"changed since the run: {words}"):
            orders(results, odd)
        found = orders(results, odd, accept_changes=True)
        assert len(found.changes) == 1
    assert orders(results, longer).changes == []


def test_changed_code_and_versions_are_refused(results, panel, monkeypatch):
    monkeypatch.setattr(
        "engine.trading.orders.installed_versions", lambda: {"deqfolio": "9", "torch": "1"}
    )
    with pytest.raises(OrderError, match=r"deqfolio 0\.1\.0, now 9"):
        orders(results, panel)
    assert "deqfolio 0.1.0, now 9" in orders(results, panel, accept_changes=True).changes
    monkeypatch.undo()
    monkeypatch.setattr(
        "engine.trading.orders.described", lambda strategy: {"code": "another hash"}
    )
    with pytest.raises(OrderError, match="changed since the run: the code of EqualWeight"):
        orders(results, panel)


def test_a_day_of_the_past_is_decided_by_what_was_known_then(results, panel):
    then = panel.dates[-30]
    found = orders(results, panel, today=then)
    assert found.date == then
    cut = orders(results, panel.until(then), today=then)
    pd.testing.assert_frame_equal(found.table, cut.table)


def test_the_plan_says_on_which_days_it_decides(results, panel):
    decided = results["EqualWeight"].targets.index[-1]
    assert orders(results, panel, today=decided, anyway=False).date == decided
    with pytest.raises(NoDecision, match="next decision is on 2013-05-31") as error:
        orders(results, panel, anyway=False)
    assert error.value.next == pd.Timestamp("2013-05-31")
    sparse = Panel(panel.prices.drop(decided))
    with pytest.raises(OrderError, match="does not decide when the run did"):
        orders(results, sparse, today=panel.dates[-1])


def test_new_money_is_invested_and_old_money_taken_out(results, panel):
    prices = panel.prices.iloc[-1]
    shares = (250_000 / prices).round()
    today = panel.dates[-1]

    def asked(**account):
        return todays_orders(
            EqualWeight(), results["EqualWeight"], panel, Account(shares, **account), today,
            OrderRules(anyway=True),
        )  # fmt: skip

    for deposit in (50_000.0, -50_000.0):
        found = asked(cash=1000.0, deposit=deposit)
        assert found.capital == pytest.approx(1000 + deposit + float(shares @ prices))
        paid = found.table["value"].sum() + found.table["cost"].sum()
        assert found.cash == pytest.approx(1000 + deposit - paid)
        assert 0 <= found.cash < 1000
        assert np.sign(found.table["order"]).eq(np.sign(deposit)).all()
    with pytest.raises(OrderError, match="nothing is left to invest"):
        asked(cash=0.0, deposit=-2e6)
    with pytest.raises(OrderError, match="either the cash, or the capital"):
        asked()
    with pytest.raises(OrderError, match="does not borrow"):
        asked(cash=-10.0)


def test_new_money_is_no_reason_for_an_infeasible_turnover_limit(panel):
    limits = {"upper": 0.5, "lower": 0.02, "turnover_limit": 0.1}
    strategy = MinimumVariance(64, constraints=limits)
    result = backtest(strategy, panel, PLAN, Costs(), progress=False, ledger=False)[
        "MinimumVariance"
    ]
    shares = (result.weights.iloc[-1] * 1e6 / panel.prices.iloc[-1]).round()
    account = Account(shares, cash=300_000.0)
    found = todays_orders(
        strategy, result, panel, account, panel.dates[-1], OrderRules(anyway=True)
    )
    assert "is new money" in found.notes[0]
    assert found.cash < 1000
    given = Account(shares, cash=0.0, deposit=300_000.0)
    same = todays_orders(strategy, result, panel, given, panel.dates[-1], OrderRules(anyway=True))
    np.testing.assert_allclose(same.table["weight"], found.table["weight"], atol=1e-9)


def test_lots_and_small_orders(results, panel):
    shares = pd.Series({"A0": 2007.0, "A1": 2500.0, "A2": 2500.0, "A3": 2500.0})
    lots = orders(results, panel, shares=shares, lot=100.0, capital=2e6)
    assert (lots.table["wanted"] % 100 == 0).all()
    assert lots.cash >= 0
    some = orders(results, panel, shares=shares, capital=2e6)
    sizes = some.table["value"].abs()
    least = float(sizes.sort_values().iloc[1]) + 1
    found = orders(results, panel, shares=shares, minimum_order=least, capital=2e6)
    small = found.table[found.table["reason"].str.contains("below the minimum")]
    assert len(small) >= 2
    assert (small["order"] == 0).all()
    assert found.cash >= 0
    assert (found.table["value"].abs()[found.table["order"] != 0] >= least).all()


def test_limits_that_bind_are_those_of_the_decision_and_not_of_the_refit_before_it(panel):
    """VolatilityManaged learns its target from the decisions of the training rows."""
    plain = MinimumVariance(64, cap=0.3)
    strategies = {"plain": plain, "managed": VolatilityManaged(plain)}
    results = backtest(strategies, panel, PLAN, Costs(0.01), progress=False, ledger=False)
    one, two = (
        todays_orders(
            strategies[name], results[name], panel, Account(NOTHING, capital=1e6),
            panel.dates[-1] + pd.Timedelta("1D"), OrderRules(anyway=True),
        ).limits
        for name in strategies
    )  # fmt: skip
    assert [line["limit"] for line in one] == [line["limit"] for line in two]
    assert [line["held"] for line in one] == [line["held"] for line in two]
