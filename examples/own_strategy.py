"""Your own idea: one class with one method. Here: hold last year's winners, equally."""

from deqfolio import EqualWeight, Strategy, backtest, load, summary_table


class Winners(Strategy):
    def __init__(self, lookback=253, count=5):
        self.lookback, self.count = lookback, count

    def allocate(self, history, holdings):  # `lookback` rows; the last one is today's close
        growth = history.prices.iloc[-1] / history.prices.iloc[0]
        return (growth.rank(ascending=False) <= self.count) / self.count


if __name__ == "__main__":
    print(summary_table(backtest([Winners(), EqualWeight()], load("sp500", start="2008-01-01"))).T)
