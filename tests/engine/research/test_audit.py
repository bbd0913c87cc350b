"""check_strategy passes honest strategies and catches each way of cheating."""

import numpy as np
import pandas as pd
import pytest
from markets import random_walks
from random_brackets import market

from engine import StrategyCheckError, Training, WalkForward, check_strategy
from engine.runs.ledger import TrialLedger
from strategies import (
    Bracket,
    DEQMeanVariance,
    EqualWeight,
    InverseVolatility,
    MinimumVariance,
    Strategy,
)
from strategies.baselines import normalised

MARKET = random_walks(900, 4)
PLAN = WalkForward(train="18M", refit="9M", rebalance="ME")


def check(strategy):
    return check_strategy(strategy, MARKET, PLAN, training=Training(epochs=1, block=20))


@pytest.mark.parametrize(
    "strategy",
    [
        EqualWeight(),
        InverseVolatility(64),
        MinimumVariance(64, cap=0.5),
        DEQMeanVariance(64, hidden=4, cap=0.5),
    ],
    ids=lambda s: type(s).__name__,
)
def test_honest_strategies_pass(strategy):
    outcomes = check(strategy)
    assert outcomes["passed"].all()
    assert len(outcomes) >= 9
    assert "permuting_assets_permutes_weights" in outcomes.index


class Winners(Strategy):
    """Weights in proportion to exp(score); what the score may see is up to the cheats below."""

    lookback = 10

    def score(self, history):
        return history.prices.iloc[-1] / history.prices.iloc[0] - 1

    def allocate(self, history, holdings):
        score = self.score(history).where(history.prices.iloc[-1].notna())
        return normalised(np.exp(20 * score.clip(-1, 1)))


class TomorrowsClose(Winners):
    def score(self, history):
        everything = history.prices.to_numpy().base  # the memory behind the view
        row = len(MARKET.until(history.dates[-1]))
        return pd.Series(everything[row] / everything[row - 1] - 1, history.assets)


class CentredAverage(Winners):
    def score(self, history):
        smooth = MARKET.prices.rolling(11, center=True).mean()
        return smooth.loc[history.dates[-1]] / smooth.loc[history.dates[0]] - 1


class ScalerOnAllData(Winners):
    def __init__(self, market=None):
        self.market = market

    def score(self, history):
        return super().score(history) / self.market.std()


CACHE: dict = {}


class GlobalCache(Winners):
    def score(self, history):
        return CACHE.setdefault(history.dates[-1], super().score(history))


class UnseededNoise(Winners):
    def score(self, history):
        return super().score(history) + np.random.default_rng().normal(0, 0.01) * np.arange(4)


class LeakyFit(Winners):
    seen = 0

    def fit(self, history):
        self.seen += len(history)
        return self

    def score(self, history):
        return super().score(history) * self.seen / 1e3


class PriceLevel(Winners):
    def score(self, history):
        return np.log(history.prices.iloc[-1]) / 10


class HoldsTheDead(Winners):
    def allocate(self, history, holdings):
        return pd.Series(1 / len(history.assets), history.assets)


class LikesTheFirst(Winners):
    equivariant = True

    def score(self, history):
        return super().score(history) + np.arange(len(history.assets))[::-1] / 50


class Leveraged(Winners):
    def allocate(self, history, holdings):
        return super().allocate(history, holdings) * 2


class ForgetsItsParameter(Winners):
    def __init__(self, power=2):
        self.power = power * 2


@pytest.mark.parametrize(
    ("cheat", "check_name", "says"),
    [
        (TomorrowsClose(), "the_future_does_not_matter", "it peeks"),
        (CentredAverage(), "the_calendar_does_not_matter", "looks things up by date"),
        (ScalerOnAllData(MARKET.returns), "parameters_are_settings", "may hold the future"),
        (GlobalCache(), "the_calendar_does_not_matter", "28 years later"),
        (UnseededNoise(), "runs_do_not_remember", "no result can be reproduced"),
        (LeakyFit(), "folds_do_not_remember", "leaks into the next"),
        (PriceLevel(), "the_unit_of_prices_does_not_matter", "after a split"),
        (HoldsTheDead(), "what_does_not_trade_is_not_held", "does not trade"),
        (LikesTheFirst(), "permuting_assets_permutes_weights", "treat all assets alike"),
        (Leveraged(), "weights_are_valid", "a broker would refuse"),
        (ForgetsItsParameter(), "parameters_round_trip", "another strategy"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Strategy) else "",
)
def test_each_way_of_cheating_is_caught(cheat, check_name, says):
    CACHE.clear()
    with pytest.raises(StrategyCheckError, match=says) as caught:
        check(cheat)
    assert not caught.value.outcomes.loc[check_name, "passed"]


def test_an_honest_score_passes():
    assert check(Winners())["passed"].all()


class Stops(Strategy):
    """Equal weights with a stop below yesterday's low, and in no asset that does not trade."""

    lookback = 2
    equivariant = True

    def low(self, history):
        return history.asset_features["low"].iloc[0] * 0.99

    def allocate(self, history, holdings):
        trades = history.last_members
        stop = np.minimum(self.low(history), history.prices.iloc[-1] * 0.99).where(trades)
        return Bracket(pd.Series(trades / 5, history.assets), stop=stop)


class TomorrowsLow(Stops):
    def low(self, history):
        everything = history.asset_features["low"].to_numpy().base
        rows = everything if everything.shape[1] == 5 else everything.T
        seen = len(BARS.until(history.dates[-1]))
        return pd.Series(rows[min(seen, len(rows) - 1)], history.assets)


BARS = market(3, rows=120, assets=5)[0]


def test_protective_orders_are_checked_as_well():
    plan = WalkForward(train=20, refit=60, rebalance=10)
    assert check_strategy(Stops(), BARS, plan)["passed"].all()
    with pytest.raises(StrategyCheckError, match="it peeks"):
        check_strategy(TomorrowsLow(), BARS, plan)


def test_a_check_is_no_trial_and_makes_no_noise(caplog):
    caplog.set_level("INFO", logger="deqfolio")
    before = len(TrialLedger().trials())
    check(InverseVolatility(65))
    assert len(TrialLedger().trials()) == before
    assert not caplog.records
