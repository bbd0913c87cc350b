"""The book that a strategy asks for is the simulation's own."""

import numpy as np
import pandas as pd
import pytest
from random_brackets import RandomBrackets, market

from engine import Costs, WalkForward, backtest, check_strategy
from strategies import Book, EqualWeight, NoTradeBand, Staggered, Strategy

SEEN: list[Book] = []
PLAN = {"train": 20, "rebalance": 3, "refit": 60}
FIXED = {"fixed": 3.0, "minimum": 5.0, "spread": 0.001, "capital": 5e4, "cash_rate": 0.03}


class Recorder(RandomBrackets):
    def allocate(self, history, holdings, book):
        SEEN.append(book)
        assert book.date == history.dates[-1]
        return super().allocate(history, holdings)


@pytest.mark.parametrize(
    ("lag", "fill", "costs"),
    [
        (1, "close", Costs(0.002)),
        (2, "open", Costs(0.001, borrow=0.02, **FIXED)),
        (0, "close", Costs(0.0)),
    ],
)
def test_at_each_decision_it_equals_the_result(lag, fill, costs):
    SEEN.clear()
    panel, _ = market(9)
    often = PLAN | {"rebalance": 1} if lag == 2 else PLAN
    plan = WalkForward(**often, execution_lag=lag, fill=fill)
    (result,) = backtest(
        Recorder(9, allow_short=True), panel, plan, costs, progress=False, ledger=False
    ).values()
    capital, orders = costs.capital or 1e6, result.orders
    value = capital * (1 + result.net_returns).cumprod()
    signed = orders["size"].where(orders["side"] == "buy", -orders["size"])
    moves = []
    for book in SEEN[:: max(1, len(SEEN) // 30)]:
        if book.date not in value.index:
            assert (book.value, book.cash) == (capital, capital)
            continue
        assert book.value == pytest.approx(value[book.date], rel=1e-10)
        close = panel.prices.loc[book.date]
        own = orders["decided"].eq(book.date) if lag == 0 else orders["decided"].eq(pd.NaT)
        done = signed[(orders["date"] <= book.date) & ~own]
        shares = done.groupby(orders["asset"]).sum().reindex(panel.assets).fillna(0.0)
        np.testing.assert_allclose(book.shares, shares, atol=1e-10 * book.value)
        if lag:
            weights = result.weights.loc[book.date]
            np.testing.assert_allclose(
                book.shares * close, weights * book.value, atol=1e-10 * book.value
            )
            assert book.cash == pytest.approx((1 - weights.sum()) * book.value, abs=1e-9 * capital)
        assert (book.entry_price.notna() == (book.shares != 0)).all()
        assert (book.entry_date.dropna() <= book.date).all()
        profit = book.shares * (close - book.entry_price)
        np.testing.assert_allclose(book.open_profit, profit.fillna(0.0))
        moves.append(book.value - capital - book.realised - book.open_profit.sum())
    assert len(SEEN) > 30
    if not costs.holding:  # otherwise interest and fees of borrowing are the difference
        np.testing.assert_allclose(moves, 0.0, atol=1e-8 * capital)
    pending = pd.concat([book.pending for book in SEEN if len(book.pending)])
    assert pending["limit"].notna().any()
    if lag == 2:
        assert pending["limit"].isna().any()
    levels = result.levels.set_index(["date", "asset"])["limit"]
    for row in pending.dropna().itertuples():
        assert row.limit == levels[row.decided, row.asset]  # and not the price of a later fill


class TakesProfit(Strategy):
    """A tenth in each asset, sold where it has earned 10%, by the book."""

    lookback = 1

    def allocate(self, history, holdings, book):
        gain = history.prices.iloc[-1] / book.entry_price - 1
        target = pd.Series(0.1, history.assets).where(history.last_members)
        return target.where(~(gain > 0.1), 0.0)


def test_it_works_inside_wrappers_in_processes_and_checks():
    panel, _ = market(2, rows=120)
    plan = WalkForward(20, 60, 10)
    check_strategy(TakesProfit(), panel, plan)
    plain, banded = backtest(
        {"plain": TakesProfit(), "banded": NoTradeBand(TakesProfit(), 1e-9)},
        panel, plan, progress=False, ledger=False,
    ).values()  # fmt: skip
    pd.testing.assert_series_equal(plain.net_returns, banded.net_returns, check_names=False)
    assert (plain.targets == 0).any().any()
    with pytest.raises(ValueError, match="asks for its book, and inside Staggered"):
        backtest(Staggered(TakesProfit()), panel, plan, progress=False, ledger=False)


def test_who_does_not_ask_pays_nothing(monkeypatch):
    def refused(*arguments):
        raise AssertionError

    monkeypatch.setattr("engine.accounting.holdings.PositionBook.at", refused)
    panel, _ = market(2, rows=60)
    strategies = [EqualWeight(), NoTradeBand(EqualWeight())]
    backtest(strategies, panel, WalkForward(20, 60, 10), progress=False, ledger=False)
