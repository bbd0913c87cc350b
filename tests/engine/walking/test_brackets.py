"""Answers with protective orders, from the strategy to the result."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from bracket_books import keep_bracket_books
from random_brackets import RandomBrackets, answer, market, sound

from data_loaders import Panel
from engine import AllocationError, BacktestResult, Costs, WalkForward, backtest, cost_sweep
from strategies import Bracket, Strategy

PLAN = {"train": 20, "rebalance": 3, "refit": 60}


@pytest.mark.parametrize(
    ("lag", "fill", "short", "workers"),
    [(1, "close", False, None), (1, "open", True, 2), (0, "close", True, None)],
)
def test_a_backtest_is_what_the_loop_does(lag, fill, short, workers, tmp_path):
    panel, bars = market(8)
    plan = WalkForward(**PLAN, execution_lag=lag, fill=fill)
    costs, strategy = Costs(0.002), RandomBrackets(8, short)
    result = backtest(strategy, panel, plan, costs, progress=False, workers=workers, ledger=False)[
        "RandomBrackets"
    ]

    def asked(row):
        return lambda held: sound(*answer(8, row, held, bars[3][row], short), held, bars[3][row])

    rows = [row for row in plan.decisions(panel.dates) if row + lag < len(panel) and row >= 20]
    first = panel.dates.get_loc(result.targets.index[0])
    rows = [row for row in rows if row >= first]
    value, orders, holdings = keep_bracket_books(
        bars, {int(row): asked(int(row)) for row in rows}, lag, asdict(costs), fill == "open"
    )
    assert len(result.targets) == len(rows)
    start = panel.dates.get_loc(result.net_returns.index[0])
    net = np.append(value[start] / 1e6, value[start + 1 :] / value[start:-1]) - 1
    np.testing.assert_allclose(result.net_returns, net, atol=1e-10)
    signed = result.orders["size"].where(result.orders["side"] == "buy", -result.orders["size"])
    np.testing.assert_allclose(signed, [each[3] for each in orders], rtol=1e-8)
    np.testing.assert_allclose(result.orders["price"], [each[2] for each in orders], rtol=1e-12)
    assert set(result.orders["reason"]) == {"decision", "limit", "stop", "trailing", "take_profit"}

    assert list(result.levels) == ["date", "asset", "stop", "trailing", "take_profit", "limit"]
    for row in rows:
        _, named = asked(row)(holdings[row])
        found = result.levels[result.levels["date"] == panel.dates[row]].set_index("asset")
        named = {"ABCD"[k]: v for k, v in named.items() if not np.isnan(list(v.values())).all()}
        expected = pd.DataFrame.from_dict(named, orient="index", dtype=float)
        if len(named):
            expected = expected.sort_index().rename_axis("asset")
            pd.testing.assert_frame_equal(found.drop(columns="date"), expected)
        else:
            assert found.empty
    again = BacktestResult.load(result.save(tmp_path / "saved"))
    pd.testing.assert_frame_equal(again.levels, result.levels)
    pd.testing.assert_frame_equal(again.orders, result.orders, check_dtype=False)
    with pytest.raises(ValueError, match="other prices than closes"):
        cost_sweep(result)


class Answers(Strategy):
    """Always the same answer, with levels as fractions of the close of the first asset."""

    lookback = 2
    short = True

    def __init__(self, weights, **levels):
        self.weights = weights
        self.levels = levels

    def get_params(self, deep=True):
        return {"weights": self.weights, **self.levels}

    def allocate(self, history, holdings):
        close = history.prices.iloc[-1, 0]
        levels = {
            name: {
                k: v if name == "trailing" or isinstance(v, str) else v * close
                for k, v in each.items()
            }
            if isinstance(each, dict)
            else each
            for name, each in self.levels.items()
        }
        weights = None if self.weights is None else pd.Series(self.weights, history.assets)
        return Bracket(weights, **levels)


LONG, SHORT = [1.0, 0, 0, 0], [-1.0, 0, 0, 0]
REFUSED = [
    (LONG, {"stop": {"A": 1.01}}, "stop of A is on the wrong side: of a long position it is below"),
    (LONG, {"stop": {"A": 1.0}}, "wrong side"),
    (SHORT, {"stop": {"A": 0.99}}, "of a short position it is above the close"),
    (LONG, {"take_profit": {"A": 0.99}}, "take_profit of A is on the wrong side.* above the close"),
    (SHORT, {"take_profit": {"A": 1.01}}, "below the close"),
    (LONG, {"stop": {"A": 0.96}, "limit": {"A": 0.95}}, "below the limit"),
    (LONG, {"stop": {"AA": 0.9}}, "names AA, which the panel does not have; did you mean 'A'"),
    (LONG, {"stop": 0.9}, "a Series or a dict by asset, got float"),
    (LONG, {"stop": {"A": "low"}}, "stop of A should be a number, got 'low'"),
    (LONG, {"stop": {"A": -1.0}}, "stop of A should be above 0"),
    (LONG, {"trailing": {"A": 1.5}}, "trailing of A should be between 0 and 1, got 1.5"),
    (LONG, {"limit": {"A": np.inf}}, "limit of A should be above 0"),
]  # fmt: skip


@pytest.mark.parametrize(("weights", "levels", "why"), REFUSED)
def test_what_no_order_could_mean_is_refused(weights, levels, why):
    panel, _ = market(1, rows=60)
    with pytest.raises(AllocationError, match=f"Answers on 2020.*{why}"):
        backtest(
            Answers(weights, **levels), panel, WalkForward(**PLAN), progress=False, ledger=False
        )


def test_levels_that_could_mean_something_are_taken():
    panel, _ = market(1, rows=60)
    for weights, levels in [
        (LONG, {"take_profit": {"A": 0.98}, "limit": {"A": 0.95}}),  # of what is bought at 95
        (LONG, {"stop": {"A": 0.9, "B": 2.0}}),  # nothing of B is held
        (LONG, {"stop": pd.Series({"A": 0.1}), "trailing": None}),
        (None, {"stop": {"A": 0.9}}),
    ]:
        plan = WalkForward(train=20, rebalance=panel.dates[30:31])
        backtest(Answers(weights, **levels), panel, plan, progress=False, ledger=False)


def test_a_panel_without_bars_is_refused():
    panel, _ = market(1, rows=60)
    bare = Panel(panel.prices, {"open": panel.asset_features["open"]})
    strategy = Answers(LONG, stop={"A": 0.9})
    with pytest.raises(
        AllocationError, match="open, high and low; the panel has no high and no low; load"
    ):
        backtest(strategy, bare, WalkForward(**PLAN), progress=False, ledger=False)
