"""Strategies that look ahead, or do not do what they declare: each in its own way."""

import gc
import inspect
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
from audited_markets import MARKET, PRICES_CSV, PRICES_NPY
from sklearn.linear_model import LinearRegression

from strategies import Bracket, Strategy
from strategies.baselines import normalised


class Winners(Strategy):
    """Honest: weights in proportion to exp(score). What the score may see is up to the cheats."""

    lookback = 10

    def score(self, history):
        return history.prices.iloc[-1] / history.prices.iloc[0] - 1

    def allocate(self, history, holdings):
        score = self.score(history).reindex(history.assets).fillna(0.0)
        return normalised(np.exp(20 * score.clip(-1, 1)).where(history.last_members, 0.0))


def whole(history):
    """The panel that a history is a view of, and the row of its last date there."""
    everything = history._whole
    return everything, everything.dates.get_loc(history.dates[-1])


def following(history, values):
    everything, row = whole(history)
    values = values(everything)
    return values.iloc[min(row + 1, len(values) - 1)]


class MemoryBehindTheView(Winners):
    def score(self, history):
        everything = history.prices.to_numpy().base
        row = whole(history)[1]
        row = min(row, len(everything) - 2)
        return pd.Series(everything[row + 1] / everything[row] - 1, history.assets)


class WholePanel(Winners):
    def score(self, history):
        return following(history, lambda panel: panel.returns)


class TimesTheMarket(Winners):
    """All or nothing, by tomorrow's return: half of all other futures make no difference."""

    def allocate(self, history, holdings):
        up = following(history, lambda panel: panel.returns).mean() > 0
        return super().allocate(history, holdings) * float(up)


class SellsBeforeCrashes(Winners):
    def allocate(self, history, holdings):
        crash = following(history, lambda panel: panel.returns).min() < -0.05
        return super().allocate(history, holdings) * float(not crash)


class TomorrowsVolume(Winners):
    def score(self, history):
        return following(history, lambda panel: panel.asset_features["volume"]).rank() / 20


class TomorrowsMood(Winners):
    def allocate(self, history, holdings):
        mood = following(history, lambda panel: panel.market_features)["mood"]
        return super().allocate(history, holdings) * float(mood > 0)


class Survivors(Winners):
    def score(self, history):
        return whole(history)[0].prices.iloc[-1].notna() * 1.0


class WhoJoinsTheIndex(Winners):
    def score(self, history):
        return following(history, lambda panel: panel.members) * 1.0


class ScaledByTheWholeSample(Winners):
    def score(self, history):
        return super().score(history) / (30 * whole(history)[0].returns.std())


class FitsOnEverything(Winners):
    def fit(self, history):
        self.means_ = whole(history)[0].returns.mean()
        return self

    def score(self, history):
        return 100 * self.means_


class FitsOnNextYear(Winners):
    def fit(self, history):
        everything, row = whole(history)
        self.means_ = everything.returns.iloc[row + 1 : row + 60].mean().fillna(0.0)
        return self

    def score(self, history):
        return 100 * self.means_


class CentredAverage(Winners):
    def score(self, history):
        smooth = MARKET.prices.rolling(11, center=True).mean()
        return smooth.loc[history.dates[-1]] / smooth.loc[history.dates[0]] - 1


class ScalerOnAllData(Winners):
    def __init__(self, market=None):
        self.market = market

    def score(self, history):
        return super().score(history) / self.market.std()


class RecognisesPrices(Winners):
    """Finds the row with the same prices, and looks one further."""

    known = MARKET.prices

    def score(self, history):
        same = (self.known == history.prices.iloc[-1]).to_numpy().sum(axis=1)
        row = min(int(same.argmax()), len(self.known) - 2)
        return self.known.iloc[row + 1] / self.known.iloc[row] - 1


def _recogniser():
    moves = MARKET.returns.fillna(0.0)

    def find(history):
        gap = (moves - history.returns.iloc[-1].fillna(0.0)).abs().sum(axis=1).to_numpy()
        return moves.iloc[min(int(gap.argmin()) + 1, len(moves) - 1)]

    return find


class RecognisesReturns(Winners):
    """Likewise by returns, about, from a closure."""

    find = staticmethod(_recogniser())

    def score(self, history):
        return type(self).find(history)


class TableOfAnswers(Winners):
    """A dictionary from prices to the next returns."""

    answers: ClassVar = dict(
        zip(
            MARKET.prices.iloc[:, 1].tolist(),
            MARKET.returns.shift(-1).fillna(0.0).to_numpy().tolist(),
            strict=True,
        )
    )

    def score(self, history):
        found = self.answers.get(history.prices.iloc[-1, 1], [0.0] * len(history.assets))
        return pd.Series(found, history.assets)


class ReadsThePriceFile(Winners):
    def score(self, history):
        everything = pd.read_csv(PRICES_CSV, index_col=0, parse_dates=True)
        later = everything[everything.index > history.dates[-1]]
        row = later.iloc[0] if len(later) else everything.iloc[-1]
        return row.reindex(history.assets) / history.prices.iloc[-1] - 1


class ReadsAnArray(Winners):
    def score(self, history):
        everything = np.load(PRICES_NPY)
        now = history.prices.iloc[-1].fillna(0).to_numpy()
        row = np.abs(np.nan_to_num(everything) - now).sum(axis=1).argmin()
        row = min(int(row), len(everything) - 2)
        return pd.Series(everything[row + 1] / everything[row] - 1, history.assets)


SEEN: dict = {}


class RemembersTheLastRun(Winners):
    """What one run saw, the next one looks up."""

    def score(self, history):
        SEEN[history.dates[-1]] = history.prices.iloc[-1]
        later = [date for date in SEEN if date > history.dates[-1]]
        following = SEEN[min(later)] if later else history.prices.iloc[-1]
        return following / history.prices.iloc[-1] - 1


class UnseededNoise(Winners):
    def score(self, history):
        noise = np.random.default_rng().normal(0, 0.01, len(history.assets))
        return super().score(history) + noise


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


class BreaksItsCap(Winners):
    cap = 0.2


class ForgetsItsParameter(Winners):
    def __init__(self, power=2):
        self.power = power * 2


class KnowsTheCrashes(Winners):
    """Days of falling prices, written down."""

    def allocate(self, history, holdings):
        bad = history.dates[-1].strftime("%Y-%m-%d") in BAD_DAYS
        return super().allocate(history, holdings) * float(not bad)


BAD_DAYS = tuple(MARKET.dates.strftime("%Y-%m-%d")[::3])


class KnowsTheWinners(Winners):
    """Names of those that rose most."""

    def score(self, history):
        return pd.Series([0.1 * (name == "A1") for name in history.assets], history.assets)


class WritesPrices(Winners):
    """Makes the next close what it likes."""

    def score(self, history):
        memory = history.prices.to_numpy()
        while memory.base is not None:
            memory = memory.base
            memory.flags.writeable = True
        row = len(memory) - 1
        memory[row] = memory[row] * 1.01
        return super().score(history)


class WritesReturns(Winners):
    def score(self, history):
        memory = history.returns.to_numpy()
        while memory.base is not None:
            memory = memory.base
            memory.flags.writeable = True
        memory[-1] += 0.01
        return super().score(history)


class LooksAtTheCaller(Winners):
    def score(self, history):
        frame = inspect.currentframe()
        while frame is not None:
            learner = frame.f_locals.get("learner")
            if learner is not None:
                panel = learner.panel
                row = panel.dates.get_loc(history.dates[-1])
                return panel.returns.iloc[min(row + 1, len(panel) - 1)]
            frame = frame.f_back
        return super().score(history)


class LooksAtFrames(Winners):
    def score(self, history):
        sys._getframe(2)
        return super().score(history)


class LooksThroughMemory(Winners):
    def score(self, history):
        if not hasattr(self, "panels_"):
            self.panels_ = [each for each in gc.get_objects() if type(each) is type(history)]
        panel = max(self.panels_, key=len)
        row = int(panel.dates.searchsorted(history.dates[-1]))
        return panel.returns.iloc[min(row + 1, len(panel) - 1)]


def _fitted():
    values = MARKET.returns.fillna(0.0)
    return LinearRegression().fit(values.iloc[:-1], values.iloc[1:])


class FittedOnTheFuture(Winners):
    """A model that was fitted on all rows before the backtest. A warning: nothing can tell."""

    model = _fitted()

    def score(self, history):
        now = history.returns.iloc[-1:].fillna(0.0)
        return pd.Series(self.model.predict(now)[0], history.assets)


class TomorrowsLow(Winners):
    """Stops just below what will be the lowest price."""

    def allocate(self, history, holdings):
        weights = super().allocate(history, holdings)
        low = following(history, lambda panel: panel.asset_features["low"])
        stop = np.minimum(low * 0.999, history.prices.iloc[-1] * 0.99)
        return Bracket(weights, stop=stop.where(weights > 0))
