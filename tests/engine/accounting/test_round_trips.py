"""Round trips: by hand, and those of vectorbt, which matches by average cost as well."""

import numpy as np
import pandas as pd
import pytest
from random_brackets import RandomBrackets, market

from data_loaders import Panel
from engine import Costs, WalkForward, backtest
from engine.accounting.simulation import load_vectorbt
from strategies import Strategy

TARGETS = [0.5, 0.5, 0.25, -0.25, 0.0, 0.5]
CLOSES = [100.0, 100, 110, 120, 120, 132, 110, 121]


class Steps(Strategy):
    lookback = 1
    short = True

    def allocate(self, history, holdings):
        day = len(pd.bdate_range("2020-01-01", history.dates[-1])) - 3
        target = TARGETS[day] if day != 1 else np.nan
        return pd.Series([target], history.assets)


def test_partial_exits_and_flips_by_hand():
    dates = pd.bdate_range("2020-01-01", periods=len(CLOSES))
    panel = Panel(pd.DataFrame({"A": CLOSES}, dates))
    plan = WalkForward(train=2, rebalance=1, refit=50, execution_lag=0)
    (result,) = backtest(Steps(), panel, plan, Costs(0.0), progress=False, ledger=False).values()
    # Decided at 110: 1e6 / 2 / 110 = 4545.45 shares. Left alone at 120, value 1,045,454.55; then
    # a quarter at 120: 2178.03 shares, so 2367.42 are sold at a gain of 10 each. At 132, after
    # 1,071,590.9: short of a quarter, 2029.53 shares, so 2178.03 are sold, at a gain of 22 each.
    # Covered at 110: a gain of 22 each. Then half of it at 121.
    value = [1e6, 1e6 + 45454.545454, 1e6 + 45454.545454]
    first = 5e5 / 110
    quarter = 0.25 * value[2] / 120
    after = value[2] + quarter * 12
    short = 0.25 * after / 132
    end = after + short * 22
    trips = result.round_trips
    assert list(trips["side"]) == ["long", "long", "short", "long"]
    np.testing.assert_allclose(trips["shares"], [first - quarter, quarter, short, 0.5 * end / 121])
    np.testing.assert_allclose(trips["entry_price"], [110, 110, 132, 121])
    np.testing.assert_allclose(trips["exit_price"], [120, 132, 110, 121])
    np.testing.assert_allclose(
        trips["profit"], [(first - quarter) * 10, quarter * 22, short * 22, 0], atol=1e-6
    )
    np.testing.assert_allclose(trips["return"], [10 / 110, 22 / 110, 22 / 132, 0], atol=1e-12)
    assert list(trips["bars"]) == [2, 3, 1, 0]
    assert list(trips["reason"]) == ["decision"] * 3 + ["open"]
    assert list(trips["exit_date"].isna()) == [False] * 3 + [True]
    np.testing.assert_allclose(trips["adverse"], 0, atol=1e-12)
    np.testing.assert_allclose(trips["favourable"], [10 / 110, 22 / 110, 22 / 132, 0], atol=1e-12)
    table = result.profit_by_asset({"A": "alpha"})
    assert table.loc["alpha", "round trips"] == 3
    assert table.loc["alpha", "won"] == 3
    assert table.loc["alpha", "profit"] == pytest.approx(end - 1e6)


@pytest.mark.parametrize(("fill", "short"), [("close", True), ("open", False)])
def test_they_are_those_of_vectorbt(fill, short):
    panel, _ = market(4, rows=120)
    plan = WalkForward(train=20, rebalance=3, refit=60, fill=fill)
    (result,) = backtest(
        RandomBrackets(4, short), panel, plan, Costs(0.002), progress=False, ledger=False
    ).values()
    trips = result.round_trips
    value = 1e6 * (1 + result.net_returns).prod()
    assert trips["profit"].sum() == pytest.approx(value - 1e6, rel=1e-8)
    assert result.profit_by_asset()["profit"].sum() == pytest.approx(value - 1e6, rel=1e-8)
    assert trips["fees"].sum() == pytest.approx(result.orders["fees"].sum())
    for asset, orders in result.orders.groupby("asset"):
        # vectorbt has one price a row: each order is a row of its own.
        signed = orders["size"].where(orders["side"] == "buy", -orders["size"]).to_numpy()
        theirs = load_vectorbt().Portfolio.from_orders(
            pd.Series(orders["price"].to_numpy()), size=signed, size_type="amount", fees=0.002,
            direction="both", init_cash=1e9, freq="1D",
        ).exit_trades.records  # fmt: skip
        ours = trips[trips["asset"] == asset]
        closed = theirs["status"] == 1
        done = ours[ours["reason"] != "open"]
        np.testing.assert_allclose(done["shares"], theirs["size"][closed], rtol=1e-7)
        np.testing.assert_allclose(done["entry_price"], theirs["entry_price"][closed], rtol=1e-8)
        np.testing.assert_allclose(done["exit_price"], theirs["exit_price"][closed])
        np.testing.assert_allclose(done["profit"], theirs["pnl"][closed], rtol=1e-6, atol=1e-3)
        last = ours[ours["reason"] == "open"]
        if len(last):  # at the last close, which follows from weights and shares
            assert last["exit_price"].item() == pytest.approx(panel.prices[asset].iloc[-1])
    bars = {date: row for row, date in enumerate(panel.dates)}
    for trip in trips[trips["exit_date"].notna()].head(20).itertuples():
        closes = panel.prices[trip.asset].loc[trip.entry_date : trip.exit_date].iloc[:-1]
        side = 1 if trip.side == "long" else -1
        moves = side * (
            np.append(closes, [trip.exit_price, trip.entry_price]) / trip.entry_price - 1
        )
        assert trip.adverse == pytest.approx(moves.min(), abs=1e-9)
        assert trip.favourable == pytest.approx(moves.max(), abs=1e-9)
        assert trip.bars == bars[trip.exit_date] - bars[trip.entry_date]


def test_of_nothing_traded_there_are_none():
    class Nothing(Strategy):
        lookback = 1

        def allocate(self, history, holdings):
            return None

    panel, _ = market(1, rows=60)
    plan = WalkForward(train=20, rebalance=3, refit=60)
    (result,) = backtest(Nothing(), panel, plan, progress=False, ledger=False).values()
    assert len(result.round_trips) == len(result.profit_by_asset()) == 0
