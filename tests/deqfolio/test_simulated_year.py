"""A year of the daily job on a growing panel, with what happens in a year."""

import numpy as np
import pandas as pd
import pytest

from data_loaders import Panel
from deqfolio.trading import Chosen, _of_the_day
from engine import Costs, WalkForward, backtest
from engine.trading.account import Account, OrderError
from engine.trading.job import Job
from engine.trading.orders import OrderRules
from engine.trading.todays_decision import NoDecision
from strategies import Strategy

COSTS = Costs(commission=0.001, fixed=1.0, capital=100_000.0)
BEFORE, YEAR = 520, 252
SPLIT, LATE, CHANGED, KILLED, DEPOSIT, DELISTED = 2, 3, 4, 5, 6, 7  # decisions, by number


class Tilted(Strategy):
    """A fifth in each asset, less up to a tenth of it by its last return; the dead are kept."""

    lookback = 22

    def allocate(self, history, holdings):
        moved = history.prices.iloc[-1] / history.prices.iloc[0] - 1
        weights = 0.2 - 0.02 * moved.rank(pct=True)
        return weights.where(history.trades_throughout)


@pytest.fixture(scope="module")
def market():
    """Five assets on the sessions of an exchange; the last is delisted late in the year."""
    days = pd.bdate_range("2018-01-01", periods=900)
    closed = {(1, 1), (7, 4), (12, 25), (5, 1)}
    days = days[[(each.month, each.day) not in closed for each in days]][: BEFORE + YEAR]
    rng = np.random.default_rng(4)
    moves = rng.normal(3e-4, 0.012, (len(days), 5))
    prices = pd.DataFrame(50 * np.exp(moves.cumsum(axis=0)), days, list("ABCDE")).round(4)
    decisions = WalkForward(train=250, rebalance="ME").decisions(days)
    own = decisions[decisions >= BEFORE]
    prices.iloc[own[DELISTED] - 15 :, 4] = np.nan
    return Panel(prices), own


def plan(train):
    return WalkForward(train=train, refit="5Y", rebalance="ME", execution_lag=0)


@pytest.fixture(scope="module")
def result(market):
    """The run that the job begins with: it ends before the year."""
    known = market[0].rows(0, BEFORE)
    return backtest(Tilted(), known, plan(250), COSTS, progress=False, ledger=False)["Tilted"]


@pytest.fixture(scope="module")
def year(market):
    """The backtest over the same year."""
    panel, own = market
    return backtest(
        Tilted(), panel, plan(int(own[0])), COSTS, progress=False, ledger=False, whole_shares=True
    )["Tilted"]


def loop(panel, targets, deposits):
    """Value at the end of whole shares and cash, by a plain loop over the decisions."""
    cash, shares = 100_000.0, np.zeros(5)
    prices = panel.prices.ffill()
    for date, target in targets.iterrows():
        price = prices.loc[date].to_numpy()
        cash += deposits.get(date, 0.0)
        value = cash + shares @ price
        kept = target.isna().to_numpy()
        weights = target.fillna(0.0).to_numpy()

        def fees(new, old=shares, price=price):
            traded = np.abs(new - old) * price
            return (0.001 * traded + 1.0 * (traded > 0)).sum()

        cost = 0.0
        for _ in range(200):
            cost = fees(np.where(kept, shares, weights * (value - cost) / price))
        new = np.where(kept, shares, np.floor(weights * (value - cost) / price + 1e-9))
        cash, shares = value - new @ price - fees(new), new
        assert cash > 0
    return cash + shares @ prices.iloc[-1].to_numpy()


def value_of(job, panel):
    account = job.account()
    last = panel.prices.ffill().iloc[-1]
    return account.cash + float((account.shares * last.reindex(account.shares.index)).sum())


def test_the_loop_is_the_backtest(market, year):
    earned = 100_000 * float((1 + year.net_returns).prod())
    assert loop(market[0], year.targets, {}) == pytest.approx(earned, abs=0.005)


def test_a_year_of_the_job_is_the_backtest_of_the_year(market, result, year, tmp_path, monkeypatch):
    """Refused is what should be, a day run twice is one day, and to the cent it is the backtest."""
    panel, own = market
    path, dates = tmp_path / "job.db", panel.dates
    deposited = {dates[own[DEPOSIT]]: 20_000.0}
    told = []

    def run(known, today, account=None, **rules):
        account = account or Account()
        chosen = Chosen(tmp_path, Tilted(), result, known)
        return _of_the_day(path, chosen, account, OrderRules(**rules), today)

    def refused(match, *arguments, **rules):
        before = path.read_bytes()
        with pytest.raises(OrderError, match=match):
            run(*arguments, **rules)
        assert path.read_bytes() == before
        told.append(match)

    with Job(path).day() as job:
        job.state_account(Account(cash=100_000.0), "2019-12-01")
    kept = {}
    for row in range(BEFORE, len(panel)):
        today, known = dates[row], panel.rows(0, row + 1)
        number = int(np.searchsorted(own, row))
        if row not in own:
            if row % 2:
                with pytest.raises(NoDecision):
                    run(known, today, **kept)
            continue
        if number == SPLIT:  # a vendor's error, mended later in the day
            wrong = known.prices.copy()
            wrong.iloc[-3:, 1] /= 2
            refused("B: possible split", Panel(wrong), today)
        if number == LATE:
            late = known.prices.copy()
            late.iloc[-1, 2] = np.nan
            refused("C has its last price on .*, 1 session ago", Panel(late), today)
            refused("which is stale on", panel.rows(0, row), today + pd.Timedelta("1D"))
        if number == CHANGED:
            monkeypatch.setattr("engine.trading.orders.described", lambda _: {"code": "new"})
            refused("changed since the run: the code of Tilted", known, today)
            assert run(known, today, accept_changes=True)["made with"]["accepted changes"]
        if number == KILLED:
            with monkeypatch.context() as patch:
                patch.setattr(Job, "add_orders", lambda *_: (_ for _ in ()).throw(SystemExit))
                with pytest.raises(SystemExit):
                    run(known, today)
            with Job(path).day() as job:
                assert job.orders_of(today) is None
        if number == DELISTED:
            refused("E has its last price on .*: delisted", known, today)
            kept["allow_stale"] = ("E",)
        given = Account(deposit=deposited.get(today, 0.0))
        found = run(known, today, given, **kept)
        assert run(known, today, given, **kept) == found  # the same orders, once
        with Job(path).day() as job:
            assert job.open_orders() is not None
            job.fill(None)
    assert len(told) == 5
    with Job(path).day() as job:
        decided = [pd.Timestamp(when) for _, when, _ in job.events("orders")]
        assert decided == list(year.targets.index)
        assert value_of(job, panel) == pytest.approx(
            loop(panel, year.targets, deposited), abs=0.005
        )


def test_without_a_deposit_it_is_the_backtest_to_the_cent(market, result, year, tmp_path):
    panel, own = market
    path = tmp_path / "job.db"
    with Job(path).day() as job:
        job.state_account(Account(cash=100_000.0), "2019-12-01")
    for number, row in enumerate(map(int, own)):
        chosen = Chosen(tmp_path, Tilted(), result, panel.rows(0, row + 1))
        kept = ("E",) if number >= DELISTED else ()
        _of_the_day(path, chosen, Account(), OrderRules(allow_stale=kept), panel.dates[row])
        with Job(path).day() as job:
            job.fill(None)
    with Job(path).day() as job:
        earned = 100_000 * float((1 + year.net_returns).prod())
        assert value_of(job, panel) == pytest.approx(earned, abs=0.005)
