"""What all wrappers do: parameters, limits and errors of what is inside, learned or not."""

import pickle
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from learned import Softmax
from markets import random_walks
from random_brackets import RandomBrackets, market
from sklearn.base import clone

from data_loaders import Panel
from engine import AllocationError, Training, WalkForward, backtest, check_strategy
from engine.runs.experiment import TABLES, enter
from engine.trading.account import Account
from engine.trading.orders import OrderRules, todays_orders
from strategies import (
    Blend,
    Constraints,
    DEQMeanVariance,
    EqualWeight,
    InverseVolatility,
    LargestPositions,
    MinimumVariance,
    Momentum,
    NoTradeBand,
    Staggered,
    StopLoss,
    Strategy,
    VolatilityManaged,
    create_strategy,
)

PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")
TRAINING = Training(epochs=1, block=20, ensemble=2)
NEVER = 1e-15  # a band that leaves nothing alone


@pytest.fixture(scope="module")
def panel():
    return random_walks(880, 4)


def run(strategy, panel, plan=PLAN, **rest):
    (result,) = backtest(strategy, panel, plan, training=TRAINING, ledger=False, **rest).values()
    return result


@pytest.mark.parametrize(
    "strategy",
    [
        NoTradeBand(InverseVolatility(64), 0.03),
        NoTradeBand(VolatilityManaged(EqualWeight(), half_life=5), 0.02, "edge"),
        Blend({"a": NoTradeBand(EqualWeight()), "b": InverseVolatility(64)}, {"a": 0.3, "b": 0.5}),
        Staggered(InverseVolatility(64), 3),
        LargestPositions(InverseVolatility(64), 2, 0.3),
    ],
    ids=lambda s: s.shown_name(),
)
def test_wrappers_are_honest(strategy, panel):
    check_strategy(strategy, panel, WalkForward(train="18M", refit="12M", rebalance="ME"))


def test_a_learned_strategy_is_trained_as_if_it_stood_alone(panel, tmp_path):
    alone = run(Softmax(), panel)
    wrapper = Staggered(NoTradeBand(Softmax(), NEVER), 1)
    inside = run(wrapper, panel, run_dir=tmp_path / wrapper.shown_name())
    assert list(inside.states) == list(alone.states)
    for key, state in alone.states.items():
        assert all(bool((state[k] == v).all()) for k, v in inside.states[key].items())
    np.testing.assert_allclose(inside.targets, alone.targets, atol=1e-12)  # the mean of both
    assert inside.strategy["learned"]
    assert inside.training["epoch"].max() == 1
    assert not inside.sensitivity.empty
    again = run(wrapper, panel, run_dir=tmp_path / wrapper.shown_name())
    pd.testing.assert_frame_equal(again.targets, inside.targets, check_exact=True)
    banded = run(NoTradeBand(Softmax(), 0.1), panel)
    assert 0 < banded.targets.isna().mean(axis=None) < 1
    assert banded.turnover.sum() < 0.9 * alone.turnover.sum()


def test_the_target_volatility_of_a_network_is_that_of_its_own_portfolios(panel):
    managed = VolatilityManaged(Softmax(), half_life=5)
    both = {"managed": managed, "alone": Softmax()}
    results = backtest(both, panel, PLAN, training=TRAINING, ledger=False)
    result, alone = results["managed"], results["alone"]
    exposure = result.targets.sum(axis=1)
    assert exposure.max() == pytest.approx(1)
    assert 0.2 < (exposure < 1 - 1e-9).mean() < 0.8
    weights = result.targets.div(exposure, axis=0)
    np.testing.assert_allclose(weights, alone.targets, atol=1e-12)
    date = result.targets.index[-1]
    until = panel.until(date)
    orders = todays_orders(managed, result, until, Account(cash=1e6), date, OrderRules(lot=0.0))
    np.testing.assert_allclose(orders.table["weight"], result.targets.loc[date], atol=1e-12)


def test_a_wrapper_can_be_sent_to_another_process(panel):
    sent = pickle.loads(
        pickle.dumps(Staggered(VolatilityManaged(EqualWeight(), 0.1, half_life=5), 2))
    )
    here = run(Staggered(VolatilityManaged(EqualWeight(), 0.1, half_life=5), 2), panel).targets
    pd.testing.assert_frame_equal(run(sent, panel).targets, here, check_exact=True)


def test_parameters_are_reached_from_outside():
    nested = NoTradeBand(VolatilityManaged(MinimumVariance(64)), 0.05)
    copy = clone(nested).set_params(strategy__strategy__cap=0.5, strategy__half_life=8, width=0.1)
    assert nested.strategy.strategy.cap == 0.2
    assert copy.strategy.strategy.cap == 0.5
    assert copy.get_params()["strategy__half_life"] == 8
    assert (copy.lookback, nested.lookback) == (65, 121)
    blend = Blend({"one": EqualWeight(), "min": MinimumVariance(64)}, {"one": 0.5, "min": 0.25})
    copy = clone(blend).set_params(min__cap=0.7, one=Momentum(80))
    assert blend.strategies["min"].cap == 0.2
    assert (copy.strategies["min"].cap, copy.lookback) == (0.7, 80)
    assert copy.get_params()["min__cap"] == 0.7
    assert Staggered(EqualWeight()).equivariant
    assert not NoTradeBand(Softmax()).equivariant


def test_what_is_inside_says_how_much_may_be_held():
    short = MinimumVariance(constraints=Constraints(lower=-0.3, gross_limit=1.6))
    assert NoTradeBand(short).room() == (True, 1.6)
    assert VolatilityManaged(short, 0.1, max_exposure=1.5).room() == (True, 1.6 * 1.5)
    assert Blend({"a": short, "b": EqualWeight()}).room() == (True, 1.6)


def test_names_tell_wrappers_apart(panel):
    found = backtest(
        [EqualWeight(), NoTradeBand(EqualWeight()), NoTradeBand(EqualWeight(), 0.1)],
        panel, PLAN, ledger=False,
    )  # fmt: skip
    assert list(found) == ["EqualWeight", "NoTradeBand(EqualWeight)", "NoTradeBand(EqualWeight) 2"]
    described = found["NoTradeBand(EqualWeight) 2"].strategy
    assert described["parameters"]["width"] == 0.1
    assert described["parameters"]["strategy"] == "EqualWeight()"
    assert not described["learned"]


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (VolatilityManaged(EqualWeight(), max_exposure=None), "max_exposure should be above 0"),
        (DEQMeanVariance(max_exposure=None), "max_exposure should be above 0 up to 10, got None"),
        (DEQMeanVariance(solver=None), "solver should be one of active_set, qpth, got None"),
    ],
)
def test_none_stands_only_where_it_is_declared(strategy, said):
    with pytest.raises(ValueError, match=said):
        backtest(strategy, random_walks(60, 3))
    StopLoss(VolatilityManaged(EqualWeight(), target=None), stop=None).check_parameters()


def test_files_and_command_lines_spell_wrappers():
    inner = {"class": "VolatilityManaged", "strategy": {"class": "MinimumVariance", "cap": 0.5}}
    found = create_strategy("NoTradeBand", {"width": 0.1, "strategy": inner})
    assert repr(found) == repr(NoTradeBand(VolatilityManaged(MinimumVariance(cap=0.5)), 0.1))
    found = create_strategy("Staggered", {"strategy": "MinimumVariance", "strategy__cap": 0.3})
    assert repr(found) == repr(Staggered(MinimumVariance(cap=0.3)))
    parts = {"a": "EqualWeight", "b": {"class": "Momentum", "skip": 5}}
    found = create_strategy("Blend", {"strategies": parts, "shares": {"a": 0.4, "b": 0.6}})
    assert repr(found.strategies["b"]) == repr(Momentum(skip=5))
    with pytest.raises(ValueError, match="MinimumVariance: cap should be above 0"):
        create_strategy("Staggered", {"strategy": "MinimumVariance", "strategy__cap": -1.0})
    with pytest.raises(ValueError, match="unknown strategy 'Equal'"):
        create_strategy("Staggered", {"strategy": "Equal"})
    with pytest.raises(ValueError, match="needs strategy"):
        create_strategy("Staggered")


def test_settings_reach_what_is_inside():
    asked = {"strategies": [{"class": "NoTradeBand"}], **{name: {} for name in TABLES}}
    for text in ("strategy=MinimumVariance", "strategy.cap=0.5", "width=0.1"):
        enter(asked, f"NoTradeBand.{text}")
    inner = {"class": "MinimumVariance", "cap": 0.5}
    assert asked["strategies"] == [{"class": "NoTradeBand", "strategy": inner, "width": 0.1}]
    with pytest.raises(ValueError, match="first set NoTradeBand.other to the strategy that it is"):
        enter(asked, "NoTradeBand.other.cap=0.5")


class Says(Strategy):
    """Gives any answer."""

    lookback = 1
    ranges: ClassVar = {}

    def __init__(self, say, constraints=None):
        self.say = say
        self.constraints = constraints

    def allocate(self, history, holdings):
        return self.say(history, holdings)


def series(*weights):
    return lambda history, holdings: pd.Series([*weights], [*history.assets])


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (Says(lambda history, holdings: np.ones(4) / 4), "Says must return None, or weights"),
        (Says(lambda h, _: pd.Series(0.25, h.assets[::-1])), "Says must return None, or weights"),
        (Says(series(0.8, 0.4, 0, 0)), "Says gives weights that sum to 1.2"),
        (Says(series(0.8, -0.1, 0, 0)), "Says gives negative weights"),
        (Says(series(0.8, 0.1, 0.1, 0), {"upper": 0.5}), "Says breaks its own limits: A0 at 80 %"),
    ],
)
def test_an_answer_that_cannot_be_held_is_refused_before_it_is_changed(panel, inside, message):
    with pytest.raises(AllocationError, match=message):
        run(VolatilityManaged(inside, target=1e-3), panel)


def test_what_cannot_be_wrapped_is_refused_at_once(panel):
    with pytest.raises(
        ValueError, match=r"NoTradeBand wraps a strategy, like EqualWeight\(\), got"
    ):
        run(NoTradeBand(EqualWeight), panel)
    with pytest.raises(ValueError, match="Blend wraps strategies by name, like"):
        run(Blend([EqualWeight()]), panel)
    with pytest.raises(ValueError, match="holds 2 learned strategies"):
        run(Blend({"a": Softmax(), "b": Softmax()}), panel)
    with pytest.raises(ValueError, match="cap should be above 0"):
        run(Staggered(NoTradeBand(MinimumVariance(cap=0.0))), panel)
    limits = Constraints(caps={"TSLA": 0.1})
    with pytest.raises(ValueError, match="not among the assets: TSLA"):
        run(NoTradeBand(MinimumVariance(64, constraints=limits)), panel)
    with pytest.raises(TypeError, match="is trained by the engine"):
        NoTradeBand(Softmax()).fit(panel)


class Counting(Strategy):
    """Holds ever more of the first asset, by what it remembers."""

    lookback = 1

    def allocate(self, history, holdings):
        self.count = getattr(self, "count", 0) + 1
        if np.isnan(history.prices.iloc[-1, 0]):
            return None
        return pd.Series([self.count / 100, *[0.0] * (len(holdings) - 1)], history.assets)


class CountingFit(Counting):
    def fit(self, history):
        return self


def test_a_rule_without_fit_remembers_from_one_fold_to_the_next(panel):
    expected = np.arange(1, 26) / 100
    found = run(Counting(), panel).targets["A0"]
    folds = run(CountingFit(), panel)
    np.testing.assert_allclose(found, expected[: len(found)])
    firsts = folds.targets["A0"].loc[folds.folds["test_start"].iloc[1:]]
    assert len(firsts) == 2
    assert (firsts == 0.01).all()  # fitted again, it restarts
    inside = run(NoTradeBand(Counting(), NEVER), panel).targets["A0"]
    np.testing.assert_allclose(inside, expected[: len(inside)])
    again = Counting()
    run(again, panel)
    assert not hasattr(again, "count")  # each run restarts
    check_strategy(Counting(), panel, PLAN)


def test_a_suspended_asset_in_a_managed_portfolio_is_left_alone(panel):
    prices = panel.prices.copy()
    prices.iloc[600:680, 1] = np.nan
    keep = Says(lambda history, held: held if held.any() else pd.Series(0.25, history.assets))
    result = run(VolatilityManaged(keep, 0.05, half_life=5), Panel(prices))
    halted = result.targets.loc[prices.index[600] : prices.index[679]]
    assert len(halted) >= 3
    assert halted["A1"].isna().all()
    assert halted["A0"].notna().any()


@pytest.mark.parametrize(
    "wrapper",
    [
        NoTradeBand(RandomBrackets(8, True), 1e-12),
        LargestPositions(RandomBrackets(8, True)),
        VolatilityManaged(RandomBrackets(8, True), target=1e9),
    ],
    ids=lambda each: type(each).__name__,
)
def test_protective_orders_inside_a_wrapper_that_changes_nothing_are_those_of_the_strategy(wrapper):
    panel, _ = market(8)
    plan = WalkForward(train=20, rebalance=3, refit=60, execution_lag=0)
    inner = RandomBrackets(8, True)
    a, b = backtest(
        {"alone": inner, "wrapped": wrapper}, panel, plan, progress=False, ledger=False
    ).values()
    assert set(a.orders["reason"]) > {"stop", "take_profit"}
    pd.testing.assert_frame_equal(a.orders, b.orders, rtol=1e-9)
    pd.testing.assert_frame_equal(a.levels, b.levels)
