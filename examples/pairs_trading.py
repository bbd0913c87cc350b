"""Pairs trading: enter where the spread of two assets is wide, leave where it has closed."""

import numpy as np
import pandas as pd

from deqfolio import Costs, Panel, Strategy, WalkForward, backtest, summary_table


def pair():  # in place of your own prices: two assets that follow a common one
    dates, rng = pd.bdate_range("2014-01-01", "2022-12-30"), np.random.default_rng(1)
    common, spread = rng.normal(2e-4, 0.01, len(dates)).cumsum(), np.zeros(len(dates))
    for t in range(1, len(dates)):
        spread[t] = 0.97 * spread[t - 1] + rng.normal(0, 0.008)
    logs = {"A": common + spread / 2, "B": common - spread / 2}
    return Panel(100 * np.exp(pd.DataFrame(logs, dates)))


class Pairs(Strategy):
    """Long one and short the other at two deviations; out at zero, or after a loss of 5%."""

    short, leverage = True, 1.2  # positions drift above 1

    def __init__(self, lookback=61, entry=2.0, loss=0.05):
        self.lookback, self.entry, self.loss = lookback, entry, loss

    def allocate(self, history, holdings, book):
        ratio = np.log(history.prices["A"] / history.prices["B"])
        score = (ratio.iloc[-1] - ratio.mean()) / ratio.std()
        side = np.sign(book.shares["A"])
        if side and (side * score > 0 or book.open_profit.sum() < -self.loss * book.value):
            return holdings * 0.0
        if not side and abs(score) > self.entry and not len(book.pending):
            return pd.Series({"A": -0.5, "B": 0.5}) * np.sign(score)
        return None  # no order


plan = WalkForward(train="1Y", rebalance=1)  # a decision at every close
result = backtest(Pairs(), pair(), plan, Costs(commission=0.0005, borrow=0.01))["Pairs"]
print(summary_table({"Pairs": result}).T)
