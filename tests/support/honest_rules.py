"""Strategies that look unusual, and are honest."""

import functools
from collections import deque

import numpy as np
import pandas as pd
import torch
from audited_markets import FOLDER
from caught_cheats import Linear
from cheats import Winners
from dateutil.easter import easter
from sklearn.linear_model import LinearRegression

from strategies import (
    Blend,
    Bracket,
    DEQMeanVariance,
    EqualWeight,
    InverseVolatility,
    LargestPositions,
    LearnedStrategy,
    MinimumVariance,
    Momentum,
    NoTradeBand,
    RiskParity,
    StopLoss,
    Strategy,
    VolatilityManaged,
)


def equal(history):
    members = history.last_members
    return pd.Series(members / max(members.sum(), 1), history.assets)


class NeverTrades(Strategy):
    lookback = 1

    def allocate(self, history, holdings):
        return None


class AllInCash(Strategy):
    lookback = 1

    def allocate(self, history, holdings):
        return pd.Series(0.0, history.assets)


class BuysOnce(Strategy):
    lookback = 2

    def allocate(self, history, holdings):
        return equal(history) if (holdings == 0).all() else None


class LeavesSomeAlone(Strategy):
    lookback = 2

    def allocate(self, history, holdings):
        return equal(history).where(history.last_members & (np.arange(len(holdings)) > 0)) / 2


class NoMondays(Strategy):
    lookback = 2

    def allocate(self, history, holdings):
        return None if history.dates[-1].dayofweek == 0 else equal(history)


class SellInMay(Strategy):
    lookback = 2

    def allocate(self, history, holdings):
        return equal(history) * float(history.dates[-1].month not in range(5, 11))


class AroundEaster(Strategy):
    """Less in spring: a moving feast is another date 28 years later."""

    lookback = 2
    uses_calendar = True

    def allocate(self, history, holdings):
        now = history.dates[-1]
        near = abs((now - pd.Timestamp(easter(now.year))).days) < 60
        return equal(history) * (0.5 if near else 1.0)


class SinceTheLaw(Strategy):
    lookback = 2
    uses_calendar = True

    def allocate(self, history, holdings):
        return equal(history) * (0.5 if history.dates[-1] >= pd.Timestamp("2015-09-01") else 1.0)


class NoPennyStocks(Strategy):
    lookback = 2
    uses_price_level = True

    def allocate(self, history, holdings):
        return equal(history).where(history.prices.iloc[-1] >= 95, 0.0)


class CacheOfAnInstance(Winners):
    """Scores are computed once for each date."""

    def score(self, history):
        if not hasattr(self, "kept_"):
            self.kept_ = {}
        return self.kept_.setdefault(history.dates[-1], super().score(history))


CACHE: dict = {}


class CacheOfTheModule(Winners):
    def score(self, history):
        return CACHE.setdefault(history.dates[-1], super().score(history))


@functools.lru_cache
def quarter(date):
    return (date.month - 1) // 3


class CachedFunction(Strategy):
    lookback = 2

    def allocate(self, history, holdings):
        return equal(history) * (0.25 + 0.25 * quarter(history.dates[-1]))


COUNT = 0


class CountsInAGlobal(Winners):
    """For a log; it decides nothing."""

    def allocate(self, history, holdings):
        global COUNT
        COUNT += 1
        return super().allocate(history, holdings)


class Smooths(Strategy):
    """Keeps its last decisions, as a rule without ``fit`` may."""

    lookback = 5

    def allocate(self, history, holdings):
        if not hasattr(self, "past_"):
            self.past_ = deque(maxlen=3)
        growth = (history.prices.iloc[-1] / history.prices.iloc[0]).fillna(0.0)
        self.past_.append(growth.rank() / 10)
        mean = sum(self.past_) / len(self.past_)
        return mean.where(history.last_members, 0.0).clip(0, 0.25)


class SeededDice(Strategy):
    lookback = 2

    def allocate(self, history, holdings):
        rng = np.random.default_rng(7)
        return equal(history) * rng.random(len(holdings))


class DiceOfTheDate(Strategy):
    """The same draw on the same day of the month: it is no knowledge."""

    lookback = 2

    def allocate(self, history, holdings):
        rng = np.random.default_rng(history.dates[-1].day)
        return equal(history) * rng.random(len(holdings))


class RanksWithTies(Strategy):
    """Rounded scores: a billionth may decide, and is a warning at most."""

    lookback = 5

    def allocate(self, history, holdings):
        score = (history.prices.iloc[-1] / history.prices.iloc[0]).round(1).rank(method="first")
        return (score == score.max()).where(history.last_members, False).astype(float)


SECTORS = {"A0": "banks", "A1": "oil", "A2": "oil", "A3": "banks"}


class SectorNeutral(Strategy):
    """By names: a warning."""

    lookback = 2

    def allocate(self, history, holdings):
        sectors = pd.Series([SECTORS.get(name, "other") for name in history.assets])
        count = sectors.map(sectors.value_counts()).to_numpy()
        return equal(history) / count


SETTINGS = FOLDER / "settings.json"
SETTINGS.write_text("0.7")


class ReadsItsSettings(Strategy):
    """A file: a warning."""

    lookback = 2

    def allocate(self, history, holdings):
        return equal(history) * float(SETTINGS.read_text())


class LongAndShort(Strategy):
    lookback, short, leverage = 10, True, 2.0

    def allocate(self, history, holdings):
        score = (history.prices.iloc[-1] / history.prices.iloc[0] - 1).clip(-0.2, 0.2)
        return score.where(history.last_members, 0.0).fillna(0.0)


class WithStops(Strategy):
    lookback = 2

    def allocate(self, history, holdings):
        low = history.asset_features["low"].iloc[-1] * 0.95
        weights = equal(history)
        return Bracket(weights, stop=low.where(weights > 0))


class AsksForTheBook(Strategy):
    lookback = 2

    def allocate(self, history, holdings, book):
        invested = holdings.sum()
        return None if invested > 0.5 else equal(history)


class AsksForThePlan(Strategy):
    lookback = 2

    def fit(self, history, plan):
        self.share_ = 1 / (1 + plan.execution_lag)
        return self

    def allocate(self, history, holdings):
        return equal(history) * self.share_


class FitsItsOwnModel(Strategy):
    """A regression on the training rows, tomorrow's return on today's, as it must be."""

    lookback = 3

    def fit(self, history):
        returns = history.returns.fillna(0.0)
        self.model_ = LinearRegression().fit(returns.iloc[:-1], returns.iloc[1:])
        return self

    def allocate(self, history, holdings):
        told = self.model_.predict(history.returns.iloc[-1:].fillna(0.0))[0]
        return equal(history) * np.where(told > np.median(told) - 1e-12, 1.0, 0.2)


class TradesOnVolume(Strategy):
    lookback = 5

    def allocate(self, history, holdings):
        volume = history.asset_features["volume"].mean().where(history.last_members, 0.0)
        return volume / volume.sum()


class FollowsTheMood(Strategy):
    lookback = 3

    def allocate(self, history, holdings):
        return equal(history) * float(history.market_features["mood"].iloc[-1] > -0.5)


class CopiesAndWrites(Winners):
    """Works on copies, and spoils them."""

    def score(self, history):
        prices = history.prices.to_numpy(copy=True)
        found = pd.Series(prices[-1] / prices[0] - 1, history.assets)
        prices[:] = 0
        return found


class LinearNetwork(LearnedStrategy):
    lookback = 10

    def build(self, inputs):
        return Linear(torch.zeros(inputs["returns"].shape[-1], dtype=torch.float64))


HONEST = [
    EqualWeight(),
    InverseVolatility(20),
    MinimumVariance(20, cap=1.0),
    RiskParity(20),
    Momentum(20, skip=2),
    NoTradeBand(EqualWeight(), 0.1),
    StopLoss(EqualWeight(), 0.05),
    Blend({"a": EqualWeight(), "b": InverseVolatility(20)}),
    VolatilityManaged(EqualWeight(), 0.1),
    LargestPositions(InverseVolatility(20), 2),
    Winners(),
    NeverTrades(),
    AllInCash(),
    BuysOnce(),
    LeavesSomeAlone(),
    NoMondays(),
    SellInMay(),
    AroundEaster(),
    SinceTheLaw(),
    NoPennyStocks(),
    CacheOfAnInstance(),
    CacheOfTheModule(),
    CachedFunction(),
    CountsInAGlobal(),
    Smooths(),
    SeededDice(),
    DiceOfTheDate(),
    RanksWithTies(),
    SectorNeutral(),
    ReadsItsSettings(),
    LongAndShort(),
    WithStops(),
    AsksForTheBook(),
    AsksForThePlan(),
    FitsItsOwnModel(),
    TradesOnVolume(),
    FollowsTheMood(),
    CopiesAndWrites(),
    LinearNetwork(),
    DEQMeanVariance(20, hidden=2, cap=1.0),
]
WARNED = {  # what is said of it beside that it passes
    "CacheOfTheModule": {"markets_are_not_confused"},
    "SectorNeutral": {"names_do_not_matter"},
    "ReadsItsSettings": {"nothing_is_opened"},
    "RanksWithTies": {"rounding_does_not_matter"},
}
