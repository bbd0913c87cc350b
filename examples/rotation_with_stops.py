"""Monthly rotation into the three best assets, bought at the next open, with stops below them."""

import numpy as np
import pandas as pd

from deqfolio import Bracket, Costs, Panel, Strategy, WalkForward, backtest, summary_table


def bars():  # in place of a file with the columns Date, Symbol, Open, High, Low and Close
    dates, names = pd.bdate_range("2016-01-01", "2022-12-30"), [f"A{i}" for i in range(8)]
    steps = np.random.default_rng(0).normal(1e-4, 0.006, (len(dates) * 4, 8))
    path = 100 * np.exp(steps.cumsum(axis=0)).reshape(-1, 4, 8)  # open, two in the day, close
    prices = {"open": path[:, 0], "high": path.max(axis=1), "low": path.min(axis=1)}
    features = {name: pd.DataFrame(each, dates, names) for name, each in prices.items()}
    return Panel(pd.DataFrame(path[:, 3], dates, names), features)


class Rotation(Strategy):
    """The best of the last half year, equally; out at 8% below the close, or 15% off the high."""

    def __init__(self, lookback=127, count=3):
        self.lookback = lookback
        self.count = count

    def allocate(self, history, holdings):
        prices = history.prices
        best = (prices.iloc[-1] / prices.iloc[0]).nlargest(self.count).index
        weights = pd.Series(0.0, history.assets)
        weights[best] = 1 / self.count
        stop, trailing = 0.92 * prices.iloc[-1], pd.Series(0.15, history.assets)
        return Bracket(weights, stop=stop[best], trailing=trailing[best])


plan = WalkForward(train="1Y", rebalance="ME", fill="open")
results = backtest(Rotation(), bars(), plan, Costs(commission=0.001))
print(summary_table(results).T)
orders = results["Rotation"].orders
print(orders["reason"].value_counts())
print(orders.loc[orders["reason"] != "decision", ["date", "asset", "price", "decided"]].tail())
