from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from comparisons import same
from learned import Softmax
from markets import random_walks

from data_loaders import Panel
from engine import (
    AllocationError,
    BacktestResult,
    Costs,
    Training,
    WalkForward,
    backtest,
    cost_sweep,
    cross_validate,
    load_run,
    save_run,
)
from strategies import (
    DEQMeanVariance,
    EqualWeight,
    InverseVolatility,
    MinimumVariance,
    Strategy,
)

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
QUICK = Training(epochs=2, block=20, learning_rate=0.01)
ALL = [DEQMeanVariance(lookback=64, hidden=4, cap=0.5), EqualWeight(), InverseVolatility(64)]
ALL += [MinimumVariance(64, cap=0.5)]


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


@pytest.fixture(scope="module")
def results(panel):
    return backtest([*ALL, Softmax()], panel, PLAN, Costs(0.001), QUICK)


def test_all_strategies_walk_the_same_dates(results, panel):
    assert list(results) == [
        "DEQMeanVariance",
        "EqualWeight",
        "InverseVolatility",
        "MinimumVariance",
        "Softmax",
    ]
    folds = PLAN.folds(panel.dates, 64)
    decided = panel.dates[np.concatenate([fold.test for fold in folds])]
    for result in results.values():
        assert (result.targets.index == decided).all()
        assert result.net_returns.index[0] == panel.dates[folds[0].refit + 1]
        assert result.net_returns.index[-1] == panel.dates[-1]
        least = 0.5 if result.name == "DEQMeanVariance" else 1 - 1e-6  # it may hold cash
        assert result.targets.sum(axis=1).between(least, 1 + 1e-9).all()
        assert result.settings["simulation_difference"] < 1e-10
        assert result.settings["panel"]["fingerprint"] == panel.fingerprint


def test_equal_weight_earns_the_mean_return_at_daily_rebalancing(panel):
    plan = WalkForward(train="18M", refit="9M", rebalance="D", execution_lag=0)
    result = backtest(EqualWeight(), panel, plan, Costs(0.0))["EqualWeight"]
    expected = panel.returns.loc[result.net_returns.index[1:]].mean(axis=1)
    np.testing.assert_allclose(result.net_returns.iloc[1:], expected, atol=1e-14)


def test_a_learned_strategy_leaves_its_training_behind(results):
    result = results["DEQMeanVariance"]
    folds = len(result.folds)
    assert folds == 3
    assert set(result.training["fold"]) == set(range(folds))
    assert set(result.states) == {(fold, 0) for fold in range(folds)}
    kinds = set(result.solves.loc[result.solves["phase"] == "training", "solve"])
    assert kinds == {"fixed point", "adjoint", "mean-variance"}
    assert (result.solves["failures"] == 0).all()
    assert results["EqualWeight"].training.empty


@pytest.mark.parametrize("strategy", [*ALL, Softmax()], ids=lambda s: type(s).__name__)
def test_the_future_changes_nothing_before_it(panel, strategy):
    cut = 600
    rng = np.random.default_rng(9)
    prices = panel.prices.copy()
    noise = rng.normal(0, 0.05, prices.iloc[cut + 1 :].shape)
    prices.iloc[cut + 1 :] = 50 * np.exp(noise.cumsum(axis=0))
    before = backtest(strategy, panel, PLAN, Costs(), QUICK)
    after = backtest(strategy, Panel(prices), PLAN, Costs(), QUICK)
    name = type(strategy).__name__
    one, two = (run[name].targets.loc[: panel.dates[cut]] for run in (before, after))
    assert len(one) > 8
    assert (one.to_numpy() == two.to_numpy()).all()
    if name != "EqualWeight":
        assert (before[name].targets.to_numpy() != after[name].targets.to_numpy()).any()


def test_same_seed_same_weights_bit_for_bit(panel, results):
    again = backtest(ALL[0], panel, PLAN, Costs(0.001), QUICK)["DEQMeanVariance"]
    assert (again.targets.to_numpy() == results["DEQMeanVariance"].targets.to_numpy()).all()
    for fold, state in again.states.items():
        for name, value in state.items():
            assert torch.equal(value, results["DEQMeanVariance"].states[fold][name])


def test_saving_and_loading_loses_nothing(results, tmp_path):
    loaded = load_run(save_run(results, tmp_path / "run"))
    assert list(loaded) == list(results)
    for name, result in results.items():
        same(result, loaded[name])
    assert not list(tmp_path.rglob("*.pkl"))
    save_run({"EqualWeight": results["EqualWeight"]}, tmp_path / "run")  # replaces the larger run
    assert list(load_run(tmp_path / "run")) == ["EqualWeight"]


def test_a_failed_save_leaves_the_old_result(results, tmp_path):
    results["EqualWeight"].save(tmp_path / "kept")
    broken = replace(results["MinimumVariance"], settings={"cost": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(tmp_path / "kept")
    assert BacktestResult.load(tmp_path / "kept").name == "EqualWeight"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_result_overwrites_nothing_else(results, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(FileExistsError, match="no result"):
        results["EqualWeight"].save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no run.json"):
        load_run(tmp_path)


def test_holdings_are_drifted_to_the_decision(panel):
    seen = []

    class Spy(Strategy):
        lookback = 2

        def allocate(self, history, holdings):
            seen.append((history.dates[-1], holdings))
            return pd.Series([1.0, 0, 0, 0], history.assets) * 0.6

    result = backtest(Spy(), panel, PLAN, Costs(0.001))["Spy"]
    assert (seen[0][1] == 0).all()
    for date, holdings in seen[1:]:
        pd.testing.assert_series_equal(
            holdings, result.weights.loc[date], check_names=False, rtol=1e-12
        )


def test_a_cost_sweep_is_the_backtest_at_those_costs(results, panel):
    table = cost_sweep(results["InverseVolatility"], [0, 10, 25])
    assert table.index.tolist() == [0, 10, 25]
    assert table["cost_drag"].is_monotonic_increasing
    for points in (0, 25):
        run = backtest(InverseVolatility(64), panel, PLAN, Costs(points / 1e4), progress=False)
        # A lookback of 64 alone leaves the same decisions: the plan's train span is longer.
        net = run["InverseVolatility"].net_returns
        assert table.loc[points, "sharpe"] == pytest.approx(net.mean() / net.std() * 252**0.5)
        years = (net.index[-1] - net.index[0]).days / 365.25
        yearly = (1 + net).prod() ** (1 / years) - 1
        assert table.loc[points, "annual_return"] == pytest.approx(yearly)
        paid = run["InverseVolatility"].costs.sum() / years
        assert table.loc[points, "annual_cost"] == pytest.approx(paid)


def test_asset_returns_explain_gross_returns(results):
    result = results["MinimumVariance"]
    explained = (result.weights.shift() * result.asset_returns).sum(axis=1)
    np.testing.assert_allclose(explained, result.gross_returns, atol=1e-14)


def test_whole_shares_and_what_they_change(panel, tmp_path):
    costs = Costs(0.001, capital=5000.0)
    run = backtest(EqualWeight(), panel, PLAN, costs, whole_shares=True, progress=False)
    result = run["EqualWeight"]
    assert (result.orders["size"] % 1 == 0).all()
    assert result.settings["simulation_difference"] < 1e-10
    whole, fractions = result.net_returns, result.fractional_returns
    assert 1e-6 < (whole - fractions).abs().max() < 1e-2
    same(result, load_run(save_run(run, tmp_path))["EqualWeight"])
    plain = backtest(EqualWeight(), panel, PLAN, costs, progress=False)["EqualWeight"]
    pd.testing.assert_series_equal(plain.net_returns, fractions, check_names=False)


def test_strategies_that_say_so_sell_short_and_borrow(panel):
    class LongShort(Strategy):
        lookback, short, leverage = 1, True, 2.0

        def allocate(self, history, holdings):
            return pd.Series([1.0, 0.5, -0.25, -0.25], history.assets)

    costs = Costs(0.001, borrow=0.02, financing=0.05, cash_rate=0.01)
    result = backtest(LongShort(), panel, PLAN, costs, progress=False)["LongShort"]
    assert result.settings["simulation_difference"] < 1e-10
    assert (result.weights["A2"] < 0).all()
    plain = backtest(LongShort(), panel, PLAN, progress=False)["LongShort"]
    np.testing.assert_allclose(plain.gross_returns, result.gross_returns, atol=5e-5)
    # Half the portfolio is short, and no cash is left over or owed at a fill: -0.02 * 0.5 a year.
    paid = (plain.net_returns - result.net_returns).mean() * 252
    assert paid == pytest.approx(0.01, abs=1e-3)


def test_all_costs_are_charged_in_training_and_simulation_alike(panel):
    volume = pd.DataFrame(1e5, index=panel.dates, columns=panel.assets)
    traded = Panel(panel.prices, {"volume": volume})
    costs = Costs(0.001, 0.001, impact=1.0, fixed=1.0, minimum=2.0, cash_rate=0.02, capital=1e5)
    result = backtest(Softmax(), traded, PLAN, costs, QUICK, progress=False)["Softmax"]
    cheap = backtest(Softmax(), traded, PLAN, Costs(0.0), QUICK, progress=False)["Softmax"]
    assert result.settings["simulation_difference"] < 1e-10
    assert (result.training["loss"] > cheap.training["loss"] - 1e-12).iloc[0]
    assert (result.training["loss"].to_numpy() != cheap.training["loss"].to_numpy()).all()
    assert (result.orders["fees"] >= 2.0 - 1e-9).all()
    with pytest.raises(ValueError, match="needs the asset feature"):
        backtest(Softmax(), panel, PLAN, costs, QUICK)


class Fixed(Strategy):
    lookback = 1

    def __init__(self, weights=None):
        self.weights = weights

    def allocate(self, history, holdings):
        return self.weights

    def set_lookback(self, rows):
        self.lookback = rows
        return self


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (pd.Series([0.5, np.inf, 0, 0], list("0123")), "A1 are not finite"),
        (pd.Series([0.5, -0.1, 0, 0], list("0123")), "negative weights of A1"),
        (pd.Series([0.9, 0.9, 0, 0], list("0123")), "sum to 1.8"),
        (pd.Series([0.5, 0.5], list("01")), "not indexed by the assets: A2, A3"),
        (pd.Series([0.5, 0.5, 0, 0], list("3210")), "another order"),
        (pd.Series([0.5, 0.5, 0, 0], list("012X")), "not indexed by the assets: A3, AX"),
        (pd.Series([0.2] * 5, list("00123")), "one is there twice"),
        (pd.Series([0.5j, 0, 0, 0], list("0123")), "weights should be numbers, got complex128"),
        (np.ones(4) / 4, "must return a Series by asset, .*or None for no order, got ndarray"),
    ],
)
def test_wrong_weights_name_strategy_date_and_assets(panel, weights, message, tmp_path):
    if isinstance(weights, pd.Series):
        weights.index = [f"A{i}" for i in weights.index]
    with pytest.warns(RuntimeWarning, match=rf"Fixed failed .*on 2011-07-29: .*{message}"):
        backtest([EqualWeight(), Fixed(weights)], panel, PLAN, run_dir=tmp_path)
    kept = load_run(tmp_path)
    assert [name for name, each in kept.items() if each.failure is None] == ["EqualWeight"]


def test_rounding_of_single_precision_is_forgiven(panel):
    weights = pd.Series(np.float32([0.3, 0.3, 0.4000004, -4e-7]), panel.assets)
    (result,) = backtest(Fixed(weights), panel, PLAN, ledger=False).values()
    targets = result.targets.iloc[0]
    assert targets.sum() == pytest.approx(1, abs=1e-15)
    assert targets["A3"] == 0
    assert targets["A2"] == pytest.approx(0.4, abs=1e-6)


def test_leverage_beyond_what_a_strategy_says_is_refused(panel):
    class Short(Fixed):
        short, leverage = True, 1.5

    weights = pd.Series([1.0, -0.6, 0, 0], panel.assets)
    with pytest.raises(AllocationError, match="absolute weights sum to 1.6, the most is 1.5"):
        backtest(Short(weights), panel, PLAN)


def test_weights_in_assets_that_do_not_trade_are_refused(panel):
    prices = panel.prices.copy()
    prices.loc["2011-06":"2011-08", "A2"] = np.nan
    weights = pd.Series(0.25, panel.assets)
    with pytest.raises(AllocationError, match="weights in A2, which do not trade"):
        backtest(Fixed(weights), Panel(prices), PLAN)
    assert (backtest(EqualWeight(), Panel(prices), PLAN)["EqualWeight"].targets["A2"] == 0).any()


def test_bad_calls(panel):
    with pytest.raises(ValueError, match="too short a history"):
        backtest(EqualWeight(), panel.last(100))
    with pytest.raises(ValueError, match="no strategy"):
        backtest([], panel)
    with pytest.raises(TypeError, match="expected an instance of Strategy"):
        backtest({"mine": EqualWeight}, panel)
    with pytest.raises(TypeError, match=r"expected an instance of Strategy; write EqualWeight\(\)"):
        backtest(EqualWeight, panel, PLAN)
    with pytest.raises(TypeError, match=r"loss should be a Loss, like NegativeSharpe\(\), got 'Sh"):
        backtest(EqualWeight(), panel, PLAN, training=Training(loss="Sharpe"))
    with pytest.raises(TypeError, match="callbacks is a list of them, got 5"):
        backtest(EqualWeight(), panel, PLAN, callbacks=5)
    with pytest.raises(TypeError, match="callbacks holds 5, expected an instance of Callback"):
        backtest(EqualWeight(), panel, PLAN, callbacks=[5])
    with pytest.raises(TypeError, match="'str' is 'EqualWeight', expected an instance of Strategy"):
        backtest("EqualWeight", panel)
    with pytest.raises(TypeError, match="panel should be a Panel, got a DataFrame"):
        backtest(EqualWeight(), panel.prices)
    with pytest.raises(TypeError, match="costs should be a Costs, got a float"):
        backtest(EqualWeight(), panel, PLAN, 0.001)
    with pytest.raises(TypeError, match="plan should be a WalkForward, got a dict"):
        cross_validate(EqualWeight(), panel, {"train": "5Y"})
    with pytest.raises(ValueError, match="the panel has no rows"):
        backtest(EqualWeight(), panel.last(0))
    with pytest.raises(ValueError, match="threads is a whole number from 1 on, got 0"):
        backtest(EqualWeight(), panel, PLAN, threads=0)
    for wrong in (0, 2.5, "253", None, True):
        with pytest.raises(ValueError, match="lookback (should be|is a whole number).*, got"):
            backtest(Fixed().set_lookback(wrong), panel, PLAN)
    names = backtest([EqualWeight(), EqualWeight()], panel, PLAN)
    assert list(names) == ["EqualWeight", "EqualWeight 2"]
