"""Trend following: eight futures, long and short, at 10% volatility, with bands and stops."""

import numpy as np
import pandas as pd

from deqfolio import Bracket, Costs, Panel, Strategy, WalkForward, backtest, summary_table


def bars():  # in place of a file with the columns Date, Symbol, Open, High, Low and Close
    rng, dates = np.random.default_rng(0), pd.bdate_range("2014-01-01", "2022-12-30")
    names, volatility = [f"F{i}" for i in range(8)], np.linspace(0.08, 0.3, 8) / 252**0.5
    drift = pd.DataFrame(rng.normal(size=(len(dates), 8))).ewm(halflife=120).mean().to_numpy()
    steps = volatility * (rng.normal(size=(len(dates), 4, 8)) / 2 + drift[:, None] / 4)
    path = 100 * np.exp(steps.reshape(-1, 8).cumsum(axis=0)).reshape(-1, 4, 8)
    prices = {"open": path[:, 0], "high": path.max(axis=1), "low": path.min(axis=1)}
    features = {name: pd.DataFrame(each, dates, names) for name, each in prices.items()}
    return Panel(pd.DataFrame(path[:, 3], dates, names), features)


class Trend(Strategy):
    """The sign of the last year's return at equal risk (Moskowitz, Ooi & Pedersen 2012)."""

    lookback, short, leverage = 253, True, 3.0
    target, band, stop = 0.10, 0.05, 12  # volatility a year, weight, daily volatilities

    def allocate(self, history, holdings):
        prices, daily = history.prices, history.returns
        risk = daily.ewm(halflife=40).std().iloc[-1]
        weights = np.sign(prices.iloc[-1] / prices.iloc[0] - 1) / risk
        predicted = (daily @ weights).ewm(halflife=40).std().iloc[-1] * 252**0.5
        room = self.leverage - len(weights) * self.band  # within the band, more may be held
        weights *= min(self.target / predicted, room / weights.abs().sum())
        traded = weights.where((weights - holdings).abs() > self.band)  # NaN is no order
        return Bracket(traded, trailing=self.stop * risk)


costs = Costs(0.0002, cash_rate=0.02, financing=0.03, borrow=0.005)
results = backtest(Trend(), bars(), WalkForward(train="1Y", rebalance="W-FRI"), costs)
print(summary_table(results).T, results["Trend"].orders["reason"].value_counts(), sep="\n\n")
