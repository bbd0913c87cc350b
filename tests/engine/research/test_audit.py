"""check_strategy passes honest strategies and catches each way of cheating."""

import pickle

import numpy as np
import pandas as pd
import pytest
from audited_markets import LEARNED_PLAN, MARKET, PLAN, TRAINING, audited_market
from caught_cheats import CHEATS
from cheats import (
    SEEN,
    HoldsTheDead,
    Survivors,
    TimesTheMarket,
    TomorrowsVolume,
    Winners,
    WritesPrices,
)
from honest_rules import HONEST, WARNED

from data_loaders import Panel
from engine import Costs, StrategyCheckError, WalkForward, backtest, check_strategy
from engine.research.altered_markets import Futures
from engine.research.audit import Audit
from engine.runs.ledger import TrialLedger
from engine.walking.weight_checks import MarketChanged
from strategies import EqualWeight, LearnedStrategy, Strategy


def check(strategy, panel=MARKET):
    plan = LEARNED_PLAN if isinstance(strategy, LearnedStrategy) else PLAN
    return check_strategy(strategy, panel, plan, training=TRAINING, progress=False)


@pytest.mark.parametrize("strategy", HONEST, ids=lambda each: type(each).__name__)
def test_honest_strategies_pass(strategy):
    outcomes = check(strategy)
    assert outcomes["passed"].all()
    assert len(outcomes) >= 17
    warned = set(outcomes.index[outcomes["verdict"] == "warning"])
    name = type(strategy).__name__
    assert warned <= WARNED.get(name, set())
    if name != "RanksWithTies":  # whether two scores tie is up to the market
        assert warned == WARNED.get(name, set())
    declared = outcomes["verdict"] == "declared"
    assert declared.sum() == (strategy.uses_calendar or strategy.uses_price_level)


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda each: type(each).__name__)
def test_each_way_of_cheating_is_caught(cheat):
    SEEN.clear()
    name = CHEATS[cheat]
    before = MARKET.content_hash()
    if name.startswith("warning: "):
        outcomes = check(cheat)
        assert outcomes.loc[name.removeprefix("warning: "), "verdict"] == "warning"
        return
    with pytest.raises(StrategyCheckError) as caught:
        check(cheat)
    outcomes = caught.value.outcomes
    assert not outcomes.loc[name, "passed"], outcomes[~outcomes["passed"]]
    assert name in str(caught.value)
    assert MARKET.content_hash() == before  # it is checked on a copy


KINDS = {
    "features": {},
    "prices alone": {"features": False, "members": False, "holes": False},
    "holes": {"features": False, "members": False},
    "weekly": {"frequency": "W-FRI", "rows": 200},
    "months": {"frequency": "ME", "rows": 150},
    "hours": {"frequency": "h", "rows": 400},
    "one asset": {"assets": 1, "members": False},
    "many assets": {"assets": 30},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cheat", [TimesTheMarket, TomorrowsVolume, Survivors])
def test_one_day_ahead_is_seen_on_every_kind_of_panel(cheat, kind):
    settings = KINDS[kind]
    if cheat is TomorrowsVolume and not settings.get("features", True):
        pytest.skip("there is no volume")
    if kind == "one asset" and cheat is not TimesTheMarket:
        pytest.skip("one asset is held whatever is known")
    for seed in range(3):
        panel = audited_market(seed=seed, **settings)
        audit = Audit(cheat(), panel, PLAN, Costs(), TRAINING)
        audit.weights_are_valid()
        assert not audit.base.empty
        with pytest.raises(AssertionError, match="instead of"):
            audit.the_future_does_not_matter()


def test_a_future_differs_after_the_cut_and_only_there():
    futures = Futures(MARKET, seed=1)
    patterns = []
    for kind in range(4):
        panel = futures.after(150, kind)
        np.testing.assert_array_equal(panel.prices[:151], MARKET.prices[:151])
        np.testing.assert_array_equal(panel.members[:151], MARKET.members[:151])
        for name, frame in MARKET.asset_features.items():
            np.testing.assert_array_equal(panel.asset_features[name][:151], frame[:151])
        both = panel.prices.iloc[151:].notna() & MARKET.prices.iloc[151:].notna()
        assert not (panel.prices.iloc[151:] == MARKET.prices.iloc[151:])[both].any().any()
        volume = panel.asset_features["volume"]
        assert (volume != MARKET.asset_features["volume"]).iloc[151:].to_numpy().mean() > 0.95
        patterns.append(panel.prices.iloc[151:].notna().to_numpy())
    true = MARKET.prices.iloc[151:].notna().to_numpy()
    assert [np.array_equal(each, true) for each in patterns] == [True, True, False, False]


@pytest.mark.parametrize("shifted", ["return", "volume", "mood"])
def test_features_that_are_shifted_the_wrong_way_are_named(shifted):
    features, market = dict(MARKET.asset_features), MARKET.market_features
    if shifted == "return":
        features["signal"] = MARKET.returns.shift(-1)
    elif shifted == "volume":
        features["signal"] = features["volume"].shift(-1)
    else:
        market = market.assign(signal=market["mood"].shift(-1))
    panel = MARKET.replaced(asset_features=features, market_features=market)
    with pytest.raises(StrategyCheckError, match="shifted the wrong way.*'signal'"):
        check(EqualWeight(), panel)


def test_a_backtest_stops_where_a_strategy_writes_into_the_market():
    panel = pickle.loads(pickle.dumps(MARKET))
    with pytest.raises(MarketChanged, match="WritesPrices wrote into the memory of the market"):
        backtest([EqualWeight(), WritesPrices()], panel, PLAN, ledger=False)


def test_what_stops_trading_is_not_bought():
    panel = audited_market(members=False, holes=False)
    with pytest.raises(StrategyCheckError, match="which do not trade that day") as caught:
        check(HoldsTheDead(), panel)
    outcomes = caught.value.outcomes
    assert list(outcomes.index[~outcomes["passed"]]) == ["what_does_not_trade_is_not_held"]


class Halves(Winners):
    def allocate(self, history, holdings):
        return super().allocate(history, holdings) * (1 if history.dates[-1].year < 2043 else 0.5)


def test_a_rule_of_the_calendar_is_told_how_to_declare_it():
    with pytest.raises(StrategyCheckError, match="declare ``uses_calendar = True``"):
        check(Halves())


BARS = Panel(
    pd.DataFrame({"A": 100 * 1.001 ** np.arange(60)}, pd.date_range("2020", periods=60, freq="D"))
)


def test_a_cheat_that_cannot_run_fails_the_first_runs_only():
    class Broken(Strategy):
        lookback = 1

        def allocate(self, history, holdings):
            raise KeyError("nothing")

    with pytest.raises(StrategyCheckError, match="weights_are_valid") as caught:
        check_strategy(Broken(), BARS, WalkForward(train=20, refit=20, rebalance=5))
    assert len(caught.value.outcomes) == 5


def test_a_check_is_no_trial_and_makes_no_noise(caplog):
    caplog.set_level("INFO", logger="deqfolio")
    before = len(TrialLedger().trials())
    check(Winners())
    assert len(TrialLedger().trials()) == before
    assert not caplog.records


def test_progress_counts_the_checks_that_are_made(caplog):
    class InOrder(EqualWeight):
        equivariant = False

    with caplog.at_level("INFO", "deqfolio"):
        count = len(check_strategy(InOrder(), MARKET, PLAN))
    assert caplog.messages[-1] == f"check: {count} of {count} checks"
