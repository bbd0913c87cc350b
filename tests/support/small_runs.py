"""Settings and strategies that make a run small enough for a test."""

import time

import pandas as pd

from engine import Costs, Training, WalkForward, backtest
from engine.walking.learner import Learner
from strategies import DEQMeanVariance, EqualWeight, Strategy

MONTHLY = WalkForward(train="18M", refit="9M", rebalance="ME")
SMALL = {"lookback": 64, "hidden": 4, "cap": 0.5}
QUICK = Training(epochs=6, block=12, learning_rate=0.02, patience=2)
BRIEF = Training(epochs=2, block=20, learning_rate=0.01)


def given(panel, strategy, costs=Costs()):
    """What the strategy trains on in the second fold."""
    folds = MONTHLY.folds(panel.dates, 64)
    return Learner(panel, folds, MONTHLY, costs, QUICK, 1).dataset("s", strategy, folds[1])


def run(panel, training=BRIEF, inertia=1.0, **rest):
    """A learned strategy and a rule, walked through the panel."""
    learned = DEQMeanVariance(lookback=64, hidden=4, cap=0.5, inertia=inertia)
    strategies = [learned, EqualWeight()]
    return backtest(strategies, panel, MONTHLY, Costs(), training, progress=False, **rest)


class Holds(Strategy):
    """All in one asset; of ``random_walks`` with drifts, the last is the best."""

    lookback = 1

    def __init__(self, asset=0, share=1.0, fail=False, wait=0.0):
        self.asset, self.share, self.fail, self.wait = asset, share, fail, wait

    def allocate(self, history, holdings):
        if self.fail:
            raise ValueError("no such thing")
        time.sleep(self.wait)
        weights = pd.Series(0.0, index=history.assets)
        weights.iloc[self.asset] = self.share
        return weights
